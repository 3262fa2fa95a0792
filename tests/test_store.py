import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from bot.desk import Claim, DeskRow, Due
from bot.diff import Line, LineKind
from bot.domain import (
    Category,
    Finding,
    HiddenReason,
    Judged,
    MergeRef,
    NotRead,
    Review,
    Severity,
    Usage,
    Vote,
    VoteOrigin,
    VoteReason,
)
from bot.forge import DiffRefs, NotPosted, Posted, Publication
from bot.plan import Question
from bot.prompt import Brief, Part
from bot.store import Arrival, Group, Project, ReviewState, Store, StoreError, Voted
from tests.postgres import QUOTED, Cluster

ROOT = Path(__file__).parents[1]
NOON = datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC)
REF = MergeRef(7, 12)
OTHER = MergeRef(8, 1)
BIG = 2**62  # GitLab.com's numbers of notes have outgrown 32 bits


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    store.migrate()
    yield store
    store.close()


def arrival(key: str, ref: MergeRef = REF, seconds: float = 0) -> Arrival:
    return Arrival(key, "merge_request", ref.project, ref.iid, '{"head": "abc"}', at(seconds))


def due(ref: MergeRef = REF, seconds: float = 0, *, wait: float = 0, full: bool = False, asked: bool = False) -> Due:
    return Due(ref, at(seconds), "opened", wait=timedelta(seconds=wait), full=full, asked=asked)


def raw(store: Store, query: str) -> list[tuple[object, ...]]:
    """What stands in the database, past all our code."""
    engine = create_engine(store._url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        engine.dispose()


def at_once(*calls: Callable[[], object]) -> None:
    """Run calls in threads that start together; an error of one is raised."""
    ready = threading.Barrier(len(calls))
    errors: list[Exception] = []

    def run(call: Callable[[], object]) -> None:
        ready.wait()
        try:
            call()
        except Exception as error:  # noqa: BLE001 -- it is raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# --- deliveries


def test_a_delivery_is_kept_once(store: Store) -> None:
    assert store.receive(arrival("a"))
    assert not store.receive(replace(arrival("a", OTHER), payload="{}"))
    (delivery,) = store.unhandled(10)
    assert delivery.arrival == arrival("a")


def test_many_deliveries_are_kept_at_once_and_each_is_answered(store: Store) -> None:
    store.receive(arrival("b"))
    assert store.receive_many([arrival("c"), arrival("a"), arrival("b"), arrival("a")]) == [True, True, False, False]
    assert store.receive_many([]) == []
    assert {delivery.arrival.key for delivery in store.unhandled(10)} == {"a", "b", "c"}


def test_processes_that_are_told_the_same_at_once_each_get_an_answer(store: Store, database_url: str) -> None:
    arrivals = [arrival(str(number)) for number in range(200)]
    others = [Store(database_url) for _ in range(4)]
    new: list[bool] = []
    orders = (arrivals, arrivals[::-1], arrivals, arrivals[::-1])
    at_once(
        *(lambda it=it, some=some: new.extend(it.receive_many(some)) for it, some in zip(others, orders, strict=True))
    )
    assert Counter(new) == {True: 200, False: 600}
    assert len(store.unhandled(999)) == 200
    for other in others:
        other.close()


def test_deliveries_are_handled_oldest_first_and_so_many_at_a_time(store: Store) -> None:
    store.receive_many([arrival("late", seconds=9), arrival("soon", seconds=1), arrival("next", seconds=5)])
    assert [delivery.arrival.key for delivery in store.unhandled(2)] == ["soon", "next"]


def test_a_delivery_may_be_about_no_merge_request(store: Store) -> None:
    token = Arrival("a", "token_expiring", None, None, "{}", at(0))
    store.receive(token)
    assert [delivery.arrival for delivery in store.unhandled(1)] == [token]


def test_what_no_database_can_hold_is_replaced(store: Store) -> None:
    nasty = replace(arrival("k\0\ud800"), payload='{"a": "\0 \ud83d 🎉 \udc00"}')
    assert store.receive_many([nasty, nasty]) == [True, False]
    (delivery,) = store.unhandled(1)
    assert delivery.arrival.payload == '{"a": "� � 🎉 �"}'


def test_a_delivery_is_handled_once_and_its_payload_is_gone_then(store: Store) -> None:
    store.receive(arrival("a"))
    (delivery,) = store.unhandled(1)
    assert store.handle(delivery.id, outcome="review", at=at(1), due=due())
    assert not store.handle(delivery.id, outcome="again", at=at(2), due=due(seconds=-50))
    assert store.unhandled(1) == []
    assert raw(store, "SELECT outcome, payload FROM deliveries") == [("review", "")]
    row = store.desk(REF)
    assert row is not None
    assert row.due_at == at(0)
    assert not store.receive(arrival("a"))  # it is known still


def test_a_delivery_may_want_no_review(store: Store) -> None:
    store.receive(arrival("a"))
    (delivery,) = store.unhandled(1)
    assert store.handle(delivery.id, outcome="ignored: a label", at=at(1))
    assert store.desk(REF) is None


def test_deliveries_about_one_merge_request_that_are_handled_at_once_make_one_row(store: Store) -> None:
    store.receive_many([arrival(str(number), seconds=number) for number in range(8)])
    todo = store.unhandled(8)
    at_once(
        *(
            lambda one=one: store.handle(one.id, outcome="", at=at(9), due=due(seconds=int(one.arrival.key), wait=20))
            for one in [*todo, *todo]
        )
    )
    row = store.desk(REF)
    assert row is not None
    assert (row.due_at, row.latest) == (at(27), at(200))


# --- the desk


def test_a_time_comes_back_in_utc_whatever_the_zone_it_went_in(store: Store) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    store.ask(Due(REF, NOON.astimezone(india), "opened"))
    row = store.desk(REF)
    assert row is not None
    assert row.due_at == NOON
    assert row.due_at.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="without a zone"):
        store.receive(replace(arrival("a"), at=NOON.replace(tzinfo=None)))


