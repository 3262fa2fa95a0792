"""Whether an adapter that ran silently beside the serving one may serve: from what both would have shown."""

from collections.abc import Collection, Sequence

from bot.store import Beside
from trainer.gate import Check, Verdict

MOST, LEAST = 1.5, 0.5
"""Shown findings, as a multiple of the serving adapter's: more is noise, fewer is silence."""
ENOUGH = 5
"""Findings or votes from which something can be said."""


def decide(reviews: Sequence[Beside], liked: Collection[str], disliked: Collection[str]) -> Verdict:
    """Compare what the two would have shown in the same reviews.

    Args:
        reviews: what each showed, by the findings' fingerprints.
        liked: fingerprints that people voted up.
        disliked: fingerprints that people voted down.
    """
    serving, shadow = (
        sum(map(len, shown)) for shown in zip(*((one.serving, one.shadow) for one in reviews), strict=True)
    )
    said = f"{shadow} findings in {len(reviews)} reviews, against {serving}"
    checks = [
        Check(shadow <= max(MOST * serving, ENOUGH), f"no more noise: {said}"),
        Check(serving < ENOUGH or shadow >= LEAST * serving, f"not silent: {said}"),
    ]
    told = {mark for one in reviews for mark in one.serving}
    again = {mark for one in reviews for mark in one.shadow} & told
    up, down = told & set(liked), told & set(disliked)
    if len(up) >= ENOUGH and len(down) >= ENOUGH:
        good, bad = len(up & again) / len(up), len(down & again) / len(down)
        words = f"it says {good:.0%} of what people liked again, and {bad:.0%} of what they did not"
        checks.append(Check(good >= bad, words))
    return Verdict(tuple(checks))
