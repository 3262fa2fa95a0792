"""Whether everything that reviews need is there: each part is asked by its own check, all at once, now and then."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

Check = Callable[[], None]
"""Asks one part whether it is well; raises where it is not. It blocks, so it needs a time limit of its own."""

KEEP = 5.0
"""Seconds that an answer is good for, however often it is asked for."""
PATIENCE = 3.0
"""Seconds that a check may take before it counts as late."""

_log = structlog.get_logger()


class Readiness:
    """The checks and what they last said.

    Args:
        checks: by the name of the part.
        keep: see `KEEP`.
        patience: see `PATIENCE`.
    """

    def __init__(self, checks: Mapping[str, Check], *, keep: float = KEEP, patience: float = PATIENCE) -> None:
        self._checks = checks
        self._keep = keep
        self._patience = patience
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._said: dict[str, str] = {}
        self._until = 0.0
        self._turn = asyncio.Lock()

    async def look(self) -> dict[str, str]:
        """By part: `ok`, `failed` or `late`. Why stands in the log, not here: strangers may ask."""
        async with self._turn:
            if time.monotonic() >= self._until:
                await self._ask()
                self._until = time.monotonic() + self._keep
            return self._said

    async def _ask(self) -> None:
        for name, check in self._checks.items():
            if name not in self._asking:  # one that hangs is not started again
                self._asking[name] = asyncio.create_task(asyncio.to_thread(check))
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=self._patience)
        before, self._said = self._said, {name: self._heard(name, before=self._said.get(name)) for name in self._checks}
        if before != self._said:
            _log.info("readiness", **self._said)

    def _heard(self, name: str, *, before: str | None) -> str:
        task = self._asking[name]
        if not task.done():
            return "late"
        del self._asking[name]
        error = task.exception()
        if error is None:
            return "ok"
        if before != "failed":
            _log.warning("not ready", part=name, error=f"{type(error).__name__}: {error}")
        return "failed"
