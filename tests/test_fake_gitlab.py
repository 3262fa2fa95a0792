"""The stand-in keeps GitLab's rules: python-gitlab, real git and a receiver of hooks see what they would see there."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import gitlab
import pytest
import requests
from gitlab.exceptions import GitlabError, GitlabHttpError

from tests.fakes.gitlab import DEVELOPER, MAINTAINER, OWNER, REPORTER, GitLab, MergeRequest, Project, User, serve
from tests.fakes.gitlab.quick_actions import NAMES, extract
from tests.fakes.gitlab.repository import Content
from tests.fakes.receiver import Receiver, receive

OLD = "".join(f"line {number}\n" for number in range(1, 41))
NEW = OLD.replace("line 10\n", "LINE 10\nand more\n").replace("line 30\n", "")
BAD_LINE = """400 Bad request - Note {:line_code=>["can't be blank", "must be a valid line code"]}"""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Data = dict[str, object]


@dataclass
class World:
    """One merge request that changes, adds, renames and deletes a file, and a client for it."""

    server: GitLab
    project: Project
    merge: MergeRequest
    alice: User
    client: gitlab.Gitlab

    @property
    def path(self) -> str:
        return f"/projects/{self.project.id}/merge_requests/{self.merge.iid}"

    def get(self, below: str = "", **query: object) -> Data:
        answer = self.client.http_get(self.path + below, query_data=query)
        assert isinstance(answer, dict)
        return answer

    def all(self, below: str) -> list[Data]:
        return list(self.client.http_list(self.path + below, iterator=True, per_page=100))

    def files(self, merge: MergeRequest | None = None, per_page: int = 100) -> dict[str, Data]:
        """The items of `/diffs` by their new paths."""
        path = f"/projects/{self.project.id}/merge_requests/{(merge or self.merge).iid}/diffs"
        items = self.client.http_list(path, iterator=True, per_page=per_page)
        return {str(item["new_path"]): dict(item) for item in items}

    def post(self, below: str, **data: object) -> Data:
        answer = self.client.http_post(self.path + below, post_data=data)
        return answer if isinstance(answer, dict) else {"status": answer.status_code}

    def position(self, **place: object) -> Data:
        refs = self.merge.refs.json()
        return {"position_type": "text", "old_path": "app.py", "new_path": "app.py", **refs, **place}

    def say(self, **place: object) -> Data:
        """Start a discussion on a line, with a `body` if that matters; the note."""
        body = place.pop("body", "hm")
        discussion = self.post("/discussions", body=body, position=self.position(**place))
        notes = discussion["notes"]
        assert isinstance(notes, list)
        note: Data = notes[0]
        return note

    def note(self, number: object) -> Data:
        return self.get(f"/notes/{number}")


@contextmanager
def made() -> Iterator[World]:
    with serve() as server:
        project = server.project("team/tools/shop", bot_level=MAINTAINER)
        alice = project.add_member("alice")
        moved = "".join(f"moved {number}\n" for number in range(20))
        project.push("main", {"app.py": OLD, "old/name.py": moved, "gone.py": "bye\n"})
        change: dict[str, str | None] = {"app.py": NEW, "new.py": "one\ntwo\n", "old/name.py": None, "gone.py": None}
        change |= {"new/name.py": moved.replace("moved 5\n", "MOVED 5\n")}
        project.push("fix", change, user=alice)
        merge = project.open_merge_request("fix", title="Mend it", author=alice)
        with gitlab.Gitlab(server.url, private_token=server.bot_token, timeout=5) as client:
            yield World(server, project, merge, alice, client)


@pytest.fixture
def world() -> Iterator[World]:
    with made() as one:
        yield one


@pytest.fixture(scope="module")
def steady() -> Iterator[World]:
    """For tables of cases that do not disturb each other."""
    with made() as one:
        yield one


@pytest.fixture
def hooked(world: World) -> Iterator[Receiver]:
    """A receiver that gets all events of the world's project."""
    with receive() as receiver:
        events = ("push_events", "merge_requests_events", "note_events", "confidential_note_events", "emoji_events")
        world.project.add_hook(receiver.url, events=(*events, "resource_access_token_events"), signing_token=SECRET)
        yield receiver


