"""Sit an exam: the student answers each question as it answers the bot's, and what is answered is kept at once."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bot.answer import AnswerError
from bot.prompt import prompt_id
from bot.review import Speaker, Student, answer
from trainer.dataset import lines_of
from trainer.exam import Answer, Exam, Sitting
from trainer.example import Task

Keep = Callable[[Answer], None]
"""Called with each answer as soon as it is there."""


class OtherSittingError(ValueError):
    """The answers that are kept belong to another exam, model, adapter or prompt."""


async def sit(
    exam: Exam, student: Student, speaker: Speaker, *, known: Collection[Answer] = (), concurrency: int, keep: Keep
) -> Sitting:
    """Put all questions to the student that it has not answered yet.

    Args:
        exam: the questions.
        student: who answers.
        speaker: who that is.
        known: answers that are there already.
        concurrency: requests in flight at once.
        keep: see `Keep`.

    Raises:
        StudentError: a question got no answer; those that did are kept.
    """
    answered = {one.task for one in known}
    missing = [task for task in exam.tasks if task.id not in answered]
    gate = asyncio.Semaphore(concurrency)

    async def one(task: Task) -> Answer:
        async with gate:
            told = await _answer(task, student)
        keep(told)
        return told

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one(task)) for task in missing]
    return Sitting(
        exam=exam.id,
        model=speaker.model,
        adapter=speaker.adapter,
        prompt_id=prompt_id(),
        answers=(*known, *(task.result() for task in asked)),
    )


async def _answer(task: Task, student: Student) -> Answer:
    try:
        suspect, reply = await answer(task.question, student)
    except AnswerError as error:
        return Answer(task=task.id, text="", fault=str(error))
    return Answer(task=task.id, text=reply.text, suspect=suspect)


class Head(BaseModel):
    """The first line of a file of answers: what they are answers to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exam: str
    model: str
    adapter: str | None
    prompt_id: str


@contextmanager
def kept(path: Path, exam: Exam, speaker: Speaker) -> Iterator[tuple[list[Answer], Keep]]:
    """Open a file of answers, JSON lines, made where there is none: gives what it holds, and what to keep more with.

    A line that a kill has cut is left out; its question is asked again.

    Raises:
        OtherSittingError: it is of another sitting.
        OSError: it cannot be read or written.
    """
    head = Head(exam=exam.id, model=speaker.model, adapter=speaker.adapter, prompt_id=prompt_id())
    lines = lines_of(path.read_text(encoding="utf-8")) if path.is_file() else []
    if lines and lines[0] != head.model_dump_json():
        raise OtherSittingError(
            f"{path} holds answers of another sitting (its first line says which): take another file, or remove it"
        )
    known = {one.task: one for one in filter(None, map(_read, lines[1:]))}
    whole = [head.model_dump_json(), *(one.model_dump_json() for one in known.values())]
    path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:

        def keep(one: Answer) -> None:
            file.write(f"{one.model_dump_json()}\n")
            file.flush()

        yield list(known.values()), keep


def _read(line: str) -> Answer | None:
    try:
        return Answer.model_validate_json(line)
    except ValidationError:
        return None