def test_what_is_asked_is_merged(store: Store) -> None:
    assert store.desk(REF) is None
    assert store.ask(due(wait=20)) == DeskRow(REF, due_at=at(20), latest=at(200), reason="opened")
    assert store.ask(due(seconds=5, wait=20)).due_at == at(25)
    asked = store.ask(due(seconds=6, full=True, asked=True))
    assert asked == DeskRow(REF, due_at=at(6), latest=at(6), full=True, asked=True, reason="opened")
    assert store.desk(REF) == asked


def test_due_are_those_whose_time_has_come(store: Store) -> None:
    store.ask(due(OTHER, seconds=10))
    store.ask(due(REF, seconds=5))
    store.ask(due(MergeRef(1, 1), seconds=11))
    assert [row.ref for row in store.due(at(10))] == [REF, OTHER]
    assert store.due(at(4)) == []


def test_a_claim_takes_what_was_asked_off_the_desk(store: Store) -> None:
    store.ask(due(full=True, asked=True))
    generation = int(NOON.timestamp()) + 60
    claim = Claim(REF, generation, full=True, asked=True, reason="opened", at=at(60))
    assert store.claim(REF, at(60)) == claim
    assert store.desk(REF) == DeskRow(REF, claim=claim, generation=generation, served_at=at(60))
    assert store.running() == [claim]
    assert store.due(at(99)) == []


def test_only_what_is_due_and_free_can_be_claimed(store: Store) -> None:
    assert store.claim(REF, at(0)) is None
    store.ask(due(wait=20))
    assert store.claim(REF, at(19)) is None
    first = store.claim(REF, at(20))
    assert first is not None
    assert store.claim(REF, at(21)) is None
    store.ask(due(seconds=22))
    assert [row.ref for row in store.due(at(22))] == [REF]
    assert store.claim(REF, at(23)) is None  # due, but its review runs
    assert store.release(REF, first.workflow)
    assert not store.release(REF, first.workflow)
    second = store.claim(REF, at(23))
    assert second is not None
    assert second.generation > first.generation
    assert not store.release(REF, first.workflow)  # a late step of the first does not end the second
    assert store.running() == [second]
    assert not store.release(OTHER, "review:8:1:1")


def test_a_row_that_was_forgotten_does_not_repeat_the_name_of_a_workflow(store: Store) -> None:
    names = set()
    for second in range(3):
        store.ask(due(seconds=second))
        claim = store.claim(REF, at(second))
        assert claim is not None
        names.add(claim.workflow)
        store.forget_project(REF.project)
    assert len(names) == 3


def test_pause_drops_what_waits_and_keeps_what_runs(store: Store) -> None:
    store.ask(due())
    claim = store.claim(REF, at(0))
    store.ask(due(seconds=1))
    store.set_paused(REF, paused=True)
    store.ask(due(seconds=2))
    row = store.desk(REF)
    assert row is not None
    assert (row.paused, row.due_at, row.claim) == (True, None, claim)
    assert store.ask(due(seconds=3, asked=True)).due_at == at(3)
    store.set_paused(REF, paused=False)
    assert store.ask(due(seconds=4)).paused is False


def test_what_is_set_on_a_merge_request_stays(store: Store) -> None:
    store.set_threshold(REF, Severity.MAJOR)
    store.set_summary_note(REF, BIG)
    store.ask(due())
    store.claim(REF, at(0))
    row = store.desk(REF)
    assert row is not None
    assert (row.threshold, row.summary_note) == (Severity.MAJOR, BIG)
    store.set_threshold(REF, None)
    row = store.desk(REF)
    assert row is not None
    assert row.threshold is None


