"""Rounds as workflows and as commands, with an engine that trains nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from dbos._dbos import _get_or_create_dbos_registry
from pydantic import SecretStr

from bot.domain import MergeRef
from bot.step import now
from bot.store import AdapterState
from tests.e2e.place import until
from tests.fakes.replica import DropError
from tests.test_store_adapters import cast, posted
from tests.trainer.round_world import RoundWorld, lazy, round_world
from trainer import train_command
from trainer.rounds import STAGES, AnotherTrainerError, Trainer, launch, states, unfinished
from trainer.train_command import begin_due, go_on, keep_order, told, write_report

pytestmark = pytest.mark.process  # threads, a database file, seconds


@pytest.fixture
def here(tmp_path: Path) -> Iterator[RoundWorld]:
    with round_world(tmp_path) as made:
        yield made


@pytest.fixture
def trainer(here: RoundWorld) -> Iterator[Trainer]:
    _get_or_create_dbos_registry().instance_info_map.clear()  # DBOS knows instances by name for ever
    made = launch(here.tools)
    yield made
    made.stop()


def test_a_round_from_its_beginning_to_its_report(here: RoundWorld, trainer: Trainer) -> None:
    assert trainer.begin("by hand 1", "by hand") is None
    (state,) = states(here.tools.folder)
    assert state.ended_at
    assert state.failure is None
    assert list(state.seconds) == [
        "gather", "exam", "sitting", "grade", "curriculum", "fine-tune", "examination", "gate", "rollout",
    ]  # fmt: skip
    text = write_report(here.chosen, here.store, 1)
    assert text.startswith("Round r0001: student-r0001 against the base model\n  exam: 20 questions\n")
    assert "  Promoted:\n  ✓ severity right 100.0% against" in text
    document = json.loads((here.tools.folder / "rounds" / "r0001" / "report.json").read_bytes())
    assert (document["schema"], document["promoted"]) == (1, True)
    assert document["heldout"]["after"]["scores"]["accuracy"] == 1


def test_the_same_reason_makes_one_round(here: RoundWorld, trainer: Trainer) -> None:
    assert trainer.begin("cron 2026-11-28", "the schedule") is None
    assert trainer.begin("cron 2026-11-28", "the schedule") is None
    assert len(states(here.tools.folder)) == here.trained == 1


def test_never_two_at_once(here: RoundWorld, trainer: Trainer) -> None:
    others = [threading.Thread(target=trainer.begin, args=(f"by hand {number}", "by hand")) for number in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    first, second = states(here.tools.folder)
    assert first.ended_at
    assert first.ended_at <= second.begun_at
    with pytest.raises(AnotherTrainerError, match="Another process of this machine runs rounds"):
        launch(here.tools)


def test_what_stops_a_round_is_said_and_it_goes_on_from_there(here: RoundWorld, trainer: Trainer) -> None:
    def drop(call: str, _when: str) -> None:
        if call == "chat student-r0001":
            raise DropError

    here.replica.hook = drop
    failure = trainer.begin("by hand 1", "by hand")
    assert failure
    assert "cannot be reached" in failure
    stopped = unfinished(here.tools.folder)
    assert stopped
    assert (stopped.stage, stopped.failure, here.serving) == ("examination", failure, None)
    here.replica.hook = lambda _call, _when: None
    taught = len(here.teacher.requests)
    assert trainer.begin("by hand 2", "by hand", stopped.number) is None
    assert (here.trained, len(here.teacher.requests), here.serving) == (1, taught, "student-r0001")
    assert unfinished(here.tools.folder) is None


def test_an_unforeseen_error_ends_the_round_and_is_no_traceback(here: RoundWorld, trainer: Trainer) -> None:
    (here.folder / "data" / "trainer" / "rounds" / "r0001").mkdir(parents=True)
    (here.folder / "data" / "trainer" / "rounds" / "r0001" / "exam.json").write_text("{")
    failure = trainer.begin("by hand 1", "by hand", 1)
    assert failure == "an internal error in the stage sitting: the log has it"


# --- the schedule


def test_what_is_due_begins_once(here: RoundWorld, trainer: Trainer) -> None:
    chosen = here.chosen.model_copy(update={"train_cron": "0 2 * * *"})
    at = now().replace(hour=2, minute=0, second=10)
    here.learns = lazy
    tick = at.replace(second=0, microsecond=0)
    assert begin_due(chosen, here.store, at, trainer.begin) == f"cron {tick.isoformat()}"
    assert (here.tools.folder / "rounds" / "r0001" / "report.txt").is_file()
    begin_due(chosen, here.store, at, trainer.begin)  # another scheduler
    assert begin_due(chosen, here.store, at - timedelta(hours=1), trainer.begin) is None
    (here.tools.folder / train_command.PAUSED).touch()
    assert begin_due(chosen, here.store, at + timedelta(days=1), trainer.begin) is None
    assert len(states(here.tools.folder)) == here.trained == 1


def test_what_something_stopped_is_tried_again(here: RoundWorld, trainer: Trainer) -> None:
    def drop(call: str, _when: str) -> None:
        if call.startswith("chat"):
            raise DropError

    at = now()
    assert go_on(here.chosen, here.store, at, trainer.begin) is None
    here.replica.hook = drop
    assert trainer.begin("cron 1", "the schedule")
    assert go_on(here.chosen, here.store, at, trainer.begin)
    here.replica.hook = lambda _call, _when: None
    shut = here.chosen.model_copy(update={"train_window": f"{(at.hour + 2) % 24}-{(at.hour + 3) % 24}"})
    assert go_on(shut, here.store, at, trainer.begin) is None
    assert unfinished(here.tools.folder)
    assert go_on(here.chosen, here.store, at + timedelta(hours=1), trainer.begin)
    (state,) = states(here.tools.folder)
    assert (state.why, state.failure, state.ended_at is not None) == ("the schedule", None, True)
    assert here.serving == "student-r0001"
    assert (here.tools.folder / "rounds" / "r0001" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_an_adapter_that_people_like_less_is_taken_back(here: RoundWorld, trainer: Trainer) -> None:
    trainer.begin("by hand 1", "by hand")
    assert here.serving == "student-r0001"
    assert keep_order(here.chosen, here.store, here.tools.base) is None
    for number in range(40):  # twenty findings of the base model that people liked, twenty of the adapter's
        ref, by = MergeRef(7, number), None if number % 2 else "student-r0001"
        posted(here.store, f"review {number}", by, ref, number)
        cast(here.store, ref, "ann", up=by is None)
    patient = here.chosen.model_copy(update={"train_rollback_votes": 21})
    assert keep_order(patient, here.store, here.tools.base) is None
    quick = here.chosen.model_copy(update={"train_rollback_votes": 20})
    swapped = keep_order(quick, here.store, here.tools.base)
    assert swapped
    assert (swapped.before, swapped.serving) == ("student-r0001", None)
    assert here.store.serving_adapter() is None
    assert here.replica.loaded == {}
    adapter = here.store.adapter("student-r0001")
    assert adapter
    assert adapter.state is AdapterState.REFUSED
    assert keep_order(quick, here.store, here.tools.base) is None


def test_upkeep_that_fails_is_only_logged(here: RoundWorld, trainer: Trainer) -> None:
    trainer.begin("by hand 1", "by hand")
    here.replica.dead = True
    assert keep_order(here.chosen, here.store, here.tools.base) is None
    assert here.serving == "student-r0001"


# --- commands


def environment(here: RoundWorld) -> dict[str, str]:
    """The world's settings, for a process."""
    ours = {f"APPRENTICE_{name.upper()}": value for name, value in here.chosen.model_dump(exclude_unset=True).items()}
    shown = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value) for name, value in ours.items()
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("APPRENTICE_")} | shown