def refused(error: pytest.ExceptionInfo[GitlabError]) -> tuple[int | None, str]:
    return error.value.response_code, str(error.value.error_message)


# --- the server


def test_it_starts_at_once_and_serves_many_at_a_time() -> None:
    begun = time.monotonic()
    with serve() as server:
        assert time.monotonic() - begun < 0.2
        headers = {"PRIVATE-TOKEN": server.bot_token}
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda _: requests.get(f"{server.url}/api/v4/user", headers=headers, timeout=5), range(64))
            )
        assert {answer.status_code for answer in answers} == {200}
        assert server.count("GET", "^/user$", user="apprentice") == 64


@pytest.mark.parametrize("root", ["", "/gitlab"])
def test_a_project_is_found_by_number_and_by_path_below_a_relative_root(root: str) -> None:
    with serve(root=root) as server, gitlab.Gitlab(server.url, private_token=server.bot_token) as client:
        number = server.project("a/b/c").id
        assert client.projects.get("a/b/c").id == client.projects.get(number).id == number
        assert client.projects.get(number).web_url == f"{server.url}/a/b/c"
        assert [one.path_with_namespace for one in client.groups.get("a").projects.list(get_all=True)] == []
        inside = client.groups.get("a").projects.list(get_all=True, include_subgroups=True)
        assert [one.path_with_namespace for one in inside] == ["a/b/c"]


def test_who_may_not_see_a_project_gets_404_and_who_may_not_do_something_403(world: World) -> None:
    server = world.server
    stranger = server.token("mallory").value
    developer = server.token(world.alice).value
    reporter = server.token(world.project.add_member("rob", REPORTER)).value
    discussion = world.post("/discussions", body="hm", position=world.position(new_line=10))

    def status(token: str, path: str, method: str = "GET") -> tuple[int, object]:
        url = f"{server.url}/api/v4{path}"
        answer = requests.request(method, url, headers={"PRIVATE-TOKEN": token}, timeout=5)
        return answer.status_code, answer.json().get("message")

    thread = f"{world.path}/discussions/{discussion['id']}?resolved=true"
    assert status("wrong", world.path) == (401, "401 Unauthorized")
    assert status(stranger, world.path) == (404, "404 Project Not Found")
    assert status(developer, world.path)[0] == 200
    assert status(developer, f"/projects/{world.project.id}/hooks") == (403, "403 Forbidden")
    assert status(reporter, thread, "PUT") == (403, "403 Forbidden")
    assert status(developer, thread, "PUT")[0] == 200


def test_tokens_expire_and_have_scopes() -> None:
    with serve() as server:
        server.project("a/b")
        reader = server.token("apprentice", scopes=("read_api",))
        headers = {"Authorization": f"Bearer {reader.value}"}
        url = f"{server.url}/api/v4/projects/1"
        assert requests.get(url, headers=headers, timeout=5).status_code == 200
        refusal = requests.post(f"{url}/merge_requests", headers=headers, timeout=5)
        assert (refusal.status_code, refusal.json()["error"]) == (403, "insufficient_scope")
        own = requests.get(f"{server.url}/api/v4/personal_access_tokens/self", headers=headers, timeout=5).json()
        assert (own["scopes"], own["active"]) == (["read_api"], True)
        server.advance(timedelta(days=366).total_seconds())
        refusal = requests.get(url, headers=headers, timeout=5)
        assert (refusal.status_code, refusal.json()["error"]) == (401, "invalid_token")


def test_levels_come_from_the_groups_too(world: World) -> None:
    eve = world.server.user("eve")
    world.server.group("team").members[eve.id] = OWNER
    members = world.client.projects.get(world.project.id, lazy=True).members_all
    assert members.get(eve.id).access_level == OWNER
    assert members.get(world.alice.id).access_level == DEVELOPER
    with pytest.raises(GitlabError) as error:
        members.get(999)
    assert refused(error) == (404, "404 Not found")


