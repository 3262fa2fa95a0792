"""One voice per person and finding, out of all that a person did about it. Pure; `bot.store` keeps what they did."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from bot.domain import MergeRef, Vote
from bot.feedback import WEIGHTS


@dataclass(frozen=True, slots=True)
class Cast:
    """One thing that a person did about a finding: it may be one of several, and may be taken back.

    Args:
        vote: what it says, taken alone.
        source: the forge's name of it, by which it is taken back: the number of an award or of a reply; empty where
            there can only be one of its origin.
        name: the emoji's name, empty for other origins.
    """

    vote: Vote
    source: str = ""
    name: str = ""

    @property
    def voice(self) -> tuple[MergeRef, str, str]:
        """Merge request, fingerprint and voter: all casts with the same make one vote."""
        return (self.vote.merge, self.vote.fingerprint, self.vote.voter)


def effective(casts: Iterable[Cast]) -> Iterator[Vote]:
    """Yield the one vote of each voice, ordered by merge request, fingerprint and voter.

    The strongest origin counts, of several of the same the newest. Where that one gives no reason, the newest one
    that the voter gave for the same opinion is added: a 👎 after a "nit" is still a nit.
    """
    for _, group in groupby(sorted(casts, key=lambda cast: cast.voice), key=lambda cast: cast.voice):
        ranked = sorted(group, key=_rank)
        vote = ranked[0].vote
        if vote.reason is None:
            same = (cast.vote for cast in ranked if cast.vote.up == vote.up and cast.vote.reason)
            reason = max(same, key=lambda other: other.at, default=vote).reason
            vote = replace(vote, reason=reason)
        yield vote


def _rank(cast: Cast) -> tuple[float, float, str, str]:
    """Sort the one that counts to the front; source and name make the order total."""
    return (-WEIGHTS[cast.vote.origin], -cast.vote.at.timestamp(), cast.source, cast.name)
