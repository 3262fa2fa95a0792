"""Whether an adapter that serves pleases people less than the one before it did."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Liking:
    """The votes on what an adapter said."""

    up: int
    down: int

    @property
    def votes(self) -> int:
        """All of them."""
        return self.up + self.down


def worse(new: Liking, old: Liking, *, least: int, alpha: float) -> str | None:
    """Why the adapter should be taken back, in words; None where nothing shows that.

    By Fisher's exact test, one-sided: how likely it is that the new one got so many of all the 👎, were there no
    difference (Fisher, R. A., 1935, The Design of Experiments).

    Args:
        new: of the adapter that serves.
        old: of the one before it.
        least: votes that each of them must have.
        alpha: how likely luck may be taken for a difference.
    """
    if min(new.votes, old.votes) < least:
        return None
    down, total = new.down + old.down, new.votes + old.votes
    ways = sum(
        math.comb(new.votes, count) * math.comb(old.votes, down - count)
        for count in range(new.down, min(new.votes, down) + 1)
    )
    chance = ways / math.comb(total, down)
    if chance > alpha:
        return None
    return (
        f"{new.down} of {new.votes} votes are against it, and {old.down} of {old.votes} were against the one before: "
        f"by luck with a chance of {chance:.3f}"
    )
