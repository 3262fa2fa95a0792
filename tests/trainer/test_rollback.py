import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.rollback import Liking, worse


@pytest.mark.parametrize(
    ("new", "old", "back"),
    [
        (Liking(5, 25), Liking(25, 5), True),
        (Liking(15, 15), Liking(15, 15), False),
        (Liking(25, 5), Liking(5, 25), False),
        (Liking(0, 29), Liking(100, 0), False),  # too few
        (Liking(0, 100), Liking(29, 0), False),  # too few to compare with
        (Liking(13, 17), Liking(17, 13), False),  # may be luck
        (Liking(30, 0), Liking(30, 0), False),
    ],
)
def test_when_it_is_taken_back(new: Liking, old: Liking, back: bool) -> None:  # noqa: FBT001 -- a column
    assert (worse(new, old, least=30, alpha=0.05) is not None) == back


def test_why_in_words() -> None:
    assert worse(Liking(5, 25), Liking(25, 5), least=30, alpha=0.05) == (
        "25 of 30 votes are against it, and 5 of 30 were against the one before: by luck with a chance of 0.000"
    )


LIKINGS = st.builds(Liking, st.integers(0, 60), st.integers(0, 60))


@given(LIKINGS, LIKINGS)
def test_never_both_ways_and_never_where_it_is_liked_more(new: Liking, old: Liking) -> None:
    if worse(new, old, least=1, alpha=0.05):
        assert new.down / new.votes > old.down / old.votes
        assert worse(old, new, least=1, alpha=0.05) is None
