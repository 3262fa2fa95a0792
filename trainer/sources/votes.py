"""Votes as task data: what people confirmed is to be said again, what they rejected is not."""

from collections.abc import Iterable

from bot.answer import QUOTE_CHARACTERS, Suspect
from bot.domain import Vote, VoteReason
from bot.store import Voted
from trainer.example import Lineage, Origin, Task

MARGIN = 0.3
"""How much more the one side must weigh: the least single vote that was said on purpose weighs more."""


def task_of(voted: Voted) -> Task | None:
    """The task that the votes on a finding make; None where they make none.

    Up confirms the finding as it was said. Down goes by the reason with the most weight: `nit` makes it trivial,
    `known` teaches nothing (it is right, and not to be said there), anything else makes the part clean. None as well
    where the votes contradict each other, or where what was asked was not kept.
    """
    question, finding = voted.question, voted.finding
    balance = sum(vote.weight if vote.up else -vote.weight for vote in voted.votes)
    if question is None or abs(balance) < MARGIN or finding.line not in question.part.places:
        return None
    severity = finding.severity.value if balance > 0 else _lowered(voted.votes)
    if severity is None:
        return None
    clean = severity == "none"
    answer = Suspect(
        line=finding.line,
        quote=question.part.places[finding.line].strip()[:QUOTE_CHARACTERS],
        explanation="This is fine." if clean else finding.explanation[:400],
        severity=severity,
        category=finding.category,
        title="" if clean else finding.title[:80],
        suggestion=None if clean or balance < 0 or finding.suggestion is None else finding.suggestion[:400],
    )
    lineage = Lineage(
        source=f"votes on {voted.merge}",
        merge=voted.merge,
        fingerprint=finding.fingerprint,
        voters=tuple(sorted({vote.voter for vote in voted.votes})),
        reviews=voted.reviews,
    )
    return Task(question=question, answer=answer, origin=Origin.VOTE, weight=min(1.0, abs(balance)), lineage=lineage)


def _lowered(votes: Iterable[Vote]) -> str | None:
    """What people who voted it down want it to be; None: nothing that can be taught."""
    weights: dict[VoteReason | None, float] = {}
    for vote in votes:
        if not vote.up:
            weights[vote.reason] = weights.get(vote.reason, 0.0) + vote.weight
    reason = max(weights, key=lambda each: (weights[each], each is not None, str(each)))
    return {VoteReason.NIT: "trivial", VoteReason.KNOWN: None}.get(reason, "none") if reason else "none"
