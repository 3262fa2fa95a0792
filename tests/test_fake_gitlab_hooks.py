"""The stand-in's hooks, faults and limits, and the stand-in by itself with real git."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gitlab
import pytest
import requests
from gitlab.exceptions import GitlabError
from standardwebhooks.webhooks import Webhook

from tests.fakes.gitlab import MAINTAINER, GitLab, MergeRequest, Project, User, serve
from tests.fakes.receiver import Receiver, receive

pytestmark = pytest.mark.world

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Place:
    """A project with one merge request."""

    def __init__(self, server: GitLab) -> None:
        self.gitlab = server
        self.project: Project = server.project("team/shop", bot_level=MAINTAINER)
        self.alice: User = self.project.add_member("alice")
        self.project.push("main", {"app.py": "one\ntwo\nthree\n"})
        self.project.push("fix", {"app.py": "one\n2\nthree\n"}, user=self.alice)
        self.merge: MergeRequest = self.project.open_merge_request("fix", author=self.alice, draft=True)

    @property
    def headers(self) -> dict[str, str]:
        return {"PRIVATE-TOKEN": self.gitlab.bot_token}

    def call(self, method: str, path: str, **data: object) -> requests.Response:
        url = f"{self.gitlab.url}/api/v4/projects/{self.project.id}{path}"
        headers = self.headers | {"Content-Type": "application/json"}
        return requests.request(method, url, headers=headers, data=json.dumps(data) if data else None, timeout=5)


@pytest.fixture
def place() -> Iterator[Place]:
    with serve() as server:
        yield Place(server)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as one:
        yield one


# --- what is delivered


def test_a_hook_made_by_the_api_is_signed_and_never_tells_its_secrets(place: Place, receiver: Receiver) -> None:
    made = place.call(
        "POST", "/hooks", url=receiver.url, token="s3cret", signing_token=SECRET, merge_requests_events=True
    ).json()
    assert (made["signing_token_present"], made["token_present"]) == (True, True)
    assert not {"token", "signing_token"} & set(made)
    place.project.push("fix", {"app.py": "one\n22\nthree\n"})
    place.gitlab.settle()
    (push,) = receiver.events("Push Hook")
    (update,) = receiver.events("Merge Request Hook")
    assert push.json["object_kind"] == "push"
    assert Webhook(SECRET).verify(update.body.decode(), dict(update.headers))
    assert update.headers["webhook-id"] == update.headers["Idempotency-Key"]
    assert (update.headers["X-Gitlab-Token"], update.headers["Content-Type"]) == ("s3cret", "application/json")
    assert update.headers["X-Gitlab-Instance"] == place.gitlab.url
    assert update.attributes["oldrev"] == place.merge.versions[0].refs.head


def test_an_older_gitlab_ignores_what_it_does_not_know(place: Place, receiver: Receiver) -> None:
    settings = place.gitlab.settings
    settings.signing_tokens = settings.idempotency_keys = settings.emoji_hooks = False
    made = place.call(
        "POST", "/hooks", url=receiver.url, signing_token=SECRET, merge_requests_events=True, emoji_events=True
    ).json()
    assert "emoji_events" not in made
    assert "signing_token_present" not in made
    place.merge.mark_ready()
    place.gitlab.settle()
    (ready,) = receiver.got
    assert not {"webhook-signature", "Idempotency-Key"} & set(ready.headers)


def test_every_change_of_a_merge_request_is_told_in_its_shape(place: Place, receiver: Receiver) -> None:
    place.project.add_hook(receiver.url)
    merge, bot = place.merge, place.gitlab.bot
    steps = (
        merge.mark_ready,
        lambda: merge.edit(reviewers=[bot]),
        lambda: merge.ask_again(bot),
        lambda: merge.edit(labels=["x"], target="main"),
        lambda: place.project.push("fix", {"b": "b"}),
        merge.close,
        merge.reopen,
        merge.merge,
    )
    told = []
    for step in steps:
        step()
        place.gitlab.settle()
        document = receiver.got[-1].json
        changes = document["changes"]
        assert isinstance(changes, dict)
        told.append((receiver.got[-1].attributes["action"], sorted(changes), "oldrev" in receiver.got[-1].attributes))
    assert told == [
        ("update", ["draft", "title", "updated_at"], False),
        ("update", ["reviewers", "updated_at"], False),
        ("update", ["reviewers"], False),
        ("update", ["labels", "updated_at"], False),
        ("update", ["updated_at"], True),
        ("close", ["state_id"], False),
        ("reopen", ["state_id"], False),
        ("merge", ["state_id"], False),
    ]
    again = receiver.got[2].json["changes"]
    assert isinstance(again, dict)
    assert [[one["re_requested"] for one in side] for side in again["reviewers"]] == [[False], [True]]


def test_notes_are_told_when_they_are_written_and_edited_also_the_internal_ones(
    place: Place, receiver: Receiver
) -> None:
    place.project.add_hook(receiver.url, events=("note_events", "confidential_note_events"))
    note = place.merge.comment(place.alice, "@apprentice review")
    assert note is not None
    place.merge.rewrite(note, place.alice, "@apprentice help")
    place.merge.comment(place.alice, "a secret", internal=True)
    place.gitlab.settle()
    told = sorted((one.event, str(one.attributes["action"]), str(one.attributes["note"])) for one in receiver.got)
    assert told == [
        ("Confidential Note Hook", "create", "a secret"),
        ("Note Hook", "create", "@apprentice review"),
        ("Note Hook", "update", "@apprentice help"),
    ]


def test_deliveries_are_repeated_on_demand_with_the_same_key(place: Place, receiver: Receiver) -> None:
    hook = place.project.add_hook(receiver.url)
    place.gitlab.hooks.copies = 2
    place.merge.mark_ready()
    place.gitlab.settle()
    assert len(receiver.got) == 3
    assert len({one.headers["Idempotency-Key"] for one in receiver.got}) == 1
    place.gitlab.hooks.copies, place.gitlab.hooks.repeat_share = 0, 1.0
    place.merge.close()
    place.gitlab.settle()
    assert len(receiver.got) == 5
    events = place.call("GET", f"/hooks/{hook.id}/events").json()
    again = place.call("POST", f"/hooks/{hook.id}/events/{events[0]['id']}/resend").json()
    assert (len(events), again["response_status"]) == (5, 200)
    assert receiver.got[-1].headers["Idempotency-Key"] == events[0]["request_headers"]["Idempotency-Key"]


def test_project_and_group_hooks_both_fire_where_the_edition_has_group_hooks(place: Place, receiver: Receiver) -> None:
    owner = place.gitlab.token("boss").value
    place.gitlab.group("team").members[place.gitlab.user("boss").id] = 50
    url = f"{place.gitlab.url}/api/v4/groups/team/hooks"
    body: dict[str, str | bool] = {"url": receiver.url, "merge_requests_events": True}
    made = requests.post(url, headers={"PRIVATE-TOKEN": owner}, json=body, timeout=5)
    assert (made.status_code, "group_id" in made.json()) == (201, True)
    assert requests.post(url, headers=place.headers, json=body, timeout=5).status_code == 403
    place.project.add_hook(receiver.url)
    place.merge.mark_ready()
    place.gitlab.settle()
    assert len({one.headers["Idempotency-Key"] for one in receiver.got}) == 2
    for says in (404, 403):
        place.gitlab.settings.group_hooks, place.gitlab.settings.free_says = False, says
        assert requests.get(url, headers={"PRIVATE-TOKEN": owner}, timeout=5).status_code == says


def test_a_receiver_that_passes_the_event_uuid_on_is_not_told_of_its_own_notes(
    place: Place, receiver: Receiver
) -> None:
    hook = place.project.add_hook(receiver.url)
    place.merge.comment(place.alice, "hello")
    place.gitlab.settle()
    chain = {"X-Gitlab-Event-UUID": receiver.got[0].headers["X-Gitlab-Event-UUID"]}
    url = f"{place.gitlab.url}/api/v4/projects/1/merge_requests/1/notes"
    requests.post(url, headers=place.headers | chain, json={"body": "hello back"}, timeout=5)
    place.gitlab.settle()
    assert (len(receiver.got), hook.dropped) == (1, 1)


# --- what fails


def test_four_failures_in_a_row_switch_a_hook_off_for_a_while(place: Place, receiver: Receiver) -> None:
    hook = place.project.add_hook(receiver.url)

    def say(times: int) -> None:
        for _ in range(times):
            place.merge.comment(place.alice, "hi")
            place.gitlab.settle()

    def status() -> str:
        return str(place.call("GET", f"/hooks/{hook.id}").json()["alert_status"])

    receiver.status = 500
    say(3)
    receiver.status = 302  # a redirection is fine
    say(1)
    receiver.status = 400
    say(3)
    assert status() == "executable"
    say(1)
    assert status() == "temporarily_disabled"
    receiver.status = 200
    say(2)
    assert (len(receiver.got), hook.dropped) == (8, 2)
    place.gitlab.advance(61)
    assert status() == "executable"
    receiver.status = 500
    say(1)
    assert status() == "temporarily_disabled"
    assert place.call("POST", f"/hooks/{hook.id}/test/note_events").status_code == 422
    receiver.status = 200
    assert place.call("POST", f"/hooks/{hook.id}/test/note_events").status_code == 201
    assert (status(), hook.failures) == ("executable", 0)


def test_a_receiver_that_is_slow_or_gone_counts_as_failed(place: Place, receiver: Receiver) -> None:
    place.gitlab.settings.hook_timeout = 0.1
    receiver.seconds = 0.3
    slow, gone = place.project.add_hook(receiver.url), place.project.add_hook("http://127.0.0.1:9/")
    place.merge.comment(place.alice, "hi")
    place.gitlab.settle()
    assert [(hook.failures, hook.deliveries[0].status) for hook in (slow, gone)] == [(1, None), (1, None)]
    assert "timed out" in slow.deliveries[0].error


@pytest.mark.parametrize(
    ("kind", "status", "written"),
    [("busy", 429, 0), ("409", 409, 0), ("500", 500, 0), ("502", 502, 0), ("503", 503, 0), ("500_after", 500, 1)],
)
def test_faults_answer_before_or_after_the_write(place: Place, kind: str, status: int, written: int) -> None:
    rule = place.gitlab.faults.add(kind, times=1, method="POST", pattern="/notes$", seconds=2)  # type: ignore[arg-type]
    answer = place.call("POST", "/merge_requests/1/notes", body="hi")
    assert answer.status_code == status
    if kind == "busy":
        assert answer.headers["Retry-After"] == "2"
        assert set(answer.json()["message"]) == {"error"}
    assert len(place.merge.all_notes()) == written
    assert place.call("POST", "/merge_requests/1/notes", body="hi").status_code == 201
    assert (rule.met, rule.times) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "written"), [("reset_before", 0), ("reset_after", 1), ("timeout", 0), ("timeout_after", 1)]
)
def test_faults_cut_the_line_before_or_after_the_write(place: Place, kind: str, written: int) -> None:
    place.gitlab.faults.add(kind, times=1, method="POST", seconds=0.05)  # type: ignore[arg-type]
    with pytest.raises(requests.ConnectionError):
        place.call("POST", "/merge_requests/1/notes", body="hi")
    assert len(place.merge.all_notes()) == written
    assert place.gitlab.logged("POST")[-1].status is None


def test_chaos_hits_its_share_and_is_repeatable(place: Place) -> None:
    def run() -> list[int]:
        place.gitlab.faults.clear()
        place.gitlab.faults.chaos(0.3, seed=7, seconds=0.0)
        seen = []
        for _ in range(100):
            try:
                seen.append(place.call("GET", "").status_code)
            except requests.ConnectionError:
                seen.append(0)
        return seen

    first = run()
    assert first == run()
    assert 15 <= sum(status != 200 for status in first) <= 45
    assert {0, 429, 500, 502, 503} < set(first)


def test_rates_are_limited_with_gitlab_s_headers(place: Place) -> None:
    limits = place.gitlab.settings.limits
    limits.notes_per_minute = 2
    answers = [place.call("POST", "/merge_requests/1/notes", body="hi") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert "too many times" in answers[-1].json()["message"]["error"]
    limits.requests_per_minute = 4
    answers = [place.call("GET", "") for _ in range(5)]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["3", "2", "1", "0", "0"]
    assert answers[-1].status_code == 429
    assert {"Retry-After", "RateLimit-Reset", "RateLimit-ResetTime"} < set(answers[-1].headers)


def test_something_happens_behind_the_client_s_back(place: Place) -> None:
    place.gitlab.meanwhile("GET", "/diffs$", lambda: place.project.push("fix", {"late.py": "late\n"}))
    before = place.call("GET", "/merge_requests/1").json()["sha"]
    assert [one["new_path"] for one in place.call("GET", "/merge_requests/1/diffs").json()] == ["app.py", "late.py"]
    assert place.call("GET", "/merge_requests/1").json()["sha"] != before
    assert len(place.call("GET", "/merge_requests/1/diffs").json()) == 2
    assert len(place.merge.versions) == 2


def test_a_custom_template_is_the_whole_body(place: Place, receiver: Receiver) -> None:
    place.project.add_hook(receiver.url).template = '{"text": "something happened"}'
    place.merge.mark_ready()
    place.gitlab.settle()
    assert receiver.got[0].json == {"text": "something happened"}


def test_a_body_needs_a_content_type(place: Place) -> None:
    url = f"{place.gitlab.url}/api/v4/projects/1/merge_requests/1/notes"
    bare = requests.post(url, headers=place.headers, data=b'{"body": "x"}', timeout=5)
    assert bare.status_code == 415
    form = requests.post(url, headers=place.headers, data={"body": "by a form"}, timeout=5)
    assert form.json()["body"] == "by a form"


def test_links_may_carry_another_host(place: Place) -> None:
    place.gitlab.settings.external_url = "https://gitlab.example"
    for number in range(3):
        place.merge.comment(place.alice, str(number))
    answer = place.call("GET", "/merge_requests/1/notes?per_page=1")
    link = "<https://gitlab.example/api/v4/projects/1/merge_requests/1/notes?page=2&per_page=1>"
    assert link in answer.headers["Link"]
    url, token = place.gitlab.url, place.gitlab.bot_token
    with gitlab.Gitlab(url, private_token=token, keep_base_url=True) as client:
        assert len(list(client.http_list("/projects/1/merge_requests/1/notes", iterator=True, per_page=1))) == 3


def test_merge_requests_are_listed_by_when_they_changed(place: Place) -> None:
    place.project.push("two", {"x": "x"})
    second = place.project.open_merge_request("two")
    place.gitlab.advance(3600)
    since = place.gitlab.now().isoformat()
    place.merge.comment(place.alice, "hi")
    found = place.call("GET", f"/merge_requests?state=opened&updated_after={since.replace('+', '%2B')}").json()
    assert [one["iid"] for one in found] == [place.merge.iid]
    everything = place.call("GET", "/merge_requests?order_by=updated_at&sort=desc").json()
    assert [one["iid"] for one in everything] == [place.merge.iid, second.iid]
    assert not {"diff_refs", "changes_count"} & set(everything[0])


# --- by itself, with real git


def git(folder: Path, *arguments: str) -> None:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
             (("NAME", "Bob"), ("EMAIL", "bob@example.com"))}  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(
        ["git", "-C", str(folder), *arguments], env=environment | settings | names, check=True, capture_output=True
    )


def test_pushes_with_git_are_noticed_and_may_open_a_merge_request(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fakes.gitlab", "--root", "/gitlab"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        known = json.loads(process.stdout.readline())
        with gitlab.Gitlab(known["url"], private_token=known["tokens"]["apprentice"]) as client:
            work = tmp_path / "work"
            git(tmp_path, "clone", "--quiet", known["project"]["folder"], str(work))
            (work / "a.py").write_text("one\n")
            git(work, "add", "a.py")
            git(work, "commit", "--quiet", "--message", "Begin")
            git(work, "push", "--quiet", "origin", "HEAD:main")
            git(work, "checkout", "--quiet", "-b", "fix")
            (work / "a.py").write_text("two\n")
            git(work, "commit", "--quiet", "--all", "--message", "Mend")
            options = ("merge_request.create", "merge_request.target=main", "merge_request.title=Mend it all")
            git(work, "push", "--quiet", *(f"--push-option={one}" for one in options), "origin", "fix")
            project = client.projects.get(known["project"]["path"])
            merge = wait_for_merge(project)
            assert (merge.title, merge.author["username"], merge.changes_count) == ("Mend it all", "bob", "1")
            first = merge.sha
            (work / "a.py").write_text("three\n")
            git(work, "commit", "--quiet", "--all", "--amend", "--no-edit")
            git(work, "push", "--quiet", "--force", "origin", "fix")
            deadline = time.monotonic() + 5
            while project.mergerequests.get(merge.iid).sha == first and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(project.mergerequests.get(merge.iid).diffs.list(get_all=True)) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def wait_for_merge(project: object) -> "gitlab.v4.objects.ProjectMergeRequest":
    assert isinstance(project, gitlab.v4.objects.Project)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            return project.mergerequests.get(1)
        except GitlabError:
            time.sleep(0.05)
    raise TimeoutError("no merge request was opened")


def test_many_threads_write_at_once_and_nothing_is_lost(place: Place) -> None:
    threads = [
        threading.Thread(target=place.call, args=("POST", "/merge_requests/1/notes"), kwargs={"body": str(number)})
        for number in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    notes = place.merge.all_notes()
    assert {note.body for note in notes} == {str(number) for number in range(40)}
    assert len({note.id for note in notes}) == 40
