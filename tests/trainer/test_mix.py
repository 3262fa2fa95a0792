from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.marks import a_task
from trainer.example import Origin, Task
from trainer.leak import Seen
from trainer.mix import Limits, Mixed, mix

WIDE = Limits(rows=1000, least_clean=0, most_clean=0.99, most_severity=0.99)


def many(severity: str, numbers: range) -> list[Task]:
    return [a_task(number, severity) for number in numbers]


def by_origin(task: Task, origin: Origin, weight: float = 1.0) -> Task:
    return task.model_copy(update={"origin": origin, "weight": weight})


def severities(mixed: Mixed) -> Counter[str]:
    return Counter(task.answer.severity for task in mixed.tasks)


def test_new_and_old_together() -> None:
    new, old = many("major", range(5)), many("minor", range(5, 9))
    mixed = mix(new, old, [], WIDE, seed=0)
    assert {task.id for task in mixed.tasks} == {task.id for task in (*new, *old)}
    assert (mixed.dropped, mixed.lacks) == ({}, ())


def test_nothing_near_the_held_out_set() -> None:
    mixed = mix(many("major", range(5)), many("major", range(5, 9)), many("none", range(3, 7)), WIDE, seed=0)
    assert len(mixed.tasks) == 5
    assert mixed.dropped == {"near the held-out set": 4}


def test_of_two_about_one_change_the_one_who_is_trusted_more() -> None:
    teacher = by_origin(a_task(1, "critical"), Origin.TEACHER)
    light, heavy = by_origin(a_task(1, "none"), Origin.VOTE, 0.4), by_origin(a_task(1, "minor"), Origin.VOTE, 0.9)
    example = by_origin(a_task(1, "major"), Origin.FILE)
    mixed = mix([teacher, light, heavy, example], [], [], WIDE, seed=0)
    assert mixed.tasks == (heavy,)
    assert mixed.dropped == {"near one that is trusted as much or more": 3}
    assert mix([teacher, example], [], [], WIDE, seed=0).tasks == (example,)


def test_old_skills_stay() -> None:
    limits = Limits(rows=100, replay=0.3, least_clean=0, most_clean=0.99, most_severity=0.99)
    new, old = many("major", range(500)), many("minor", range(500, 900))
    mixed = mix(new, old, [], limits, seed=0)
    assert severities(mixed) == {"major": 70, "minor": 30}
    assert mixed.dropped == {"over the most rows": 800}
    assert severities(mix(new[:20], old, [], limits, seed=0)) == {"major": 20, "minor": 80}
    assert severities(mix(new, old[:10], [], limits, seed=0)) == {"major": 90, "minor": 10}


def test_no_severity_drowns_the_others() -> None:
    mixed = mix(many("major", range(100)), many("minor", range(100, 120)), [], Limits(least_clean=0), seed=0)
    assert severities(mixed) == {"major": 20, "minor": 20}
    assert mixed.dropped == {"too many of major": 80}
    alone = mix(many("major", range(10)), [], [], Limits(least_clean=0), seed=0)
    assert severities(alone) == {"major": 10}


def test_clean_parts_have_their_share() -> None:
    mixed = mix(many("none", range(100)), many("minor", range(100, 120)), [], Limits(), seed=0)
    assert severities(mixed) == {"none": 20, "minor": 20}
    assert mixed.dropped == {"too many clean parts": 80}
    few = mix(many("none", range(2)), many("minor", range(100, 118)), [], Limits(), seed=0)
    assert few.lacks == ("2 of 20 parts are clean, and 30% should be",)
    only = mix(many("none", range(3)), [], [], Limits(), seed=0)
    assert severities(only) == {"none": 3}


def test_of_nothing_nothing() -> None:
    assert mix([], [], [], Limits(), seed=0) == Mixed((), {}, ())


def test_the_seed_decides_whom_to_leave_out() -> None:
    tasks = many("major", range(50))
    limits = Limits(rows=10, least_clean=0)
    assert mix(tasks, [], [], limits, seed=1) != mix(tasks, [], [], limits, seed=2)


TASKS = st.lists(
    st.builds(
        by_origin,
        st.builds(a_task, st.integers(0, 30), st.sampled_from(["none", "minor", "major"])),
        st.sampled_from(list(Origin)),
        st.sampled_from([0.3, 1.0]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(TASKS, TASKS, TASKS, st.integers(0, 9), st.randoms())
def test_the_order_is_of_no_importance_and_nothing_leaks(
    new: list[Task], old: list[Task], heldout: list[Task], rows: int, chance: Random
) -> None:
    limits = Limits(rows=rows)
    mixed = mix(new, old, heldout, limits, seed=0)
    other_new, other_old = list(new), list(old)
    chance.shuffle(other_new)
    chance.shuffle(other_old)
    assert mix(other_new, other_old, heldout, limits, seed=0) == mixed
    assert len(mixed.tasks) <= rows
    secret = Seen(heldout)
    assert not any(secret.near(task) for task in mixed.tasks)
