"""What belongs to a project or a person is taken out of everything that the loop keeps."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

import trainer.cli  # noqa: F401 -- it adds itself to what forgets
from bot.cli import app
from bot.domain import MergeRef
from bot.forgetting import NotNowError, Whose
from bot.settings import Settings
from bot.store import AdapterState, Store
from tests.test_store import at
from tests.trainer.marks import a_task
from trainer import dataset
from trainer.dataset import Dataset
from trainer.exam import Answer, Exam
from trainer.example import Lineage, Task, dump
from trainer.forget import forget
from trainer.rounds import LOCK, State, state_path


def of(number: int, project: int, voter: str) -> Task:
    lineage = Lineage(source=f"votes on {project}!1", merge=MergeRef(project, 1), voters=(voter,))
    return a_task(number).model_copy(update={"lineage": lineage})


OURS, ANNS, THEIRS, NOBODYS = of(1, 7, "ann"), of(2, 8, "ann"), of(3, 8, "bob"), a_task(4)
ALL = (OURS, ANNS, THEIRS, NOBODYS)


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    """A data folder with two rounds: the first one learnt from project 7, the second one did not."""
    chosen = Settings(data_dir=tmp_path)
    folder = tmp_path / "trainer"
    for number, rows in ((1, ALL), (2, (THEIRS, NOBODYS))):
        one = folder / "rounds" / f"r{number:04d}"
        Dataset(ALL, ()).write(one / "tasks")
        Dataset(rows, ()).write(one / "dataset")
        (one / "exam.json").write_text(Exam(id=one.name, tasks=ALL).model_dump_json())
        answers = [Answer(task=task.id, text=f"about {task.id}") for task in ALL]
        head = '{"exam":"x","model":"m","adapter":null,"prompt_id":"p"}\n'
        text = head + "".join(f"{answer.model_dump_json()}\n" for answer in answers)
        for name in ("sitting.jsonl", "heldout-serving.jsonl"):
            (one / name).write_text(text)
        (one / "train.jsonl").write_text("".join(f"{dump(task)}\n" for task in rows))
        (one / "tune" / "rows").mkdir(parents=True)
    Dataset(ALL, ()).write(folder / "heldout")
    Dataset(ALL, ()).write(folder / "dataset")
    (folder / "teacher").mkdir()
    return chosen


@pytest.fixture
def store(chosen: Settings) -> Iterator[Store]:
    store = Store(chosen.database)
    store.migrate()
    for number in (1, 2):
        store.register_adapter(
            f"student-r000{number}",
            base="base",
            parent=None,
            card={"round": f"r000{number}"},
            state=AdapterState.CANDIDATE,
            at=at(number),
        )
    yield store
    store.close()


def left(folder: Path) -> str:
    """All text below a folder."""
    return "".join(path.read_text() for path in sorted(folder.rglob("*.json*")) if path.is_file())


def marked(store: Store) -> list[str]:
    return [adapter.name for adapter in store.adapters() if "rebuild" in adapter.card]


@pytest.mark.parametrize(
    ("whose", "gone", "rows", "adapters"),
    [
        (Whose(7, None), [OURS], 7, ["student-r0001"]),
        (Whose(None, "ann"), [OURS, ANNS], 14, ["student-r0001"]),
        (Whose(9, None), [], 0, []),
        (Whose(None, "bob"), [THEIRS], 8, ["student-r0001", "student-r0002"]),
    ],
)
def test_it_is_gone_and_what_learnt_from_it_is_marked(
    chosen: Settings, store: Store, *, whose: Whose, gone: list[Task], rows: int, adapters: list[str]
) -> None:
    folder = chosen.data_dir / "trainer"
    assert forget(chosen, store, whose) == {"dataset rows": rows, "adapters marked": len(adapters)}
    text = left(folder)
    for task in ALL:
        assert (task.id in text) == (task not in gone)
        assert (f"count_{task.answer.quote[6]}" in text) == (task not in gone)
    for name in ("heldout", "dataset", "rounds/r0001/tasks", "rounds/r0001/dataset"):
        assert set(dataset.read(folder / name).train) == set(ALL) - set(gone)
    assert marked(store) == adapters
    assert (folder / "rounds" / "r0001" / "tune").exists() == ("student-r0001" not in adapters)
    assert (folder / "rounds" / "r0002" / "tune").exists() == ("student-r0002" not in adapters)
    assert (folder / "teacher").exists() == (whose.project is None or not gone)
    assert set(forget(chosen, store, whose).values()) == {0}


def test_where_nothing_was_learnt_there_is_nothing(tmp_path: Path) -> None:
    store = Store(Settings(data_dir=tmp_path / "other").database)
    assert forget(Settings(data_dir=tmp_path / "other"), store, Whose(7, None)) == {}
    store.close()


def test_while_a_round_runs_nothing_is_forgotten(chosen: Settings, store: Store) -> None:
    folder = chosen.data_dir / "trainer"
    with FileLock(folder / LOCK):
        assert forget(chosen, store, Whose(None, "bob"))["dataset rows"] == 8  # the schedule holds it, and rests
        state_path(folder, 2).write_text(State(number=2, why="by hand", begun_at=at(1)).model_dump_json())
        with pytest.raises(NotNowError, match="Round r0002 runs"):
            forget(chosen, store, Whose(7, None))
    assert OURS.id in left(folder)


def test_a_damaged_dataset_is_named(chosen: Settings, store: Store) -> None:
    (chosen.data_dir / "trainer" / "dataset" / "train.jsonl").write_text("{}\n")
    with pytest.raises(NotNowError, match="was changed after it was written"):
        forget(chosen, store, Whose(7, None))


def test_the_command(chosen: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("APPRENTICE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("APPRENTICE_DATA_DIR", str(chosen.data_dir))
    done = CliRunner().invoke(app, ["forget", "--project", "7"])
    assert done.exit_code == 0, done.output
    assert "dataset rows           7 removed\n" in done.output
    assert "adapters marked        1\n" in done.output
    (chosen.data_dir / "trainer" / "dataset" / "train.jsonl").write_text("{}\n")
    done = CliRunner().invoke(app, ["forget", "--project", "8"])
    assert (done.exit_code, "error: " in done.output) == (3, True)
    assert marked(store) == ["student-r0001"]
