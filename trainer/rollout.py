"""Brings adapters into service and takes them out, without a restart and without losing a review.

The order of a swap is what keeps vLLM alive and its answers right: load the new name everywhere, ask it something
everywhere, move the pointer in one transaction, wait until no review asks the old one, unload that. Its folder stays
for as long as any server lists it. Every step looks at what is there already, so that whoever is killed between two of
them, or runs one again, leaves the serving adapter serving.

What is unloaded are only adapters that the store knows and that are retired or refused: those of others are not ours.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from bot.answer import ANSWER_TOKENS, AnswerError, answer_schema, parse_answer
from bot.diff import parse
from bot.endpoint import AdapterRefused, StudentError
from bot.interview import Endpoint, connect
from bot.local.adapters import AdapterError
from bot.plan import Question
from bot.prompt import Brief, Part
from bot.serving import Loaded, adapters_dir, folder_at_student, is_served, load, put_back, replicas
from bot.settings import Settings
from bot.step import now
from bot.store import AdapterState, Store, StoredAdapter, StoreError
from bot.student import Student
from trainer import adapter as registry

PATIENCE_SECONDS = 900.0
"""How long a swap waits for the reviews that ask the old adapter. What lasts longer, `restore` unloads some day."""
POLL_SECONDS = 1.0
SECONDS = 120.0
"""How long a server may take to load, to unload and to list."""

_PATCH = (
    "--- a/pay.py\n+++ b/pay.py\n@@ -1,2 +1,3 @@\n def pay(cents):\n"
    "+    db.execute(f'insert into payments values ({cents})')\n     send(cents)\n"
)
_T = TypeVar("_T")


class RolloutError(RuntimeError):
    """An adapter could not be brought into service, or out of it. What served before serves still."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """What came of a swap.

    Args:
        serving: who reviews from now on; None: the base model.
        before: who did until now.
        unloaded: what was unloaded, as `ADAPTER at ADDRESS`.
        problems: what is left to do, in words; `restore` does it.
    """

    serving: str | None
    before: str | None
    unloaded: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def smoke() -> tuple[Question, ...]:
    """Something to ask where there are no exam questions at hand."""
    (file,) = parse(_PATCH)
    return (Question(Part(file.path, file.hunks[0].lines), Brief()),)


class Rollout:
    """Adapters of one student, at all servers behind its address.

    Args:
        store: what the bot remembers; it holds the pointer.
        chosen: the settings in force.
        base: the folder of the base model that the student serves.
        max_rank: the largest rank that vLLM was started for.
    """

    def __init__(self, store: Store, chosen: Settings, *, base: Path, max_rank: int) -> None:
        self.store = store
        self.chosen = chosen
        self.base = base
        self.max_rank = max_rank
        self.folder = adapters_dir(chosen)

    # --- before an adapter serves

    def try_out(self, name: str) -> None:
        """Load an adapter at every server, so that it can be examined there; at all of them or at none.

        Raises:
            RolloutError: it is not as it must be, or a server does not take it.
            StudentError: no student is running.
        """
        with self._alone():
            self._load(name)

    def withdraw(self, name: str) -> None:
        """Unload an adapter that is not to serve, where it is loaded.

        Raises:
            RolloutError: it serves, or reviews ask it.
            StudentError: a server does not answer.
        """
        with self._alone():
            if name in self._needed():
                raise RolloutError(f"{name} cannot be withdrawn: it serves, or reviews ask it.")
            for server in replicas(self.chosen):
                self._on(server, lambda student: _unload(student, [name]))

    # --- the pointer

    def roll_out(
        self, name: str, questions: Sequence[Question] = (), *, patience_seconds: float = PATIENCE_SECONDS
    ) -> Swapped:
        """Let an adapter make the reviews from now on; done again, or after a kill, it goes on where it was.

        Args:
            name: of a published and registered adapter.
            questions: what it is asked at each server before it may; without any, something simple.
            patience_seconds: how long to wait for the reviews that ask the one before.

        Raises:
            RolloutError: it may not serve. What served before serves still, and it is loaded nowhere.
            StudentError: no student is running.
        """
        with self._alone():
            before = self._serving()
            again = before == name
            self._load(name, patient=again)
            if again:
                before = self._known(name).predecessor
            else:
                self._try_canary(name, questions or smoke())
                self._point(name)
        self._drain(patience_seconds)
        return self._swapped(before)

    def rollback(self, to: str | None = None) -> Swapped:
        """Go back at once to the adapter that served before (which may mean the base model), or to a named one.

        A server that is down holds nothing up: it gets the adapter when it is back.

        Args:
            to: an adapter, or the base model by its name.

        Raises:
            RolloutError: there is nothing to go back to, or it may not serve.
        """
        with self._alone():
            serving = self.store.serving_adapter()
            before = serving.name if serving else None
            if to is None and serving is None:
                raise RolloutError("No adapter serves: the base model reviews, and there is nothing to go back to.")
            target = to if to is not None else serving.predecessor if serving else None
            if serving and target == serving.base:
                target = None
            if target is not None:
                self._load(target, patient=True)
            self._point(target)
        return self._swapped(before)

    # --- upkeep

    def restore(self) -> Loaded:
        """Load what must be there where it is missing, and unload what is retired or refused and asked no more.

        For after a restart of vLLM, after a kill, and now and then; it never raises for what a server does.

        Raises:
            StoreError: the database cannot be used.
        """
        with self._alone():
            loaded = put_back(self.chosen, self.store)
            _, problems = self._settle()
        return replace(loaded, problems=tuple(dict.fromkeys((*loaded.problems, *problems))))

    def prune(self, before: datetime) -> tuple[str, ...]:
        """Remove the folders of adapters that were retired or refused before that time; says which.

        One that is listed at any server stays, for vLLM dies when it looks for a folder that is gone; where a server
        does not tell, all stay. So does the one that a rollback would go back to.

        Raises:
            StudentError: a server does not answer.
        """
        with self._alone():
            for left in self.folder.glob(".pruned-*"):
                shutil.rmtree(left)
            serving = self.store.serving_adapter()
            kept = {*self._needed(), serving.predecessor if serving else None}
            old = [one for one in self.store.adapters() if _over(one, before) and one.name not in kept]
            there = [one.name for one in old if (self.folder / one.name).is_dir()]
            if not there:
                return ()
            self._settle()
            for server in replicas(self.chosen):
                listed = self._on(server, _listed)
                there = [name for name in there if name not in listed]
            for name in there:  # first out of sight, in one go: no half of a folder has its name
                gone = (self.folder / name).rename(self.folder / f".pruned-{name}")
                shutil.rmtree(gone)
            return tuple(there)

    # --- the steps

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time: a rollback waits until a canary is through, but for no draining."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            yield

    def _serving(self) -> str | None:
        serving = self.store.serving_adapter()
        return serving.name if serving else None

    def _needed(self) -> set[str | None]:
        return {self._serving(), self.chosen.student_adapter, *self.store.adapters_in_use()}

    def _known(self, name: str) -> StoredAdapter:
        adapter = self.store.adapter(name)
        if adapter is None:
            raise RolloutError(f"There is no adapter {name}.")
        if adapter.state is AdapterState.REFUSED:
            raise RolloutError(f"{name} was refused.")
        return adapter

    def _load(self, name: str, *, patient: bool = False) -> None:
        """Load at all servers or at none; `patient`: those that do not answer get it later."""
        adapter, folder = self._known(name), folder_at_student(self.chosen, name)

        async def act(student: Student) -> None:
            if not is_served(await student.models(), name, folder):
                await load(student, adapter, folder)

        try:
            registry.ready(self.folder / name, self.base, max_rank=self.max_rank)
            if not patient:
                for server in replicas(self.chosen):
                    self._on(server, act)
            elif refused := [error for error in self._wherever(act)[1] if isinstance(error, AdapterRefused)]:
                raise refused[0]
        except (AdapterError, StudentError) as error:
            self._undo(name)
            raise RolloutError(f"{name} was not loaded: {error}") from error

    def _try_canary(self, name: str, questions: Sequence[Question]) -> None:
        """Ask the adapter something at each server."""
        try:
            for server in replicas(self.chosen):
                self._on(server, lambda student: _canary(student, questions), adapter=name)
        except (StudentError, AnswerError) as error:
            self._undo(name)
            raise RolloutError(f"{name} gives no usable answer: {error}") from error

    def _undo(self, name: str) -> None:
        """Unload what a failed attempt has loaded; where that fails too, `restore` does it once it is refused."""
        if name in self._needed():
            return
        self._wherever(lambda student: _unload(student, [name]))

    def _point(self, name: str | None) -> None:
        try:
            self.store.serve_adapter(name, now())
        except StoreError as error:
            raise RolloutError(f"The pointer was not moved: {error}") from error

    def _drain(self, seconds: float) -> None:
        """Wait until reviews ask none but the adapters that are to stay."""
        limit = time.monotonic() + seconds
        stay = {self._serving(), self.chosen.student_adapter}
        while self.store.adapters_in_use().keys() - stay and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)

    def _swapped(self, before: str | None) -> Swapped:
        with self._alone():
            unloaded, problems = self._settle()
        serving = self._serving()
        uses = self.store.adapters_in_use().get(before, 0) if before and before != serving else 0
        if uses:
            problems = (*problems, f"{before} stays loaded: reviews that ask it: {uses}")
        return Swapped(serving, before, unloaded, problems)

    def _settle(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Unload what is over and asked no more; what was unloaded, and what went wrong."""
        needed = self._needed()
        over = {one.name for one in self.store.adapters() if one.state in _OVER and one.name not in needed}
        if not over:
            return (), ()
        done, wrong = self._wherever(lambda student: _unload(student, over))
        unloaded = tuple(f"{name} at {url}" for url, names in done.items() for name in names)
        return unloaded, tuple(str(error) for error in wrong)

    def _wherever(
        self, act: Callable[[Student], Coroutine[None, None, _T]]
    ) -> tuple[Mapping[str, _T], Sequence[StudentError]]:
        """Do something at every server that answers; what came of it by address, and what went wrong."""
        done: dict[str, _T] = {}
        try:
            servers = replicas(self.chosen)
        except StudentError as error:
            return done, (error,)
        wrong: list[StudentError] = []
        for server in servers:
            try:
                done[server.url] = self._on(server, act)
            except StudentError as error:
                wrong.append(error)
        return done, wrong

    def _on(
        self, server: Endpoint, act: Callable[[Student], Coroutine[None, None, _T]], *, adapter: str | None = None
    ) -> _T:
        """Do something at one server; an adapter that is asked takes the time that an answer takes."""
        reached = server if adapter else replace(server, timeout_seconds=SECONDS)

        async def go() -> _T:
            async with connect(reached, self.chosen, adapter) as student:
                return await act(student)

        return asyncio.run(go())


_OVER = frozenset({AdapterState.RETIRED, AdapterState.REFUSED})


def _over(adapter: StoredAdapter, before: datetime) -> bool:
    return adapter.state in _OVER and (adapter.retired_at or adapter.created_at) < before


async def _listed(student: Student) -> set[str]:
    return {model.id for model in await student.models()}


async def _unload(student: Student, names: Collection[str]) -> list[str]:
    """Unload those of them that are listed; says which."""
    gone = sorted(await _listed(student) & set(names))
    for name in gone:
        try:
            await student.unload_adapter(name)
        except AdapterRefused:
            if name in await _listed(student):  # else it is gone already
                raise
    return gone


async def _canary(student: Student, questions: Sequence[Question]) -> None:
    """Ask; whether the answers are right was the gate's business.

    Raises:
        AnswerError: one is not what a review can use, or all were cut off.
        StudentError: one did not come.
    """
    replies = await asyncio.gather(
        *(
            student.ask(question.messages, schema=answer_schema(question.part.places), max_tokens=ANSWER_TOKENS)
            for question in questions
        )
    )
    whole = [reply for reply in replies if reply.finish_reason != "length"]
    if not whole:
        raise AnswerError("every answer was cut off")
    for reply in whole:
        parse_answer(reply.text)
