"""Takes what belongs to a project or person out of datasets and rounds, and marks the adapters that learnt from it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from bot.forgetting import NotNowError, Whose
from bot.local.files import write_private
from bot.settings import Settings
from bot.step import now
from bot.store import Store
from trainer import dataset
from trainer.exam import Exam
from trainer.example import Task
from trainer.round import REBUILD
from trainer.rounds import LOCK, unfinished


def whose(belonging: Whose) -> Callable[[Task], bool]:
    """Whether a task is theirs: it holds the project's code, or stands on the person's vote."""

    def belongs(task: Task) -> bool:
        if belonging.voter is not None:
            return belonging.voter in task.lineage.voters
        return task.lineage.merge is not None and task.lineage.merge.project == belonging.project

    return belongs


def forget(chosen: Settings, store: Store, belonging: Whose) -> Mapping[str, int]:
    """Forget, and say how many rows went, and how many adapters are marked for rebuilding.

    Raises:
        NotNowError: a round runs, or a dataset is damaged.
    """
    folder = chosen.data_dir / "trainer"
    if not folder.is_dir():
        return {}
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:  # an idle schedule holds it too
        if (running := unfinished(folder)) is not None:
            raise NotNowError(
                f"Round r{running.number:04d} runs, and reads what is to be forgotten: wait for its end or stop it, "
                "then forget. Nothing was removed."
            ) from None
    try:
        return _forget(folder, store, belonging)
    except dataset.DatasetError as error:
        raise NotNowError(str(error)) from None
    finally:
        lock.release()


def _forget(folder: Path, store: Store, belonging: Whose) -> Mapping[str, int]:
    belongs = whose(belonging)
    rows, learnt = 0, set[str]()
    for one in sorted((folder / "rounds").glob("r*")):
        lessons = _from_dataset(one / "dataset", belongs)
        others = _from_dataset(one / "tasks", belongs) + _from_exam(one, belongs)
        if lessons:
            learnt.add(one.name)
            # Copies of the rows, and checkpoints that were trained on them. A round that is resumed makes them anew.
            shutil.rmtree(one / "tune", ignore_errors=True)
            for name in ("train.jsonl", "val.jsonl"):
                (one / name).unlink(missing_ok=True)
        rows += lessons + others
    secret = {task.id for task in dataset.read(folder / "heldout").train if belongs(task)} if _is(folder) else set()
    for sitting in (folder / "rounds").glob("r*/heldout-*.jsonl"):
        _without(sitting, secret)
    rows += sum(_from_dataset(folder / name, belongs) for name in ("heldout", "dataset"))
    if rows and belonging.project is not None:  # the teacher may have been shown its code, and its answers hold some
        shutil.rmtree(folder / "teacher", ignore_errors=True)
    marked = [one.name for one in store.adapters() if one.card.get("round") in learnt]
    for name in marked:
        store.amend_card(name, {REBUILD: f"rows of {belonging.words} were forgotten on {now():%Y-%m-%d}"})
    return {"dataset rows": rows, "adapters marked": len(marked)}


def _is(folder: Path) -> bool:
    return (folder / "heldout" / dataset.MANIFEST).is_file()


def _from_dataset(folder: Path, belongs: Callable[[Task], bool]) -> int:
    return dataset.forget(folder, belongs) if (folder / dataset.MANIFEST).is_file() else 0


def _from_exam(one: Path, belongs: Callable[[Task], bool]) -> int:
    path = one / "exam.json"
    if not path.is_file():
        return 0
    exam = Exam.model_validate_json(path.read_bytes())
    left = tuple(task for task in exam.tasks if not belongs(task))
    if gone := {task.id for task in exam.tasks} - {task.id for task in left}:
        write_private(path, exam.model_copy(update={"tasks": left}).model_dump_json())
        _without(one / "sitting.jsonl", gone)
    return len(gone)


def _without(sitting: Path, gone: set[str]) -> None:
    """Remove answers, which quote the code that was asked about."""
    if sitting.is_file() and gone:
        lines = dataset.lines_of(sitting.read_text(encoding="utf-8"))
        left = [line for line in lines if json.loads(line).get("task") not in gone]
        write_private(sitting, "".join(f"{line}\n" for line in left))
