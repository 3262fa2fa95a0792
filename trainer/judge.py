"""The teacher as a judge of explanations: asked twice, with the two in either order, for the first wins too often.

Zheng, L. et al. (2023), Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena. NeurIPS 36 (position bias).
"""

import asyncio
import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bot.prompt import annotate
from trainer.example import Task
from trainer.grade import AS_GOOD, BETTER, WORSE
from trainer.teacher import Teacher, TeacherError, question

TOKENS = 300
NOT_JUDGED = "not judged"

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
    """Which explanation is better; the values say what that means for the answer."""

    ANSWER = BETTER
    TIE = AS_GOOD
    REFERENCE = WORSE


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


async def compare(teacher: Teacher, explanations: Sequence[tuple[Task, str]]) -> dict[str, int]:
    """Compare explanations with those that the tasks have: how often which preference, and how many failed.

    Raises:
        BudgetSpentError: it would cost too much.
    """
    said = await asyncio.gather(*(prefer(teacher, *each) for each in explanations), return_exceptions=True)
    for error in said:
        if isinstance(error, BaseException) and not isinstance(error, TeacherError):
            raise error
    counted = Counter(NOT_JUDGED if isinstance(each, BaseException) else each.value for each in said)
    return dict(sorted(counted.items()))
