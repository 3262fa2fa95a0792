"""Rounds as durable workflows: one at a time, each begun once, and resumed where it was.

A round is a workflow that is named by why it began: two schedulers that see the same tick begin one round. Its stages
are steps of it; whatever they make lies in the round's folder, so a round that failed may be resumed by a new workflow.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from dbos import DBOS, DBOSConfig, DBOSConfiguredInstance, DBOSPortableJSONSerializer, SetWorkflowID
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from bot.endpoint import StudentError
from bot.local.adapters import AdapterError
from bot.local.files import write_private
from bot.redact import RedactionError
from bot.settings import Settings
from bot.step import now
from bot.store import StoreError
from trainer.budget import BudgetSpentError
from trainer.dataset import DatasetError
from trainer.rollout import RolloutError
from trainer.round import CannotRunError, Decided, Round, Tools, rounds
from trainer.sit import OtherSittingError
from trainer.teacher import TeacherError
from trainer.tune.check import TuneError

APPLICATION = "apprentice-trainer"
VERSION = "1"
QUEUE = "rounds"
LOCK = ".trainer.lock"
"""Held by the process that runs rounds on a machine."""

STAGES: Mapping[str, Callable[[Round], None]] = {
    "gather": Round.gather,
    "exam": Round.write_exam,
    "sitting": Round.sit_exam,
    "grade": Round.grade,
    "curriculum": Round.write_curriculum,
    "fine-tune": Round.fine_tune,
    "examination": Round.examine,
    "gate": Round.decide,
    "rollout": Round.roll_out,
}

_FORESEEN = (
    CannotRunError,
    TeacherError,
    BudgetSpentError,
    StudentError,
    TuneError,
    AdapterError,
    RolloutError,
    DatasetError,
    OtherSittingError,
    StoreError,
    RedactionError,
    OSError,
)

log = structlog.get_logger()


class State(BaseModel):
    """What is known of a round.

    Args:
        number: of the round.
        why: it was begun.
        begun_at: when; `ended_at`: when it ended, None: it did not.
        stage: that runs, or that it ended with.
        seconds: that each stage took, all attempts together.
        failure: why it cannot go on; it may be resumed.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    why: str
    begun_at: datetime
    ended_at: datetime | None = None
    stage: str = ""
    seconds: dict[str, float] = {}
    failure: str | None = None


def state_path(folder: Path, number: int) -> Path:
    """Where the state of a round stands."""
    return folder / "rounds" / f"r{number:04d}" / "state.json"


def states(folder: Path) -> list[State]:
    """All rounds, the oldest first."""
    paths = (state_path(folder, number) for number in rounds(folder))
    return [State.model_validate_json(path.read_bytes()) for path in paths if path.is_file()]


def unfinished(folder: Path) -> State | None:
    """The newest round, where it has not ended."""
    known = states(folder)
    return known[-1] if known and known[-1].ended_at is None else None


class AnotherTrainerError(RuntimeError):
    """Another process runs rounds, on this machine or with this database."""


@DBOS.dbos_class()
class Rounds(DBOSConfiguredInstance):
    """The workflow. One instance a process.

    Args:
        tools: what a round works with.
    """

    def __init__(self, tools: Tools) -> None:
        super().__init__("trainer")
        self.tools = tools

    @DBOS.workflow(name="round")
    def run(self, why: str, number: int) -> str | None:
        """Run a round, or go on with it; says why it failed.

        Args:
            why: it was begun.
            number: of the round to go on with; 0: a new one.
        """
        number = DBOS.run_step({"name": "begin"}, self._begin, why, number)
        for stage in STAGES:
            failure = DBOS.run_step({"name": stage}, self._stage, stage, number)
            if failure:
                return failure
        DBOS.run_step({"name": "end"}, self._end, number)
        return None

    def _begin(self, why: str, number: int) -> int:
        folder = self.tools.folder
        if not number:
            waiting = unfinished(folder)
            number = waiting.number if waiting and waiting.why == why else max(rounds(folder), default=0) + 1
        path = state_path(folder, number)
        if path.is_file():
            self._keep(self._state(number).model_copy(update={"failure": None}))
        else:
            self._keep(State(number=number, why=why, begun_at=now()))
        return number

    def _stage(self, stage: str, number: int) -> str | None:
        state = self._state(number).model_copy(update={"stage": stage})
        self._keep(state)
        self.tools.show(stage, 0, 0)
        begun, failure = time.monotonic(), None
        try:
            STAGES[stage](Round(self.tools, number))
        except _FORESEEN as error:
            failure = str(error)
        except Exception as error:  # it ends this round, is logged, and the schedule goes on
            lost, others = error.split(_FORESEEN) if isinstance(error, ExceptionGroup) else (None, error)
            failure = str(lost.exceptions[0]) if lost else ""
            if others:
                log.exception("stage broke", stage=stage)
                failure = f"an internal error in the stage {stage}: the log has it"
        seconds = state.seconds | {stage: state.seconds.get(stage, 0.0) + time.monotonic() - begun}
        self._keep(state.model_copy(update={"seconds": seconds, "failure": failure}))
        return failure

    def _end(self, number: int) -> None:
        self._keep(self._state(number).model_copy(update={"ended_at": now()}))

    def _state(self, number: int) -> State:
        return State.model_validate_json(state_path(self.tools.folder, number).read_bytes())

    def _keep(self, state: State) -> None:
        write_private(state_path(self.tools.folder, state.number), state.model_dump_json(indent=2))


