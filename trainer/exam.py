"""An exam, a sitting of it, and the marks: frozen values that can be written down as JSON."""

from pydantic import BaseModel, ConfigDict

from bot.answer import SEVERITY_LABELS, Suspect
from trainer.example import Skill, Task


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Exam(_Frozen):
    """Questions, each with the answer that is right.

    Args:
        id: of the exam; sittings name it.
        tasks: the questions. Their order is of no importance.
        dropped: questions of the teacher's that could not be used, by reason.
    """

    id: str
    tasks: tuple[Task, ...]
    dropped: dict[str, int] = {}


class Answer(_Frozen):
    """What was answered to one question.

    Args:
        task: id of the question.
        text: the answer as it came.
        suspect: what it says; None where it cannot be used.
        fault: why it cannot be used.
    """

    task: str
    text: str
    suspect: Suspect | None = None
    fault: str | None = None


class Sitting(_Frozen):
    """All answers of one model or adapter to an exam.

    Args:
        exam: id of the exam.
        model: the base model's name; `adapter`: the adapter's that answered, None for the base.
        prompt_id: of the prompts that it was asked with.
        answers: in any order, one a question.
    """

    exam: str
    model: str
    adapter: str | None
    prompt_id: str
    answers: tuple[Answer, ...]


class Mark(_Frozen):
    """What one answer is worth.

    Args:
        task: id of the question.
        skill: what it takes.
        given: the severity that was answered; None where the answer cannot be used.
        located: whether the line that was answered is the right one.
    """

    task: str
    skill: Skill
    given: str | None
    located: bool

    @property
    def wanted(self) -> str:
        """The severity that is right."""
        return self.skill.severity

    @property
    def right(self) -> bool:
        """Whether the severity is the right one."""
        return self.given == self.wanted

    @property
    def adjacent(self) -> bool:
        """Whether the severity is the right one or one beside it, on the way from none to critical."""
        if self.given is None:
            return False
        return abs(SEVERITY_LABELS.index(self.given) - SEVERITY_LABELS.index(self.wanted)) <= 1


class UnfitSittingError(ValueError):
    """The sitting is not one of this exam, or not a whole one."""


def mark(exam: Exam, sitting: Sitting) -> tuple[Mark, ...]:
    """Mark a sitting, in the exam's order.

    Raises:
        UnfitSittingError: it is of another exam, or answers are missing.
    """
    if sitting.exam != exam.id:
        raise UnfitSittingError(f"the sitting is of the exam {sitting.exam}, not of {exam.id}")
    answers = {answer.task: answer for answer in sitting.answers}
    if missing := [task.id for task in exam.tasks if task.id not in answers]:
        raise UnfitSittingError(f"{len(missing)} of {len(exam.tasks)} answers are missing, the first is {missing[0]}")
    return tuple(_mark(task, answers[task.id]) for task in exam.tasks)


def _mark(task: Task, answer: Answer) -> Mark:
    said = answer.suspect
    return Mark(
        task=task.id,
        skill=task.skill,
        given=None if said is None else said.severity,
        located=said is not None and said.line == task.answer.line,
    )
