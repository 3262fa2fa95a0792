import pytest

from tests.trainer.marks import a_task
from trainer.exam import Answer, Exam, Mark, Sitting, UnfitSittingError, mark
from trainer.example import Skill

TASKS = (a_task(1, "major"), a_task(2, "none"), a_task(3, "trivial", "style", "web/a.go"))
EXAM = Exam(id="e1", tasks=TASKS, dropped={"duplicate": 2})


def sitting(*answers: Answer, exam: str = "e1") -> Sitting:
    return Sitting(exam=exam, model="small", adapter=None, prompt_id="p", answers=answers)


def right(number: int) -> Answer:
    return Answer(task=TASKS[number].id, text="...", suspect=TASKS[number].answer)


def test_a_sitting_is_marked_in_the_exams_order() -> None:
    wrong = TASKS[1].answer.model_copy(update={"severity": "critical", "line": 9})
    marks = mark(
        EXAM,
        sitting(
            Answer(task=TASKS[2].id, text="{", fault="cut"), Answer(task=TASKS[1].id, text="", suspect=wrong), right(0)
        ),
    )
    assert marks == (
        Mark(task=TASKS[0].id, skill=Skill("major", "correctness", "python"), given="major", located=True),
        Mark(task=TASKS[1].id, skill=Skill("none", "none", "python"), given="critical", located=False),
        Mark(task=TASKS[2].id, skill=Skill("trivial", "style", "go"), given=None, located=False),
    )
    assert [each.right for each in marks] == [True, False, False]
    assert [each.adjacent for each in marks] == [True, False, False]


@pytest.mark.parametrize(
    ("wanted", "given", "adjacent"),
    [
        ("none", "none", True),
        ("none", "trivial", True),
        ("none", "minor", False),
        ("major", "critical", True),
        ("critical", "minor", False),
        ("minor", None, False),
    ],
)
def test_one_step_beside(wanted: str, given: str | None, adjacent: bool) -> None:  # noqa: FBT001 -- a column
    assert Mark(task="t", skill=Skill(wanted, "x", "go"), given=given, located=False).adjacent == adjacent


def test_an_exam_and_a_sitting_come_back_from_their_json() -> None:
    assert Exam.model_validate_json(EXAM.model_dump_json()) == EXAM
    sat = sitting(right(0), Answer(task="x", text="no", fault="no JSON"))
    assert Sitting.model_validate_json(sat.model_dump_json()) == sat


def test_another_exams_sitting_and_one_that_is_not_whole() -> None:
    with pytest.raises(UnfitSittingError, match="of the exam e2, not of e1"):
        mark(EXAM, sitting(exam="e2"))
    with pytest.raises(UnfitSittingError, match="2 of 3 answers are missing, the first is"):
        mark(EXAM, sitting(right(1)))
