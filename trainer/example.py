"""Task data: one labelled question, and the training example that is made of it.

A `Task` holds what the student is asked as the bot asks it (`bot.plan.Question`: a part of a change, without secrets)
and the answer that it should have given. The prompt is rendered by `bot.prompt` and the answer has `bot.answer`'s
shape, so training and serving cannot drift apart.
"""

import enum
import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from bot.answer import NONE, Suspect
from bot.context import language_of
from bot.domain import Category, MergeRef
from bot.plan import Question
from bot.prompt import Message


class Origin(enum.StrEnum):
    """Where task data comes from."""

    VOTE = "vote"
    FILE = "file"
    TEACHER = "teacher"


SeverityLabel = Literal["none", "trivial", "minor", "major", "critical"]


@dataclass(frozen=True, slots=True, order=True)
class Skill:
    """What an exam measures: telling this severity, of this category, in this language.

    Args:
        severity: one of `bot.answer.SEVERITY_LABELS`.
        category: of the problem; of clean code the category is `none`.
        language: as `bot.context.language_of` names it; `other` where it knows none.
    """

    severity: str
    category: str
    language: str

    def __str__(self) -> str:
        return f"{self.severity}/{self.category}/{self.language}"


class Lineage(BaseModel):
    """Where a task comes from, so that what comes of it can be traced and taken back.

    Args:
        source: in words for a person: `votes on 7!12`, `defects.jsonl:31`, `round r0003`.
        merge: the merge request whose code it holds; None where it holds nobody's.
        fingerprint: the finding that was voted on.
        voters: pseudonyms of those whose votes it stands on.
        reviews: the ids of the reviews that said the finding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    merge: MergeRef | None = None
    fingerprint: str | None = None
    voters: tuple[str, ...] = ()
    reviews: tuple[str, ...] = ()


class Task(BaseModel):
    """One item of task data.

    Args:
        question: what the student is asked.
        answer: what it should answer. `severity` "none": there is nothing to say about this part.
        origin: where it comes from.
        weight: 0 to 1, how sure we are of the answer.
        lineage: where it comes from, in detail.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    answer: Suspect
    origin: Origin
    weight: Annotated[float, Field(ge=0, le=1)]
    lineage: Lineage

    @property
    def id(self) -> str:
        """Sixteen hex digits of question and answer, whatever the origin."""
        text = json.dumps([self.messages, self.completion], ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def messages(self) -> list[Message]:
        """The prompt, as the bot sends it."""
        return self.question.messages

    @property
    def completion(self) -> str:
        """The answer as the student shall write it: JSON in the order of the schema, without blanks between."""
        told = self.answer.model_dump(mode="json")
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))

    @property
    def clean(self) -> bool:
        """Whether there is nothing to say about this part."""
        return self.answer.severity == NONE

    @property
    def skill(self) -> Skill:
        """What it takes to answer it."""
        category = NONE if self.clean else Category(self.answer.category).value
        return Skill(self.answer.severity, category, language_of(self.question.part.path) or "other")


_TASK: TypeAdapter[Task] = TypeAdapter(Task)


def dump(task: Task) -> str:
    """A task as one line of JSON."""
    return _TASK.dump_json(task).decode()


def load(line: str) -> Task:
    """Read such a line.

    Raises:
        pydantic.ValidationError: it is none. (A ValueError.)
    """
    return _TASK.validate_json(line)
