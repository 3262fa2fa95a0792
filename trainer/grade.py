"""From marks to figures: accuracy, false alarms, proficiency per skill, and feedback in words."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from bot.answer import NONE, SEVERITY_LABELS
from trainer.exam import Mark
from trainer.example import Skill
from trainer.statistics import wilson

SEVERE = frozenset({"major", "critical"})
INVALID = "invalid"
ENOUGH = 3
"""Questions about a skill below which nothing is said of it."""
GOOD, WEAK = 0.7, 0.4
BETTER, AS_GOOD, WORSE = JUDGEMENTS = ("better", "as good", "worse")
"""How an explanation compares with that of the exam."""


class Proficiency(NamedTuple):
    """How well a skill is mastered: `right` of `asked` questions."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """Right ones of all; 0 where nothing was asked."""
        return self.right / self.asked if self.asked else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Between which shares the true one lies (95 %)."""
        return wilson(self.right, self.asked)


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of a sitting; all shares are 0 to 1.

    Args:
        questions: how many there were.
        accuracy: of the severity. An answer that cannot be used is wrong.
        adjacent: the same, where one step beside is right, too.
        macro_f1: mean over the severities that were wanted, each with the same weight.
        validity: answers that could be used.
        located: right lines, of the questions with a problem.
        severe_recall: of the major and critical problems, those that were rated major or critical. 1 without any.
        false_alarms: of the clean parts, those that were rated a problem. 0 without any.
        constant: what one reaches who always gives the commonest severity.
    """

    questions: int
    accuracy: float
    adjacent: float
    macro_f1: float
    validity: float
    located: float
    severe_recall: float
    false_alarms: float
    constant: float


def score(marks: Sequence[Mark]) -> Scores:
    """The figures of a sitting."""
    problems = [mark for mark in marks if mark.wanted != NONE]
    severe = [mark for mark in marks if mark.wanted in SEVERE]
    clean = [mark for mark in marks if mark.wanted == NONE]
    commonest = max(Counter(mark.wanted for mark in marks).values(), default=0)
    return Scores(
        questions=len(marks),
        accuracy=_share(marks, lambda mark: mark.right),
        adjacent=_share(marks, lambda mark: mark.adjacent),
        macro_f1=_macro_f1(marks),
        validity=_share(marks, lambda mark: mark.given is not None),
        located=_share(problems, lambda mark: mark.located),
        severe_recall=_share(severe, lambda mark: mark.given in SEVERE, empty=1.0),
        false_alarms=_share(clean, lambda mark: mark.given not in {NONE, None}),
        constant=commonest / len(marks) if marks else 0.0,
    )


def _share(marks: Sequence[Mark], true: Callable[[Mark], bool], empty: float = 0.0) -> float:
    return sum(map(true, marks)) / len(marks) if marks else empty


def _macro_f1(marks: Sequence[Mark]) -> float:
    wanted = sorted({mark.wanted for mark in marks})  # in one order: the gate compares the last digit, too
    scores = []
    for label in wanted:
        hit = sum(mark.wanted == label == mark.given for mark in marks)
        miss = sum((mark.wanted == label) != (mark.given == label) for mark in marks)
        scores.append(2 * hit / (2 * hit + miss))
    return sum(scores) / len(scores) if scores else 0.0


def confusion(marks: Sequence[Mark]) -> dict[str, dict[str, int]]:
    """How often which severity was given (the inner key, `invalid` too) where which one was wanted."""
    table = {label: dict.fromkeys((*SEVERITY_LABELS, INVALID), 0) for label in SEVERITY_LABELS}
    for mark in marks:
        table[mark.wanted][mark.given or INVALID] += 1
    return table


def proficiency(marks: Sequence[Mark]) -> dict[Skill, Proficiency]:
    """How well each skill is mastered, by its name."""
    found: defaultdict[Skill, list[bool]] = defaultdict(list)
    for mark in marks:
        found[mark.skill].append(mark.right)
    return {skill: Proficiency(sum(right), len(right)) for skill, right in sorted(found.items())}


def weak_skills(proficiencies: Mapping[Skill, Proficiency]) -> list[Skill]:
    """The skills by how much there is to gain, the weakest first: by the upper end of what they may be worth."""
    return sorted(proficiencies, key=lambda skill: (proficiencies[skill].interval[1], skill))


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a sitting shows, in words."""

    strengths: tuple[str, ...]
    weaknesses: tuple[str, ...]


def feedback(marks: Sequence[Mark], explanations: Mapping[str, int] = MappingProxyType({})) -> Feedback:
    """Say where the one who sat the exam is good, and where not.

    Args:
        marks: of the severities.
        explanations: how many were judged `BETTER`, `AS_GOOD` and `WORSE` than those of the exam.
    """
    strengths, weaknesses = [], []
    good, judged = _explained(explanations)
    words = f"explanations: {good} of {judged} as good as they should be"
    if judged >= ENOUGH and good >= GOOD * judged:
        strengths.append(words)
    if judged >= ENOUGH and good <= WEAK * judged:
        weaknesses.append(words)
    for title, of in _VIEWS.items():
        groups: defaultdict[str, list[Mark]] = defaultdict(list)
        for mark in marks:
            if name := of(mark.skill):
                groups[name].append(mark)
        for name, group in sorted(groups.items()):
            share = _share(group, lambda mark: mark.right)
            words = f"{title} {name}: {sum(mark.right for mark in group)} of {len(group)} right"
            if len(group) >= ENOUGH and share >= GOOD:
                strengths.append(words)
            if len(group) >= ENOUGH and share <= WEAK:
                often = Counter(mark.given or "an answer that cannot be used" for mark in group if not mark.right)
                given, count = max(often.items(), key=lambda item: (item[1], item[0]))
                weaknesses.append(f"{words}; {count} times it says {given}")
    scores = score(marks)
    if scores.validity < 1:
        weaknesses.append(f"{scores.validity:.0%} of its answers can be used")
    return Feedback(tuple(strengths), tuple(weaknesses))


def _explained(explanations: Mapping[str, int]) -> tuple[int, int]:
    """How many are good enough, of all that were judged."""
    judged = sum(explanations.get(how, 0) for how in JUDGEMENTS)
    return judged - explanations.get(WORSE, 0), judged


_VIEWS: Mapping[str, Callable[[Skill], str]] = {
    "severity": lambda skill: skill.severity,
    "category": lambda skill: "" if skill.category == NONE else skill.category,
    "language": lambda skill: skill.language,
}
