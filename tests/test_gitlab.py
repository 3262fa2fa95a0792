"""`GitLabForge` against the stand-in: what it reads, and the writing that is no review (`test_gitlab_publish`)."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from bot.domain import MergeRef
from bot.forge import (
    SUMMARY_MARKER,
    Anchor,
    DiffRefs,
    ForgeBusy,
    ForgeDenied,
    ForgeError,
    ForgeRefused,
    ForgeUnreachable,
    NotFound,
    Person,
)
from bot.gitlab import GitLabForge, door
from bot.gitlab import forge as gitlab_forge
from tests.fakes.forge_world import OLD, World, world
from tests.fakes.gitlab import MAINTAINER, REPORTER
from tests.fakes.gitlab import notes as rules
from tests.fakes.gitlab.positions import Position

pytestmark = pytest.mark.world


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)


@pytest.fixture
def here() -> Iterator[World]:
    with world() as one:
        yield one


def summary(words: str = "All is well.") -> str:
    return f"{words}\n\n{SUMMARY_MARKER}"


# --- who and what


def test_the_bot_is_asked_for_once(here: World) -> None:
    assert not here.forge.known_me
    assert here.forge.me() == here.forge.me() == here.forge.known_me == Person(here.bot.id, "apprentice", bot=True)
    assert here.requests() == ["GET /user"]


def test_a_merge_request(here: World) -> None:
    here.theirs.edit(reviewers=[here.bot], description="Because.")
    merge = here.forge.merge_request(here.ref)
    refs = here.theirs.refs
    assert merge.ref == here.ref
    assert (merge.title, merge.description, merge.state, merge.draft) == ("Mend it", "Because.", "opened", False)
    assert (merge.source_branch, merge.target_branch) == ("fix", "main")
    assert (merge.author, merge.reviewers) == (Person(here.alice.id, "alice"), (here.bot.id,))
    assert merge.refs == DiffRefs(refs.base, refs.start, refs.head)
    assert merge.web_url == f"{here.gitlab.url}/team/tools/shop/-/merge_requests/1"
    assert (merge.changes_count, merge.source_project) == ("1", here.project.id)


@pytest.mark.parametrize(
    ("change", "state", "draft"),
    [("close", "closed", False), ("merge", "merged", False), ("draft", "opened", True)],
)
def test_its_state(here: World, change: str, state: str, *, draft: bool) -> None:
    if change == "draft":
        here.theirs.edit(title="Draft: Mend it")
    else:
        getattr(here.theirs, change)()
    merge = here.merge
    assert (merge.state, merge.draft) == (state, draft)


def test_its_diff_is_not_there_at_once(here: World) -> None:
    here.theirs.unprepared = 1
    assert here.merge.refs is None
    assert here.merge.refs is not None


def test_below_a_relative_root_and_by_another_name() -> None:
    with world(root="/gitlab") as here:
        here.gitlab.settings.external_url = "https://gitlab.corp/gitlab"
        here.gitlab.settings.limits.page = 1
        for number in range(3):
            here.theirs.comment(here.alice, f"note {number}")
        assert [thread.notes[0].body for thread in here.forge.discussions(here.ref)] == ["note 0", "note 1", "note 2"]


@pytest.mark.parametrize(
    ("username", "bot"),
    [
        ("project_12_bot_0a1b2c3d", True),
        ("project_12_bot", True),
        ("group_7_bot_ffff", True),
        ("service_account_group_7_0a1b", True),
        ("robot_12_bot_1", False),
        ("alice", False),
    ],
)
def test_bots_are_known_by_the_names_that_gitlab_gives_them(here: World, username: str, *, bot: bool) -> None:
    here.theirs.comment(here.project.add_member(username), "hello")
    (thread,) = here.forge.discussions(here.ref)
    assert thread.notes[0].author.bot is bot


# --- files and changes since


def test_a_file_at_a_branch_and_at_a_commit(here: World) -> None:
    here.project.push("main", {"dir/ü & %2F #?.txt": "hällo\r\n"})
    assert here.forge.read_file(here.project.id, "dir/ü & %2F #?.txt", "main") == "hällo\r\n"
    assert here.forge.read_file(here.project.id, "app.py", here.theirs.refs.base) == OLD["app.py"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a\0b", b"x" * (gitlab_forge.MAX_FILE_BYTES + 1)], ids=["latin", "nul", "large"]
)
def test_what_is_no_text_or_too_much_of_it_is_none(here: World, content: bytes) -> None:
    here.project.push("main", {"data": content})
    assert here.forge.read_file(here.project.id, "data", "main") is None


@pytest.mark.parametrize(("path", "ref"), [("none.py", "main"), ("app.py", "no-branch"), ("app.py", "0" * 40)])
def test_a_file_that_is_not_there_is_none(here: World, path: str, ref: str) -> None:
    assert here.forge.read_file(here.project.id, path, ref) is None


def test_what_changed_since_an_earlier_head(here: World) -> None:
    old = here.theirs.head
    here.project.push("fix", {"other.py": "new\n"})
    here.project.push("fix", {"third.py": "three\n"})
    here.forget_requests()
    newer = here.forge.changed_since(here.merge, old)
    assert newer is not None
    assert [file.path for file in newer] == ["other.py", "third.py"]
    assert here.requests()[1:] == [f"GET /projects/{here.project.id}/repository/compare"]


def test_a_merge_of_the_target_branch_is_no_force_push(here: World) -> None:
    old = here.theirs.head
    here.project.push("main", {"news.py": "from main\n"})
    repository = here.project.repository
    tree = repository.git("merge-tree", "--write-tree", old, "main").decode().split("\n", 1)[0]
    both = f"tree {tree}\nparent {old}\nparent {repository.resolve('main')}\n"
    who = "Alice <alice@example.com> 1700000000 +0000"
    text = f"{both}author {who}\ncommitter {who}\n\nMerge\n".encode()
    sha = repository.git("hash-object", "-t", "commit", "-w", "--stdin", given=text).decode().strip()
    here.project.push_commit("fix", sha)
    newer = here.forge.changed_since(here.merge, old)
    assert newer is not None
    assert [file.path for file in newer] == ["news.py"]


def test_since_the_same_head_nothing_changed(here: World) -> None:
    assert here.forge.changed_since(here.merge, here.theirs.head) == ()


def test_after_a_force_push_nobody_can_tell(here: World) -> None:
    old = here.theirs.head
    here.project.push("fix", {"app.py": "rewritten\n"}, force=True)
    assert here.forge.changed_since(here.merge, old) is None


def test_where_the_old_head_is_gone_nobody_can_tell(here: World) -> None:
    assert here.forge.changed_since(here.merge, "f" * 40) is None


def test_where_gitlab_withholds_a_file_nobody_can_tell(here: World) -> None:
    old = here.theirs.head
    here.project.push("fix", {"large.py": "x = 1\n" * 50_000})
    assert here.forge.changed_since(here.merge, old) is None


def test_without_a_diff_nobody_can_tell(here: World) -> None:
    here.theirs.unprepared = 1
    assert here.forge.changed_since(here.merge, "a" * 40) is None


# --- discussions and emoji


def test_discussions_of_all_pages(here: World) -> None:
    for number in range(101):
        here.theirs.comment(here.alice, f"note {number}")
    here.forget_requests()
    threads = here.forge.discussions(here.ref)
    assert [thread.notes[0].body for thread in threads] == [f"note {number}" for number in range(101)]
    assert here.requests() == ["GET /discussions"] * 2


def test_a_thread_with_its_place_and_its_end(here: World) -> None:
    refs = here.theirs.refs
    position = Position(refs, "text", "app.py", "app.py", None, 11)
    with here.gitlab.lock:
        written = rules.write(here.theirs, here.alice, "```suggestion\nx\n```", position=position).note
    assert written is not None
    here.theirs.reply(written, here.bot, "Thank you.")
    here.theirs.resolve(written, here.bot)
    here.theirs.system_note("did something", here.alice)
    thread, system = here.forge.discussions(here.ref)
    first, answer = thread.notes
    assert (first.anchor, first.head) == (Anchor("app.py", "app.py", None, 11), refs.head)
    assert (first.resolvable, first.resolved, thread.resolved) == (True, True, True)
    assert first.resolved_by == Person(here.bot.id, "apprentice")
    assert first.created_at.tzinfo is UTC
    assert abs(first.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert (answer.body, answer.author.username) == ("Thank you.", "apprentice")
    assert not first.suggestion_applied
    assert system.notes[0].system
    here.theirs.apply(written, here.alice)
    assert here.forge.discussions(here.ref)[0].notes[0].suggestion_applied


def test_emoji_are_given_once_and_read(here: World) -> None:
    note = here.theirs.comment(here.alice, "hi")
    assert note is not None
    here.theirs.award(note, here.alice, "tada")
    for _ in range(2):
        here.forge.seed(here.ref, note.id, ["thumbsup", "thumbsdown"])
    awards = here.forge.awards(here.ref, note.id)
    assert [(award.name, award.person.username) for award in awards] == [
        ("tada", "alice"),
        ("thumbsup", "apprentice"),
        ("thumbsdown", "apprentice"),
    ]
    assert [award.id for award in awards] == [given.id for given in note.awards]


def test_emoji_for_a_note_that_is_gone_are_no_matter(here: World) -> None:
    here.forge.seed(here.ref, 999_999, ["thumbsup"])


# --- people


def test_levels(here: World) -> None:
    bob = here.gitlab.user("bob")
    here.gitlab.group("team").members[bob.id] = MAINTAINER
    carol = here.project.add_member("carol", REPORTER)
    level = here.forge.access_level
    assert level(here.project.id, here.alice.id) == 30
    assert level(here.project.id, bob.id) == 40
    assert level(here.project.id, carol.id) == 20
    assert level(here.project.id, here.gitlab.user("stranger").id) == 0


# --- answers, ends


def test_an_answer_a_resolution_and_a_deletion(here: World) -> None:
    note = here.theirs.comment(here.alice, "hi")
    assert note is not None
    (thread,) = here.forge.discussions(here.ref)
    written = here.forge.reply(here.ref, thread.id, "I am here.")
    here.forge.resolve(here.ref, thread.id)
    (thread,) = here.forge.discussions(here.ref)
    assert thread.resolved
    assert [each.id for each in thread.notes] == [note.id, written]
    for _ in range(2):
        here.forge.delete_note(here.ref, thread.id, written)
    assert here.notes() == []


def test_an_answer_is_not_sent_twice(here: World) -> None:
    here.theirs.comment(here.alice, "hi")
    (thread,) = here.forge.discussions(here.ref)
    here.gitlab.faults.add("500_after", method="POST", times=1)
    with pytest.raises(ForgeBusy):
        here.forge.reply(here.ref, thread.id, "I am here.")
    assert len(here.notes()) == 1


def test_open_merge_requests_that_changed_since(here: World) -> None:
    now = datetime.now(UTC)
    here.project.push("second", {"other.py": "2\n"})
    second = here.project.open_merge_request("second")
    here.project.push("third", {"other.py": "3\n"})
    here.project.open_merge_request("third").close()
    found = list(here.forge.updated_since(here.project.id, now - timedelta(minutes=1)))
    assert [merge.ref.iid for merge in found] == [here.theirs.iid, second.iid]
    assert found[0].refs is None
    assert list(here.forge.updated_since(here.project.id, now + timedelta(minutes=1))) == []


# --- the summary


def test_a_summary_is_written_once_and_then_rewritten(here: World) -> None:
    note = here.forge.write_summary(here.ref, summary("First."), None)
    assert here.forge.write_summary(here.ref, summary("Second."), note) == note
    assert here.forge.write_summary(here.ref, summary("Third."), None) == note
    assert [each.body for each in here.notes()] == [summary("Third.")]
    assert here.requests("GET").count("GET /notes") == 2


def test_a_summary_that_somebody_deleted_is_written_anew(here: World) -> None:
    note = here.forge.write_summary(here.ref, summary(), None)
    (thread,) = here.forge.discussions(here.ref)
    here.forge.delete_note(here.ref, thread.id, note)
    assert here.forge.write_summary(here.ref, summary("Again."), note) != note
    assert [each.body for each in here.notes()] == [summary("Again.")]


def test_a_summary_that_is_not_where_we_thought_is_found(here: World) -> None:
    note = here.forge.write_summary(here.ref, summary(), None)
    assert here.forge.write_summary(here.ref, summary("Again."), 999_999) == note


def test_a_summary_is_only_the_bots_own(here: World) -> None:
    theirs = here.theirs.comment(here.alice, summary("I am the bot."))
    assert theirs is not None
    assert here.forge.write_summary(here.ref, summary(), None) != theirs.id
    assert theirs.body == summary("I am the bot.")


@pytest.mark.parametrize("kind", ["500_after", "timeout_after", "reset_after"])
def test_a_summary_whose_answer_was_lost_is_found_again(kind: str) -> None:
    with world(seconds=0.3) as here:
        here.gitlab.faults.add(kind, method="POST", times=1, seconds=0.6)  # type: ignore[arg-type]
        with pytest.raises((ForgeBusy, ForgeUnreachable)):
            here.forge.write_summary(here.ref, summary(), None)
        here.forge.write_summary(here.ref, summary("Again."), None)
        assert [each.body for each in here.notes()] == [summary("Again.")]


def test_a_rewriting_is_tried_again(here: World) -> None:
    note = here.forge.write_summary(here.ref, summary(), None)
    here.gitlab.faults.add("500_after", method="PUT", times=2)
    here.forge.write_summary(here.ref, summary("Again."), note)
    assert [each.body for each in here.notes()] == [summary("Again.")]


# --- the commit status


def test_a_status_goes_from_pending_to_its_end(here: World) -> None:
    merge = here.merge
    for state in ("pending", "pending", "failed", "pending", "success", "success"):
        here.forge.set_status(merge, state, "1 finding" * 60)
    (status,) = here.project.statuses
    assert (status.name, status.state, status.sha, status.ref) == ("apprentice", "success", here.theirs.head, "fix")
    assert status.target_url == merge.web_url
    assert status.description == ("1 finding" * 60)[:250]


def test_a_status_that_somebody_else_sets_just_now_is_theirs(here: World) -> None:
    here.gitlab.faults.add("409", method="POST", times=1)
    here.forge.set_status(here.merge, "pending", "under way")
    assert [status.state for status in here.project.statuses] == ["pending"]


def test_a_status_that_gitlab_does_not_take_is_told(here: World) -> None:
    with pytest.raises(ForgeRefused, match="state does not have a valid value"):
        here.forge.set_status(here.merge, "bogus", "under way")  # type: ignore[arg-type]


def test_in_a_fork_where_the_bot_is_nobody_no_status_is_set(here: World) -> None:
    fork = here.project.fork("alice/shop")
    fork.push("elsewhere", {"app.py": "forked\n"})
    theirs = here.project.open_merge_request("elsewhere", source_project=fork)
    merge = here.forge.merge_request(MergeRef(here.project.id, theirs.iid))
    here.forge.set_status(merge, "pending", "under way")
    assert fork.statuses == here.project.statuses == []
    fork.members[here.bot.id] = 30
    here.forge.set_status(merge, "pending", "under way")
    assert len(fork.statuses) == 1


def test_without_rights_a_status_is_denied(here: World) -> None:
    merge = here.merge
    here.project.members[here.bot.id] = REPORTER
    with pytest.raises(ForgeDenied, match="its user the role Developer in the project"):
        here.forge.set_status(merge, "pending", "under way")


def test_without_a_diff_no_status_is_set(here: World) -> None:
    here.theirs.unprepared = 1
    here.forge.set_status(here.merge, "pending", "under way")
    assert here.project.statuses == []


# --- what an operator did wrong


def refusal(here: World, call: Callable[[], object], kind: type[ForgeError]) -> str:
    with pytest.raises(ForgeError) as caught:
        call()
    assert type(caught.value) is kind
    assert here.gitlab.bot_token not in str(caught.value)
    return str(caught.value)


def test_a_wrong_an_expired_and_a_revoked_token(here: World) -> None:
    words = refusal(here, GitLabForge(here.gitlab.url, "glpat-wrong").me, ForgeDenied)
    assert "answered 401: Unauthorized. The token in APPRENTICE_GITLAB_TOKEN is wrong, expired or revoked" in words
    token = here.gitlab.token(here.bot)
    token.revoked = True
    words = refusal(here, GitLabForge(here.gitlab.url, token.value).me, ForgeDenied)
    assert "Token was revoked." in words
    here.gitlab.advance(400 * 24 * 3600)
    assert "Token is expired." in refusal(here, here.forge.check, ForgeDenied)


def test_a_token_that_may_only_read(here: World) -> None:
    token = here.gitlab.token(here.bot, scopes=("read_api",))
    forge = GitLabForge(here.gitlab.url, token.value)
    assert forge.merge_request(here.ref).title == "Mend it"
    words = refusal(here, lambda: forge.write_summary(here.ref, summary(), None), ForgeDenied)
    assert "higher privileges" in words
    assert "The token needs the scope `api`" in words
    forge.close()


def test_a_project_that_the_bot_may_not_see(here: World) -> None:
    del here.project.members[here.bot.id]
    words = refusal(here, lambda: here.forge.merge_request(here.ref), NotFound)
    assert "answered 404: Project Not Found. It is not there, or the token's user may not see it" in words


def test_a_merge_request_that_is_not_there(here: World) -> None:
    refusal(here, lambda: here.forge.merge_request(MergeRef(here.project.id, 99)), NotFound)


def test_a_server_that_is_no_gitlab_there(here: World) -> None:
    words = refusal(here, GitLabForge(f"{here.gitlab.url}/elsewhere", "glpat-x").me, NotFound)
    assert words.endswith("answered 404. Is APPRENTICE_GITLAB_URL right, with its path if GitLab has one?")


def test_a_check_is_quick_and_learns_who_we_are(here: World) -> None:
    here.gitlab.faults.add("500", times=1)
    refusal(here, here.forge.check, ForgeBusy)
    assert here.requests() == ["GET /user"]
    here.forge.check()
    assert here.forge.known_me is not None
