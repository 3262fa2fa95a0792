"""What the stand-in does with notes, drafts, emoji, suggestions, quick actions, statuses and approvals."""

from collections.abc import Iterator

import gitlab
import pytest
import requests
from gitlab.exceptions import GitlabError, GitlabHttpError

from tests.fakes.gitlab import DEVELOPER
from tests.fakes.gitlab.quick_actions import NAMES, extract
from tests.fakes.receiver import Receiver, receive
from tests.gitlab_world import NEW, World, made, refused

pytestmark = pytest.mark.world

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def world() -> Iterator[World]:
    with made() as one:
        yield one


@pytest.fixture
def hooked(world: World) -> Iterator[Receiver]:
    """A receiver that gets all events of the world's project."""
    with receive() as receiver:
        events = ("push_events", "merge_requests_events", "note_events", "confidential_note_events", "emoji_events")
        world.project.add_hook(receiver.url, events=(*events, "resource_access_token_events"), signing_token=SECRET)
        yield receiver


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


def test_a_person_sees_the_threads_at_their_lines(world: World) -> None:
    number = int(str(world.say(body="Why?", new_line=10)["id"]))
    note = world.merge.note(number)
    assert note is not None
    world.merge.award(note, world.alice, "thumbsdown")
    world.merge.reply(note, world.alice, "Because.")
    world.merge.resolve(note, world.alice)
    world.project.push("fix", {"app.py": NEW.replace("LINE 10\n", "")})
    shown = requests.get(world.merge.web_url, timeout=5)
    assert shown.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "── app.py, line 10 · outdated · resolved\nApprentice (@apprentice):\n    Why?\n    👎 alice\n" in shown.text
    assert requests.get(f"{world.server.url}/nothing", timeout=5).status_code == 404


def test_a_defect_of_the_stand_in_is_not_taken_for_gitlab_s_fault() -> None:
    def break_it() -> None:
        with made() as world:
            world.merge.title = None  # type: ignore[assignment]
            with pytest.raises(GitlabHttpError, match="500"):
                world.get()

    with pytest.raises(RuntimeError, match="the stand-in is defective"):
        break_it()
