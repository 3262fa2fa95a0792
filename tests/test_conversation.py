"""What people say and do, where `tests.e2e` does not show it: who may, what runs twice, what is none of the bot's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bot import command
from bot.desk import Due
from bot.domain import MergeRef, Severity, VoteOrigin
from bot.event import EmojiGiven, MergeRequestChanged, NoteWritten, TokenExpiring, Trigger
from bot.feedback import pseudonym
from bot.forge import Award, Person
from bot.gitlab import door
from bot.step import Done, End, Wait
from bot.store import ReviewState
from tests.fakes.bot_world import PAY, SALT, BotWorld, bot_world
from tests.fakes.gitlab import DEVELOPER, GUEST, MAINTAINER, REPORTER, Note, User

pytestmark = pytest.mark.world

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
DEBOUNCE = timedelta(seconds=20)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BotWorld]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with bot_world(tmp_path) as made:
        yield made


@pytest.fixture
def reviewed(here: BotWorld) -> BotWorld:
    assert here.review() is None
    return here


def person(user: User) -> Person:
    return Person(user.id, user.username)


def written(here: BotWorld, note: Note) -> NoteWritten:
    """What the webhook says of a note."""
    return NoteWritten(
        key=f"note:{note.id}",
        delivery="",
        ref=here.ref,
        note=note.id,
        discussion=here.merge.discussion_of(note).id,
        author=person(note.author),
        body=note.body,
        internal=note.internal,
        at=note.created_at,
    )


def say(here: BotWorld, words: str, user: User | None = None, *, to: Note | None = None) -> list[str]:
    """Write a note, let the bot attend to it, and give what it answered in that thread."""
    who = user or here.alice
    note = here.merge.comment(who, words) if to is None else here.merge.reply(to, who, words)
    assert note
    assert here.talk.attend(written(here, note)) == Done()
    thread = here.merge.discussion_of(note).notes
    return [each.body for each in thread[thread.index(note) + 1 :] if each.author is here.gitlab.bot]


def changed(here: BotWorld, trigger: Trigger, *, asked: tuple[int, ...] = ()) -> MergeRequestChanged:
    return MergeRequestChanged(
        key="key",
        delivery="",
        ref=here.ref,
        trigger=trigger,
        head=here.merge.head,
        old_head=None,
        draft=False,
        author=here.alice.id,
        actor=here.alice.id,
        asked=asked,
        at=NOON,
    )


def emoji(here: BotWorld, user: User, name: str, *, note: Note | None = None, given: bool = True) -> EmojiGiven:
    on = note or here.notes[0]
    award = Award(77, name, person(user), NOON)
    return EmojiGiven(
        key="key", delivery="", ref=here.ref, note=on.id, discussion=None, body=on.body, award=award, given=given
    )


def votes(here: BotWorld) -> list[tuple[str, bool]]:
    return [(vote.origin.value, vote.up) for vote in here.store.votes()]


def is_due(here: BotWorld) -> bool:
    row = here.store.desk(here.ref)
    return row is not None and row.due_at is not None


# --- which events make a review due by themselves


@pytest.mark.parametrize(
    ("trigger", "wait", "full"),
    [
        (Trigger.OPENED, timedelta(0), False),
        (Trigger.REOPENED, timedelta(0), False),
        (Trigger.READY, timedelta(0), False),
        (Trigger.PUSHED, DEBOUNCE, False),
        (Trigger.RETARGETED, timedelta(0), True),
    ],
)
def test_what_makes_a_review_due(here: BotWorld, trigger: Trigger, wait: timedelta, *, full: bool) -> None:
    due = here.talk.due(changed(here, trigger), DEBOUNCE)
    assert due
    assert due == Due(here.ref, due.now, trigger.value, wait=wait, full=full)


@pytest.mark.parametrize("trigger", [Trigger.CLOSED, Trigger.MERGED, Trigger.REVIEWER])
def test_what_must_be_attended_to(here: BotWorld, trigger: Trigger) -> None:
    assert here.talk.due(changed(here, trigger), DEBOUNCE) is None


@pytest.mark.parametrize("asked", [True, False])
def test_only_who_asks_the_bot_gets_its_review(here: BotWorld, *, asked: bool) -> None:
    told = changed(here, Trigger.REVIEWER, asked=(here.gitlab.bot.id if asked else here.alice.id,))
    assert here.talk.attend(told) == Done()
    row = here.store.desk(here.ref)
    assert (row is not None and row.asked) is asked


# --- commands


@pytest.mark.parametrize(
    ("level", "may"), [(None, False), (GUEST, False), (REPORTER, False), (DEVELOPER, True), (MAINTAINER, True)]
)
def test_commands_are_for_developers(here: BotWorld, level: int | None, *, may: bool) -> None:
    user = here.gitlab.user("bob") if level is None else here.project.add_member("bob", level)
    (answer,) = say(here, "/apprentice pause", user)
    assert (command.NOT_ALLOWED in answer) is not may
    row = here.store.desk(here.ref)
    assert (row is not None and row.paused) is may


@pytest.mark.parametrize("words", ["/apprentice review", "/apprentice forget", "/apprentice frobnicate"])
def test_nobody_else_moves_anything(reviewed: BotWorld, words: str) -> None:
    guest = reviewed.project.add_member("guest", GUEST)
    (answer,) = say(reviewed, words, guest, to=reviewed.notes[0])
    assert answer.startswith(command.NOT_ALLOWED)
    assert len(reviewed.notes) == 1
    assert not is_due(reviewed)


def test_an_unknown_command_gets_help(here: BotWorld) -> None:
    (answer,) = say(here, "/apprentice deploy production")
    assert answer.startswith("I do not know `deploy production`.")
    assert "`/apprentice review full`" in answer


@pytest.mark.parametrize(("words", "full"), [("/apprentice review", False), ("@apprentice review full", True)])
def test_a_review_on_demand(reviewed: BotWorld, words: str, *, full: bool) -> None:
    assert say(reviewed, words) == []
    note = reviewed.merge.all_notes()[-1]
    assert [(award.name, award.user) for award in note.awards] == [("eyes", reviewed.gitlab.bot)]
    row = reviewed.store.desk(reviewed.ref)
    assert row
    assert (row.asked, row.full, row.due_at is not None) == (True, full, True)


def test_no_review_of_what_is_not_open(here: BotWorld) -> None:
    here.merge.close()
    (answer,) = say(here, "/apprentice review")
    assert answer.startswith(command.NOT_OPEN)
    assert not is_due(here)


def test_paused_until_resumed_or_asked(here: BotWorld) -> None:
    here.store.ask(Due(here.ref, NOON, "opened"))
    (answer,) = say(here, "/apprentice pause")
    assert answer.startswith(command.PAUSED)
    assert not is_due(here)  # the one that waited, too
    here.store.ask(Due(here.ref, NOON, "pushed"))
    assert not is_due(here)
    say(here, "/apprentice review")
    assert here.review(asked=True) is None
    here.push()
    (answer,) = say(here, "/apprentice resume")
    assert answer.startswith(command.RESUMED)
    assert is_due(here)


def test_a_threshold_for_this_merge_request(here: BotWorld) -> None:
    (answer,) = say(here, "/apprentice threshold critical")
    assert "at least **critical**" in answer
    row = here.store.desk(here.ref)
    assert row
    assert row.threshold is Severity.CRITICAL
    assert here.review() is None
    assert here.notes == []


def test_why_tells_what_led_to_a_finding(reviewed: BotWorld) -> None:
    (answer,) = say(reviewed, "/apprentice why?", to=reviewed.notes[0])
    for words in ("**major**", "model `base`, no adapter", reviewed.merge.head[:8], "`pay.py:2`", "# BUG"):
        assert words in answer


@pytest.mark.parametrize("words", ["/apprentice why", "/apprentice forget"])
def test_why_and_forget_need_the_thread_of_a_finding(reviewed: BotWorld, words: str) -> None:
    (answer,) = say(reviewed, words)
    assert answer.startswith(command.NOT_IN_THREAD)
    other = reviewed.merge.comment(reviewed.alice, "What a change!")
    assert other
    (answer,) = say(reviewed, words, to=other)
    assert answer.startswith(command.NOT_IN_THREAD)
    assert len(reviewed.notes) == 1


def test_why_after_the_review_was_forgotten(reviewed: BotWorld) -> None:
    reviewed.store.forget_project(reviewed.project.id)
    (answer,) = say(reviewed, "/apprentice why", to=reviewed.notes[0])
    assert answer.startswith(command.NOT_IN_THREAD)


def test_why_under_a_broken_policy(reviewed: BotWorld) -> None:
    reviewed.policy("verify: perhaps\n")
    (answer,) = say(reviewed, "/apprentice why", to=reviewed.notes[0])
    assert "no second look" in answer


def test_forget_withdraws_the_finding_for_good(reviewed: BotWorld) -> None:
    (answer,) = say(reviewed, "/apprentice forget", to=reviewed.notes[0])
    assert answer.startswith(command.FORGOTTEN)
    assert reviewed.notes == []
    assert reviewed.review(full=True, asked=True) is None
    assert reviewed.notes == []
    assert votes(reviewed) == [("reply", False)]


def test_a_command_is_answered_once_however_often_it_is_attended_to(here: BotWorld) -> None:
    note = here.merge.comment(here.alice, "/apprentice help")
    assert note
    for _ in range(3):
        assert here.talk.attend(written(here, note)) == Done()
    assert len(here.merge.discussion_of(note).notes) == 2


def test_an_answer_of_somebody_else_is_none_of_the_bots(here: BotWorld) -> None:
    """Whoever copies the bot's hidden marker keeps nobody from being answered."""
    note = here.merge.comment(here.alice, "/apprentice help")
    assert note
    here.merge.reply(note, here.alice, f"<!-- apprentice:answer:v1:{note.id} -->")
    here.talk.attend(written(here, note))
    assert here.merge.discussion_of(note).notes[-1].author is here.gitlab.bot


