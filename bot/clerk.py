"""The clerk: one thread that, several times a second, turns what came in into work, and sees to the rare chores."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bot.complaints import Complaints
from bot.desk import Due
from bot.domain import MergeRef
from bot.forge import Forge, ForgeError, ForgeUnreachable
from bot.jobs import BEAT_SECONDS, Worker
from bot.serving import Loaded
from bot.step import Wait, now
from bot.store import Project, Store, StoreError

log = structlog.get_logger()

TICK_SECONDS = 0.1
RESCUE_SECONDS = 30.0
CATCH_UP_SECONDS = 600.0
HOOKS_SECONDS = 600.0
ADAPTERS_SECONDS = 60.0
EXPIRE_SECONDS = 6 * 3600.0
FORGET_SECONDS = 600.0
_ATTENDED = timedelta(hours=1)  # the record of an event holds who wrote what; it is needed as long as it runs
_FIRST_LOOK_BACK = timedelta(hours=1)
_OVERLAP = timedelta(minutes=2)  # GitLab's clock and ours differ a little


class Clerk:
    """Calls the worker and the chores, each in its rhythm. A failure of one is logged, and it is called again.

    Args:
        worker: what turns deliveries into work.
        chores: what else is to be done now and then.
    """

    def __init__(self, worker: Worker, chores: "Chores") -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self._last_tick = time.monotonic()
        self._rhythms: Sequence[tuple[str, float, Callable[[], object]]] = (
            ("beat", BEAT_SECONDS, worker.beat),
            ("deliveries", TICK_SECONDS, worker.take_deliveries),
            ("reviews", TICK_SECONDS, worker.start_due),
            ("rescue", RESCUE_SECONDS, worker.rescue),
        )
        # A chore talks to GitLab and may take minutes: reviews must not wait for it.
        self._chores = threading.Thread(target=self._run_chores, args=(chores,), name="chores", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._chores.start()

    def stop(self) -> None:
        """Begin nothing new; what is being done is finished, or goes on at the next start."""
        self._stop.set()
        self._thread.join(timeout=10)

    def check(self) -> None:
        """Raise where the thread does not go round any more."""
        if time.monotonic() - self._last_tick > RESCUE_SECONDS:
            raise RuntimeError("the clerk has not gone round for half a minute")

    def _run(self) -> None:
        due = dict.fromkeys((name for name, _, _ in self._rhythms), 0.0)
        complaints = Complaints()
        while not self._stop.wait(TICK_SECONDS):
            self._last_tick = time.monotonic()
            for name, seconds, act in self._rhythms:
                if time.monotonic() >= due[name]:
                    due[name] = time.monotonic() + seconds
                    _try(name, act, complaints)

    def _run_chores(self, chores: "Chores") -> None:
        complaints = Complaints()
        rhythms = (
            ("webhooks", HOOKS_SECONDS, chores.hooks),  # first: it finds projects to catch up with
            ("catch up", CATCH_UP_SECONDS, chores.catch_up),
            ("adapters", ADAPTERS_SECONDS, chores.adapters),
            ("expire", EXPIRE_SECONDS, chores.expire),
            ("forget", FORGET_SECONDS, chores.forget),
        )
        due = {name: time.monotonic() + min(seconds, 60.0) for name, seconds, _ in rhythms}
        while not self._stop.wait(1.0):
            for name, seconds, act in rhythms:
                if time.monotonic() >= due[name]:
                    _try(name, act, complaints)
                    due[name] = time.monotonic() + seconds


def _try(name: str, act: Callable[[], object], complaints: Complaints) -> None:
    """Call it; log what goes wrong."""
    try:
        act()
    except (StoreError, ForgeError, SQLAlchemyError) as error:  # SQLAlchemy's are the durable queue's
        complaints.failed(name, error)
    except Exception:
        log.exception("clerk", task=name)
    else:
        complaints.worked(name)


class Chores:
    """What is to be done now and then.

    Args:
        forge: where merge requests are.
        store: what the bot remembers.
        hooks: sees to the webhooks.
        put_back: loads the adapters that the student lost when it was started anew.
        sweep: makes the book of votes agree with a merge request.
        clean: removes the record of workflows (of one name, or all) that ended so long ago.
        keep: how long deliveries, reviews and votes are kept.
        debounce: how long a push waits for the next one.
    """

    def __init__(
        self,
        forge: Forge,
        store: Store,
        *,
        hooks: Callable[[], None],
        put_back: Callable[[], Loaded],
        sweep: Callable[[MergeRef], object],
        clean: Callable[[timedelta, str | None], None],
        keep: timedelta,
        debounce: timedelta,
    ) -> None:
        self.forge = forge
        self.store = store
        self.hooks = hooks
        self.put_back = put_back
        self.sweep = sweep
        self.clean = clean
        self.keep = keep
        self.debounce = debounce
        self.complaints = Complaints()

    def catch_up(self) -> None:
        """Look for what no webhook told: merge requests with new commits, and votes.

        Whether there is anything to review is decided when their turn comes; here they are only put on the desk.
        """
        for project in self.store.projects():
            task = f"catch up with {project.path}"
            try:
                self._catch_up(project)
            except ForgeUnreachable:
                raise
            except ForgeError as error:  # one that was deleted must not hold up the others
                self.complaints.failed(task, error)
            else:
                self.complaints.worked(task)

    def _catch_up(self, project: Project) -> None:
        begun = now()
        since = (project.swept_at or begun - _FIRST_LOOK_BACK) - _OVERLAP
        for merge in self.forge.updated_since(project.id, since):
            self.store.ask(Due(merge.ref, now(), "catch up", wait=self.debounce))  # a push may wait there already
            if isinstance(said := self.sweep(merge.ref), Wait):
                log.info("sweep waits", merge=str(merge.ref), why=said.why)
        self.store.swept(project.id, begun)

    def adapters(self) -> None:
        """See to it that the student has its adapters, before somebody waits for a review."""
        task = "adapters"
        loaded = self.put_back()
        if loaded.adapters:
            log.info("adapters put back", adapters=loaded.adapters)
        if loaded.problems:
            self.complaints.failed(task, " ".join(loaded.problems))
        else:
            self.complaints.worked(task)

    def expire(self) -> None:
        """Remove what is older than it is kept."""
        removed = self.store.expire(now() - self.keep)
        self.clean(self.keep, None)
        log.info("expired", **{table: count for table, count in removed.items() if count})

    def forget(self) -> None:
        """Remove the record of events that were attended to."""
        self.clean(_ATTENDED, "attend")