def test_dispatch_keeps_the_limits_and_lets_projects_take_turns(store: Store) -> None:
    for iid in range(1, 21):
        store.ask(due(MergeRef(1, iid), seconds=iid))
    store.ask(due(MergeRef(2, 1), seconds=50))
    order: list[MergeRef] = []
    for turn in range(4):
        (claim,) = store.claim_due(at(100 + turn), per_project=1, total=1)
        assert store.claim_due(at(100 + turn), per_project=1, total=1) == []
        order.append(claim.ref)
        store.release(claim.ref, claim.workflow)
    assert order == [MergeRef(1, 1), MergeRef(2, 1), MergeRef(1, 2), MergeRef(1, 3)]
    assert [claim.ref.iid for claim in store.claim_due(at(200), per_project=3, total=9)] == [4, 5, 6]
    assert [claim.ref.iid for claim in store.running()] == [4, 5, 6]


def test_racing_threads_claim_each_merge_request_once(store: Store, database_url: str) -> None:
    refs = [MergeRef(1, iid) for iid in range(1, 11)]
    for ref in refs:
        store.ask(due(ref))
    others = [Store(database_url) for _ in range(6)]
    claims: list[Claim | None] = []
    at_once(*(lambda it=it: claims.extend(it.claim(ref, at(1)) for ref in refs) for it in others))
    assert Counter(claim.ref for claim in claims if claim) == dict.fromkeys(refs, 1)
    for other in others:
        other.close()


def test_racing_dispatchers_keep_the_limits_together(store: Store, database_url: str) -> None:
    for iid in range(1, 31):
        store.ask(due(MergeRef(iid % 3, iid)))
    others = [Store(database_url) for _ in range(6)]
    claims: list[Claim] = []
    at_once(*(lambda it=it: claims.extend(it.claim_due(at(1), per_project=2, total=5)) for it in others))
    assert len(claims) == 5
    assert set(Counter(claim.ref.project for claim in claims).values()) == {1, 2}
    assert {claim.ref for claim in store.running()} == {claim.ref for claim in claims}
    for other in others:
        other.close()


@pytest.mark.process
def test_racing_processes_claim_each_merge_request_once(store: Store, database_url: str) -> None:
    for iid in range(1, 21):
        store.ask(due(MergeRef(1, iid)))
    program = """
        import sys
        from datetime import datetime
        from bot.domain import MergeRef
        from bot.store import Store
        store = Store(sys.argv[1])
        store.check()
        print("ready", flush=True)
        sys.stdin.readline()
        for iid in range(1, 21):
            if store.claim(MergeRef(1, iid), datetime.fromisoformat(sys.argv[2])):
                print(iid)
    """
    call = [sys.executable, "-c", textwrap.dedent(program), database_url, at(1).isoformat()]
    workers = [
        subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate()[0] for worker in workers]
    assert sorted(int(iid) for lines in said for iid in lines.split()) == list(range(1, 21))


# --- reviews

REFS = DiffRefs(base="a" * 40, start="b" * 40, head="c" * 40)
FINDING = Finding(
    file="src/a.py",
    line=3,
    end_line=4,
    severity=Severity.MAJOR,
    category=Category.SECURITY,
    title="Shell injection",
    explanation="The name goes into a shell.",
    quote="os.system(name)",
    suggestion="subprocess.run([name])",
    confidence=0.75,
)
ASIDE = replace(FINDING, quote="x = 1", severity=Severity.TRIVIAL, suggestion=None, confidence=None)
RESULT = Review(
    findings=(Judged(FINDING), Judged(FINDING, HiddenReason.DUPLICATE), Judged(ASIDE, HiddenReason.BELOW_THRESHOLD)),
    read=("src/a.py",),
    not_read=(NotRead("src/b.py", "binary"), NotRead("c\0.py", "endpoint down", failed=True)),
    model="granite",
    adapter="round-3",
    prompt_id="p1",
    usage=Usage(3, 1000, 500, 90, 1.5),
    redacted=(("aws key", 2),),
)


def reviewed(store: Store, name: str, ref: MergeRef = REF, *, seconds: float = 0, note: int = BIG) -> None:
    """A review from its beginning to its end."""
    store.begin_review(name, ref, REFS, full=True, trigger="opened", at=at(seconds))
    store.save_findings(name, RESULT)
    assert not store.begin_posting(name)
    publication = Publication((Posted(FINDING.fingerprint, f"discussion {note}", note, "line"),), ())
    store.record_posted(name, publication, at=at(seconds + 1))
    store.finish_review(name, ReviewState.POSTED, at=at(seconds + 2))


