"""The steps of a review, where `tests.e2e` does not show them: what is odd, what fails, what runs twice."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot.desk import Claim
from bot.domain import HiddenReason, MergeRef, Severity, Vote, VoteOrigin
from bot.feedback import SEEDS
from bot.gitlab import door
from bot.merge_review import Ready
from bot.step import Done, End, Wait, now
from bot.store import AdapterState, ReviewState
from bot.thread import OUTDATED
from tests.e2e.place import careful
from tests.fakes.bot_world import PAY, BotWorld, bot_world
from tests.fakes.gitlab import notes as rules
from tests.fakes.student import FINE, Request, Said

pytestmark = pytest.mark.world

SKIPPED, FAILED, SUPERSEDED = ReviewState.SKIPPED, ReviewState.FAILED, ReviewState.SUPERSEDED


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BotWorld]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with bot_world(tmp_path) as made:
        yield made


def test_a_whole_review_is_recorded(here: BotWorld) -> None:
    assert here.review() is None
    last = here.store.last_posted(here.ref)
    assert last
    assert last.refs
    assert (last.state, last.refs.head, last.full) == (ReviewState.POSTED, here.merge.head, True)
    (stored,) = here.store.posted_in(here.ref)
    assert stored.note == here.notes[0].id
    row = here.store.desk(here.ref)
    assert row
    assert row.claim is None
    assert row.summary_note is not None
    assert here.store.review(last.id) == last
    here.store.add_vote(
        Vote(here.ref, stored.fingerprint, "ann", up=True, origin=VoteOrigin.EMOJI, reason=None, weight=0.9, at=now())
    )
    (voted,) = here.store.voted()
    assert voted.question
    assert voted.question.brief.title == "Pay by query"
    assert stored.finding.quote.strip() in voted.question.part.places[stored.finding.line]


# --- policy


def test_a_broken_policy_is_told_once_and_nobody_is_asked(here: BotWorld) -> None:
    here.policy("severity: blocker\n")
    for _ in range(2):
        assert here.review() == End(FAILED, "the policy file has mistakes")
    assert len(here.summaries) == 1
    assert "my policy file on `main` has mistakes" in here.summaries[0]
    assert here.student.prompts == []
    here.policy("severity: trivial\n")
    assert here.review() is None
    assert len(here.summaries) == 1
    assert "1 major" in here.summaries[0]


@pytest.mark.parametrize("case", ["draft", "closed", "bot", "same head"])
def test_what_is_not_reviewed_hears_nothing_of_a_broken_policy(here: BotWorld, case: str) -> None:
    words = {"draft": "it is a draft", "closed": "it is not open", "bot": "a bot opened it"}
    words |= {"same head": "its newest commit is reviewed already"}
    match case:
        case "draft":
            here.merge.title = "Draft: Pay by query"
        case "closed":
            here.merge.close()
        case "bot":
            here.alice.username = "project_7_bot_4ffca233d8298ea1"
        case _:
            here.review()
    before = here.wrote
    here.policy("severity: blocker\n")
    assert here.review() == End(SKIPPED, words[case])
    assert here.wrote == before


def test_a_policy_that_breaks_during_the_review_costs_only_the_gate(here: BotWorld) -> None:
    here.policy("fail_on: major\n")
    claim = here.claim()
    ready = here.ready(claim)
    assert here.steps.post(claim, ready) == Done()
    here.policy("fail_on: blocker\n")
    assert here.steps.gate(claim, ready) == Done()
    assert here.statuses == ["pending"]


def test_the_threshold_of_the_merge_request_counts(here: BotWorld) -> None:
    here.store.set_threshold(here.ref, Severity.CRITICAL)
    assert here.review() is None
    assert here.notes == []
    assert "below the severity threshold" in here.summaries[0]


# --- look


def test_what_is_not_open_is_skipped(here: BotWorld) -> None:
    here.merge.close()
    assert here.review(asked=True) == End(SKIPPED, "it is not open")
    assert here.wrote == []


def test_a_diff_that_is_not_prepared_is_waited_for(here: BotWorld) -> None:
    here.merge.unprepared = 1
    claim = here.claim()
    waits = here.steps.ask(claim, 0)
    assert waits == Wait("GitLab has not prepared the diff yet")
    assert isinstance(here.steps.ask(claim, 0), Ready)


def test_a_head_that_is_reviewed_already_is_skipped_unless_somebody_asks(here: BotWorld) -> None:
    assert here.review() is None
    assert here.review() == End(SKIPPED, "its newest commit is reviewed already")
    assert here.review(asked=True) is None
    assert len(here.notes) == 1
    assert "1 said before" in here.summaries[0]


def test_a_merge_request_without_a_change_asks_nobody(here: BotWorld) -> None:
    here.project.push("same", {"README.md": "A shop.\n"})
    here.merge = here.project.open_merge_request("same")
    assert here.review() is None
    assert here.student.prompts == []
    assert len(here.summaries) == 1


def test_a_change_that_the_policy_ignores_is_told_as_not_read(here: BotWorld) -> None:
    here.policy("ignore: ['*.py']\n")
    assert here.review() is None
    assert here.student.prompts == []
    assert "ignored by the policy" in here.summaries[0]


def test_after_a_force_push_all_is_read_again_and_nothing_said_twice(here: BotWorld) -> None:
    here.review()
    asked = len(here.student.prompts)
    here.project.push("pay", {"pay.py": PAY + "# more\n"}, force=True)
    assert here.review() is None
    assert len(here.student.prompts) > asked
    assert len(here.notes) == 1
    assert "the whole change" in here.summaries[0]


def test_only_what_is_new_is_read_and_the_summary_says_since_when(here: BotWorld) -> None:
    here.review()
    before = here.merge.head
    here.push("A = 1  # BUG\n", "new.py")
    assert here.review() is None
    assert len(here.notes) == 2
    assert before[:8] in here.summaries[0]
    assert "1 earlier comment of mine is still open" in here.summaries[0]


# --- the student


def test_a_student_that_is_down_is_waited_for_as_long_as_it_takes(tmp_path: Path) -> None:
    with bot_world(tmp_path, lambda _: Said(drop=True)) as here:
        claim = here.claim()
        for tries in (0, 1, 99):
            waits = here.steps.ask(claim, tries)
            assert isinstance(waits, Wait)
            assert not waits.spent
        assert here.wrote == []


def test_a_student_that_fails_is_tried_so_often_and_then_what_there_is_is_posted(tmp_path: Path) -> None:
    with bot_world(tmp_path, lambda _: Said("oh no", status=500)) as here:
        claim = here.claim()
        for tries in range(3):
            waits = here.steps.ask(claim, tries)
            assert isinstance(waits, Wait)
            assert waits.spent
        ready = here.ready(claim, 3)
        assert here.steps.post(claim, ready) == Done()
        assert here.steps.summarise(claim, ready) == Done()
        assert "pay.py" in here.summaries[0]
        assert here.notes == []


def test_a_question_too_long_for_the_student_is_not_tried_again(tmp_path: Path) -> None:
    said = Said("This model's maximum context length is 9 tokens", status=400)
    with bot_world(tmp_path, lambda _: said) as here:
        assert here.review() is None
        assert "too long for the student" in here.summaries[0]


def test_no_student_at_all_is_waited_for(here: BotWorld) -> None:
    here.steps.chosen = here.steps.chosen.model_copy(update={"student_url": None})
    waits = here.steps.ask(here.claim(), 0)
    assert isinstance(waits, Wait)
    assert "apprentice student start" in waits.why
    assert not waits.spent


# --- what moves on during the review


def test_a_push_between_two_tries_supersedes_the_review(here: BotWorld) -> None:
    claim = here.claim()
    here.ready(claim)
    here.push()
    assert here.steps.ask(claim, 1) == End(SUPERSEDED, "its head moved during the review")
    row = here.store.desk(here.ref)
    assert row
    assert row.due_at is not None  # the new head gets its review, webhook or not


def test_a_push_before_the_posting_supersedes_the_review(here: BotWorld) -> None:
    claim = here.claim()
    ready = here.ready(claim)
    here.push()
    assert here.steps.post(claim, ready) == End(SUPERSEDED, "its head moved during the review")
    assert here.wrote == []
    here.steps.close(claim, SUPERSEDED, "")
    row = here.store.desk(here.ref)
    assert row
    assert row.due_at is not None
    assert here.review() is None
    assert len(here.notes) == 1


@pytest.mark.parametrize("end", ["closed", "merged"])
def test_nothing_is_posted_on_what_was_closed_meanwhile(here: BotWorld, end: str) -> None:
    claim = here.claim()
    ready = here.ready(claim)
    here.merge.close() if end == "closed" else here.merge.merge()
    assert here.steps.post(claim, ready) == End(SKIPPED, f"it was {end} during the review")
    assert here.notes == []


def test_a_project_that_is_forgotten_during_the_review(here: BotWorld) -> None:
    here.policy("fail_on: major\n")
    claim = here.claim()
    ready = here.ready(claim)
    here.gitlab.requests.clear()
    here.store.forget_project(here.project.id)
    for step in (here.steps.post, here.steps.summarise, here.steps.gate):
        assert step(claim, ready) == End(SKIPPED, "its project was forgotten during the review")
    here.steps.close(claim, SKIPPED, "")
    assert here.wrote == []


# --- a step may run twice


Steps = Callable[[Claim, Ready], Done | Wait | End]


def test_each_step_twice_leaves_what_it_left_once(here: BotWorld) -> None:
    here.policy("fail_on: major\n")
    claim = here.claim()
    here.ready(claim)
    ready = here.ready(claim)
    steps: tuple[Steps, ...] = (
        here.steps.post,
        here.steps.resolve_outdated,
        here.steps.summarise,
        here.steps.seed,
        here.steps.gate,
    )
    for step in steps:
        assert [step(claim, ready), step(claim, ready)] == [Done(), Done()]
    for _ in range(2):
        here.steps.close(claim, ReviewState.POSTED, "")
    assert len(here.notes) == len(here.summaries) == 1
    assert [award.name for award in here.notes[0].awards] == list(SEEDS)
    assert here.statuses == ["failed"]
    assert len(here.gitlab.notifications) == 2  # the findings, and the summary


# --- where GitLab refuses


def test_a_refused_position_goes_into_the_summary_and_counts_for_the_gate(
    here: BotWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.policy("fail_on: major\n")
    here.gitlab.settings.file_positions = False
    monkeypatch.setattr(rules, "code_of", lambda *_: None)
    assert here.review() is None
    assert here.notes == []
    assert "**1 finding** could not be put at a line" in here.summaries[0]
    assert here.statuses[-1] == "failed"
    claim = here.claim(asked=True)
    ready = here.ready(claim)
    (stored,) = here.store.findings_of(claim.workflow)
    assert (len(ready.placed), stored.hidden) == (1, None)  # it is not said yet, so it is tried again


def test_a_busy_gitlab_is_waited_for_as_long_as_it_says(here: BotWorld) -> None:
    here.gitlab.faults.add("busy", method="GET", pattern="/merge_requests/1$", seconds=60)
    waits = here.steps.ask(here.claim(), 0)
    assert isinstance(waits, Wait)
    assert waits.seconds == 60


def test_a_token_that_was_revoked_ends_the_review(here: BotWorld) -> None:
    here.gitlab.tokens[here.gitlab.bot_token].revoked = True
    end = here.steps.ask(here.claim(), 0)
    assert isinstance(end, End)
    assert end.state is FAILED
    assert "APPRENTICE_GITLAB_TOKEN" in end.why


# --- the gate


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (careful, "failed", "1 finding: 1 major"),
        (lambda _: Said(FINE), "success", "No findings"),
        (lambda _: Said("no JSON"), "success", "a part could not be read"),
    ],
)
def test_the_states_of_the_gate(tmp_path: Path, answer: Callable[[Request], Said], state: str, words: str) -> None:
    with bot_world(tmp_path, answer) as here:
        here.policy("fail_on: major\n")
        claim = here.claim()
        ready = here.ready(claim)
        assert here.statuses == ["pending"]
        assert [here.steps.post(claim, ready), here.steps.gate(claim, ready)] == [Done(), Done()]
        (status,) = here.project.statuses
        assert status.state == state
        assert words in f"{status.description}"
        assert status.sha == here.merge.head


def test_what_is_open_of_earlier_reviews_fails_the_gate_until_it_is_resolved(here: BotWorld) -> None:
    here.policy("fail_on: major\n")
    here.review()
    here.push("A = 1\n", "new.py")
    here.review()
    assert here.statuses == ["failed", "failed"]  # of two heads
    here.merge.resolve(here.notes[0], here.alice)
    here.push("A = 2\n", "new.py")
    here.review()
    assert here.statuses[-1] == "success"


@pytest.mark.parametrize("case", ["new commits", "merged", "the policy is broken", "the review is forgotten"])
def test_a_review_that_comes_to_nothing_leaves_no_pending_gate(here: BotWorld, case: str) -> None:
    here.policy("fail_on: major\n")
    claim = here.claim()
    ready = here.ready(claim)
    head = here.merge.head
    match case:
        case "new commits":
            here.push("A = 1\n")
        case "merged":
            here.merge.merge()
        case "the policy is broken":
            here.policy("fail_on: blocker\n")
        case _:
            here.store.forget_project(here.project.id)
    here.steps.post(claim, ready)
    assert here.steps.ungate(claim) == Done()
    said = [(status.sha, status.state) for status in here.project.statuses]
    assert said == [(head, "canceled" if case in {"new commits", "merged"} else "pending")]


def test_what_had_not_begun_has_no_gate_to_take_back(here: BotWorld) -> None:
    here.policy("fail_on: major\n")
    assert here.steps.ungate(here.claim()) == Done()
    assert here.statuses == []


def test_no_gate_where_the_policy_wants_none(here: BotWorld) -> None:
    here.review()
    assert here.statuses == []


# --- what is told of a review that waits


def test_who_waits_is_told_for_what_until_the_review_is_there(here: BotWorld) -> None:
    claim = here.claim()
    here.ready(claim)
    wait = Wait("connection refused: http://10.0.0.7", said="the student could not be reached")
    for _ in range(2):
        assert here.steps.tell_waiting(claim, wait) == Done()
    (told,) = here.summaries
    assert f"The review of `{here.merge.head[:8]}` waits: the student could not be reached." in told
    assert "10.0.0.7" not in told
    here.steps.close(claim, ReviewState.SUPERSEDED, "")
    assert here.review() is None
    (told,) = here.summaries
    assert "1 major" in told


# --- threads


def test_what_stands_there_is_not_said_again_by_a_bot_that_remembers_nothing(here: BotWorld) -> None:
    here.review()
    here.store.forget_project(here.project.id)
    before = here.wrote
    claim = here.claim()
    assert here.steps.post(claim, here.ready(claim)) == Done()
    (found,) = here.store.findings_of(claim.workflow)
    assert found.hidden is HiddenReason.ALREADY_SAID
    assert here.wrote == before


def test_a_thread_that_somebody_answers_just_before_it_is_resolved_stays_open(here: BotWorld) -> None:
    here.review()
    here.push("A = 1\n")
    claim = here.claim()
    ready = here.ready(claim)
    thread = here.merge.discussion_of(here.notes[0])
    assert ready.outdated == (thread.id,)
    here.merge.reply(here.notes[0], here.alice, "Is it?")
    assert here.steps.resolve_outdated(claim, ready) == Done()
    assert not thread.resolved
    assert not any(note.body == OUTDATED for note in thread.notes)


def test_a_thread_is_told_once_that_its_code_is_gone(here: BotWorld) -> None:
    here.review()
    here.push("A = 1\n")
    claim = here.claim()
    ready = here.ready(claim)
    thread = here.merge.discussion_of(here.notes[0])
    here.gitlab.faults.add("500", method="PUT", pattern="/discussions/")
    assert isinstance(here.steps.resolve_outdated(claim, ready), Wait)
    here.gitlab.faults.clear()
    assert here.steps.resolve_outdated(claim, ready) == Done()
    assert [note.body for note in thread.notes[1:]] == [OUTDATED]
    assert thread.resolved


def test_code_that_comes_back_is_said_again(here: BotWorld) -> None:
    here.review()
    here.push("A = 1\n")
    here.review()
    here.push(PAY)
    assert here.review() is None
    assert [here.merge.discussion_of(note).resolved for note in here.notes] == [True, False]


def test_a_note_that_was_deleted_is_not_written_again(here: BotWorld) -> None:
    here.review()
    (stored,) = here.store.posted_in(here.ref)
    assert stored.discussion
    assert stored.note
    here.forge.delete_note(here.ref, stored.discussion, stored.note)
    claim = here.claim(full=True, asked=True)
    here.ready(claim)
    (found,) = here.store.findings_of(claim.workflow)
    assert found.hidden is HiddenReason.DISMISSED


def test_a_summary_that_was_deleted_is_written_anew(here: BotWorld) -> None:
    here.review()
    row = here.store.desk(here.ref)
    assert row
    assert row.summary_note
    here.forge.delete_note(here.ref, here.merge.discussions[-1].id, row.summary_note)
    here.review(asked=True)
    assert len(here.summaries) == 1


def test_the_merge_request_of_another_project_is_another_one(here: BotWorld) -> None:
    here.store.set_threshold(MergeRef(here.project.id + 1, here.merge.iid), Severity.CRITICAL)
    assert here.review() is None
    assert len(here.notes) == 1


# --- the shadow


def put_in_the_shadow(here: BotWorld) -> None:
    here.store.register_adapter("student-r0001", base="base", parent=None, card={}, state=AdapterState.SHADOW, at=now())


def test_the_shadow_reviews_unseen(here: BotWorld) -> None:
    put_in_the_shadow(here)
    assert here.review() is None
    asked = len(here.student.requests)
    notes = len(here.notes)
    last = here.store.last_posted(here.ref)
    assert last
    (beside,) = here.store.besides("student-r0001")
    assert beside.review == last.id
    assert len(beside.serving) == len(beside.shadow) == 1
    models = [request["model"] for request in here.student.requests]
    assert models == ["base"] * (asked // 2) + ["student-r0001"] * (asked // 2)
    assert len(here.notes) == notes


def test_a_shadow_that_fails_costs_nobody_anything(tmp_path: Path) -> None:
    def answer(request: Request) -> Said:
        return careful(request) if request["model"] == "base" else Said("gone", status=404)

    with bot_world(tmp_path, answer) as here:
        put_in_the_shadow(here)
        assert here.review() is None
        assert here.store.besides("student-r0001") == ()
        assert here.store.last_posted(here.ref)


def test_a_head_that_has_moved_on_is_not_reviewed_in_the_shadow(here: BotWorld) -> None:
    put_in_the_shadow(here)
    claim = here.claim()
    ready = here.ready(claim)
    here.push()
    asked = len(here.student.requests)
    assert here.steps.shadow(claim, ready) == Done()
    assert len(here.student.requests) == asked
