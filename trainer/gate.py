"""The gate: only a candidate that is better, and no worse in anything that matters, comes to serve."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.exam import Mark
from trainer.grade import score
from trainer.statistics import mcnemar


@dataclass(frozen=True, slots=True)
class Check:
    """One condition, whether it holds, and the figures behind it in words."""

    holds: bool
    words: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the candidate is promoted: all checks hold. There is at least one."""

    checks: tuple[Check, ...]

    @property
    def promoted(self) -> bool:
        """Whether the candidate shall serve."""
        return all(check.holds for check in self.checks)

    @property
    def words(self) -> str:
        """The decision as a person reads it: what is against it, or all that speaks for it."""
        against = [check.words for check in self.checks if not check.holds]
        if against:
            return "refused: " + "; ".join(against)
        return "promoted: " + "; ".join(check.words for check in self.checks)


def decide(
    candidate: Sequence[Mark], serving: Sequence[Mark], *, alpha: float, base: Sequence[Mark] | None = None
) -> Verdict:
    """Compare two sittings of one exam, the frozen held-out set.

    Args:
        candidate: marks of the new adapter.
        serving: marks of what serves now, an adapter or the base.
        alpha: how likely luck may be taken for skill.
        base: marks of the base model, where that is not what serves.
    """
    exams = [{mark.task for mark in marks} for marks in (candidate, serving, serving if base is None else base)]
    if not candidate or exams[0] != exams[1] or exams[0] != exams[2]:
        return Verdict((Check(holds=False, words="the two did not sit the same exam, or it has no questions"),))
    new, old = score(candidate), score(serving)
    before = {mark.task: mark.right for mark in serving}
    better = sum(mark.right and not before[mark.task] for mark in candidate)
    worse = sum(before[mark.task] and not mark.right for mark in candidate)
    chance = mcnemar(better, worse)
    return Verdict(
        (
            Check(
                better > worse and chance <= alpha,
                f"severity right {new.accuracy:.1%} against {old.accuracy:.1%}: {better} questions won, {worse} lost, "
                f"by luck with a chance of {chance:.3f} (at most {alpha:g})",
            ),
            Check(
                new.accuracy > new.constant,
                f"always giving the commonest severity would reach {new.constant:.1%}",
            ),
            *(
                [_not_lower("severity right, beside the base model,", new.accuracy, score(base).accuracy)]
                if base is not None
                else []
            ),
            _not_lower("macro-F1", new.macro_f1, old.macro_f1),
            _not_lower("answers that can be used", new.validity, old.validity),
            _not_lower("major and critical problems seen as such", new.severe_recall, old.severe_recall),
            _not_lower("clean parts left in peace", 1 - new.false_alarms, 1 - old.false_alarms),
        )
    )


def _not_lower(name: str, new: float, old: float) -> Check:
    return Check(new >= old, f"{name} {new:.1%} against {old:.1%}")