def test_a_command_whose_note_is_gone_is_passed_over(here: BotWorld) -> None:
    note = here.merge.comment(here.alice, "/apprentice pause")
    assert note
    told = written(here, note)
    here.merge.discussions.clear()
    assert here.talk.attend(told) == Done()
    assert here.store.desk(here.ref) is None


def test_the_bot_does_not_talk_to_itself(here: BotWorld) -> None:
    assert say(here, "/apprentice help", here.gitlab.bot) == []


@pytest.mark.parametrize(
    "words", ["Looks good to me.", "What does /apprentice do?", "> /apprentice pause", "```\n/apprentice pause\n```"]
)
def test_what_is_no_command_is_not_answered(here: BotWorld, words: str) -> None:
    assert say(here, words) == []
    assert here.wrote == []


def test_gitlab_that_is_down_is_waited_for(here: BotWorld) -> None:
    note = here.merge.comment(here.alice, "/apprentice pause")
    assert note
    here.gitlab.faults.add("503")
    assert isinstance(here.talk.attend(written(here, note)), Wait)


def test_a_merge_request_that_is_gone_ends_it(reviewed: BotWorld) -> None:
    told = emoji(reviewed, reviewed.alice, "thumbsup")
    del reviewed.project.merges[reviewed.merge.iid]
    end = reviewed.talk.attend(told)
    assert isinstance(end, End)
    assert end.state is ReviewState.FAILED


