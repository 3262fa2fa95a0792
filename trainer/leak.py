"""Whether two tasks are the same, or nearly: what stands in the held-out set must not be learnt from."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from bot.diff import LineKind
from trainer.example import Task

NEAR = 0.8
"""Share of common shingles from which two changes count as one: renaming a variable or two of a function stays above
it, another function of the same file stays below."""
SHINGLE = 5
"""Tokens in a row. Fewer are common to all code of a language."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


def shingles(task: Task) -> frozenset[int]:
    """Hashes of all runs of tokens of what the change adds (or, where it adds nothing, shows)."""
    lines = task.question.part.lines
    added = [line.text for line in lines if line.kind is LineKind.ADDED] or [line.text for line in lines]
    tokens = _TOKEN.findall("\n".join(added))
    runs = (tuple(tokens[at : at + SHINGLE]) for at in range(max(1, len(tokens) - SHINGLE + 1)))
    return frozenset(map(hash, runs))


class Seen:
    """Tasks that were seen, to be asked whether another one is (nearly) among them.

    Two changes with the same code are near each other whatever their answers are.
    """

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._sizes: dict[str, int] = {}
        self._by_shingle: defaultdict[int, set[str]] = defaultdict(set)
        for task in tasks:
            self.add(task)

    def add(self, task: Task) -> None:
        """See a task."""
        if task.id not in self._sizes:
            runs = shingles(task)
            self._sizes[task.id] = len(runs)
            for run in runs:
                self._by_shingle[run].add(task.id)

    def near(self, task: Task) -> str | None:
        """Id of the seen task that is nearest, where one is near enough."""
        runs = shingles(task)
        common = Counter(seen for run in runs for seen in self._by_shingle.get(run, ()))
        likeness = {seen: count / (len(runs) + self._sizes[seen] - count) for seen, count in common.items()}
        best = max(likeness, key=lambda seen: (likeness[seen], seen), default=None)
        return best if best is not None and likeness[best] >= NEAR else None


def distinct(tasks: Iterable[Task]) -> Iterator[Task]:
    """The tasks without those that are near an earlier one."""
    seen = Seen()
    for task in tasks:
        if seen.near(task) is None:
            seen.add(task)
            yield task


def without_leaks(tasks: Iterable[Task], heldout: Iterable[Task]) -> Iterator[Task]:
    """The tasks that are not near one of the held-out set."""
    seen = Seen(heldout)
    return (task for task in tasks if seen.near(task) is None)