@pytest.fixture
def settings(here: RoundWorld, monkeypatch: pytest.MonkeyPatch) -> RoundWorld:
    for name in [name for name in os.environ if name.startswith("APPRENTICE_")]:
        monkeypatch.delenv(name)
    for name, value in environment(here).items():
        monkeypatch.setenv(name, value)
    return here


def test_a_dry_run_tells_and_changes_nothing(settings: RoundWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(lambda: train_command.run_round(dry_run=True, resume=False, questions=9)) == 0
    said = capsys.readouterr().out
    assert "the teacher sees your code  no\n" in said
    assert "exam                        9 questions\n" in said
    assert not settings.tools.folder.exists()


@pytest.mark.parametrize(
    ("name", "value", "code", "words"),
    [
        ("TEACHER_URL", "", 3, "stopped: No teacher is set"),
        ("TRAIN_LEAST_TASKS", "999", 3, "stopped: There are 150 labelled items"),
        ("TRAIN_RANK", "7", 2, "must be a rank that vLLM takes"),
        ("TRAIN_BASE", "", 2, "Nobody says where the student's base model is"),
    ],
)
def test_a_round_that_cannot_run_says_why(
    settings: RoundWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *,
    name: str, value: str, code: int, words: str,
) -> None:  # fmt: skip
    _get_or_create_dbos_registry().instance_info_map.clear()
    monkeypatch.setenv(f"APPRENTICE_{name}", value)
    assert told(lambda: train_command.run_round(dry_run=False, resume=False, questions=None)) == code
    assert words in capsys.readouterr().err
    assert settings.serving is None


def test_what_there_is(settings: RoundWorld, trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(train_command.history) == 0
    assert capsys.readouterr().out == "Nothing yet.\n"
    assert told(train_command.serve) == 2
    assert "Nothing says when: set APPRENTICE_TRAIN_CRON" in capsys.readouterr().err
    assert told(lambda: train_command.run_round(dry_run=False, resume=True, questions=None)) == 2
    assert "There is no round to go on with" in capsys.readouterr().err
    assert told(lambda: train_command.run_round(dry_run=False, resume=False, questions=None)) == 2
    assert "Another process of this machine" in capsys.readouterr().err
    trainer.begin("by hand 1", "by hand")
    assert told(train_command.status) == 0
    said = capsys.readouterr().out
    assert "serving       student-r0001\n" in said
    assert ": promoted: severity right 100.0%" in said
    assert told(lambda: train_command.pause(paused=True)) == 0
    assert told(train_command.status) == 0
    assert "rounds        paused\n" in capsys.readouterr().out
    assert told(lambda: train_command.pause(paused=False)) == 0
    assert told(lambda: train_command.rollback(None)) == 0
    assert "student-r0001 served; the base model serves.\n" in capsys.readouterr().out
    assert settings.serving is None
    assert told(lambda: train_command.rollback("nobody")) == 3
    assert "There is no adapter nobody." in capsys.readouterr().err
    assert told(train_command.history) == 0
    assert "student-r0001  retired  on base\n" in capsys.readouterr().out


# --- two schedulers

SCHEDULER = """
import sys
from datetime import datetime
from pathlib import Path
from tests.trainer.round_world import RoundWorld
from trainer.round import Tools
from trainer.rounds import AnotherTrainerError, launch
from trainer.settings import load
from trainer.train_command import begin_due
from bot.store import Store

chosen = load({})
store = Store(chosen.database)
world = RoundWorld(Path("."), None, None, store, chosen, None)
sys.stdin.readline()
try:
    trainer = launch(Tools(chosen, store, chosen.train_base, world.train, lambda what, done, of: None))
except AnotherTrainerError as error:
    print("refused", error, flush=True)
    sys.exit(0)
for tick in sys.argv[1:]:
    begin_due(chosen, store, datetime.fromisoformat(tick), trainer.begin)
print("trained", world.trained, flush=True)
trainer.stop()
"""


@pytest.mark.postgres
@pytest.mark.parametrize("shared", [True, False], ids=["one folder", "two machines"])
def test_two_schedulers_on_one_database_start_one_round_a_tick(
    tmp_path: Path, postgres_url: str, *, shared: bool
) -> None:
    with round_world(tmp_path, database_url=postgres_url, train_cron="0 2 * * *") as here:
        days = [now().date() + timedelta(days=number) for number in (1, 2)]
        ticks = [f"{day}T02:00:10+00:00" for day in days]
        processes = []
        for number in (1, 2):
            folder = tmp_path / ("data" if shared else f"data-{number}")
            folder.mkdir(exist_ok=True)
            mine = {"APPRENTICE_DATA_DIR": str(folder), "APPRENTICE_WORKER_NAME": f"host-{number}"}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", SCHEDULER, *ticks],
                    env=environment(here) | mine,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        said = sorted(process.communicate()[0] for process in processes)
        assert said[0].startswith("refused Another ")
        assert said[1] == "trained 2\n"
        whys = [state.why for path in tmp_path.glob("data*") for state in states(path / "trainer")]
        assert whys == [f"the schedule '0 2 * * *' at {day} 02:00" for day in days]


# --- killed

KILLED = """
import sys
from pathlib import Path
from tests.trainer.round_world import RoundWorld
from trainer.round import Tools
from trainer.rounds import launch
from trainer.settings import load
from bot.store import Store

chosen = load({})
store = Store(chosen.database)
world = RoundWorld(Path("."), None, None, store, chosen, None)
tools = Tools(chosen, store, chosen.train_base, world.train, lambda what, done, of: print(what, done, flush=True))
trainer = launch(tools)
trainer.begin("by hand 1", "by hand")
"""


@pytest.mark.parametrize("stage", list(STAGES))
def test_killed_in_a_stage_it_goes_on(settings: RoundWorld, stage: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if line.startswith(f"{stage} "):
            time.sleep(0.05)  # in the midst of it
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert unfinished(settings.tools.folder)
    _get_or_create_dbos_registry().instance_info_map.clear()
    trainer = launch(settings.tools)
    try:
        until(lambda: unfinished(settings.tools.folder) is None, 60)
    finally:
        trainer.stop()
    (state,) = states(settings.tools.folder)
    assert state.failure is None
    assert settings.serving == "student-r0001"
    assert len(settings.store.adapters()) == 1
    asked = [prompt for prompt in settings.teacher.prompts if "That answer" not in prompt]
    assert len(asked) <= len(set(asked)) + 1  # the one that was under way
