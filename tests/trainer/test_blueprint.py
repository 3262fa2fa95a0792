from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.blueprint import blueprint, level, need
from trainer.example import Skill
from trainer.grade import Proficiency

CLEAN, SQL, GO, STYLE = (
    Skill("none", "none", "python"),
    Skill("critical", "security", "python"),
    Skill("critical", "security", "go"),
    Skill("trivial", "style", "python"),
)
THERE = {CLEAN: 500, SQL: 40, GO: 40, STYLE: 3}


@pytest.mark.parametrize(
    ("known", "least", "most"),
    [(None, 1, 1), (Proficiency(0, 0), 1, 1), (Proficiency(0, 50), 0.9, 1), (Proficiency(1000, 1000), 0.1, 0.1)],
)
def test_need(known: Proficiency | None, least: float, most: float) -> None:
    assert least <= need(known) <= most


def by_severity(plan: Mapping[Skill, int]) -> Counter[str]:
    counts = Counter[str]()
    for skill, number in plan.items():
        counts[skill.severity] += number
    return counts


def test_each_severity_gets_the_same_share() -> None:
    assert by_severity(blueprint(THERE, {}, 30)) == {"none": 10, "critical": 10, "trivial": 10}


def test_within_a_severity_more_for_what_is_weak() -> None:
    plan = blueprint(THERE, {SQL: Proficiency(19, 20), GO: Proficiency(2, 20)}, 60)
    assert plan[GO] > 2 * plan[SQL] > 0


def test_no_more_than_there_are_where_nobody_writes_more() -> None:
    plan = blueprint(THERE, {}, 90, only_there=True)
    assert plan[STYLE] == 3
    assert sum(plan.values()) == 90
    assert blueprint(THERE, {}, 10_000, only_there=True) == THERE


def test_of_nothing_nothing() -> None:
    assert blueprint({}, {}, 10) == {}
    assert blueprint(THERE, {}, 0) == {}
    assert by_severity(blueprint(THERE, {}, 3)) == {"none": 1, "critical": 1, "trivial": 1}


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        (None, "easy"),
        (Proficiency(1, 5), "easy"),
        (Proficiency(2, 5), "medium"),
        (Proficiency(3, 5), "medium"),
        (Proficiency(4, 5), "hard"),
    ],
)
def test_what_is_not_mastered_is_begun_with_what_is_easy(known: Proficiency | None, wanted: str) -> None:
    assert level(known) == wanted


SKILLS = st.dictionaries(st.sampled_from([CLEAN, SQL, GO, STYLE]), st.integers(1, 9))


@given(SKILLS, st.integers(0, 60))
def test_all_are_divided_and_evenly(there: dict[Skill, int], count: int) -> None:
    plan = blueprint(there, {}, count)
    assert sum(plan.values()) == (count if there else 0)
    shares = by_severity(plan)
    wanted = {skill.severity for skill in there}
    assert max(shares.values(), default=0) - min((shares[severity] for severity in wanted), default=0) <= 1
    held = blueprint(there, {}, count, only_there=True)
    assert all(held[skill] <= there[skill] for skill in held)
    assert sum(held.values()) == min(count, sum(there.values()))