def test_a_review_from_its_beginning_to_its_end(store: Store) -> None:
    assert store.review("r1") is None
    store.begin_review("r1", REF, REFS, full=False, trigger="push", at=at(0))
    begun = store.review("r1")
    assert begun is not None
    assert (begun.ref, begun.refs, begun.full, begun.trigger) == (REF, REFS, False, "push")
    assert (begun.state, begun.model, begun.read, begun.finished_at) == (ReviewState.ASKING, "", (), None)
    store.save_findings("r1", RESULT)
    saved = store.review("r1")
    assert saved is not None
    assert saved.state is ReviewState.ASKING
    assert (saved.model, saved.adapter, saved.prompt_id, saved.usage) == ("granite", "round-3", "p1", RESULT.usage)
    assert (saved.read, saved.redacted) == (RESULT.read, RESULT.redacted)
    assert saved.not_read == (NotRead("src/b.py", "binary"), NotRead("c�.py", "endpoint down", failed=True))
    assert not store.begin_posting("r1")
    posting = store.review("r1")
    assert posting is not None
    assert posting.state is ReviewState.POSTING
    assert store.last_posted(REF) is None
    store.finish_review("r1", ReviewState.POSTED, at=at(9))
    assert store.last_posted(REF) == replace(saved, state=ReviewState.POSTED, finished_at=at(9))
    assert store.last_posted(OTHER) is None


def test_a_review_may_end_before_anything_is_known(store: Store) -> None:
    store.begin_review("r1", REF, None, full=False, trigger="push", at=at(0))
    store.finish_review("r1", ReviewState.SKIPPED, at=at(1), detail="a draft")
    found = store.review("r1")
    assert found is not None
    assert (found.refs, found.state, found.detail) == (None, ReviewState.SKIPPED, "a draft")
    assert store.last_posted(REF) is None


def test_every_step_of_a_review_may_run_twice(store: Store) -> None:
    reviewed(store, "r1")
    once = (store.review("r1"), store.findings_of("r1"), store.posted_in(REF))
    store.begin_review("r1", REF, None, full=False, trigger="again", at=at(50))
    assert store.begin_posting("r1")  # so that the forge is asked first what stands there
    publication = Publication((Posted(FINDING.fingerprint, f"discussion {BIG}", BIG, "line"),), ())
    store.record_posted("r1", publication, at=at(51))
    store.finish_review("r1", ReviewState.FAILED, at=at(52), detail="late")
    assert (store.review("r1"), store.findings_of("r1"), store.posted_in(REF)) == once


def test_findings_of_an_earlier_attempt_are_replaced(store: Store) -> None:
    store.begin_review("r1", REF, REFS, full=True, trigger="opened", at=at(0))
    store.save_findings("r1", RESULT)
    store.save_findings("r1", replace(RESULT, findings=RESULT.findings[2:]))
    assert [found.judged for found in store.findings_of("r1")] == [Judged(ASIDE, HiddenReason.BELOW_THRESHOLD)]


def test_findings_come_back_as_they_were_with_the_note_that_says_them(store: Store) -> None:
    reviewed(store, "r1")
    shown, double, hidden = store.findings_of("r1")
    assert (shown.judged, double.judged, hidden.judged) == RESULT.findings
    assert [found.place for found in (shown, double, hidden)] == [0, 1, 2]
    assert (shown.ref, shown.review, shown.fingerprint) == (REF, "r1", FINDING.fingerprint)
    assert (shown.note, shown.discussion, shown.finding, shown.hidden) == (BIG, f"discussion {BIG}", FINDING, None)
    assert (hidden.note, hidden.discussion, hidden.hidden) == (None, None, HiddenReason.BELOW_THRESHOLD)
    assert store.finding_by_note(7, BIG) == shown
    assert store.finding_by_note(8, BIG) is None
    assert store.posted_in(REF) == (shown,)
    assert store.posted_in(MergeRef(7, 13)) == ()
    assert store.findings_of("unknown") == ()


def test_a_finding_that_stands_there_already_keeps_its_note(store: Store) -> None:
    reviewed(store, "r1", note=1)
    reviewed(store, "r2", seconds=100, note=1)  # publish gives the old note for it
    store.begin_review("r3", REF, REFS, full=True, trigger="push", at=at(200))
    store.save_findings("r3", replace(RESULT, findings=(Judged(FINDING, HiddenReason.ALREADY_SAID),)))
    assert [found.review for found in store.posted_in(REF)] == ["r1"]
    assert [found.note for found in store.findings_of("r2")] == [1, 1, None]
    assert [found.note for found in store.findings_of("r3")] == [1]


def test_of_several_notes_that_say_a_finding_the_newest_is_given(store: Store) -> None:
    reviewed(store, "r1", note=1)
    reviewed(store, "r2", seconds=100, note=2)
    assert [found.note for found in store.findings_of("r1")] == [2, 2, None]
    assert [(found.review, found.note) for found in store.posted_in(REF)] == [("r1", 1), ("r2", 2)]
    found = store.finding_by_note(7, 1)
    assert found is not None
    assert (found.review, found.note) == ("r1", 1)


