import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.endpoint import StudentError
from bot.prompt import prompt_id
from bot.review import Speaker
from bot.student import Student
from tests.fakes.student import FINE, FakeStudent, Request, Said, serve, suspect
from tests.trainer.marks import a_task
from trainer.exam import Answer, Exam, Sitting, mark
from trainer.sit import OtherSittingError, kept, sit

EXAM = Exam(id="e1", tasks=tuple(a_task(number, "major" if number % 2 else "none") for number in range(6)))
BASE = Speaker("base", None)


def take(answer: Callable[[Request], Said], path: Path, *, speaker: Speaker = BASE) -> tuple[Sitting, FakeStudent]:
    with serve(answer) as fake:

        async def run() -> Sitting:
            with kept(path, EXAM, speaker) as (known, keep):
                async with Student(fake.url, adapter=speaker.adapter, retries=0) as student:
                    return await sit(EXAM, student, speaker, known=known, concurrency=3, keep=keep)

        return asyncio.run(run()), fake


def test_it_is_asked_as_the_bot_asks(tmp_path: Path) -> None:
    sitting, fake = take(lambda _: Said(suspect(severity="major")), tmp_path / "s.jsonl")
    assert sorted(fake.prompts) == sorted("\n".join(turn["content"] for turn in task.messages) for task in EXAM.tasks)
    assert (sitting.exam, sitting.model, sitting.adapter, sitting.prompt_id) == ("e1", "base", None, prompt_id())
    assert [each.right for each in mark(EXAM, sitting)] == [bool(number % 2) for number in range(6)]


def test_an_answer_that_is_broken_twice_is_marked_as_such(tmp_path: Path) -> None:
    sitting, fake = take(lambda _: Said("no JSON"), tmp_path / "s.jsonl")
    assert len(fake.requests) == 2 * len(EXAM.tasks)
    assert {each.given for each in mark(EXAM, sitting)} == {None}
    assert {each.fault for each in sitting.answers} == {"there is no JSON object in the answer"}


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    asked: list[int] = []

    def fails_after_three(_: Request) -> Said:
        asked.append(1)
        return Said("down", status=503) if len(asked) > 3 else Said(FINE)

    with pytest.raises(ExceptionGroup) as told:
        take(fails_after_three, path)
    assert told.group_contains(StudentError)
    lines = path.read_text().splitlines()
    assert 1 < len(lines) <= 4
    path.write_text("\n".join([*lines[:-1], lines[-1][:20]]))  # killed while it wrote
    sitting, fake = take(lambda _: Said(FINE), path)
    assert len(fake.requests) == len(EXAM.tasks) - (len(lines) - 2)
    assert sorted(each.task for each in sitting.answers) == sorted(task.id for task in EXAM.tasks)
    again, fake = take(lambda _: Said(FINE), path)
    assert fake.requests == []
    assert sorted(again.answers, key=str) == sorted(sitting.answers, key=str)


def test_answers_of_another_sitting_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    take(lambda _: Said(FINE), path)
    with pytest.raises(OtherSittingError, match=r"s\.jsonl holds answers of another sitting"):
        take(lambda _: Said(FINE), path, speaker=Speaker("other", None))


def test_an_adapter_is_asked_by_its_name(tmp_path: Path) -> None:
    _, fake = take(lambda _: Said(FINE), tmp_path / "s.jsonl", speaker=Speaker("base", "student-r0001"))
    assert {request["model"] for request in fake.requests} == {"student-r0001"}


def test_an_answer_comes_back_from_its_line() -> None:
    told = Answer(task="t", text="{}", fault="no")
    assert Answer.model_validate_json(told.model_dump_json()) == told