# --- changes


def test_diffs_come_from_git_in_pages(world: World) -> None:
    answer = requests.get(
        f"{world.server.url}/api/v4{world.path}/diffs?per_page=2",
        headers={"PRIVATE-TOKEN": world.server.bot_token},
        timeout=5,
    )
    assert (answer.headers["X-Next-Page"], answer.headers["X-Total"], answer.headers["X-Per-Page"]) == ("2", "4", "2")
    assert 'page=2&per_page=2>; rel="next"' in answer.headers["Link"]
    files = world.files(per_page=1)
    assert str(files["app.py"]["diff"]).startswith("@@ -7,7 +7,8 @@ line 6\n line 7\n")
    assert files["new.py"]["diff"] == "@@ -0,0 +1,2 @@\n+one\n+two\n"
    assert (files["new.py"]["new_file"], files["gone.py"]["deleted_file"]) == (True, True)
    assert (files["new/name.py"]["old_path"], files["new/name.py"]["renamed_file"]) == ("old/name.py", True)
    assert world.get()["changes_count"] == "4"
    first = world.all("/diffs?unidiff=true")[0]
    assert str(first["diff"]).startswith("--- a/app.py\n+++ b/app.py\n@@")


def test_odd_files_look_as_in_gitlab(world: World) -> None:
    odd: dict[str, Content] = {
        "bin": b"\0\1",
        "run.sh": ("100755", b"true\n"),
        "link": ("120000", b"app.py"),
        "sub": ("160000", b"1" * 40),
        "än 'umlaut\" and blank.txt": "no newline at the end",
    }
    world.project.push("odd", odd)
    merge = world.project.open_merge_request("odd")
    files = world.files(merge)
    assert files["bin"]["diff"] == "Binary files /dev/null and b/bin differ\n"
    assert (files["run.sh"]["b_mode"], files["link"]["b_mode"], files["sub"]["b_mode"]) == (
        "100755",
        "120000",
        "160000",
    )
    assert files["sub"]["diff"] == f"@@ -0,0 +1 @@\n+Subproject commit {'1' * 40}\n"
    assert str(files["än 'umlaut\" and blank.txt"]["diff"]).endswith("\n\\ No newline at end of file\n")
    world.project.push_commit("was-odd", merge.head)
    world.project.push("odd", {"link": "a file now\n", "run.sh": ("100644", b"true\n")})
    changes = world.project.open_merge_request("odd", "was-odd").changes
    assert [(one.new_path, one.status, one.a_mode, one.b_mode) for one in changes] == [
        ("link", "D", "120000", "0"),
        ("link", "A", "0", "100644"),
        ("run.sh", "M", "100755", "100644"),
    ]


def test_large_files_come_without_their_text_and_many_are_cut_off(world: World) -> None:
    limits = world.server.settings.limits
    limits.collapsed_bytes, limits.too_large_bytes = 1000, 3000
    world.project.push("fix", {"app.py": OLD + "x" * 2000, "new.py": "y" * 5000})
    files = world.files()
    assert (files["app.py"]["diff"], files["app.py"]["collapsed"], files["app.py"]["too_large"]) == ("", True, False)
    assert (files["new.py"]["diff"], files["new.py"]["collapsed"], files["new.py"]["too_large"]) == ("", False, True)
    raw = requests.get(
        f"{world.server.url}/api/v4{world.path}/raw_diffs",
        headers={"PRIVATE-TOKEN": world.server.bot_token},
        timeout=5,
    )
    assert "y" * 5000 in raw.text
    assert raw.text.count("\ndiff --git ") == 3
    limits.files = 3
    assert (len(world.all("/diffs")), world.get()["changes_count"]) == (3, "3+")


def test_a_new_merge_request_is_not_ready_for_a_moment(world: World) -> None:
    world.server.settings.unprepared_gets = 2
    world.project.push("other", {"x": "x"})
    merge = world.project.open_merge_request("other")
    for ready in (False, False, True):
        assert len(world.client.http_list(f"/projects/1/merge_requests/{merge.iid}/diffs", get_all=True)) == ready
        seen = world.client.http_get(f"/projects/1/merge_requests/{merge.iid}")
        assert isinstance(seen, dict)
        assert (seen["diff_refs"] is not None) == (seen["changes_count"] is not None) == ready
        assert (seen["prepared_at"] is not None) == ready


