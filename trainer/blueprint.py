"""How many questions, or lessons, of which skill: more where the student is weak or nobody knows yet."""

from collections.abc import Mapping
from typing import Literal

from trainer.example import Skill
from trainer.grade import GOOD, WEAK, Proficiency

LEAST_NEED = 0.1
"""So much a skill that is mastered counts still, beside one that is not at all: what is not asked is forgotten."""


Level = Literal["easy", "medium", "hard"]


def level(known: Proficiency | None) -> Level:
    """How hard the lessons of a skill shall be: what is not mastered at all is begun with what is easy."""
    if known is None or known.share < WEAK:
        return "easy"
    return "medium" if known.share < GOOD else "hard"


def need(known: Proficiency | None) -> float:
    """How much there may be to learn of a skill, 0 to 1: by the lower end of what it may be worth."""
    low, _ = known.interval if known else (0.0, 1.0)
    return max(LEAST_NEED, 1.0 - low)


def blueprint(
    there: Mapping[Skill, int], known: Mapping[Skill, Proficiency], count: int, *, only_there: bool = False
) -> dict[Skill, int]:
    """Divide questions among the skills.

    Each severity gets the same share, since the commonest one would leave nothing to the others; within a severity the
    skills get theirs by need. As long as there are enough questions, each severity that occurs gets one.

    Args:
        there: how many labelled tasks there are of each skill.
        known: how well each skill is mastered, as far as somebody asked.
        count: questions to divide.
        only_there: no more of a skill than there are tasks (where nobody writes new ones).
    """
    by_severity: dict[str, list[Skill]] = {}
    for skill in sorted(there):
        by_severity.setdefault(skill.severity, []).append(skill)
    given = dict.fromkeys(sorted(there), 0)
    for _ in range(count):
        open_skills = [skill for skill in given if not only_there or given[skill] < there[skill]]
        if not open_skills:
            break
        given[min(open_skills, key=lambda skill: _turn(skill, given, by_severity, known))] += 1
    return {skill: number for skill, number in given.items() if number}


def _turn(
    skill: Skill,
    given: Mapping[Skill, int],
    by_severity: Mapping[str, list[Skill]],
    known: Mapping[Skill, Proficiency],
) -> tuple[float, float, Skill]:
    """Whose turn is next: the severity that has least, in it the skill that has least for its need."""
    of_severity = sum(given[other] for other in by_severity[skill.severity])
    return of_severity, (given[skill] + 1) / need(known.get(skill)), skill
