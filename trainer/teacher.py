"""The teacher: any OpenAI-compatible endpoint, asked for JSON by a schema. A finished answer is never paid twice."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bot.answer import AnswerError, parse_as
from bot.domain import Usage
from bot.endpoint import StudentError
from bot.local.files import write_private
from bot.prompt import Message, environment, repair_messages
from bot.student import Student
from trainer.budget import Budget
from trainer.settings import TrainerSettings

RETRIES = 4
FOLDER = "teacher"

_Kind = TypeVar("_Kind", bound=BaseModel)


class TeacherError(RuntimeError):
    """The teacher gave no usable answer; the message says what happened, and the way out."""


class _Kept(BaseModel):
    """A finished answer, as it is kept."""

    model_config = ConfigDict(frozen=True)

    text: str
    finish_reason: str


class Teacher:
    """A client for the teacher; use it as an async context manager.

    Args:
        chosen: the settings in force; they name the teacher.
        folder: where finished answers are kept.
        budget: what it may cost.

    Raises:
        TeacherError: no teacher is named, or its CA file or proxy cannot be used.
    """

    def __init__(self, chosen: TrainerSettings, folder: Path, budget: Budget) -> None:
        if chosen.teacher_url is None or chosen.teacher_model is None:
            raise TeacherError("No teacher is set: APPRENTICE_TEACHER_URL and APPRENTICE_TEACHER_MODEL name one.")
        self.model = chosen.teacher_model
        self.budget = budget
        self._folder = folder
        self._slots = asyncio.Semaphore(chosen.teacher_concurrency)
        key = chosen.teacher_api_key
        try:
            self._client = Student(
                chosen.teacher_url,
                key=key.get_secret_value() if key else None,
                model=self.model,
                ca_file=chosen.teacher_ca_file,
                timeout_seconds=chosen.teacher_timeout_seconds,
                retries=RETRIES,
            )
        except StudentError as error:
            raise TeacherError(_own_words(error)) from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__()

    async def ask(
        self,
        messages: Sequence[Message],
        kind: type[_Kind],
        schema: Mapping[str, object],
        *,
        max_tokens: int,
    ) -> _Kind:
        """The teacher's answer; a broken one is sent back once. The same question again gets the same answer, unpaid.

        Args:
            messages: the question.
            kind: what the answer is read as.
            schema: of the answer, for endpoints that can be held to one.
            max_tokens: the longest answer.

        Raises:
            BudgetSpentError: it may cost too much.
            TeacherError: there is no answer, or none that can be used.
        """
        first = await self._answer(messages, schema, max_tokens)
        try:
            return _read(first, kind)
        except AnswerError as error:
            again = repair_messages(messages, first.text, str(error))
        second = await self._answer(again, schema, max_tokens)
        try:
            return _read(second, kind)
        except AnswerError as error:
            raise TeacherError(f"The teacher's answer was unusable twice: {error}") from None

    async def _answer(self, messages: Sequence[Message], schema: Mapping[str, object], max_tokens: int) -> _Kept:
        asked = json.dumps([self.model, list(messages), schema, max_tokens], sort_keys=True)
        path = self._folder / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"
        if (kept := _kept(path)) is not None:
            return kept
        letters = sum(len(message["content"]) for message in messages)
        async with self._slots:
            with self.budget.reserve(letters, max_tokens):
                try:
                    reply = await self._client.ask(messages, schema=schema, max_tokens=max_tokens)
                except StudentError as error:
                    raise TeacherError(_own_words(error)) from None
        self.budget.pay(Usage(1, reply.usage.prompt_tokens, 0, reply.usage.completion_tokens, reply.usage.seconds))
        made = _Kept(text=reply.text, finish_reason=reply.finish_reason)
        write_private(path, made.model_dump_json())
        return made


def _kept(path: Path) -> _Kept | None:
    try:
        return _Kept.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _read(answer: _Kept, kind: type[_Kind]) -> _Kind:
    if answer.finish_reason == "length":
        raise AnswerError("it was cut off: keep it shorter")
    return parse_as(kind, answer.text)


def _own_words(error: StudentError) -> str:
    """The student's client speaks of the student's settings, and of how to start one."""
    words = str(error).replace("APPRENTICE_STUDENT_", "APPRENTICE_TEACHER_")
    return words.replace("`apprentice student start` starts one on this machine; APPRENTICE", "APPRENTICE")


# --- prompts


def question(template: str, **values: object) -> list[Message]:
    """A question to the teacher, by a template of `prompts/teacher`."""
    system = environment(FOLDER).get_template("system.jinja").render().strip()
    user = environment(FOLDER).get_template(template).render(**values).strip()
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]
