from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.desk import PATIENCE, Claim, DeskRow, Due, merge_due, next_generation, pause, pick
from bot.domain import MergeRef

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
REF = MergeRef(7, 12)
WAIT = timedelta(seconds=20)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def push(seconds: float, *, full: bool = False) -> Due:
    return Due(REF, at(seconds), f"push at {seconds}", wait=WAIT, full=full)


def opened(seconds: float) -> Due:
    return Due(REF, at(seconds), "opened")


def command(seconds: float, *, full: bool = False) -> Due:
    return Due(REF, at(seconds), "command", full=full, asked=True)


def merged(*dues: Due, row: DeskRow | None = None) -> DeskRow:
    row = row or DeskRow(REF)
    for due in dues:
        row = merge_due(row, due)
    return row


@pytest.mark.parametrize(
    ("dues", "expected"),
    [
        ([push(0)], 20),
        ([opened(0)], 0),
        ([push(0), push(5)], 25),
        ([push(5), push(0)], 25),  # in the wrong order
        ([push(0), push(5), push(5)], 25),  # the same one twice
        ([push(second) for second in range(0, 400, 10)], 200),  # pushes without end
        ([push(0), command(5)], 5),
        ([push(0), opened(5)], 5),
        ([command(5), push(6)], 5),  # a push does not put off what somebody asked for
        ([opened(0), push(100)], 0),
        ([push(0), command(60)], 20),  # due already: it does not lose its place
        ([push(0), command(5), push(6), command(7)], 5),
        ([push(0, full=True), push(90)], 110),  # due, but its turn did not come
    ],
)
def test_when_the_review_begins(dues: list[Due], expected: float) -> None:
    assert merged(*dues).due_at == at(expected)


@pytest.mark.parametrize(
    ("dues", "full", "asked", "reason"),
    [
        ([push(0)], False, False, "push at 0"),
        ([push(0), push(1)], False, False, "push at 1"),
        ([command(0, full=True), push(1)], True, True, "command"),
        ([push(0), command(1)], False, True, "command"),
        ([push(0, full=True), command(1)], True, True, "push at 0"),
        ([command(0), push(1, full=True)], True, True, "push at 1"),
    ],
)
def test_full_wins_and_that_a_person_asked_is_kept(dues: list[Due], *, full: bool, asked: bool, reason: str) -> None:
    row = merged(*dues)
    assert (row.full, row.asked, row.reason) == (full, asked, reason)


def test_without_a_debounce_time_a_push_begins_at_once() -> None:
    assert merged(replace(push(0), wait=timedelta(0))).due_at == at(0)


def test_a_paused_merge_request_is_due_only_when_a_person_asks() -> None:
    paused = pause(merged(push(0)))
    assert paused == DeskRow(REF, paused=True)
    assert merged(push(1), opened(2), row=paused) == paused
    asked = merged(command(3), row=paused)
    assert (asked.due_at, asked.paused) == (at(3), True)


def test_a_review_that_runs_is_no_obstacle_and_is_not_touched() -> None:
    claim = Claim(REF, 3, full=True, asked=True, reason="command", at=at(0))
    row = DeskRow(REF, claim=claim, generation=3, served_at=at(0))
    assert merged(push(1), row=row) == replace(
        row, due_at=at(21), latest=at(1 + PATIENCE * 20), full=False, asked=False, reason="push at 1"
    )


def test_a_workflow_is_named_for_its_claim() -> None:
    assert Claim(REF, 3, full=False, asked=False, reason="", at=NOON).workflow == "review:7:12:3"


@pytest.mark.parametrize(
    ("before", "after"),
    [(0, int(NOON.timestamp())), (int(NOON.timestamp()), int(NOON.timestamp()) + 1), (2**40, 2**40 + 1)],
)
def test_generations_grow_and_start_at_the_clock(before: int, after: int) -> None:
    assert next_generation(DeskRow(REF, generation=before), NOON) == after


seconds = st.integers(0, 1000)
pushes = st.builds(push, seconds, full=st.booleans())
dues = pushes | st.builds(opened, seconds) | st.builds(command, seconds, full=st.booleans())


