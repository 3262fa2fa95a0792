r"""Labelled examples from files: JSON lines, each a change and what a good reviewer says about it.

A line, as a person writes it (here in several):

    {"path": "shop/pay.py",
     "diff": "@@ -1,2 +1,3 @@\n def pay(cents):\n+    run(f'insert {cents}')\n     send(cents)\n",
     "line": 2, "severity": "critical", "category": "security", "title": "SQL injection",
     "explanation": "The amount is formatted into the query."}

`diff` is the change as git shows it, with or without the lines before the first `@@`; instead of it `code` may hold a
whole new file. `line` is counted in the file after the change. `severity` is one of trivial, minor, major, critical, or
`none` for a change about which there is nothing to say; then only `path` and the code are needed. `suggestion` (the
corrected line), `weight` (0 to 1, how sure you are) and `description` (of the merge request) may be left out.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bot.answer import NONE, QUOTE_CHARACTERS, Suspect
from bot.diff import DiffError, FileDiff, parse
from bot.domain import Category
from bot.plan import Question, Room, plan
from bot.policy import Policy
from bot.prompt import Brief
from bot.redact import redact
from trainer.example import Lineage, Origin, SeverityLabel, Task

ROOM = Room(tokens=6000, count=lambda text: len(text.encode("utf-8", "replace")) // 3, requests=200)
"""What a question may hold, for lack of a tokenizer: three bytes a token is on the safe side for code."""


class LabelledRow(BaseModel):
    """One line of such a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, Field(min_length=1, max_length=500)]
    diff: str | None = None
    code: str | None = None
    line: Annotated[int, Field(ge=1)] | None = None
    severity: SeverityLabel
    category: Category | None = None
    title: Annotated[str, Field(max_length=80)] = ""
    explanation: Annotated[str, Field(max_length=400)] = ""
    suggestion: Annotated[str, Field(max_length=400)] | None = None
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    description: Annotated[str, Field(max_length=600)] = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.diff is None) == (self.code is None):
            raise ValueError("it needs `diff` or `code`, one of them")
        if self.severity == NONE:
            return self
        lacking = [name for name in ("line", "category", "title", "explanation") if not getattr(self, name)]
        if lacking:
            raise ValueError(f"a problem needs {', '.join(lacking)}")
        return self


class RowError(ValueError):
    """A row of which no task can be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file gave: tasks, and a line for each row that gave none, with its number."""

    tasks: tuple[Task, ...]
    problems: tuple[str, ...]


def read_examples(path: Path) -> Loaded:
    """Read a file of labelled examples.

    Raises:
        OSError: it cannot be read.
    """
    tasks: list[Task] = []
    problems: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                tasks += tasks_of(read_row(line), Origin.FILE, Lineage(source=f"{path.name}:{number}"))
            except RowError as error:
                problems.append(f"{path.name}:{number}: {error}")
    return Loaded(tuple(tasks), tuple(problems))


def read_row(line: str | dict[str, object]) -> LabelledRow:
    """Read one row, of a file or of the teacher's.

    Raises:
        RowError: it is none.
    """
    try:
        return LabelledRow.model_validate(json.loads(line) if isinstance(line, str) else line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RowError(f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")) from None
    except (ValueError, RecursionError):
        raise RowError("it is not JSON") from None


def tasks_of(row: LabelledRow, origin: Origin, lineage: Lineage) -> tuple[Task, ...]:
    """The tasks that a row makes: the question with its problem, or all questions of a clean change.

    Raises:
        RowError: the change cannot be read, or its line cannot take a comment.
    """
    questions = list(_questions(row))
    if not questions:
        raise RowError("the change holds nothing that a reviewer would be asked about")
    if row.severity == NONE:
        return tuple(_clean(question, row, origin, lineage) for question in questions)
    assert row.line is not None  # noqa: S101 -- the row was validated
    found = next((question for question in questions if row.line in question.part.places), None)
    if found is None:
        raise RowError(f"line {row.line} is no line of the change that can take a comment")
    answer = Suspect(
        line=row.line,
        quote=_quote(found, row.line),
        explanation=redact(row.explanation).text[:400],
        severity=row.severity,
        category=row.category or Category.CORRECTNESS,
        title=redact(row.title).text[:80],
        suggestion=None if row.suggestion is None else redact(row.suggestion).text[:400],
    )
    return (Task(question=found, answer=answer, origin=origin, weight=row.weight, lineage=lineage),)


def _questions(row: LabelledRow) -> Iterator[Question]:
    brief = Brief(description=redact(row.description).text)
    for file in _files(row):
        if file.unreadable:
            raise RowError(f"diff: {file.unreadable}")
        yield from plan((file,), lambda _path: None, Policy(), brief, ROOM).questions


def _files(row: LabelledRow) -> Iterable[FileDiff]:
    path, text = row.path, row.diff
    if text is None:
        lines = (row.code or "").splitlines()
        text = "\n".join((f"@@ -0,0 +1,{len(lines)} @@", *(f"+{line}" for line in lines), ""))
    if "@@" not in text:
        raise RowError("diff: it has no line that begins with @@")
    hunks = text[text.find("@@") :]
    whole = f"--- a/{path}\n+++ b/{path}\n{redact(hunks).text}"
    try:
        return parse(whole if whole.endswith("\n") else f"{whole}\n")
    except DiffError as error:
        raise RowError(f"diff: {error}") from None


def _clean(question: Question, row: LabelledRow, origin: Origin, lineage: Lineage) -> Task:
    """Nothing to say: the answer names the first line that could be asked about."""
    line = row.line if row.line in question.part.places else min(question.part.places)
    answer = Suspect(
        line=line,
        quote=_quote(question, line),
        explanation=redact(row.explanation).text[:400] or "This is fine.",
        severity="none",
        category=row.category or Category.CORRECTNESS,
        title="",
    )
    return Task(question=question, answer=answer, origin=origin, weight=row.weight, lineage=lineage)


def _quote(question: Question, line: int) -> str:
    return question.part.places[line].strip()[:QUOTE_CHARACTERS]