def test_what_the_forge_took_nowhere_is_remembered(store: Store) -> None:
    store.begin_review("r1", REF, REFS, full=True, trigger="opened", at=at(0))
    store.save_findings("r1", RESULT)
    store.record_posted("r1", Publication((), (NotPosted(FINDING.fingerprint, "line_code is blank"),)), at=at(1))
    assert [found.refused for found in store.findings_of("r1")] == ["line_code is blank", None, None]


def test_what_no_database_can_hold_is_replaced_in_findings(store: Store) -> None:
    store.begin_review("r1", REF, REFS, full=True, trigger="opened", at=at(0))
    nasty = replace(FINDING, quote="a\0b", title="half \ud83d", explanation="whole 🎉", suggestion="\udfff")
    store.save_findings("r1", replace(RESULT, findings=(Judged(nasty),), read=("\ud800",)))
    (found,) = store.findings_of("r1")
    assert found.finding == replace(nasty, quote="a�b", title="half �", suggestion="�")
    assert found.fingerprint == nasty.fingerprint


def test_the_last_posted_review_is_the_newest_that_was_posted(store: Store) -> None:
    reviewed(store, "r1", note=1)
    reviewed(store, "r2", seconds=100, note=2)
    store.begin_review("r3", REF, replace(REFS, head="d" * 40), full=True, trigger="push", at=at(200))
    store.finish_review("r3", ReviewState.SUPERSEDED, at=at(201))
    last = store.last_posted(REF)
    assert last is not None
    assert last.id == "r2"
    assert store.last_posted(REF, REFS.head) == last
    assert store.last_posted(REF, "d" * 40) is None


def test_a_review_that_was_forgotten_meanwhile_is_passed_over(store: Store) -> None:
    reviewed(store, "r1")
    store.forget_project(REF.project)
    store.save_findings("r1", RESULT)
    assert not store.begin_posting("r1")
    store.record_posted("r1", Publication((Posted(FINDING.fingerprint, "d", 1, "line"),), ()), at=at(9))
    store.finish_review("r1", ReviewState.POSTED, at=at(10))
    assert store.review("r1") is None
    assert store.posted_in(REF) == ()


# --- votes


def vote(
    origin: VoteOrigin = VoteOrigin.EMOJI,
    seconds: float = 0,
    *,
    up: bool = False,
    voter: str = "ann",
    ref: MergeRef = REF,
    reason: VoteReason | None = None,
) -> Vote:
    return Vote(ref, FINDING.fingerprint, voter, up, origin, reason, 0.5, at(seconds))


def test_a_vote_that_is_taken_back_gives_way_to_the_next(store: Store) -> None:
    reply = vote(VoteOrigin.REPLY, 1, reason=VoteReason.WRONG)
    first, second = vote(seconds=2, up=True), vote(seconds=3, reason=VoteReason.NIT)
    store.add_vote(reply, source="900")
    store.add_vote(first, source="1", name="thumbsup")
    store.add_vote(second, source="2", name="mag")
    for strongest, source in ((second, "2"), (first, "1"), (reply, "900")):
        assert list(store.votes()) == [strongest]
        assert store.remove_vote(REF, FINDING.fingerprint, "ann", strongest.origin, source=source)
        assert not store.remove_vote(REF, FINDING.fingerprint, "ann", strongest.origin, source=source)
    assert list(store.votes()) == []


def test_only_the_vote_meant_is_taken_back(store: Store) -> None:
    store.add_vote(vote(), source="1")
    assert not store.remove_vote(REF, FINDING.fingerprint, "bob", VoteOrigin.EMOJI, source="1")
    assert not store.remove_vote(REF, "other", "ann", VoteOrigin.EMOJI, source="1")
    assert not store.remove_vote(OTHER, FINDING.fingerprint, "ann", VoteOrigin.EMOJI, source="1")
    assert not store.remove_vote(REF, FINDING.fingerprint, "ann", VoteOrigin.REPLY, source="1")
    assert list(store.votes()) == [vote()]


def test_the_same_vote_again_renews_what_it_says_but_not_when(store: Store) -> None:
    store.add_vote(vote(VoteOrigin.RESOLVED))
    store.add_vote(replace(vote(VoteOrigin.RESOLVED, 100), weight=0.25, reason=VoteReason.KNOWN))
    assert list(store.votes()) == [replace(vote(VoteOrigin.RESOLVED), weight=0.25, reason=VoteReason.KNOWN)]


QUESTION = Question(
    Part("src/a.py", (Line(LineKind.ADDED, "f(x) # \0 \ud800", None, 3),), before=("def a():",)),
    Brief(title="Names", description="of files"),
)


