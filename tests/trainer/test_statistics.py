import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.statistics import mcnemar, wilson


@pytest.mark.parametrize(
    ("better", "worse", "chance"),
    [
        (0, 0, 1.0),
        (1, 0, 0.5),
        (5, 0, 1 / 32),
        (0, 5, 1.0),
        (12, 5, 9402 / 2**17),  # sum of C(17, 12..17): 6188 + 2380 + 680 + 136 + 17 + 1
        (20, 20, 0.5627),
    ],
)
def test_chance(better: int, worse: int, chance: float) -> None:
    assert math.isclose(mcnemar(better, worse), chance, abs_tol=1e-4)


@given(better=st.integers(0, 200), worse=st.integers(0, 200))
def test_more_wins_are_less_likely_by_chance(better: int, worse: int) -> None:
    assert 0 < mcnemar(better + 1, worse) <= mcnemar(better, worse) <= 1
    assert mcnemar(better, worse + 1) >= mcnemar(better, worse)


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (5, 10, 0.2366, 0.7634)],
)
def test_the_interval_of_wilson(right: int, asked: int, low: float, high: float) -> None:
    """81 of 263 is the example of Newcombe (1998), Statistics in Medicine 17, 857-872, table I."""
    found = wilson(right, asked)
    assert math.isclose(found[0], low, abs_tol=1e-4)
    assert math.isclose(found[1], high, abs_tol=1e-4)


@given(asked=st.integers(1, 10**6), data=st.data())
def test_the_share_lies_within(asked: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, asked))
    low, high = wilson(right, asked)
    assert 0 <= low <= right / asked + 1e-9
    assert right / asked - 1e-9 <= high <= 1
