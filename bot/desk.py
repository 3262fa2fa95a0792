"""The desk: which merge requests wait for a review, since when, and whose turn is next. Pure; `bot.store` keeps it.

A merge request has one row on the desk. Whoever wants a review leaves word there (`Due`); words that arrive while
the row waits are merged into it, so that six pushes make one review. Taking the row for a review is a `Claim`.
"""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from bot.domain import MergeRef, Severity

PATIENCE = 10
"""An endless stream of pushes puts a review off by at most so many debounce times."""


@dataclass(frozen=True, slots=True)
class Due:
    """Word that a merge request wants a review.

    Args:
        ref: which one.
        now: when the word came.
        reason: why, in a few words, for the log and the summary.
        wait: the debounce time of a push: the review begins so long after the newest push. Zero for what shall
            begin at once (opened, a command).
        full: read the whole change, not only what is new.
        asked: a person asked for it, so it counts on a paused merge request too.
    """

    ref: MergeRef
    now: datetime
    reason: str
    wait: timedelta = timedelta(0)
    full: bool = False
    asked: bool = False

    @property
    def at(self) -> datetime:
        """When the review shall begin, if nothing else comes."""
        return self.now + self.wait

    @property
    def latest(self) -> datetime:
        """When it shall begin, however many pushes come."""
        return self.now + PATIENCE * self.wait


@dataclass(frozen=True, slots=True)
class Claim:
    """A merge request taken for one review.

    Args:
        ref: which one.
        generation: grows with every claim of it.
        full: read the whole change.
        asked: a person asked for it.
        reason: why it is reviewed.
        at: when it was taken.
    """

    ref: MergeRef
    generation: int
    full: bool
    asked: bool
    reason: str
    at: datetime

    @property
    def workflow(self) -> str:
        """Name of the review and of the durable workflow that makes it."""
        return f"review:{self.ref.project}:{self.ref.iid}:{self.generation}"


@dataclass(frozen=True, slots=True)
class DeskRow:
    """What the bot knows of a merge request between reviews.

    Args:
        ref: which one.
        due_at: when its next review shall begin; None: none is wanted.
        latest: how late `due_at` may become.
        full: the next review reads the whole change.
        asked: a person asked for it.
        reason: why the next review is wanted.
        claim: the review that runs now. The row may become due again meanwhile.
        generation: of the newest claim, 0 before the first.
        served_at: when it was last claimed.
        paused: only a person's command makes it due.
        threshold: lowest severity posted here, where a person set it by command.
        summary_note: the forge's number of the summary note, once there is one.
    """

    ref: MergeRef
    due_at: datetime | None = None
    latest: datetime | None = None
    full: bool = False
    asked: bool = False
    reason: str = ""
    claim: Claim | None = None
    generation: int = 0
    served_at: datetime | None = None
    paused: bool = False
    threshold: Severity | None = None
    summary_note: int | None = None


def merge_due(row: DeskRow, due: Due) -> DeskRow:
    """Put a wish for a review on the desk.

    A push puts the review off, until it has waited long enough for the first of them; anything else never does,
    and a push cannot put off what somebody asked to begin at once. `full` wins. A review that runs is no obstacle.
    """
    if row.paused and not due.asked:
        return row
    if row.due_at is None or row.latest is None:
        return replace(row, due_at=due.at, latest=due.latest, full=due.full, asked=due.asked, reason=due.reason)
    return replace(
        row,
        due_at=min(max(row.due_at, due.at), row.latest, due.latest) if due.wait else min(row.due_at, due.at),
        latest=min(row.latest, due.latest),
        full=row.full or due.full,
        asked=row.asked or due.asked,
        reason=row.reason if (row.full, row.asked) > (due.full, due.asked) else due.reason,
    )


def pause(row: DeskRow) -> DeskRow:
    """Stop the reviews that nobody asks for by command, the one that waits too."""
    return replace(row, paused=True, due_at=None, latest=None, full=False, asked=False, reason="")


def next_generation(row: DeskRow, now: datetime) -> int:
    """Number the next claim.

    The clock's seconds are its least value: a row that was forgotten and is asked for anew must not repeat the name
    of a workflow that ran before, for a durable workflow of a known name does not run again.
    """
    return max(row.generation + 1, int(now.timestamp()))


_NEVER = datetime.min.replace(tzinfo=UTC)


def pick(
    due: Iterable[DeskRow],
    running: Collection[MergeRef],
    *,
    served: Mapping[int, datetime],
    per_project: int,
    total: int,
) -> list[DeskRow]:
    """Choose which reviews begin now, in order.

    Projects take turns: first the one with the fewest reviews running, then the one that was served longest ago. So
    500 merge requests of one project make another project's only one wait for one turn, not for 500. Within a
    project the oldest wish comes first. A merge request that is being reviewed is never chosen.

    Args:
        due: rows whose time has come.
        running: what is being reviewed.
        served: when a project's newest claim was, for those that had one.
        per_project: most reviews of one project at a time.
        total: most reviews at a time.
    """
    queues: dict[int, list[DeskRow]] = defaultdict(list)
    for row in sorted(due, key=lambda row: (row.due_at or _NEVER, row.ref), reverse=True):
        if row.ref not in running:
            queues[row.ref.project].append(row)
    load = dict.fromkeys(queues, 0)
    for ref in running:
        if ref.project in load:
            load[ref.project] += 1
    turns = [
        (load[project], served.get(project, _NEVER), queue[-1].due_at or _NEVER, project)
        for project, queue in queues.items()
        if load[project] < per_project
    ]
    heapq.heapify(turns)
    chosen: list[DeskRow] = []
    while turns and len(running) + len(chosen) < total:
        count, when, _, project = heapq.heappop(turns)
        queue = queues[project]
        chosen.append(queue.pop())
        if queue and count + 1 < per_project:
            heapq.heappush(turns, (count + 1, when, queue[-1].due_at or _NEVER, project))
    return chosen