@given(st.lists(pushes, min_size=1).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_the_order_of_pushes_does_not_matter(both: tuple[list[Due], list[Due]]) -> None:
    one, other = (merged(*some) for some in both)
    assert (one.due_at, one.latest, one.full) == (other.due_at, other.latest, other.full)


@given(st.lists(dues, min_size=1))
def test_whatever_is_asked_is_due_in_time_and_nothing_asked_is_lost(some: list[Due]) -> None:
    row = merged(*some)
    assert row.due_at is not None
    assert row.due_at <= min(due.latest for due in some)
    assert row.due_at >= min(due.at for due in some)
    assert row.full == any(due.full for due in some)
    assert row.asked == any(due.asked for due in some)
    assert row.reason in {due.reason for due in some}


@given(st.lists(dues), dues)
def test_the_same_wish_twice_is_one(some: list[Due], last: Due) -> None:
    once = merged(*some, last)
    assert merged(last, row=once) == once


# --- whose turn it is


def row(project: int, iid: int, due: float = 0) -> DeskRow:
    return DeskRow(MergeRef(project, iid), due_at=at(due), latest=at(due))


def picked(
    due: list[DeskRow],
    running: set[MergeRef] | None = None,
    *,
    served: dict[int, datetime] | None = None,
    per_project: int = 2,
    total: int = 4,
) -> list[tuple[int, int]]:
    chosen = pick(due, running or set(), served=served or {}, per_project=per_project, total=total)
    return [(one.ref.project, one.ref.iid) for one in chosen]


BUSY = [row(1, iid, due=iid) for iid in range(1, 501)]


def test_nothing_due_nothing_chosen() -> None:
    assert picked([]) == []


def test_within_a_project_the_oldest_wish_comes_first() -> None:
    assert picked([row(1, 1, due=9), row(1, 2, due=3), row(1, 3, due=3)]) == [(1, 2), (1, 3)]


def test_projects_take_turns() -> None:
    assert picked([*BUSY, row(2, 1, due=999)]) == [(1, 1), (2, 1), (1, 2)]


def test_the_limits_hold() -> None:
    assert picked(BUSY, per_project=2, total=9) == [(1, 1), (1, 2)]
    assert picked(BUSY, per_project=9, total=2) == [(1, 1), (1, 2)]
    assert picked(BUSY, {MergeRef(1, 900)}, per_project=2, total=9) == [(1, 1)]
    assert picked(BUSY, {MergeRef(1, 900), MergeRef(1, 901)}, per_project=2, total=9) == []
    assert picked(BUSY, {MergeRef(3, 1), MergeRef(4, 1)}, per_project=2, total=3) == [(1, 1)]
    assert picked(BUSY, {MergeRef(3, 1)}, total=1) == []


def test_a_merge_request_that_is_being_reviewed_waits() -> None:
    assert picked([row(1, 1), row(1, 2), row(2, 1)], {MergeRef(1, 1), MergeRef(2, 1)}) == [(1, 2)]


def test_the_project_with_fewest_running_reviews_comes_first_then_the_one_served_longest_ago() -> None:
    due = [row(1, 1), row(2, 1), row(3, 1), row(4, 1)]
    served = {1: at(30), 2: at(20), 4: at(10)}
    assert picked(due, {MergeRef(4, 9)}, served=served, total=9) == [(3, 1), (2, 1), (1, 1), (4, 1)]


def test_with_one_place_in_all_a_small_project_waits_for_one_turn_only() -> None:
    due = [*BUSY, row(2, 1, due=999)]
    served: dict[int, datetime] = {}
    order: list[int] = []
    for turn in range(4):
        ((project, iid),) = picked(due, served=served, total=1)
        served[project] = at(1000 + turn)
        order.append(project)
        due = [one for one in due if one.ref != MergeRef(project, iid)]
    assert order == [1, 2, 1, 1]


refs = st.builds(MergeRef, st.integers(1, 4), st.integers(1, 6))
waiting = st.lists(
    st.builds(lambda ref, due: row(ref.project, ref.iid, due), refs, seconds), unique_by=lambda it: it.ref
)
clock = st.dictionaries(st.integers(1, 4), seconds.map(at))


@given(waiting, st.sets(refs), clock, st.integers(1, 4), st.integers(1, 10))
def test_pick_keeps_the_limits_wastes_no_place_and_is_fair(
    due: list[DeskRow], running: set[MergeRef], served: dict[int, datetime], per_project: int, total: int
) -> None:
    chosen = [one.ref for one in pick(due, running, served=served, per_project=per_project, total=total)]
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {one.ref for one in due} - running
    assert len(chosen) <= max(total - len(running), 0)
    before = Counter(ref.project for ref in running)
    after = before + Counter(ref.project for ref in chosen)
    for ref in chosen:
        assert after[ref.project] <= per_project
    left = {one.ref for one in due} - running - set(chosen)
    if len(running) + len(chosen) < total:
        assert all(after[ref.project] >= per_project for ref in left)
    for waits in {ref.project for ref in left if after[ref.project] < per_project}:
        # who still waits has no fewer places than any project that was given one had before its last
        assert all(after[waits] >= after[ref.project] - 1 for ref in chosen)