@dataclass(frozen=True, slots=True)
class Trainer:
    """The process's part: it runs rounds from `launch` to `stop`."""

    instance: Rounds
    lock: FileLock
    leave: Callable[[], None]

    def begin(self, id_: str, why: str, number: int = 0) -> str | None:
        """Begin a round, or wait for the one of the same id; says why it failed."""
        with SetWorkflowID(id_):
            handle = DBOS.enqueue_workflow(QUEUE, self.instance.run, why, number)
        said: str | None = handle.get_result(polling_interval_sec=0.2)
        return said

    def stop(self, seconds: int = 0) -> None:
        """What runs goes on at the next start; it is given so many seconds to come to a good place."""
        DBOS.destroy(workflow_completion_timeout_sec=seconds)
        self.leave()
        self.lock.release()


def system_database(chosen: Settings) -> str:
    """Where the workflows are recorded: in the PostgreSQL database, or in a SQLite file beside the rounds."""
    url = chosen.database_url.get_secret_value() if chosen.database_url else ""
    if url and not url.startswith("sqlite"):
        return url
    return f"sqlite:///{chosen.data_dir / 'trainer' / 'rounds.sqlite'}"


def launch(tools: Tools) -> Trainer:
    """Begin to run rounds; one that this machine left goes on.

    Raises:
        AnotherTrainerError: another process runs rounds.
    """
    tools.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(tools.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AnotherTrainerError(
            "Another process of this machine runs rounds (`apprentice train serve`, or one round): wait, or stop it."
        ) from None
    leave = tools.store.hold(APPLICATION)
    if leave is None:
        lock.release()
        raise AnotherTrainerError(
            "Another machine runs rounds with this database (`apprentice train serve`, or one round): one is enough."
        )
    DBOS(
        config=DBOSConfig(
            name=APPLICATION,
            system_database_url=system_database(tools.chosen),
            application_version=VERSION,
            executor_id=f"{tools.chosen.worker_name}-trainer",
            serializer=DBOSPortableJSONSerializer(),
            log_level="WARNING",
        )
    )
    instance = Rounds(tools)
    DBOS.launch()
    DBOS.register_queue(QUEUE, global_concurrency=1, polling_interval_sec=0.5)  # never two at once, whoever begins them
    return Trainer(instance, lock, leave)


def history_words(known: Sequence[State], folder: Path) -> list[str]:
    """One line a round."""
    lines = []
    for state in known:
        took = sum(state.seconds.values())
        verdict = folder / "rounds" / f"r{state.number:04d}" / "verdict.json"
        said = ""
        if verdict.is_file():
            said = f": {Decided.model_validate_json(verdict.read_bytes()).words}"
        how = "ended" if state.ended_at else f"stopped in {state.stage}" if state.failure else f"in {state.stage}"
        lines.append(f"r{state.number:04d}  {state.begun_at:%Y-%m-%d %H:%M}  {took:,.0f} s  {how}{said}")
        if state.failure:
            lines.append(f"       {state.failure}")
    return lines
