from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.jobs import Patience, system_database


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(0, 2), (1, 4), (2, 8), (7, 256), (8, 300), (9, 300), (30, 300), (31, 300), (10**9, 300)],
)
def test_each_wait_is_twice_as_long_up_to_the_longest(count: int, seconds: float) -> None:
    assert Patience().wait(count) == seconds


def test_a_first_wait_longer_than_the_longest_is_cut() -> None:
    assert Patience(first=10, longest=3).wait(0) == 3


@given(count=st.integers(0, 10**6), first=st.floats(0.01, 100), longest=st.floats(0.01, 10**4))
def test_waits_only_grow(count: int, first: float, longest: float) -> None:
    patience = Patience(first, longest)
    assert 0 < patience.wait(count) <= patience.wait(count + 1) <= longest


def test_a_day_is_some_three_hundred_waits() -> None:
    """So that a step that waits writes no endless history."""
    patience, waited, count = Patience(), 0.0, 0
    while waited < patience.total:
        waited, count = waited + patience.wait(count), count + 1
    assert waited >= timedelta(days=1).total_seconds()
    assert count < 300


def test_where_the_workflows_are_recorded(tmp_path: Path) -> None:
    server = "postgresql://bot@db/bot"
    assert system_database(server, tmp_path) == server
    own = f"sqlite:///{tmp_path / 'workflows.sqlite'}"
    assert system_database(None, tmp_path) == system_database("sqlite:////other/bot.sqlite", tmp_path) == own
    assert (tmp_path / "workflows.sqlite").is_file()