def test_versions_and_compare_tell_what_a_push_brought(world: World) -> None:
    before = world.merge.head
    after = world.project.push("fix", {"new.py": "one\nthree\n"})
    versions = world.all("/versions")
    assert [one["head_commit_sha"] for one in versions] == [after, before]
    project = world.client.projects.get(world.project.id, lazy=True)
    since = project.repository_compare(before, after)
    assert isinstance(since, dict)
    assert [one["new_path"] for one in since["diffs"]] == ["new.py"]
    assert project.files.raw("new.py", ref=after) == b"one\nthree\n"
    assert project.files.get("new/name.py", ref=before).decode().startswith(b"moved 0\n")
    with pytest.raises(GitlabError) as error:
        project.files.raw("none.py", ref=after)
    assert refused(error) == (404, "404 File Not Found")
    rewritten = world.project.push("fix", {"new.py": "four\n"}, force=True)
    common = project.repository_merge_base([after, rewritten])
    assert isinstance(common, dict)
    assert common["id"] == before


def test_a_fork_s_head_is_in_the_target_project(world: World) -> None:
    fork = world.project.fork("zoe/shop")
    zoe = fork.add_member("zoe")
    head = fork.push("idea", {"idea.py": "print()\n"}, user=zoe)
    merge = world.project.open_merge_request("idea", author=zoe, source_project=fork)
    project = world.client.projects.get(world.project.id, lazy=True)
    seen = project.mergerequests.get(merge.iid)
    assert (seen.source_project_id, seen.sha) == (fork.id, head)
    assert project.files.raw("idea.py", ref=head) == b"print()\n"


# --- places


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ({"new_line": 10}, "_11_10"),
        ({"new_line": 11}, "_11_11"),
        ({"old_line": 10}, "_10_10"),
        ({"old_line": 30}, "_30_31"),
        ({"old_line": 7, "new_line": 7}, "_7_7"),
        ({"old_line": 31, "new_line": 31}, "_31_31"),
        ({"new_path": "new.py", "old_path": "new.py", "new_line": 2}, "_0_2"),
        ({"new_path": "gone.py", "old_path": "gone.py", "old_line": 1}, "_1_0"),
        ({"new_path": "new/name.py", "old_path": "old/name.py", "new_line": 6}, "_7_6"),
        ({"new_path": "new/name.py", "old_path": "old/name.py", "old_line": 7, "new_line": 7}, "_7_7"),
    ],
)
def test_a_line_in_a_hunk_takes_a_note(steady: World, place: Data, code: str) -> None:
    seen = steady.say(**place)
    assert seen["type"] == "DiffNote"
    note = steady.merge.note(int(str(seen["id"])))
    assert note is not None
    assert str(note.line_code).endswith(code)
    draft = steady.post("/draft_notes", note="hm", position=steady.position(**place))
    assert draft["line_code"] == note.line_code


@pytest.mark.parametrize(
    "place",
    [
        {"new_line": 7},  # a context line by one side
        {"old_line": 7},
        {"old_line": 31, "new_line": 32},  # two sides of different lines
        {"new_line": 20},  # outside of the hunks
        {"old_line": 20, "new_line": 21},
        {"new_line": 400},
        {"new_path": "nowhere.py", "old_path": "nowhere.py", "new_line": 1},
        {"new_path": "new/name.py", "old_path": "new/name.py", "old_line": 6, "new_line": 6},  # the old path is another
        {"head_sha": "1" * 40, "new_line": 10},
    ],
)
def test_other_lines_are_refused_by_discussions_and_swallowed_by_drafts(steady: World, place: Data) -> None:
    with pytest.raises(GitlabHttpError) as error:
        steady.say(**place)
    assert refused(error) == (400, BAD_LINE)
    draft = steady.post("/draft_notes", note="lost", position=steady.position(**place))
    assert draft["line_code"] is None
    steady.post("/draft_notes/bulk_publish")
    assert "lost" not in [note.body for note in steady.merge.all_notes()]
    assert not steady.all("/draft_notes")