# --- votes


def test_a_reply_in_the_thread_of_a_finding_is_a_vote(reviewed: BotWorld) -> None:
    assert say(reviewed, "Good catch, thanks!", to=reviewed.notes[0]) == []
    assert votes(reviewed) == [("reply", True)]
    (vote,) = reviewed.store.votes()
    assert vote.voter == pseudonym(reviewed.alice.id, SALT)
    assert b'apprentice_votes_total{origin="reply",vote="up"} 1.0' in reviewed.metrics.render()[0]


@pytest.mark.parametrize("where", ["beside", "under another's note"])
def test_the_same_words_elsewhere_are_none(reviewed: BotWorld, where: str) -> None:
    other = reviewed.merge.comment(reviewed.alice, "I would do it so.")
    say(reviewed, "Good catch, thanks!", to=None if where == "beside" else other)
    assert votes(reviewed) == []


def test_a_note_whose_thread_is_not_told_is_no_vote(reviewed: BotWorld) -> None:
    note = reviewed.merge.reply(reviewed.notes[0], reviewed.alice, "Good catch!")
    assert note
    assert reviewed.talk.attend(replace(written(reviewed, note), discussion=None)) == Done()
    assert votes(reviewed) == []


def test_an_emoji_is_a_vote_until_it_is_taken_back(reviewed: BotWorld) -> None:
    for _ in range(2):
        assert reviewed.talk.attend(emoji(reviewed, reviewed.alice, "x")) == Done()
    assert votes(reviewed) == [("emoji", False)]
    for _ in range(2):
        assert reviewed.talk.attend(emoji(reviewed, reviewed.alice, "x", given=False)) == Done()
    assert votes(reviewed) == []


@pytest.mark.parametrize("case", ["the bot's own", "one that says nothing", "on another's note", "on the summary"])
def test_emoji_that_are_no_votes(reviewed: BotWorld, case: str) -> None:
    theirs = reviewed.merge.comment(reviewed.alice, reviewed.notes[0].body)  # with the bot's marker, too
    summary = next(note for note in reviewed.merge.all_notes() if note.body == reviewed.summaries[0])
    told = {
        "the bot's own": emoji(reviewed, reviewed.gitlab.bot, "thumbsup"),
        "one that says nothing": emoji(reviewed, reviewed.alice, "tada"),
        "on another's note": emoji(reviewed, reviewed.alice, "thumbsup", note=theirs),
        "on the summary": emoji(reviewed, reviewed.alice, "thumbsup", note=summary),
    }[case]
    assert reviewed.talk.attend(told) == Done()
    assert votes(reviewed) == []