def test_what_people_voted_on_comes_with_what_the_student_was_asked(store: Store) -> None:
    store.begin_review("r1", REF, REFS, full=True, trigger="opened", at=at(0))
    store.save_findings("r1", RESULT, {FINDING.fingerprint: QUESTION, ASIDE.fingerprint: QUESTION})
    store.record_posted("r1", Publication((Posted(FINDING.fingerprint, "d1", 1, "line"),), ()), at=at(1))
    assert list(store.voted()) == []
    cast = [vote(), vote(voter="bob", up=True)]
    for each in cast:
        store.add_vote(each)
    store.add_vote(replace(vote(), fingerprint="forgotten"))
    store.add_vote(vote(ref=OTHER))  # the review there is kept no longer
    (voted,) = store.voted()
    kept = replace(
        QUESTION, part=replace(QUESTION.part, lines=(replace(QUESTION.part.lines[0], text="f(x) # \0 \ufffd"),))
    )
    assert voted == Voted(FINDING, kept, tuple(cast), REF, ("r1",))


def test_what_was_asked_is_kept_only_beside_what_is_shown(store: Store) -> None:
    reviewed(store, "r1")
    store.add_vote(vote())
    (voted,) = store.voted()
    assert voted.question is None
    store.save_findings("r1", RESULT, {ASIDE.fingerprint: QUESTION})
    (voted,) = store.voted()
    assert voted.question is None


def test_all_that_people_did_is_kept(store: Store) -> None:
    store.add_vote(vote(seconds=2), source="2", name="thumbsdown")
    store.add_vote(vote(seconds=1, up=True), source="1", name="thumbsup")
    other = replace(vote(), fingerprint="other")
    store.add_vote(other, source="3", name="thumbsup")
    assert [(cast.source, cast.name) for cast in store.casts(REF, FINDING.fingerprint)] == [
        ("1", "thumbsup"),
        ("2", "thumbsdown"),
    ]
    assert [cast.vote for cast in store.casts(REF)] == [other, vote(seconds=1, up=True), vote(seconds=2)]
    assert store.casts(OTHER) == ()


def test_votes_come_by_merge_request_or_since_a_time(store: Store) -> None:
    later, elsewhere = vote(seconds=50, voter="bob"), vote(seconds=9, ref=OTHER)
    sibling = vote(ref=MergeRef(7, 13))
    for one in (elsewhere, later, vote(), sibling):
        store.add_vote(one, source="1")
    assert list(store.votes()) == [vote(), later, sibling, elsewhere]
    assert list(store.votes(REF)) == [vote(), later]
    assert list(store.votes(since=at(9))) == [later, elsewhere]
    assert list(store.votes(REF, since=at(51))) == []
    assert list(store.votes(MergeRef(9, 9))) == []


def test_since_asks_for_the_vote_that_counts(store: Store) -> None:
    store.add_vote(vote(VoteOrigin.EMOJI, 1), source="1")
    store.add_vote(vote(VoteOrigin.RESOLVED, 100))  # weaker: nothing new is known by it
    assert list(store.votes(since=at(50))) == []


# --- projects, workers


def test_projects(store: Store) -> None:
    store.remember_project(2, "b/old", None)
    store.remember_project(1, "z", None)
    store.remember_project(2, "b/new", 44, url="https://bot.example/webhook", verify=False)
    store.swept(2, at(5))
    store.swept(3, at(5))  # unknown: nothing
    assert store.projects() == (
        Project(2, "b/new", 44, at(5), "https://bot.example/webhook", verify=False),
        Project(1, "z", None, None, None, verify=True),
    )


def test_groups(store: Store) -> None:
    group = Group(7, "team", 3, "https://bot.example/webhook", verify=True)
    store.remember_group(group)
    store.remember_group(Group(5, "a", None, "http://bot/webhook", verify=False))
    store.remember_group(replace(group, path="team/new", hook=None))
    assert store.groups() == (
        Group(5, "a", None, "http://bot/webhook", verify=False),
        Group(7, "team/new", None, "https://bot.example/webhook", verify=True),
    )


def test_workers(store: Store) -> None:
    store.beat("a", at(0))
    store.beat("b", at(1))
    store.beat("c", at(9))
    store.beat("a", at(2))
    assert store.silent_workers(at(9)) == ["b", "a"]
    store.drop_worker("b")
    assert store.silent_workers(at(10)) == ["a", "c"]


# --- forgetting


def lived_in(store: Store) -> None:
    """Two projects with something in every table."""
    for ref, name, note in ((REF, "r1", 1), (OTHER, "r2", 2)):
        store.remember_project(ref.project, "a/b", None)
        store.receive(arrival(name, ref))
        store.ask(due(ref))
        reviewed(store, name, ref, note=note)
        for voter in ("ann", "bob"):
            store.add_vote(vote(voter=voter, ref=ref), source="1")


