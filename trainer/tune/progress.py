"""How far an engine is, read from what it writes."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import mean, median
from typing import TypedDict

_RECENT = 20
"""Steps that tell the pace."""
_BREAK = 10
"""So many times the usual step: in between it stood still."""


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
        seconds_left: at the pace of the last steps; None: there is none yet.
    """

    step: int
    of: int
    loss: float | None = None
    val_loss: float | None = None
    best: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None


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
        seconds_left=_seconds_left(steps, of),
    )


def _seconds_left(steps: dict[int, Row], of: int) -> float | None:
    """By the clock of the records, validations and checkpoints included; a kill and a resume are not."""
    recent = sorted(steps.items())[-_RECENT:]
    try:
        times = [datetime.fromisoformat(row["timestamp"]).timestamp() for _, row in recent]
    except (KeyError, TypeError, ValueError):
        return None
    waits = [max(0.0, later - sooner) for sooner, later in pairwise(times)]
    if not waits:
        return None
    usual = median(waits)
    return max(0, of - recent[-1][0]) * mean(wait for wait in waits if wait <= _BREAK * usual)


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


_KNOWN = (
    (
        r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc|MemoryError|DefaultCPUAllocator",
        "it ran out of memory; a smaller micro_batch or sequence_tokens needs less",
    ),
    (r"No space left on device", "the disk is full"),
)


def cause(output: Sequence[str]) -> str:
    """Why it failed: in our words where they are known, with the last line of the traceback, without its prefix."""
    lines = [line.removeprefix("[rank0]:").strip() for line in output]
    named = [line for line in lines if line and line.split(":")[0].split(".")[-1].endswith(("Error", "Exception"))]
    told = (named[-1] if named else next((line for line in reversed(lines) if line), "it said nothing"))[:500]
    for pattern, words in _KNOWN:
        if found := next((line for line in reversed(lines) if re.search(pattern, line, re.IGNORECASE)), None):
            return f"{words} ({found[:500]})"
    return told