def test_a_position_must_be_whole_and_an_object(world: World) -> None:
    position = world.position(new_line=10)
    del position["start_sha"]
    with pytest.raises(GitlabHttpError) as error:
        world.post("/draft_notes", note="hm", position=position)
    assert refused(error) == (400, "position[start_sha] is missing")
    with pytest.raises(GitlabHttpError) as error:
        world.post("/discussions", body="hm", position=json.dumps(position))
    assert refused(error) == (400, "position is invalid")
    with pytest.raises(GitlabHttpError) as error:
        world.say()
    assert "is incomplete" in refused(error)[1]


def test_a_whole_file_takes_a_note_since_16_4(world: World) -> None:
    assert world.say(position_type="file")["position"] == world.position(position_type="file")
    world.server.settings.file_positions = False
    with pytest.raises(GitlabHttpError) as error:
        world.say(position_type="file")
    assert refused(error) == (400, "position[position_type] does not have a valid value")


def test_positions_move_along_with_pushes_or_become_outdated(world: World) -> None:
    changed, removed, context = world.say(new_line=10), world.say(old_line=30), world.say(old_line=7, new_line=7)
    whole = world.say(position_type="file", new_path="new.py", old_path="new.py")
    old = world.merge.refs
    world.project.push("fix", {"app.py": "top\n" + NEW})

    def places() -> list[tuple[object, object, object]]:
        positions = [world.note(one["id"])["position"] for one in (changed, removed, context)]
        return [(at["old_line"], at["new_line"], at["head_sha"]) for at in positions if isinstance(at, dict)]

    first = world.merge.head
    assert places() == [(None, 11, first), (30, None, first), (7, 8, first)]
    world.project.push("fix", {"app.py": ("top\n" + NEW).replace("LINE 10\n", "").replace("line 7\n", "")})
    second = world.merge.head
    assert places() == [(None, 11, first), (30, None, second), (7, 8, first)]
    note = world.merge.note(int(str(changed["id"])))
    assert note is not None
    assert note.original_position is not None
    assert note.change_position is not None
    assert (note.original_position.refs, note.change_position.new_line) == (old, None)
    place = {"new_path": "new.py", "old_path": "new.py"}
    assert world.note(whole["id"])["position"] == world.position(position_type="file", **place)


def test_stale_shas_are_traced_to_the_newest_version(world: World) -> None:
    stale = world.position(new_line=10)
    world.project.push("fix", {"app.py": "top\n" + NEW})
    notes = world.post("/discussions", body="late", position=stale)["notes"]
    assert isinstance(notes, list)
    assert (notes[0]["position"]["new_line"], notes[0]["position"]["head_sha"]) == (11, world.merge.head)
    world.post("/draft_notes", note="late too", position=stale)
    world.post("/draft_notes/bulk_publish")
    assert [one.position.new_line for one in world.merge.all_notes() if one.position] == [11, 11]


# --- notes


def test_drafts_are_the_author_s_alone_and_published_as_one_review(world: World, hooked: Receiver) -> None:
    for line in (10, 20, 11):
        world.post("/draft_notes", note=f"line {line}", position=world.position(new_line=line))
    world.post("/draft_notes", note="in general")
    with gitlab.Gitlab(world.server.url, private_token=world.server.token(world.alice).value) as other:
        assert other.http_list(f"{world.path}/draft_notes", get_all=True) == []
    assert not world.all("/discussions")
    world.post("/draft_notes/bulk_publish")
    bodies = [note.body for note in world.merge.all_notes()]
    assert bodies == ["line 10", "line 11", "in general"]
    assert len(world.server.notifications) == 1
    world.server.settle()
    notes = hooked.events("Note Hook")
    assert len(notes) == len({one.headers["Idempotency-Key"] for one in notes}) == 3
    assert len({one.headers["X-Gitlab-Event-UUID"] for one in notes}) == 1