def test_a_forgotten_project_leaves_nothing_behind(store: Store) -> None:
    lived_in(store)
    assert store.forget_project(REF.project) == {
        "findings": 3,
        "notes": 1,
        "reviews": 1,
        "votes": 2,
        "merge_requests": 1,
        "deliveries": 1,
        "projects": 1,
    }
    assert set(store.forget_project(REF.project).values()) == {0}
    assert [it.id for it in store.projects()] == [OTHER.project]
    assert [it.arrival.key for it in store.unhandled(9)] == ["r2"]
    assert len(store.findings_of("r2")) == 3
    assert [it.merge for it in store.votes()] == [OTHER, OTHER]
    assert store.desk(OTHER) is not None


def test_a_forgotten_person_leaves_no_vote_behind(store: Store) -> None:
    lived_in(store)
    assert store.forget_person("ann") == {"votes": 2}
    assert {it.voter for it in store.votes()} == {"bob"}
    assert store.forget_person("ann") == {"votes": 0}


def test_what_was_forgotten_does_not_stand_in_the_file(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'a.sqlite'}")
    store.migrate()
    store.begin_review("r1", REF, REFS, full=True, trigger="opened", at=at(0))
    secret = "the words of a customer"
    many = tuple(Judged(replace(FINDING, title=f"{secret} {number}" * 99)) for number in range(99))
    store.save_findings("r1", replace(RESULT, findings=many))
    store.forget_project(REF.project)
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())
    store.close()


def test_retention_removes_what_is_old_and_not_in_use(store: Store) -> None:
    lived_in(store)
    (old, waiting) = store.unhandled(9)
    store.handle(old.id, outcome="review", at=at(0))
    for ref in (REF, OTHER):
        claim = store.claim(ref, at(0))
        assert claim is not None
        if ref == REF:
            store.release(ref, claim.workflow)
    reviewed(store, "new", seconds=1000, note=3)
    store.add_vote(vote(seconds=1000, voter="new"), source="1")
    store.ask(due(MergeRef(7, 1)))
    store.set_paused(MergeRef(7, 2), paused=True)
    store.set_threshold(MergeRef(7, 3), Severity.MINOR)
    store.set_summary_note(MergeRef(7, 4), 9)
    assert store.expire(at(500)) == {
        "findings": 3,
        "notes": 1,
        "reviews": 1,  # not r2: its merge request is being reviewed
        "votes": 4,
        "merge_requests": 2,  # the one that was released, and the one that holds nothing but a number
        "deliveries": 1,
    }
    assert [it.arrival.key for it in store.unhandled(9)] == [waiting.arrival.key]
    assert store.review("r2") is not None
    assert store.review("new") is not None
    assert [store.desk(MergeRef(7, iid)) is None for iid in (1, 2, 3, 4)] == [False, False, False, True]
    assert [it.voter for it in store.votes()] == ["new"]
    assert set(store.expire(at(500)).values()) == {0}


def test_retention_of_many_rows_takes_several_transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.store.admin._PART", 2)
    for number in range(5):
        reviewed(store, f"r{number}", note=number)
        store.add_vote(vote(), source=str(number))
        store.receive(arrival(str(number)))
    for delivery in store.unhandled(9):
        store.handle(delivery.id, outcome="", at=at(0))
    assert store.expire(at(500)) == {
        "findings": 15,
        "notes": 5,
        "reviews": 5,
        "votes": 5,
        "merge_requests": 0,
        "deliveries": 5,
    }


# --- what can go wrong


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "cannot be understood"),
        ("s3cret", "cannot be understood"),
        ("postgresql://me:s3cret@host:port/name", "cannot be understood"),
        ("postgresql+nonsense://me:s3cret@host/name", "PostgreSQL at host/name"),
        ("postgresql://me:s3@cret@host/name", "%40"),
        ("mysql://me:s3cret@host/name", "mysql is not known"),
        ("nonsense://me:s3cret@host/name", "nonsense is not known"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(url).check()
    assert said in str(caught.value)
    assert "cret" not in str(caught.value)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/none/a.sqlite")
    with pytest.raises(StoreError, match=rf"the folder {tmp_path}/none does not exist"):
        store.migrate()


def test_a_path_that_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="may this user write"):
        Store(f"sqlite:///{tmp_path}").check()
    (tmp_path / "text").write_text("These are no tables. " * 99)
    with pytest.raises(StoreError, match="file is not a database"):
        Store(f"sqlite:///{tmp_path}/text").check()


def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/a.sqlite").migrate()
    with pytest.raises(StoreError, match="may this user write"):
        Store(f"sqlite:///file:{tmp_path}/a.sqlite?mode=ro&uri=true").receive(arrival("a"))


