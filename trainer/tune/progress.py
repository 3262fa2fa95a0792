"""How far an engine is, read from what it writes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict


class Row(TypedDict, total=False):
    """What of a line of `training.jsonl` or `validation.jsonl` is read."""

    step: int
    loss: float
    val_loss: float
    tps: float
    timestamp: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fine-tuning is.

    Args:
        step: steps that are done, of `of`.
        loss: of the newest step; `val_loss`: of the newest validation; `best`: the best of them. None: not yet.
        tokens_per_second: of the newest step.
    """

    step: int
    of: int
    loss: float | None = None
    val_loss: float | None = None
    best: float | None = None
    tokens_per_second: float | None = None

    def seconds_left(self, seconds_a_step: float) -> float:
        """How long it will still take at this pace."""
        return max(0, self.of - self.step) * seconds_a_step


def by_step(lines: Iterable[str]) -> dict[int, Row]:
    """The records by step. After a resume some stand there twice: the last one counts. A line that is cut is left out.

    Steps are counted from 1; the engines count from 0.
    """
    found: dict[int, Row] = {}
    for line in lines:
        try:
            row = json.loads(line)
            found[int(row["step"]) + 1] = row
        except (ValueError, KeyError, TypeError):
            continue
    return found


def progress(training: Iterable[str], validation: Iterable[str], of: int) -> Progress:
    """How far it is, by the lines of its two logs."""
    steps, losses = by_step(training), curve(validation, "val_loss")
    newest: Row = steps[max(steps)] if steps else {}
    return Progress(
        step=max(steps, default=0),
        of=of,
        loss=newest.get("loss"),
        val_loss=losses[-1][1] if losses else None,
        best=min((loss for _, loss in losses), default=None),
        tokens_per_second=newest.get("tps"),
    )


def curve(lines: Iterable[str], name: str) -> list[tuple[int, float]]:
    """One figure over the steps, for a plot."""
    rows = sorted(by_step(lines).items())
    return [(step, float(value)) for step, row in rows if isinstance(value := row.get(name), int | float)]


def ended(output: Sequence[str]) -> tuple[str, int] | None:
    """How the engine says that it ended (`finished` or `stopped`), and after how many steps; None: it does not."""
    for line in reversed(output):
        words = line.split()
        if words[:1] == ["END"] and len(words) == 3 and words[2].isdecimal():  # noqa: PLR2004 -- as it writes it
            return words[1], int(words[2])
    return None


def cause(output: Sequence[str]) -> str:
    """The line of its output that says best why it failed: the last one of a traceback, without its prefix."""
    lines = [line.removeprefix("[rank0]:").strip() for line in output]
    named = [line for line in lines if line and line.split(":")[0].split(".")[-1].endswith(("Error", "Exception"))]
    told = named[-1] if named else next((line for line in reversed(lines) if line), "it said nothing")
    return told[:500]
