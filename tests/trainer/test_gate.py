from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.marks import a_mark
from trainer.exam import Mark
from trainer.gate import decide
from trainer.grade import score

LABELS = ["none", "trivial", "minor", "major", "critical"]
WANTED = [LABELS[number % 5] for number in range(50)]


def sat(given: Sequence[str | None]) -> list[Mark]:
    return [a_mark(number, wanted, said) for number, (wanted, said) in enumerate(zip(WANTED, given, strict=True))]


def right_up_to(count: int, otherwise: str | None = "minor") -> list[str | None]:
    return [wanted if number < count else otherwise for number, wanted in enumerate(WANTED)]


PERFECT = sat([*WANTED])


def against(marks: list[Mark], serving: list[Mark]) -> list[str]:
    return [check.words for check in decide(marks, serving, alpha=0.05).checks if not check.holds]


def test_a_better_one_is_promoted_and_all_that_speaks_for_it_is_said() -> None:
    verdict = decide(PERFECT, sat(right_up_to(30)), alpha=0.05)
    assert verdict.promoted
    assert verdict.words.startswith("promoted: severity right 100.0% against 68.0%: 16 questions won, 0 lost")


@pytest.mark.parametrize(
    ("candidate", "serving", "why"),
    [
        (sat(right_up_to(30)), PERFECT, "severity right 68.0% against 100.0%: 0 questions won, 16 lost"),
        (PERFECT, PERFECT, "severity right 100.0% against 100.0%: 0 questions won, 0 lost"),
        (sat(right_up_to(33)), sat(right_up_to(30)), "by luck with a chance of 0.250"),  # 33 is minor anyway
    ],
)
def test_what_is_not_better_is_refused(candidate: list[Mark], serving: list[Mark], why: str) -> None:
    verdict = decide(candidate, serving, alpha=0.05)
    assert not verdict.promoted
    assert verdict.words.startswith("refused: ")
    assert why in verdict.words


def test_the_constant_answer_is_refused_whatever_it_is_compared_with() -> None:
    constant: list[str | None] = ["minor"] * 50
    assert not decide(sat(constant), sat([None] * 50), alpha=0.05).promoted
    assert "always giving the commonest severity would reach 20.0%" in against(sat(constant), sat([None] * 50))


def but(marks: list[Mark], number: int, given: str | None) -> list[Mark]:
    return [a_mark(at, mark.wanted, given) if at == number else mark for at, mark in enumerate(marks)]


@pytest.mark.parametrize(
    ("number", "given", "why"),
    [
        (45, "minor", "clean parts left in peace 90.0% against 100.0%"),
        (43, "minor", "major and critical problems seen as such 95.0% against 100.0%"),
        (41, None, "answers that can be used 98.0% against 100.0%"),
    ],
)
def test_what_is_better_in_most_and_worse_in_one_thing_is_refused(number: int, given: str | None, why: str) -> None:
    serving = sat([wanted if wanted in {"none", "major", "critical"} else "critical" for wanted in WANTED])
    assert decide(PERFECT, serving, alpha=0.05).promoted
    assert why in against(but(PERFECT, number, given), serving)


def test_other_questions_and_none_cannot_be_compared() -> None:
    words = "the two did not sit the same exam, or it has no questions"
    for candidate, serving in (([], []), (PERFECT, PERFECT[1:]), (PERFECT[1:], PERFECT)):
        assert against(candidate, serving) == [words]


ANSWERS = st.lists(st.sampled_from([*LABELS, None]), min_size=50, max_size=50).map(sat)


@given(ANSWERS, ANSWERS)
def test_never_both_ways(one: list[Mark], other: list[Mark]) -> None:
    assert not (decide(one, other, alpha=0.05).promoted and decide(other, one, alpha=0.05).promoted)


@given(ANSWERS, ANSWERS)
def test_what_is_promoted_is_better_and_raises_no_more_alarms(one: list[Mark], other: list[Mark]) -> None:
    if decide(one, other, alpha=0.4).promoted:
        assert score(one).accuracy > score(other).accuracy
        assert score(one).false_alarms <= score(other).false_alarms


@given(ANSWERS, st.randoms())
def test_the_order_is_of_no_importance(one: list[Mark], chance: Random) -> None:
    other = list(one)
    chance.shuffle(other)
    assert decide(PERFECT, other, alpha=0.05) == decide(PERFECT, one, alpha=0.05)
