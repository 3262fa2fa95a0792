import json
from pathlib import Path
from random import Random

import pytest

from bot.domain import MergeRef
from bot.prompt import prompt_id
from tests.trainer.marks import a_task
from trainer.dataset import (
    MANIFEST,
    TRAIN,
    VAL,
    Dataset,
    DatasetError,
    Manifest,
    build,
    chat_rows,
    forget,
    in_share,
    read,
)
from trainer.example import Lineage, Task

TASKS = [a_task(number, "major" if number % 2 else "none", path=f"shop/part_{number}.py") for number in range(60)]


def of(merge: MergeRef | None, task: Task) -> Task:
    return task.model_copy(update={"lineage": Lineage(source="votes", merge=merge)})


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = build(TASKS, val_percent=20)
    assert len(made.train) + len(made.val) == 60
    assert 2 < len(made.val) < 25
    told = made.write(tmp_path / "dataset", {"near another one": 3})
    assert read(tmp_path / "dataset") == made
    assert told == Manifest.model_validate_json((tmp_path / "dataset" / MANIFEST).read_bytes())
    assert (told.hash, told.prompt_id, told.dropped) == (made.hash, prompt_id(), {"near another one": 3})
    assert told.counts[TRAIN]["rows"] == told.counts[TRAIN]["origin file"] == len(made.train)
    assert sum(count[f"severity {label}"] for count in told.counts.values() for label in ("major", "none")) == 60


def test_the_same_tasks_give_the_same_files_in_any_order(tmp_path: Path) -> None:
    other = [*TASKS, *TASKS[:9]]
    Random(1).shuffle(other)  # noqa: S311 -- an order, not a secret
    one, two = build(TASKS, val_percent=20), build(other, val_percent=20)
    assert one.hash == two.hash
    assert one.write(tmp_path / "one").files == two.write(tmp_path / "two").files
    assert build(TASKS[:-1], val_percent=20).hash != one.hash
    heavier = [TASKS[0].model_copy(update={"weight": 0.5}), *TASKS[1:]]
    assert build(heavier, val_percent=20).hash != one.hash


def test_a_merge_request_stays_on_one_side() -> None:
    for iid in range(40):
        merge = MergeRef(7, iid)
        assert len({in_share(of(merge, task), "val", 30) for task in TASKS}) == 1
    assert len({in_share(of(MergeRef(7, iid), TASKS[0]), "val", 30) for iid in range(40)}) == 2
    assert not any(in_share(task, "val", 0) for task in TASKS)
    assert all(in_share(task, "val", 100) for task in TASKS)


def test_what_is_written_again_replaces_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    (tmp_path / ".dataset.making").mkdir()  # a kill left it
    build(TASKS, val_percent=20).write(folder)
    build(TASKS[:5], val_percent=0).write(folder)
    assert len(read(folder).train) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_rows_for_an_engine() -> None:
    (row,) = chat_rows(TASKS[:1])
    turns = json.loads(row)["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant"]
    assert json.loads(turns[-1]["content"])["severity"] == "none"


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (MANIFEST, lambda _: "{", "manifest.json is no manifest: Invalid JSON"),
        (MANIFEST, lambda text: text.replace('"format"', '"fromat"'), "manifest.json is no manifest: Extra inputs"),
        (TRAIN, lambda text: text[:-30], "train.jsonl was changed after it was written, or is damaged: row "),
        (
            VAL,
            lambda text: text.splitlines()[0] + "\n",
            "val.jsonl was changed after it was written, or is damaged: all",
        ),
    ],
)
def test_what_was_changed_is_not_read(tmp_path: Path, name: str, change: object, problem: str) -> None:
    build(TASKS, val_percent=20).write(tmp_path / "dataset")
    path = tmp_path / "dataset" / name
    assert callable(change)
    path.write_text(change(path.read_text()))
    with pytest.raises(DatasetError) as told:
        read(tmp_path / "dataset")
    assert problem in str(told.value)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"manifest\.json cannot be read: No such file"):
        read(tmp_path)
    build(TASKS, val_percent=20).write(tmp_path / "dataset")
    (tmp_path / "dataset" / VAL).unlink()
    with pytest.raises(DatasetError, match=r"val\.jsonl cannot be read: No such file"):
        read(tmp_path / "dataset")


def test_what_belongs_to_somebody_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    theirs = [of(MergeRef(7, number % 3), task) for number, task in enumerate(TASKS[:10])]
    made = build([*theirs, *TASKS[10:]], val_percent=20)
    made.write(folder)

    def belongs(task: Task) -> bool:
        return task.lineage.merge is not None and task.lineage.merge.project == 7

    assert forget(folder, belongs) == 10
    assert not any(belongs(task) for tasks in (read(folder).train, read(folder).val) for task in tasks)
    assert read(folder).hash != made.hash
    assert Manifest.model_validate_json((folder / MANIFEST).read_bytes()).dropped == {"forgotten": 10}
    assert forget(folder, belongs) == 0


def test_what_some_take_for_the_end_of_a_line_is_none(tmp_path: Path) -> None:
    odd = a_task(1).model_copy(update={"answer": a_task(1).answer.model_copy(update={"title": "a\u2028b\x85c"})})
    build([odd], val_percent=0).write(tmp_path / "dataset")
    assert read(tmp_path / "dataset").train == (odd,)


def test_an_empty_one(tmp_path: Path) -> None:
    Dataset((), ()).write(tmp_path / "dataset")
    assert read(tmp_path / "dataset") == Dataset((), ())