def test_somebody_who_writes_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    store = Store(f"sqlite:///{path}")
    store.migrate()
    store.close()
    monkeypatch.setattr("bot.store.database._PRAGMAS", ("PRAGMA busy_timeout = 1",))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process has been writing"):
        store.receive(arrival("a"))
    assert store.unhandled(1) == []  # who reads need not wait
    other.execute("COMMIT")
    assert store.receive(arrival("a"))
    other.close()
    store.close()


def test_tables_that_are_not_there(database_url: str) -> None:
    store = Store(database_url)
    with pytest.raises(StoreError, match="run `apprentice migrate`"):
        store.receive(arrival("a"))
    store.close()


def test_a_number_that_is_too_large(store: Store) -> None:
    with pytest.raises(StoreError, match=r"too large|out of range"):
        store.desk(MergeRef(2**80, 1))
    assert store.desk(REF) is None


def test_a_row_that_belongs_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(StoreError), store._write() as session:
        session.execute(text("INSERT INTO notes VALUES (1, 1, 1, 'd', 'f', 'line', 'no review', '2026-11-25')"))


@pytest.mark.postgres
def test_postgresql_that_is_not_there() -> None:
    with pytest.raises(StoreError, match=r"PostgreSQL at 127\.0\.0\.1:1/name: .*refused") as caught:
        Store("postgresql://me:s3cret@127.0.0.1:1/name").check()
    assert "s3cret" not in str(caught.value)


@pytest.mark.postgres
def test_postgresql_that_refuses(postgres: Cluster) -> None:
    url = make_url(postgres.url("postgres"))
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        Store(url.set(password="s3cret").render_as_string(hide_password=False)).check()
    assert "s3cret" not in str(caught.value)
    with pytest.raises(StoreError, match=r'database "none" does not exist') as caught:
        Store(postgres.url("none")).check()
    assert "migrate" not in str(caught.value)
    assert QUOTED not in str(caught.value)


@pytest.mark.postgres
@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_by_the_names_that_people_use(postgres_url: str, driver: str) -> None:
    store = Store(f"{driver}:{postgres_url.partition(':')[2]}")
    assert store.revision() is None
    store.close()


@pytest.mark.postgres
def test_postgresql_that_was_restarted_is_met_again(postgres_url: str) -> None:
    store = Store(postgres_url)
    store.migrate()
    assert store.receive(arrival("a"))
    raw(store, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'apprentice'")
    assert store.receive(arrival("b"))
    store.close()


def test_sqlite_is_set_up_for_many_readers_and_a_writer(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'a.sqlite'}")
    with store._read() as session:
        told = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
    assert told == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "secure_delete": 1,
    }
    store.close()


@pytest.mark.process
def test_what_was_acknowledged_survives_a_kill(store: Store, database_url: str) -> None:
    program = """
        import sys
        from datetime import UTC, datetime
        from bot.store import Arrival, Store
        store = Store(sys.argv[1])
        for number in range(10_000):
            store.receive(Arrival(str(number), "push", 1, 1, "{}", datetime.now(UTC)))
            print(number, flush=True)
    """
    call = [sys.executable, "-c", textwrap.dedent(program), database_url]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        acknowledged = {process.stdout.readline().strip() for _ in range(50)}
        process.send_signal(signal.SIGKILL)
        acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    assert acknowledged <= {delivery.arrival.key for delivery in store.unhandled(20_000)}


@pytest.mark.process
def test_several_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    program = "import sys; from bot.store import Store; store = Store(sys.argv[1]); store.migrate(); store.check()"
    call = [sys.executable, "-c", program, f"sqlite:///{tmp_path / 'a.sqlite'}"]
    processes = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4


@pytest.mark.process
def test_reader_and_writers_of_one_file_do_not_fail_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    stores = [Store(url), Store(url)]
    stores[0].migrate()

    def write(store: Store, name: str) -> None:
        for number in range(40):
            store.receive(arrival(f"{name} {number}"))
            store.ask(due(MergeRef(1, number)))

    def read(store: Store) -> None:
        for _ in range(40):
            store.due(at(9))
            store.unhandled(10)

    at_once(
        *(lambda it=it, name=name: write(it, name) for it, name in zip(stores * 2, "abcd", strict=True)),
        *(lambda it=it: read(it) for it in stores),
    )
    assert len(stores[0].unhandled(999)) == 160
    for store in stores:
        store.close()


def test_a_purpose_is_one_process_s_until_it_leaves(database_url: str) -> None:
    one, other = Store(database_url), Store(database_url)
    leave = one.hold("rounds")
    assert leave
    assert (other.hold("rounds") is None) == database_url.startswith("postgresql")
    elsewhere = other.hold("something else")
    assert elsewhere
    leave()
    again = other.hold("rounds")
    assert again
    for end in (elsewhere, again):
        end()
    one.close()
    other.close()
