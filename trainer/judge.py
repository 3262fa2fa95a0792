"""The teacher as a judge of explanations: asked twice, with the two in either order, for the first wins too often.

Zheng, L. et al. (2023), Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena. NeurIPS 36 (position bias).
"""

import enum
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bot.prompt import annotate
from trainer.example import Task
from trainer.teacher import Teacher, question

TOKENS = 300

SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 300},
        "better": {"enum": ["first", "second", "tie"]},
    },
    "required": ["reason", "better"],
    "additionalProperties": False,
}

Place = Literal["first", "second", "tie"]


class Preference(enum.StrEnum):
    """Which explanation is better."""

    ANSWER = "answer"
    TIE = "tie"
    REFERENCE = "reference"


class _Judged(BaseModel):
    model_config = ConfigDict(frozen=True)

    reason: str
    better: Place


def settle(answer_first: Place, reference_first: Place) -> Preference:
    """What two judgings come to, of which one showed the answer first, and one the reference."""
    one = {"first": Preference.ANSWER, "second": Preference.REFERENCE}.get(answer_first, Preference.TIE)
    other = {"first": Preference.REFERENCE, "second": Preference.ANSWER}.get(reference_first, Preference.TIE)
    return one if one is other else Preference.TIE


async def prefer(teacher: Teacher, task: Task, explanation: str) -> Preference:
    """Compare an explanation with the one that the task has. The teacher sees the change: ask the operator first.

    Raises:
        BudgetSpentError: it would cost too much.
        TeacherError: the teacher gives no usable answer.
    """

    async def judged(first: str, second: str) -> Place:
        asked = question(
            "judge.jinja",
            change=annotate(task.question.part),
            severity=task.answer.severity,
            first=first,
            second=second,
        )
        return (await teacher.ask(asked, _Judged, SCHEMA, max_tokens=TOKENS)).better

    reference = task.answer.explanation
    return settle(await judged(explanation, reference), await judged(reference, explanation))
