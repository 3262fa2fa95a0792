from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedule import DueRound, Rules, due, in_window, last_tick

SATURDAY = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)
WEEKLY = Rules(cron="0 2 * * sat", every_votes=None, window=None)
VOTES = Rules(cron=None, every_votes=100, window=None)


@pytest.mark.parametrize(
    ("now", "last", "due_at"),
    [
        (SATURDAY, SATURDAY - timedelta(days=7), SATURDAY),
        (SATURDAY - timedelta(seconds=1), SATURDAY - timedelta(days=7), None),
        (SATURDAY + timedelta(hours=5), SATURDAY - timedelta(days=1), SATURDAY),  # nothing ran at two
        (
            SATURDAY + timedelta(days=20),
            SATURDAY - timedelta(days=1),
            SATURDAY + timedelta(days=14),
        ),  # of three ticks
        (SATURDAY + timedelta(minutes=1), SATURDAY + timedelta(seconds=5), None),  # it has begun
        (SATURDAY, SATURDAY, None),
        (SATURDAY + timedelta(seconds=20), None, SATURDAY),
        (SATURDAY + timedelta(hours=5), None, None),  # a new bot makes up for nothing
        (SATURDAY + timedelta(days=400, hours=1), SATURDAY, SATURDAY + timedelta(days=399)),
    ],
)
def test_ticks(now: datetime, last: datetime | None, due_at: datetime | None) -> None:
    found = due(now, last, 10**6, WEEKLY, paused=False)
    assert (found.id if found else None) == (f"cron {due_at.isoformat()}" if due_at else None)


@pytest.mark.parametrize(("votes", "wanted"), [(99, False), (100, True), (1000, True)])
def test_votes(votes: int, wanted: bool) -> None:  # noqa: FBT001 -- a column of the table
    found = due(SATURDAY, SATURDAY - timedelta(days=1), votes, VOTES, paused=False)
    assert (found is not None) == wanted
    if found:
        assert found.id == "votes since 2026-11-27T02:00:00+00:00"


def test_the_first_votes_of_all() -> None:
    assert due(SATURDAY, None, 100, VOTES, paused=False) == DueRound(
        "votes since the beginning", "100 new votes, and 100 make a round due"
    )


def test_neither_makes_nothing_due() -> None:
    assert due(SATURDAY, None, 10**6, Rules(None, None, None), paused=False) is None


def test_paused_means_paused() -> None:
    assert due(SATURDAY, None, 10**6, Rules("* * * * *", 1, None), paused=True) is None


@pytest.mark.parametrize(
    ("window", "hours"),
    [(None, range(24)), ("22-6", [22, 23, 0, 1, 2, 3, 4, 5]), ("1-5", [1, 2, 3, 4]), ("0-23", range(23))],
)
def test_the_window(window: str | None, hours: list[int]) -> None:
    inside = [hour for hour in range(24) if in_window(SATURDAY.replace(hour=hour), window)]
    assert sorted(inside) == sorted(hours)


def test_a_tick_outside_the_window_waits_for_it() -> None:
    rules = Rules(cron="0 2 * * sat", every_votes=None, window="20-23")
    last = SATURDAY - timedelta(days=1)
    assert due(SATURDAY, last, 0, rules, paused=False) is None
    found = due(SATURDAY.replace(hour=20), last, 0, rules, paused=False)
    assert found
    assert found.id == f"cron {SATURDAY.isoformat()}"


@given(minutes=st.integers(0, 10_000))
def test_two_schedulers_see_the_same_tick(minutes: int) -> None:
    now = SATURDAY + timedelta(minutes=minutes)
    tick = last_tick("*/7 * * * *", SATURDAY - timedelta(days=1), now)
    assert tick is not None
    assert last_tick("*/7 * * * *", tick - timedelta(minutes=30), now) == tick
    assert tick <= now < tick + timedelta(minutes=7)


def test_what_has_learnt_from_something_forgotten_makes_a_round_due() -> None:
    rules = Rules(cron=None, every_votes=None, window="1-3")
    found = due(SATURDAY, None, 0, rules, paused=False, rebuild="student-r0003")
    assert found == DueRound("rebuild student-r0003", "student-r0003 has learnt from what was forgotten since")
    assert due(SATURDAY, None, 0, rules, paused=True, rebuild="student-r0003") is None
    assert due(SATURDAY + timedelta(hours=9), None, 0, rules, paused=False, rebuild="student-r0003") is None
