"""What the student learns from: two files of tasks and a manifest that tells what is in them, and by which hash.

The same tasks give the same hash, in whatever order they come. A dataset is written whole or not at all, and one that
was changed by hand or is damaged is not read.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bot.prompt import prompt_id
from trainer.example import Task, dump, load

FORMAT = 1
MANIFEST, TRAIN, VAL = "manifest.json", "train.jsonl", "val.jsonl"


class DatasetError(ValueError):
    """A dataset cannot be used; the message names file and row."""


class Manifest(BaseModel):
    """What is in a dataset.

    Args:
        format: of the files.
        hash: of all tasks, whatever their order.
        prompt_id: of the prompts that they are rendered with.
        files: SHA-256 of each file, by name.
        counts: rows by file, then by what they are (origin, severity).
        dropped: what was left out, by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    hash: str
    prompt_id: str
    files: dict[str, str]
    counts: dict[str, dict[str, int]]
    dropped: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Tasks to learn from, and tasks that only measure while it is learnt. Both are sorted by id."""

    train: tuple[Task, ...]
    val: tuple[Task, ...]

    @property
    def hash(self) -> str:
        """Sixteen hex digits of all tasks."""
        ids = (f"{name} {task.id} {task.weight:.4f}\n" for name, tasks in self._files() for task in tasks)
        return hashlib.sha256("".join(ids).encode()).hexdigest()[:16]

    def _files(self) -> Iterator[tuple[str, tuple[Task, ...]]]:
        yield TRAIN, self.train
        yield VAL, self.val

    def write(self, folder: Path, dropped: dict[str, int] | None = None) -> Manifest:
        """Write it into a folder, which is replaced if it is there.

        Args:
            folder: where to.
            dropped: what was left out, by reason; it is told in the manifest.
        """
        making = folder.with_name(f".{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        files: dict[str, str] = {}
        counts: dict[str, dict[str, int]] = {}
        for name, tasks in self._files():
            text = "".join(f"{dump(task)}\n" for task in tasks)
            (making / name).write_text(text, encoding="utf-8")
            files[name] = hashlib.sha256(text.encode()).hexdigest()
            counts[name] = _counts(tasks)
        told = Manifest(hash=self.hash, prompt_id=prompt_id(), files=files, counts=counts, dropped=dropped or {})
        (making / MANIFEST).write_text(told.model_dump_json(indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
        return told


def _counts(tasks: Sequence[Task]) -> dict[str, int]:
    kinds = (kind for task in tasks for kind in (f"origin {task.origin}", f"severity {task.answer.severity}"))
    return {"rows": len(tasks), **dict(sorted(Counter(kinds).items()))}


def read(folder: Path) -> Dataset:
    """Read a dataset.

    Raises:
        DatasetError: it is not there, damaged, changed, or made for other prompts.
    """
    path = folder / MANIFEST
    try:
        told = Manifest.model_validate_json(path.read_bytes())
        texts = {name: (folder / name).read_bytes() for name in (TRAIN, VAL)}
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise DatasetError(f"{path} is no manifest: {error.errors()[0]['msg']}") from None
    for name, text in texts.items():
        if hashlib.sha256(text).hexdigest() != told.files.get(name):
            raise DatasetError(f"{folder / name} was changed after it was written, or is damaged: {_where(text)}")
    return Dataset(*(tuple(map(load, lines_of(text.decode()))) for text in texts.values()))


def lines_of(text: str) -> list[str]:
    """Its lines. In JSON lines U+2028 and its like, where `splitlines` splits too, stand within a text."""
    return [line for line in text.split("\n") if line]


def _where(text: bytes) -> str:
    for number, line in enumerate(lines_of(text.decode("utf-8", "replace")), start=1):
        try:
            load(line)
        except ValueError:
            return f"row {number} is none"
    return "all rows can be read, but they are others"


def build(tasks: Iterable[Task], *, val_percent: int) -> Dataset:
    """Divide tasks; a task stays on its side in every round, and so does all of one merge request."""
    divided: dict[bool, list[Task]] = {True: [], False: []}
    for task in sorted({task.id: task for task in tasks}.values(), key=lambda task: task.id):
        divided[in_share(task, "val", val_percent)].append(task)
    return Dataset(tuple(divided[False]), tuple(divided[True]))


def in_share(task: Task, name: str, percent: int) -> bool:
    """Whether a task is in a share of all of them, by a hash of where it comes from: never both in it and out of it."""
    group = str(task.lineage.merge) if task.lineage.merge else task.question.part.path + task.lineage.source
    return int(hashlib.sha256(f"{name} {group}".encode()).hexdigest(), 16) % 100 < percent


def chat_rows(tasks: Iterable[Task]) -> Iterator[str]:
    """The rows that an engine learns from, each one line of JSON: the prompt as the bot sends it, and the answer."""
    for task in tasks:
        yield json.dumps({"messages": [*task.messages, {"role": "assistant", "content": task.completion}]})


def forget(folder: Path, belongs: Callable[[Task], bool]) -> int:
    """Remove the tasks that belong to somebody, and say how many; the hash is another one then.

    Raises:
        DatasetError: see `read`.
    """
    known = read(folder)
    left = Dataset(*(tuple(task for task in tasks if not belongs(task)) for tasks in (known.train, known.val)))
    gone = len(known.train) + len(known.val) - len(left.train) - len(left.val)
    if gone:
        left.write(folder, {"forgotten": gone})
    return gone
