"""The set for the next fine-tuning: new lessons and votes, merged with what was learnt from before."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bot.answer import NONE
from trainer.example import Origin, Task
from trainer.leak import Seen

_TRUST = {Origin.VOTE: 2, Origin.FILE: 1, Origin.TEACHER: 0}
"""Whom to believe where two say different things of one change: your people, then your examples, then the teacher."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How the set shall be.

    Args:
        rows: the most of all.
        replay: of them the share that is kept for what was learnt from before, so that old skills stay.
        least_clean: share of parts about which there is nothing to say; with fewer the student cries wolf.
        most_clean: with more it falls silent.
        most_severity: the most that one severity may be of the parts with a problem.
    """

    rows: int = 5_000
    replay: float = 0.3
    least_clean: float = 0.3
    most_clean: float = 0.5
    most_severity: float = 0.5


@dataclass(frozen=True, slots=True)
class Mixed:
    """The set, sorted by id, and how many tasks were left out for which reason.

    Args:
        tasks: the set.
        dropped: by reason.
        lacks: what it should have and does not, in words.
    """

    tasks: tuple[Task, ...]
    dropped: Mapping[str, int]
    lacks: tuple[str, ...]


def mix(new: Iterable[Task], old: Iterable[Task], heldout: Iterable[Task], limits: Limits, *, seed: int) -> Mixed:
    """Merge the sets. The same tasks give the same set, in whatever order they come.

    Args:
        new: lessons, examples and votes of this round.
        old: what was learnt from before.
        heldout: what must not be learnt from; neither must what is near it.
        limits: how the set shall be.
        seed: where chance begins, which decides whom of two equals to leave out.
    """
    dropped = Counter[str]()
    secret, seen = Seen(heldout), Seen()
    fresh, known = list(new), list(old)
    fresh_ids = {task.id for task in fresh}
    kept: list[Task] = []
    for task in sorted((*fresh, *known), key=lambda task: (-_TRUST[task.origin], -task.weight, task.id)):
        if secret.near(task):
            dropped["near the held-out set"] += 1
        elif seen.near(task):
            dropped["near one that is trusted as much or more"] += 1
        else:
            seen.add(task)
            kept.append(task)
    chosen = _balanced(_within(kept, fresh_ids, limits, seed, dropped), limits, seed, dropped)
    clean = sum(task.clean for task in chosen)
    lacks = []
    if chosen and clean < limits.least_clean * len(chosen):
        lacks.append(f"{clean} of {len(chosen)} parts are clean, and {limits.least_clean:.0%} should be")
    return Mixed(tuple(sorted(chosen, key=lambda task: task.id)), dict(dropped), tuple(lacks))


def _within(tasks: Sequence[Task], fresh: set[str], limits: Limits, seed: int, dropped: Counter[str]) -> list[Task]:
    """No more than there may be, with the share that old ones have; what one side does not need the other one gets."""
    new = _shuffled([task for task in tasks if task.id in fresh], seed)
    old = _shuffled([task for task in tasks if task.id not in fresh], seed)
    replay = max(int(limits.rows * limits.replay), limits.rows - len(new))
    chosen = [*old[:replay], *new[: limits.rows - min(len(old), replay)]]
    dropped["over the most rows"] += len(tasks) - len(chosen)
    dropped += Counter()  # without zeros
    return chosen


def _balanced(tasks: Sequence[Task], limits: Limits, seed: int, dropped: Counter[str]) -> list[Task]:
    by_severity: defaultdict[str, list[Task]] = defaultdict(list)
    for task in _shuffled(tasks, seed):
        by_severity[task.answer.severity].append(task)
    clean = by_severity.pop(NONE, [])
    problems = {severity: len(group) for severity, group in by_severity.items()}
    if len(problems) > 1:  # of one alone there is nothing to balance
        for severity, group in by_severity.items():
            others = sum(count for other, count in problems.items() if other != severity)
            most = int(others * limits.most_severity / (1 - limits.most_severity))
            dropped[f"too many of {severity}"] += max(0, len(group) - most)
            del group[most:]
    kept = [task for group in by_severity.values() for task in group]
    if kept:
        most = int(len(kept) * limits.most_clean / (1 - limits.most_clean))
        dropped["too many clean parts"] += max(0, len(clean) - most)
        del clean[most:]
    for reason in [reason for reason, count in dropped.items() if not count]:
        del dropped[reason]
    return [*kept, *clean]


def _shuffled(tasks: Iterable[Task], seed: int) -> list[Task]:
    return sorted(tasks, key=lambda task: hashlib.sha256(f"{seed} {task.id}".encode()).digest())
