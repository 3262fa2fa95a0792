"""Marks and tasks for tests."""

from bot.answer import Suspect
from bot.diff import Line, LineKind
from bot.plan import Question
from bot.prompt import Brief, Part
from trainer.exam import Mark
from trainer.example import Lineage, Origin, Skill, Task


def a_task(number: int, severity: str = "major", category: str = "correctness", path: str = "shop/part.py") -> Task:
    text = f"total_{number} = 1 / count_{number}"
    told = {"line": 1, "quote": text, "explanation": "It may be zero.", "severity": severity, "category": category}
    return Task(
        question=Question(Part(path, (Line(LineKind.ADDED, text, None, 1),)), Brief()),
        answer=Suspect.model_validate(told | {"title": "Division by zero"}),
        origin=Origin.FILE,
        weight=1,
        lineage=Lineage(source="a test"),
    )


def a_mark(
    number: int,
    wanted: str = "major",
    given: str | None = "major",
    category: str = "correctness",
    language: str = "python",
) -> Mark:
    skill = Skill(wanted, "none" if wanted == "none" else category, language)
    return Mark(task=f"t{number}", skill=skill, given=given, located=given == wanted)
