from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bot.domain import MergeRef, Vote, VoteOrigin, VoteReason
from bot.feedback import WEIGHTS
from bot.voice import Cast, effective

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def cast(
    origin: VoteOrigin,
    at: int,
    *,
    up: bool = False,
    reason: VoteReason | None = None,
    voter: str = "ann",
    iid: int = 1,
    fingerprint: str = "f",
    source: str = "",
) -> Cast:
    when = NOON + timedelta(seconds=at)
    vote = Vote(MergeRef(1, iid), fingerprint, voter, up, origin, reason, WEIGHTS[origin], when)
    return Cast(vote, source=source)


def test_no_casts_no_votes() -> None:
    assert list(effective([])) == []


def test_the_strongest_origin_counts_however_old_it_is() -> None:
    applied = cast(VoteOrigin.APPLIED, 0, up=True)
    said = [applied, cast(VoteOrigin.EMOJI, 5), cast(VoteOrigin.REPLY, 6), cast(VoteOrigin.RESOLVED, 7)]
    for _ in range(len(said)):
        strongest = max(said, key=lambda one: WEIGHTS[one.vote.origin])
        assert list(effective(said)) == [strongest.vote]
        said.remove(strongest)  # it was taken back


def test_of_the_same_origin_the_newest_counts() -> None:
    old, new = cast(VoteOrigin.EMOJI, 1, up=True, source="1"), cast(VoteOrigin.EMOJI, 2, source="2")
    assert list(effective([new, old])) == [new.vote]


def test_a_reason_is_not_lost_to_a_later_word_without_one() -> None:
    nit = cast(VoteOrigin.EMOJI, 1, reason=VoteReason.NIT, source="1")
    down = cast(VoteOrigin.EMOJI, 3, source="2")
    wrong = cast(VoteOrigin.REPLY, 2, reason=VoteReason.WRONG)
    assert [vote.reason for vote in effective([nit, down])] == [VoteReason.NIT]
    assert [vote.reason for vote in effective([nit, down, wrong])] == [VoteReason.WRONG]  # the newest one
    (vote,) = effective([nit, down, wrong])
    assert (vote.at, vote.weight, vote.origin) == (down.vote.at, down.vote.weight, VoteOrigin.EMOJI)


def test_a_reason_for_the_other_opinion_is_not_taken() -> None:
    nit, liked = cast(VoteOrigin.EMOJI, 1, reason=VoteReason.NIT), cast(VoteOrigin.EMOJI, 2, up=True, source="2")
    assert [(vote.up, vote.reason) for vote in effective([nit, liked])] == [(True, None)]


def test_each_person_has_a_voice_for_each_finding_of_each_merge_request() -> None:
    casts = [
        cast(VoteOrigin.EMOJI, 0, voter=voter, iid=iid, fingerprint=fingerprint)
        for iid in (2, 1)
        for fingerprint in ("g", "f")
        for voter in ("bob", "ann")
    ]
    voices = [(vote.merge.iid, vote.fingerprint, vote.voter) for vote in effective(casts)]
    assert voices == sorted(voices)
    assert len(set(voices)) == 8


casts = st.builds(
    cast,
    st.sampled_from(VoteOrigin),
    st.integers(0, 5),
    up=st.booleans(),
    reason=st.none() | st.sampled_from(VoteReason),
    voter=st.sampled_from(["ann", "bob"]),
    iid=st.integers(1, 2),
    source=st.integers(0, 999).map(str),
)


@given(st.lists(casts, unique_by=lambda one: (one.voice, one.source)), st.randoms())
def test_one_voice_each_whatever_the_order_and_only_what_was_said(said: list[Cast], random: Random) -> None:
    votes = list(effective(said))
    assert {(vote.merge, vote.fingerprint, vote.voter) for vote in votes} == {one.voice for one in said}
    assert len(votes) == len({one.voice for one in said})
    for vote in votes:
        own = [one.vote for one in said if one.voice == (vote.merge, vote.fingerprint, vote.voter)]
        assert vote.reason is None or (vote.up, vote.reason) in {(other.up, other.reason) for other in own}
        assert WEIGHTS[vote.origin] == max(WEIGHTS[other.origin] for other in own)
    random.shuffle(said)
    assert list(effective(said)) == votes