def test_a_broken_bulk_publish_leaves_some_notes_and_all_drafts(world: World) -> None:
    for line in (10, 11):
        world.post("/draft_notes", note=f"line {line}", position=world.position(new_line=line))
    world.server.faults.publish_breaks_after = 1
    with pytest.raises(GitlabHttpError) as error:
        world.post("/draft_notes/bulk_publish")
    assert (error.value.response_code, error.value.response_body) == (500, b"")
    assert (len(world.all("/draft_notes")), len(world.all("/discussions"))) == (2, 1)


def test_a_draft_loses_its_place_when_it_is_changed_without_one(world: World) -> None:
    draft = world.post("/draft_notes", note="a", position=world.position(new_line=10))
    changed = world.client.http_put(f"{world.path}/draft_notes/{draft['id']}", post_data={"note": "b"})
    assert isinstance(changed, dict)
    assert (changed["note"], changed["position"], changed["line_code"]) == ("b", None, None)
    world.client.http_delete(f"{world.path}/draft_notes/{draft['id']}")
    assert not world.all("/draft_notes")


def test_threads_are_answered_edited_resolved_and_deleted(world: World) -> None:
    merge = world.client.projects.get(world.project.id, lazy=True).mergerequests.get(world.merge.iid)
    alone = merge.notes.create({"body": "summary"})
    alone.body = "better"
    alone.save()
    thread = merge.discussions.create({"body": "why?", "position": world.position(new_line=10)})
    thread.notes.create({"body": "because"})
    thread.resolved = True
    thread.save()
    seen = merge.discussions.get(thread.id).attributes["notes"]
    assert [(one["body"], one["resolved_by"]["username"]) for one in seen] == [
        ("why?", "apprentice"),
        ("because", "apprentice"),
    ]
    first = world.all("/notes?sort=asc")[0]
    assert (first["body"], first["type"], first["resolvable"]) == ("better", None, False)
    answer = world.merge.all_notes()[-1]
    merge.discussions.get(thread.id).notes.delete(answer.id)
    assert answer not in world.merge.all_notes()
    hers = world.merge.comment(world.alice, "mine")
    assert hers is not None
    world.project.members[world.server.bot.id] = DEVELOPER
    with pytest.raises(GitlabError) as error:
        merge.notes.delete(hers.id)
    assert refused(error) == (403, "403 Forbidden")


def test_emoji_are_given_once_and_told_to_the_hooks(world: World, hooked: Receiver) -> None:
    number = int(str(world.say(body="<!-- marker -->\nhm", new_line=10)["id"]))
    note = world.merge.note(number)
    assert note is not None
    world.post(f"/notes/{number}/award_emoji", name="thumbsup")
    with pytest.raises(GitlabHttpError) as error:
        world.post(f"/notes/{number}/award_emoji", name="+1")
    assert refused(error) == (404, "404 Award Emoji Name has already been taken Not Found")
    hers = world.merge.award(note, world.alice, "thumbsdown")
    with pytest.raises(GitlabError):
        world.client.http_delete(f"{world.path}/notes/{number}/award_emoji/{hers.id}")
    world.merge.revoke(note, world.alice, "thumbsdown")
    world.server.settle()
    events = [(one.json["event_type"], one.attributes["name"]) for one in hooked.events("Emoji Hook")]
    assert sorted(map(str, events)) == sorted(
        map(str, [("award", "thumbsup"), ("award", "thumbsdown"), ("revoke", "thumbsdown")])
    )
    told = hooked.events("Emoji Hook")[0].json["note"]
    assert isinstance(told, dict)
    assert str(told["note"]).startswith("<!-- marker -->")