def test_votes_under_a_broken_policy_count(reviewed: BotWorld) -> None:
    reviewed.policy("author_weight: heavy\n")
    reviewed.talk.attend(emoji(reviewed, reviewed.project.add_member("bob"), "thumbsup"))
    assert votes(reviewed) == [("emoji", True)]


# --- the sweep


def test_a_sweep_of_what_was_never_reviewed_asks_nothing(here: BotWorld) -> None:
    assert here.talk.sweep(here.ref) == Done()
    assert here.talk.sweep(MergeRef(999, 1)) == Done()
    assert here.gitlab.requests == []


def test_a_sweep_finds_what_no_webhook_told(reviewed: BotWorld) -> None:
    bob, carol = reviewed.project.add_member("bob"), reviewed.project.add_member("carol")
    note = reviewed.notes[0]
    reviewed.merge.award(note, bob, "thumbsdown")
    reviewed.merge.reply(note, carol, "Good catch!")
    for _ in range(2):
        assert reviewed.talk.sweep(reviewed.ref) == Done()
    assert sorted(votes(reviewed)) == [("emoji", False), ("reply", True)]
    reviewed.merge.revoke(note, bob, "thumbsdown")
    reviewed.talk.sweep(reviewed.ref)
    assert votes(reviewed) == [("reply", True)]


def test_an_outcome_that_is_taken_back_is_no_vote(reviewed: BotWorld) -> None:
    note = reviewed.notes[0]
    reviewed.merge.resolve(note, reviewed.alice)
    reviewed.talk.sweep(reviewed.ref)
    assert votes(reviewed) == [("resolved", False)]
    reviewed.merge.resolve(note, reviewed.alice, resolved=False)
    reviewed.merge.award(note, reviewed.alice, "thumbsup")
    reviewed.talk.sweep(reviewed.ref)
    assert votes(reviewed) == [("emoji", True)]


def test_a_sweep_reads_the_policy_once(reviewed: BotWorld) -> None:
    reviewed.push("def tax():\n    query(f'{rate}')  # BUG\n", "tax.py")
    assert reviewed.review() is None
    assert len(reviewed.notes) == 2
    before = len(reviewed.gitlab.requests)
    reviewed.talk.sweep(reviewed.ref)
    asked = [request.path for request in reviewed.gitlab.requests[before:]]
    assert sum(".apprentice.yml" in path for path in asked) == 1


def test_a_sweep_passes_over_a_note_that_is_gone(reviewed: BotWorld) -> None:
    reviewed.merge.award(reviewed.notes[0], reviewed.alice, "thumbsdown")
    reviewed.merge.discussions.clear()
    assert reviewed.talk.sweep(reviewed.ref) == Done()
    assert votes(reviewed) == []


def test_a_sweep_of_a_busy_gitlab_waits(reviewed: BotWorld) -> None:
    reviewed.gitlab.faults.add("busy", seconds=60)
    waits = reviewed.talk.sweep(reviewed.ref)
    assert isinstance(waits, Wait)
    assert waits.seconds == 60


def fix_and_merge(here: BotWorld) -> None:
    here.push(PAY.replace("  # BUG", ""))
    here.merge.merge(here.alice)


@pytest.mark.parametrize(
    ("end", "trigger", "counted"),
    [
        (fix_and_merge, Trigger.MERGED, [(VoteOrigin.CHANGED, True)]),
        (lambda here: here.merge.merge(here.alice), Trigger.MERGED, []),
        (lambda here: here.merge.close(here.alice), Trigger.CLOSED, []),
        (lambda here: here.merge.resolve(here.notes[0], here.alice), Trigger.CLOSED, [(VoteOrigin.RESOLVED, False)]),
    ],
)
def test_the_end_of_a_merge_request_is_looked_at(
    reviewed: BotWorld, end: Callable[[BotWorld], object], trigger: Trigger, counted: list[tuple[VoteOrigin, bool]]
) -> None:
    end(reviewed)
    for _ in range(2):
        assert reviewed.talk.attend(changed(reviewed, trigger)) == Done()
    assert [(vote.origin, vote.up) for vote in reviewed.store.votes()] == counted


# --- the token


def test_a_token_that_expires_is_logged_and_nothing_else(here: BotWorld) -> None:
    told = TokenExpiring(
        key="key",
        delivery="",
        project=here.project.id,
        group=None,
        token=1,
        name="reviews",
        user=here.gitlab.bot.id,
        expires_on=date(2026, 12, 1),
    )
    with capture_logs() as logged:
        assert here.talk.attend(told) == Done()
    assert [(entry["event"], entry["expires_on"]) for entry in logged] == [("token expires", "2026-12-01")]
    assert here.gitlab.requests == []
