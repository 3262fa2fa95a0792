from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.marks import a_mark
from trainer.exam import Mark
from trainer.example import Skill
from trainer.grade import Feedback, Proficiency, Scores, confusion, feedback, proficiency, score, weak_skills

MARKS = [
    a_mark(1, "major", "major"),
    a_mark(2, "major", "critical"),
    a_mark(3, "critical", "minor"),
    a_mark(4, "none", "none"),
    a_mark(5, "none", "trivial"),
    a_mark(6, "none", None),
]


def test_the_figures() -> None:
    assert score(MARKS) == Scores(
        questions=6,
        accuracy=2 / 6,
        adjacent=4 / 6,
        macro_f1=(2 / 3 + 0 + 2 / 4) / 3,
        validity=5 / 6,
        located=1 / 3,
        severe_recall=2 / 3,
        false_alarms=1 / 3,
        constant=3 / 6,
    )


def test_without_marks_nothing_is_reached() -> None:
    assert score([]) == Scores(0, 0, 0, 0, 0, 0, severe_recall=1, false_alarms=0, constant=0)


def test_only_clean_parts() -> None:
    scores = score([a_mark(1, "none", "none")])
    assert (scores.accuracy, scores.macro_f1, scores.severe_recall, scores.located) == (1, 1, 1, 0)


def test_the_confusion_matrix() -> None:
    table = confusion(MARKS)
    assert table["none"] == {"none": 1, "trivial": 1, "minor": 0, "major": 0, "critical": 0, "invalid": 1}
    assert table["major"]["critical"] == 1
    assert sum(sum(row.values()) for row in table.values()) == len(MARKS)


def test_proficiency_and_the_weakest_skills() -> None:
    skills = proficiency(MARKS)
    major, critical, clean = (
        Skill("major", "correctness", "python"),
        Skill("critical", "correctness", "python"),
        Skill("none", "none", "python"),
    )
    assert skills == {critical: Proficiency(0, 1), major: Proficiency(1, 2), clean: Proficiency(1, 3)}
    known = {major: Proficiency(0, 20), critical: Proficiency(0, 2), clean: Proficiency(18, 20)}
    assert weak_skills(known) == [major, critical, clean]
    assert Proficiency(0, 0).share == 0
    assert Proficiency(1, 4).share == 0.25


def test_feedback_in_words() -> None:
    marks = [a_mark(number, "major", "minor") for number in range(3)]
    marks += [a_mark(number, "none", "none") for number in range(3, 7)]
    marks += [a_mark(9, "critical", None, "security", "go")]
    assert feedback(marks) == Feedback(
        strengths=("severity none: 4 of 4 right",),
        weaknesses=(
            "severity major: 0 of 3 right; 3 times it says minor",
            "category correctness: 0 of 3 right; 3 times it says minor",
            "88% of its answers can be used",
        ),
    )


def test_an_answer_that_cannot_be_used_has_a_name() -> None:
    said = feedback([a_mark(number, "major", None) for number in range(3)])
    assert said.weaknesses[0] == "severity major: 0 of 3 right; 3 times it says an answer that cannot be used"


@pytest.mark.parametrize(
    ("explanations", "strengths", "weaknesses"),
    [
        ({}, (), ()),
        ({"better": 1, "as good": 1}, (), ()),  # of two nothing is said
        (
            {"better": 1, "as good": 6, "worse": 3, "not judged": 9},
            ("explanations: 7 of 10 as good as they should be",),
            (),
        ),
        ({"as good": 1, "worse": 9}, (), ("explanations: 1 of 10 as good as they should be",)),
        ({"as good": 5, "worse": 5}, (), ()),
    ],
)
def test_what_is_said_of_explanations(
    explanations: dict[str, int], strengths: tuple[str, ...], weaknesses: tuple[str, ...]
) -> None:
    said = feedback([a_mark(1)], explanations)
    assert (said.strengths, said.weaknesses) == (strengths, weaknesses)


LABELS = ["none", "trivial", "minor", "major", "critical"]
ANY = st.lists(
    st.builds(a_mark, st.integers(0, 999), st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), max_size=30
)


@given(ANY, st.randoms())
def test_the_order_of_marks_is_of_no_importance(marks: list[Mark], chance: Random) -> None:
    other = list(marks)
    chance.shuffle(other)
    assert score(other) == score(marks)
    assert confusion(other) == confusion(marks)


@given(ANY)
def test_shares_are_shares(marks: list[Mark]) -> None:
    scores = score(marks)
    for share in (scores.accuracy, scores.macro_f1, scores.validity, scores.severe_recall, scores.false_alarms):
        assert 0 <= share <= 1
    assert scores.accuracy <= scores.adjacent <= scores.validity
    feedback(marks)
