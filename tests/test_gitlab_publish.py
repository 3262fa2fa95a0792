"""A review on the stand-in: right places, none refused, none lost, none twice, whatever breaks on the way."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from bot.comment import parse_marker
from bot.forge import (
    SUMMARY_MARKER,
    Anchor,
    Comment,
    ForgeBusy,
    ForgeDenied,
    ForgeError,
    ForgeUnreachable,
    NotPosted,
    Posted,
    Publication,
)
from bot.gitlab import door, publish
from tests.fakes.forge_world import LINES, World, comment, world
from tests.fakes.gitlab import REPORTER
from tests.fakes.gitlab import notes as rules
from tests.fakes.gitlab.errors import Refused
from tests.fakes.gitlab.faults import Kind
from tests.fakes.gitlab.model import Draft
from tests.fakes.gitlab.positions import Position
from tests.fakes.gitlab.repository import Content
from tests.fakes.gitlab.routes import notes as notes_routes
from tests.fakes.gitlab.routing import Params

pytestmark = pytest.mark.world

EMPTY = Publication((), ())


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(publish, "SETTLE_SECONDS", 0.05)


@pytest.fixture
def here() -> Iterator[World]:
    with world() as one:
        yield one


def three(here: World) -> list[Comment]:
    file = here.files()["app.py"]
    return [comment(file, line, text=text) for line, text in ((10, "LINE 10"), (11, "and more"), (13, "line 11"))]


def stands(here: World) -> Counter[str]:
    """How often each finding stands there."""
    found = (parse_marker(note.body) for note in here.notes())
    return Counter(finding.fingerprint for finding in found if finding)


def once(comments: Sequence[Comment]) -> Counter[str]:
    return Counter(each.fingerprint for each in comments)


def fingerprints(results: Sequence[Posted | NotPosted]) -> list[str]:
    return [result.fingerprint for result in results]


# --- what it costs


def test_a_review_of_a_file_makes_six_reads_and_one_notification(here: World) -> None:
    forge, ref = here.forge, here.ref
    forge.me()
    here.forget_requests()
    merge = forge.merge_request(ref)
    forge.read_file(ref.project, ".apprentice.yml", merge.target_branch)
    (file,) = forge.read_change(merge).files
    assert merge.refs is not None
    forge.read_file(ref.project, file.path, merge.refs.head)
    comments = [comment(file, 11), comment(file, 10, text="LINE 10")]
    published = forge.publish(forge.merge_request(ref), comments, again=False)
    forge.write_summary(ref, f"Done.\n\n{SUMMARY_MARKER}", None)
    assert here.requests("GET") == [
        "GET /",
        f"GET /projects/{ref.project}/repository/files/.apprentice.yml/raw",
        "GET /diffs",
        f"GET /projects/{ref.project}/repository/files/app.py/raw",
        "GET /",
        "GET /discussions",
    ]
    assert here.requests("POST") == ["POST /draft_notes"] * 2 + ["POST /draft_notes/bulk_publish", "POST /notes"]
    assert [what for *_, what in here.gitlab.notifications] == ["review by apprentice", "note by apprentice"]
    assert [(posted.fingerprint, posted.where) for posted in published.posted] == [
        (each.fingerprint, "line") for each in comments
    ]
    assert [note.id for note in here.notes()][:2] == [posted.note for posted in published.posted]
    assert here.gitlab.actions == []


def test_without_findings_nothing_is_asked(here: World) -> None:
    merge = here.merge
    here.forget_requests()
    assert here.forge.publish(merge, [], again=True) == EMPTY
    assert here.requests() == []


def test_after_a_review_without_findings_the_summary_is_looked_for(here: World) -> None:
    here.forge.write_summary(here.ref, f"Done.\n\n{SUMMARY_MARKER}", None)
    assert here.requests("GET") == ["GET /notes"]


def test_what_publishing_has_seen_is_believed_once_and_not_for_long(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.forge.publish(here.merge, three(here), again=False)
    here.forget_requests()
    body = f"Done.\n\n{SUMMARY_MARKER}"
    here.gitlab.faults.add("reset_after", method="POST", pattern="/notes$", times=1)
    with pytest.raises(ForgeUnreachable):
        here.forge.write_summary(here.ref, body, None)
    here.forge.write_summary(here.ref, body, None)
    assert here.requests() == ["POST /notes", "GET /notes", f"PUT /notes/{here.notes()[-1].id}"]
    here.forge.publish(here.merge, [here.comment(12)], again=True)
    monkeypatch.setattr("bot.gitlab.forge._FRESH_SECONDS", 0)
    here.forget_requests()
    here.forge.write_summary(here.ref, body, None)
    assert here.requests("GET") == ["GET /notes"]


def test_a_summary_that_publishing_has_seen_is_rewritten(here: World) -> None:
    note = here.forge.write_summary(here.ref, f"First.\n\n{SUMMARY_MARKER}", None)
    here.forge.publish(here.merge, three(here), again=False)
    here.forget_requests()
    assert here.forge.write_summary(here.ref, f"Second.\n\n{SUMMARY_MARKER}", None) == note
    assert here.requests() == [f"PUT /notes/{note}"]


# --- places

CASES: dict[str, tuple[Mapping[str, Content], Mapping[str, Content]]] = {
    "changed": ({"f.py": LINES}, {"f.py": LINES.replace("line 7\n", "LINE 7\nmore\n").replace("line 20\n", "")}),
    "new": ({}, {"f.py": "one\ntwo\nthree\n"}),
    "renamed": ({"old.py": LINES}, {"old.py": None, "f.py": LINES.replace("line 7\n", "LINE 7\n")}),
    "no line ending at the end": ({"f.py": "one\ntwo"}, {"f.py": "one\nthree\nfour"}),
    "line ending lost": ({"f.py": "one\ntwo\n"}, {"f.py": "one\ntwo"}),
    "line ending added": ({"f.py": "one\ntwo"}, {"f.py": "one\ntwo\n"}),
    "carriage returns": ({"f.py": "one\r\ntwo\r\nthree\r\n"}, {"f.py": "one\r\nTWO\r\nthree\r\n"}),
    "carriage returns added": ({"f.py": "one\ntwo\n"}, {"f.py": "one\r\ntwo\r\n"}),
    "lone carriage returns and others": ({"f.py": "a\rb\n"}, {"f.py": "a\rb\n\x0c\nc\u2028d\x85e\n"}),
    "empty before": ({"f.py": ""}, {"f.py": "one\n"}),
    "marks": ({"f.py": "-- a\n++ b\n"}, {"f.py": "-- a\n+++ c\n@@ -1 +1 @@\n\\ No newline\n"}),
    "made executable": ({"f.py": "one\n"}, {"f.py": ("100755", b"one\ntwo\n")}),
    "latin": ({"f.py": b"\xe4\n"}, {"f.py": b"\xe4\n\xf6\n"}),
    "hidden start": ({"f.py": LINES}, {"f.py": f"{LINES}more\n"}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_line_that_the_diff_shows_takes_a_comment(case: str) -> None:
    old, new = CASES[case]
    with world(new, {"keep": "x\n", **old}) as here:
        file = here.files()["f.py"]
        assert file.new_lines
        wanted = [comment(file, line, text=f"line {line}") for line in file.new_lines]
        wanted += [
            comment(file, hunk.new_range[-1], hunk.new_range[0], text=f"all of {hunk.new_range}") for hunk in file.hunks
        ]
        published = here.forge.publish(here.merge, wanted, again=False)
        assert published.not_posted == ()
        assert {posted.where for posted in published.posted} == {"line"}
        assert fingerprints(published.posted) == [each.fingerprint for each in wanted]
        assert here.requests("DELETE") == []
        by_note = {thread.notes[0].id: thread.notes[0] for thread in here.forge.discussions(here.ref)}
        for each, posted in zip(wanted, published.posted, strict=True):
            seen = by_note[posted.note].anchor
            assert seen is not None
            assert seen == replace(each.anchor, line_code="")
        codes = {note.line_code for note in here.notes()}
        assert codes == {each.anchor.line_code for each in wanted}


def test_a_suggestion_replaces_the_lines_of_its_finding(here: World) -> None:
    said = here.comment(12, 11)
    body = said.body.replace("\n\n<!--", "\n\n```suggestion:-1+0\nless\n```\n\n<!--")
    here.forge.publish(here.merge, [replace(said, body=body)], again=False)
    (note,) = here.notes()
    here.theirs.apply(note, here.alice)
    blob = here.project.repository.blob(here.theirs.head, "app.py")
    assert blob is not None
    assert blob[1].decode().splitlines()[8:12] == ["line 9", "LINE 10", "less", "line 11"]


@pytest.mark.parametrize("place", [Anchor("app.py", "app.py", None, 25), Anchor("app.py", "app.py", 11, None)])
def test_where_gitlab_finds_no_line_the_comment_stands_at_the_file(here: World, place: Anchor) -> None:
    lost, fine = three(here)[:2]
    lost = replace(lost, anchor=place)
    published = here.forge.publish(here.merge, [lost, fine], again=False)
    assert [(posted.fingerprint, posted.where) for posted in published.posted] == [
        (lost.fingerprint, "file"),
        (fine.fingerprint, "line"),
    ]
    assert stands(here) == once([lost, fine])
    assert here.theirs.drafts == []
    assert len(here.gitlab.notifications) == 1


def test_a_comment_on_a_file_stands_at_the_file(here: World) -> None:
    whole = replace(here.comment(), anchor=Anchor("app.py", "app.py", None, None))
    (posted,) = here.forge.publish(here.merge, [whole], again=False).posted
    assert posted.where == "file"
    assert here.requests("POST") == ["POST /draft_notes", "POST /draft_notes/bulk_publish"]


def test_where_gitlab_takes_no_comment_on_files_either_it_is_told(here: World) -> None:
    here.gitlab.settings.file_positions = False
    lost = replace(here.comment(), anchor=Anchor("app.py", "app.py", None, 25))
    published = here.forge.publish(here.merge, [lost], again=False)
    assert published == Publication((), (NotPosted(lost.fingerprint, "GitLab finds no such line in the diff"),))
    whole = replace(lost, anchor=Anchor("app.py", "app.py", None, None))
    (told,) = here.forge.publish(here.merge, [whole], again=False).not_posted
    assert told.reason == "GitLab refused it: position[position_type] does not have a valid value"
    assert stands(here) == Counter()
    assert here.theirs.drafts == []


def lose(here: World, fingerprint: str) -> None:
    """Let a draft vanish when it is published, as GitLab does with those that are not valid."""

    def vanish() -> None:
        with here.gitlab.lock:
            bodies = {draft: parse_marker(draft.body) for draft in here.theirs.drafts}
            lost = [draft for draft, finding in bodies.items() if finding and finding.fingerprint == fingerprint]
            for draft in lost:
                here.theirs.drafts.remove(draft)

    here.gitlab.meanwhile("POST", "bulk_publish$", vanish)


def test_what_got_lost_when_it_was_published_is_posted_by_itself(here: World) -> None:
    comments = three(here)
    lose(here, comments[1].fingerprint)
    published = here.forge.publish(here.merge, comments, again=False)
    assert fingerprints(published.posted) == [each.fingerprint for each in comments]
    assert stands(here) == once(comments)
    assert here.requests("POST")[-1] == "POST /discussions"


@pytest.mark.parametrize("takes_files", [True, False])
def test_what_got_lost_and_is_refused_stands_at_its_file_or_is_told(here: World, *, takes_files: bool) -> None:
    """As on a file that GitLab finds too large: its drafts are taken and vanish, a note is refused."""
    lost, fine = three(here)[:2]
    lose(here, lost.fingerprint)

    def find_no_lines() -> None:
        here.gitlab.settings.file_positions = takes_files
        patch.setattr(rules, "code_of", lambda *_: None)

    with pytest.MonkeyPatch.context() as patch:
        here.gitlab.meanwhile("POST", "/discussions$", find_no_lines)
        published = here.forge.publish(here.merge, [lost, fine], again=False)
    if takes_files:
        assert [posted.where for posted in published.posted] == ["file", "line"]
        assert stands(here) == once([lost, fine])
    else:
        assert fingerprints(published.posted) == [fine.fingerprint]
        (told,) = published.not_posted
        assert told.reason.startswith("GitLab refused it: Bad request - Note {:line_code=>")


@pytest.mark.parametrize("kind", ["500", "500_after", "reset_after"])
def test_a_single_note_is_not_doubled_either(here: World, kind: Kind) -> None:
    comments = three(here)
    lose(here, comments[1].fingerprint)
    here.gitlab.faults.add(kind, method="POST", pattern="/discussions$", times=2)
    published = here.forge.publish(here.merge, comments, again=False)
    assert fingerprints(published.posted) == [each.fingerprint for each in comments]
    assert stands(here) == once(comments)


def test_where_gitlab_takes_no_numbers_in_a_range_it_gets_none(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = here.files()["app.py"]
    comments = [comment(file, 12, 10, "LINE 10"), comment(file, 13, 11, "and more")]
    taken = notes_routes._end

    def strict(across: Params, side: str) -> object:
        end = across.table(side)
        if end and ("old_line" in end or "new_line" in end):
            raise Refused(400, {"message": {"position": ["must be a valid json schema"]}})
        return taken(across, side)

    monkeypatch.setattr(notes_routes, "_end", strict)
    published = here.forge.publish(here.merge, comments, again=False)
    assert [posted.where for posted in published.posted] == ["line", "line"]
    assert here.requests("POST") == ["POST /draft_notes"] * 3 + ["POST /draft_notes/bulk_publish"]


def test_the_same_finding_twice_is_posted_once(here: World) -> None:
    said = here.comment()
    published = here.forge.publish(here.merge, [said, said], again=False)
    assert fingerprints(published.posted) == [said.fingerprint]
    assert stands(here) == once([said])


# --- again


def test_another_attempt_posts_what_is_missing_and_removes_old_drafts(here: World) -> None:
    comments = three(here)
    merge = here.merge
    here.forge.publish(merge, comments[:1], again=False)
    here.gitlab.faults.add("500", method="POST", pattern="bulk_publish$")
    old = replace(comments[1], body=f"an older text\n\n{comments[1].body}")
    with pytest.raises(ForgeBusy):
        here.forge.publish(merge, [old, comments[2]], again=False)
    assert len(here.theirs.drafts) == 2
    here.gitlab.faults.clear()
    published = here.forge.publish(merge, comments, again=True)
    assert fingerprints(published.posted) == [each.fingerprint for each in comments]
    assert stands(here) == once(comments)
    assert not any(note.body.startswith("an older text") for note in here.notes())
    assert here.theirs.drafts == []


def test_another_attempt_after_all_was_posted_only_looks(here: World) -> None:
    comments = three(here)
    first = here.forge.publish(here.merge, comments, again=False)
    merge = here.merge
    here.forget_requests()
    assert here.forge.publish(merge, comments, again=True) == first
    assert here.requests() == ["GET /discussions", "GET /draft_notes"]


def test_a_finding_whose_thread_the_bot_resolved_may_come_back(here: World) -> None:
    said = here.comment()
    (first,) = here.forge.publish(here.merge, [said], again=False).posted
    here.forge.resolve(here.ref, first.discussion)
    (second,) = here.forge.publish(here.merge, [said], again=True).posted
    assert second.note != first.note
    assert len(here.notes()) == 2


def test_notes_of_others_with_our_marker_do_not_count(here: World) -> None:
    said = here.comment()
    copied = here.theirs.comment(here.alice, said.body)
    assert copied is not None
    (posted,) = here.forge.publish(here.merge, [said], again=True).posted
    assert posted.note != copied.id
    assert stands(here) == once([said])


def test_drafts_of_others_stay(here: World) -> None:
    with here.gitlab.lock:
        rules.draft(here.theirs, here.alice, "mine")
    here.forge.publish(here.merge, three(here), again=True)
    assert [draft.body for draft in here.theirs.drafts] == ["mine"]


def test_drafts_of_the_bots_user_that_are_no_findings_are_not_deleted(here: World) -> None:
    with here.gitlab.lock:
        rules.draft(here.theirs, here.gitlab.bot, "a person writes under the bot's name")
    here.forge.publish(here.merge, three(here), again=True)
    deleted = [request for request in here.gitlab.requests if request.method == "DELETE"]
    assert deleted == []


def test_two_workers_that_post_the_same_leave_it_once(here: World) -> None:
    comments = three(here)
    merge = here.merge
    other = [*comments]

    def as_another_worker() -> None:
        here.forge.publish(merge, other, again=False)

    here.gitlab.meanwhile("POST", "bulk_publish$", as_another_worker)
    published = here.forge.publish(merge, comments, again=False)
    assert stands(here) == once(comments)
    assert fingerprints(published.posted) == [each.fingerprint for each in comments]


def test_of_two_notes_the_answered_one_stays(here: World) -> None:
    said = here.comment()
    (first,) = here.forge.publish(here.merge, [said], again=False).posted
    (second,) = here.forge.publish(here.merge, [said], again=False).posted
    assert second == first
    assert len(here.notes()) == 1


# --- faults

FAULTS: tuple[Kind, ...] = (
    "busy", "500", "502", "503", "500_after", "timeout", "timeout_after", "reset_before", "reset_after",
)  # fmt: skip
PLACES = (
    ("POST", "/draft_notes$", 1),
    ("POST", "/draft_notes$", 2),
    ("POST", "/bulk_publish$", 1),
    ("POST", "/bulk_publish$", 2),
    ("GET", "/discussions$", 1),
    ("GET", "/draft_notes$", 1),
    ("GET", r"/merge_requests/\d+$", 1),
)


def until_posted(here: World, comments: Sequence[Comment], most: int = 30) -> Publication:
    """Try again as the durable workflow does."""
    again = False
    for _ in range(most):
        try:
            return here.forge.publish(here.merge, comments, again=again)
        except (ForgeBusy, ForgeUnreachable):
            again = True
    raise AssertionError("it was never posted")


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_anywhere_costs_and_doubles_nothing(kind: Kind, place: tuple[str, str, int]) -> None:
    method, pattern, times = place
    with world(seconds=0.3) as here:
        comments = three(here)
        here.gitlab.faults.add(kind, method=method, pattern=pattern, times=times, seconds=0.5)
        published = until_posted(here, comments)
        assert stands(here) == once(comments)
        assert fingerprints(published.posted) == [each.fingerprint for each in comments]
        assert published.not_posted == ()
        assert here.theirs.drafts == []


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_publishing_that_breaks_in_the_middle_is_finished(here: World, done: int) -> None:
    comments = three(here)
    here.gitlab.faults.publish_breaks_after = done
    published = here.forge.publish(here.merge, comments, again=False)
    assert stands(here) == once(comments)
    assert fingerprints(published.posted) == [each.fingerprint for each in comments]
    assert here.theirs.drafts == []


def test_a_draft_that_comes_late_is_not_published_twice(here: World) -> None:
    """Its POST timed out, the look for it came too early, and it was sent again."""
    comments = three(here)
    refs = here.theirs.refs
    late = comments[0]

    def arrive() -> None:
        with here.gitlab.lock:
            place = Position(refs, "text", "app.py", "app.py", None, 10)
            rules.draft(here.theirs, here.bot, late.body, position=place)

    here.gitlab.faults.add("500", method="POST", pattern="/draft_notes$", times=1)
    here.gitlab.meanwhile("POST", "/draft_notes$", arrive)
    here.forge.publish(here.merge, comments, again=False)
    assert stands(here) == once(comments)


@pytest.mark.parametrize("kind", ["timeout", "502"])
def test_a_publishing_that_goes_on_after_its_answer_is_waited_for(kind: Kind) -> None:
    """One note more each time that somebody looks."""
    with world(seconds=0.3) as here:
        comments = three(here)

        def go_on() -> None:
            with here.gitlab.lock:
                missing = [
                    draft for draft in here.theirs.drafts if draft.body not in {note.body for note in here.notes()}
                ]
                if missing:
                    rules.write(here.theirs, here.bot, missing[0].body, position=missing[0].position)
                if len(missing) < 2:
                    here.theirs.drafts.clear()

        here.gitlab.faults.add(kind, pattern="bulk_publish$", times=1, seconds=0.5)
        here.gitlab.meanwhile("GET", "/discussions$", go_on, times=5)
        published = here.forge.publish(here.merge, comments, again=False)
        assert fingerprints(published.posted) == [each.fingerprint for each in comments]
        assert stands(here) == once(comments)
        assert here.gitlab.count("POST", "bulk_publish$") <= 1  # one that timed out is logged when it ends


def test_a_publishing_that_goes_on_for_ever_is_not_waited_for(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "LOOKS", 1)
    comments = three(here)
    here.gitlab.faults.publish_breaks_after = 1
    published = here.forge.publish(here.merge, comments, again=False)
    assert fingerprints(published.posted) == [each.fingerprint for each in comments]
    assert stands(here) == once(comments)


def test_notes_that_show_late_are_waited_for(here: World) -> None:
    """As where GitLab reads from a copy of its database, or publishes in the background."""
    comments = three(here)
    merge = here.merge
    hidden: list[Draft] = []

    def hide() -> None:
        with here.gitlab.lock:
            hidden.extend(here.theirs.drafts)
            here.theirs.drafts.clear()

    def show() -> None:
        with here.gitlab.lock:
            rules.publish(here.theirs, here.bot, hidden)
            hidden.clear()

    here.gitlab.meanwhile("POST", "bulk_publish$", hide)
    here.gitlab.meanwhile("GET", "/discussions$", lambda: None)
    here.gitlab.meanwhile("GET", "/discussions$", show)
    published = here.forge.publish(merge, comments, again=False)
    assert fingerprints(published.posted) == [each.fingerprint for each in comments]
    assert stands(here) == once(comments)
    assert here.gitlab.count("POST", "/discussions$") == 0


def test_a_draft_that_is_gone_when_it_is_deleted_is_gone(here: World) -> None:
    comments = three(here)
    merge = here.merge
    with here.gitlab.lock:
        rules.draft(here.theirs, here.bot, "old")
    here.gitlab.meanwhile("DELETE", "/draft_notes/", here.theirs.drafts.clear)
    assert len(here.forge.publish(merge, comments, again=True).posted) == 3


@pytest.mark.parametrize("seed", range(6))
def test_under_chaos_every_finding_stands_once(seed: int) -> None:
    with world(seconds=0.5) as here:
        comments = three(here)
        merge = here.merge
        here.forge.me()
        here.gitlab.faults.chaos(0.3, seed=seed, seconds=0.7)
        again = False
        for _ in range(60):
            try:
                published = here.forge.publish(merge, comments, again=again)
                break
            except (ForgeBusy, ForgeUnreachable):
                again = True
        here.gitlab.faults.clear()
        assert stands(here) == once(comments)
        assert fingerprints(published.posted) == [each.fingerprint for each in comments]


def test_who_is_told_when_to_come_again_comes_again_then(here: World) -> None:
    comments = three(here)
    merge = here.merge
    here.forge.me()
    here.gitlab.faults.add("busy", method="POST", pattern="draft_notes$", seconds=60)
    with pytest.raises(ForgeBusy) as caught:
        here.forge.publish(merge, comments, again=False)
    assert caught.value.retry_after == 60
    assert here.requests("POST") == ["POST /draft_notes"]


def test_without_rights_a_review_is_denied(here: World) -> None:
    comments, merge = three(here), here.merge
    here.gitlab.tokens[here.gitlab.bot_token].scopes = ("read_api",)
    with pytest.raises(ForgeDenied):
        here.forge.publish(merge, comments, again=False)
    here.gitlab.tokens[here.gitlab.bot_token].scopes = ("api",)
    del here.project.members[here.bot.id]
    with pytest.raises(ForgeError):
        here.forge.publish(merge, comments, again=False)
    here.project.members[here.bot.id] = REPORTER
    assert here.forge.publish(merge, comments, again=False).not_posted == ()


def test_before_the_diff_is_prepared_there_is_nothing_to_post_to(here: World) -> None:
    comments = three(here)
    here.theirs.unprepared = 1
    with pytest.raises(ForgeBusy, match="GitLab has not prepared the diff of"):
        here.forge.publish(here.merge, comments, again=False)