def test_a_suggestion_is_applied_with_a_real_commit(world: World) -> None:
    body = "Better:\n````suggestion:-1+0\nnine\nten\n````\n"
    seen = world.say(body=body, new_line=11)
    suggestions = seen["suggestions"]
    assert isinstance(suggestions, list)
    (one,) = suggestions
    assert (one["from_line"], one["to_line"], one["appliable"], one["applied"]) == (10, 11, True, False)
    assert (one["from_content"], one["to_content"]) == ("LINE 10\nand more\n", "nine\nten\n")
    before = world.merge.head
    world.client.http_put(f"/suggestions/{one['id']}/apply")
    assert world.merge.head != before
    project = world.client.projects.get(world.project.id, lazy=True)
    assert (
        project.files.raw("app.py", ref=world.merge.head) == NEW.replace("LINE 10\nand more\n", "nine\nten\n").encode()
    )
    after = world.note(seen["id"])
    assert isinstance(after["suggestions"], list)
    assert (after["suggestions"][0]["applied"], after["resolved"]) == (True, True)


@pytest.mark.parametrize(
    ("body", "ran"),
    [
        ("/merge", ["merge"]),
        ("fine\n\n/approve\n", ["approve"]),
        ("/Label ~bug\nrest", ["label"]),
        ("text\r\n/close\r\n", ["close"]),
        ("* item\n/merge", ["merge"]),
        ("~~~\n/merge\n~~~", ["merge"]),  # the older way only knows fences of backticks
        ("`a\n/merge\nb` c", ["merge"]),
        ("`a` b\n/merge\n`c`", ["merge"]),  # the newer way only: no code over several lines
        (">>>\n```\n>>>\n/close", ["close"]),  # the end of the quote ends the fence in it
        ("```\n/merge\n```", []),
        ("````suggestion\n/merge\n````", []),
        ("> /merge", []),
        (" /merge", []),
        ("\\/merge", []),
        ("&#47;merge", []),
        ("\u200b/merge", []),
        ("/merged", []),
        ("//merge", []),
        ("/merge: now", []),
        ("see /merge", []),
        (">>>\n/merge\n>>>", []),
        ("/apprentice review", []),
    ],
)
def test_quick_actions_run_as_in_gitlab(body: str, ran: list[str]) -> None:
    assert [name for name, _ in extract(body)[1]] == ran


@pytest.mark.parametrize("name", NAMES)
def test_every_documented_quick_action_is_known(name: str) -> None:
    assert extract(f"text\n/{name} some thing\nmore") == ("text\nmore", ((name, "some thing"),))


def test_quick_actions_act_and_are_written_down(world: World) -> None:
    answer = world.post("/notes", body="/label ~urgent\n/close")
    assert answer == {"commands_changes": {}, "summary": ["Ran label, close."]}
    assert not [one for one in world.merge.all_notes() if not one.system]
    assert (world.merge.state, world.merge.labels) == ("closed", ["urgent"])
    assert [(one.name, one.user.username) for one in world.server.actions] == [
        ("label", "apprentice"),
        ("close", "apprentice"),
    ]


# --- statuses and approvals


def test_commit_statuses_go_from_state_to_state(world: World) -> None:
    head = world.merge.head
    commit = world.client.projects.get(world.project.id, lazy=True).commits.get(head, lazy=True)
    commit.statuses.create({"state": "pending", "name": "apprentice"})
    with pytest.raises(GitlabError) as error:
        commit.statuses.create({"state": "pending", "name": "apprentice"})
    assert "Cannot transition status" in refused(error)[1]
    for state in ("success", "pending", "failed"):
        commit.statuses.create({"state": state, "name": "apprentice", "description": state})
    assert [(one.status, one.description) for one in commit.statuses.list(get_all=True)] == [("failed", "failed")]


def test_an_approval_of_a_stale_head_is_refused(world: World, hooked: Receiver) -> None:
    merge = world.client.projects.get(world.project.id, lazy=True).mergerequests.get(world.merge.iid)
    with pytest.raises(GitlabError) as error:
        merge.approve(sha="1" * 40)
    assert error.value.response_code == 409
    merge.approve(sha=world.merge.head)
    merge.unapprove()
    world.server.settle()
    actions = [one.attributes["action"] for one in hooked.events("Merge Request Hook")]
    assert sorted(map(str, actions)) == ["approved", "unapproved"]
