from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.domain import Judged, MergeRef
from bot.step import now
from bot.store import AdapterState, Beside
from tests.test_store import FINDING
from tests.test_store_adapters import posted
from tests.trainer.round_world import RoundWorld, round_world
from tests.trainer.test_round import STAGES
from trainer.shadow import decide
from trainer.train_command import keep_order


def besides(serving: str, shadow: str, count: int = 4) -> list[Beside]:
    """Reviews, in each of which each letter is a finding."""
    return [
        Beside(f"r{number}", *(frozenset(f"{mark}{number}" for mark in marks) for marks in (serving, shadow)))
        for number in range(count)
    ]


def marks(letter: str, count: int = 8) -> set[str]:
    return {f"{letter}{number}" for number in range(count)}


@pytest.mark.parametrize(
    ("reviews", "liked", "disliked", "against"),
    [
        (besides("ab", "ab"), set(), set(), ""),
        (besides("ab", "abc"), set(), set(), ""),
        (besides("ab", "abcd"), set(), set(), "no more noise: 16 findings in 4 reviews, against 8"),
        (besides("ab", "c"), set(), set(), ""),
        (besides("abc", "d"), set(), set(), "not silent: 4 findings in 4 reviews, against 12"),
        (besides("", "a"), set(), set(), ""),
        (besides("", "ab"), set(), set(), "no more noise: 8 findings"),
        (besides("a", ""), set(), set(), ""),  # of four nothing follows
        (besides("ab", "ac", 8), marks("a"), marks("b"), ""),
        (
            besides("ab", "bc", 8),
            marks("a"),
            marks("b"),
            "it says 0% of what people liked again, and 100% of what they did",
        ),
        (besides("ab", "bc", 4), marks("a"), marks("b"), ""),  # too few votes
    ],
)
def test_whether_it_may_serve(reviews: list[Beside], liked: set[str], disliked: set[str], against: str) -> None:
    verdict = decide(reviews, liked, disliked)
    assert verdict.promoted == (not against)
    assert against in verdict.words


# --- from the gate through the shadow


@pytest.fixture
def here(tmp_path: Path) -> Iterator[RoundWorld]:
    with round_world(tmp_path, train_shadow_reviews=2) as made:
        one = made.round()
        for stage in STAGES:
            stage(one)
        yield made


def reviewed(here: RoundWorld, number: int, shown: int = 1) -> None:
    """The serving one shows one finding; the shadow shows so many."""
    posted(here.store, f"review {number}", None, MergeRef(7, number), number)
    said = [Judged(replace(FINDING, quote=f"quote {place}")) for place in range(shown)]
    here.store.save_shadow(f"review {number}", "student-r0001", said, now())


def state(here: RoundWorld) -> AdapterState:
    adapter = here.store.adapter("student-r0001")
    assert adapter
    return adapter.state


@pytest.mark.process
def test_it_serves_after_so_many_reviews_in_the_shadow(here: RoundWorld) -> None:
    assert state(here) is AdapterState.SHADOW
    assert here.store.serving_adapter() is None
    assert list(here.replica.loaded) == ["student-r0001"]
    reviewed(here, 1)
    assert keep_order(here.chosen, here.store, here.tools.base) is None
    assert state(here) is AdapterState.SHADOW
    here.replica.restart()  # what is in the shadow is put back too
    keep_order(here.chosen, here.store, here.tools.base)
    assert list(here.replica.loaded) == ["student-r0001"]
    reviewed(here, 2)
    keep_order(here.chosen, here.store, here.tools.base)
    assert state(here) is AdapterState.SERVING


@pytest.mark.process
def test_it_is_refused_where_it_makes_noise(here: RoundWorld) -> None:
    for number in (1, 2):
        reviewed(here, number, shown=6)
    keep_order(here.chosen, here.store, here.tools.base)
    assert state(here) is AdapterState.REFUSED
    assert here.replica.loaded == {}
