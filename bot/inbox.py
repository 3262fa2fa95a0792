"""Keep deliveries before they are answered: those that wait at the same time are committed together.

One thread writes. While it commits, deliveries gather, and the next commit takes them all: the more come, the fewer
commits each costs. The event loop never waits for the database, and nobody is answered before the row is there.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from bot.store.values import Arrival

MAX_BATCH = 256
"""Rows in one transaction."""
MAX_WAITING = 2000
"""Deliveries that may wait; more are turned away at once, and found again by the sweep."""
PATIENCE = 8.0
"""Seconds that a delivery may wait for its commit. GitLab waits ten for the answer."""

_Waiting = tuple[Arrival, asyncio.Future[bool]]


class InboxFailed(RuntimeError):  # noqa: N818 -- named for what happened
    """The delivery could not be kept, or not in time. What the database said is the cause."""


class Keeper(Protocol):
    """Whoever keeps deliveries: `bot.store.Store`."""

    def receive_many(self, arrivals: Sequence[Arrival]) -> list[bool]:
        """Keep them in one transaction; says of each whether it is new."""
        ...


class Inbox:
    """The way into the store for the coroutines of one event loop."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inbox")

    async def receive(self, arrival: Arrival) -> bool:
        """Keep a delivery, and come back when it is committed. False: it was here before.

        Raises:
            InboxFailed: it may be kept or not; the sender shall hear that it was not.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise InboxFailed(f"{MAX_WAITING} deliveries wait to be kept")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        try:
            return await asyncio.wait_for(done, PATIENCE)
        except TimeoutError:
            raise InboxFailed(f"not kept within {PATIENCE:g} seconds") from None

    async def _write(self) -> None:
        """Commit what waits, until nothing does."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                batch = [(arrival, done) for arrival, done in batch if not done.done()]  # the others gave up
                arrivals = [arrival for arrival, _done in batch]
                try:
                    answers = await loop.run_in_executor(self._thread, self._keeper.receive_many, arrivals)
                except Exception as error:  # noqa: BLE001 -- whatever it was, nobody may wait for ever
                    _fail(batch, error)
                else:
                    for (_arrival, done), is_new in zip(batch, answers, strict=True):
                        if not done.done():
                            done.set_result(is_new)
        finally:
            self._writing = None


def _fail(batch: Sequence[_Waiting], cause: Exception) -> None:
    for _arrival, done in batch:
        if not done.done():
            failure = InboxFailed("the database did not keep it")
            failure.__cause__ = cause
            done.set_exception(failure)
