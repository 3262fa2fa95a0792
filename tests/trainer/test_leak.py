from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.marks import a_task
from trainer.example import Lineage, Origin, Task
from trainer.leak import Seen, distinct, without_leaks
from trainer.sources.files import read_row, tasks_of

CODE = "def {name}(order):\n" + "\n".join(f"    total_{n} = order.part({n}) * rate_{n} + {n}" for n in range(12))


def change(name: str, code: str = CODE, severity: str = "none") -> Task:
    row: dict[str, object] = {"path": "a.py", "code": code.format(name=name), "severity": severity}
    if severity != "none":
        row |= {"line": 1, "category": "correctness", "title": "t", "explanation": "e"}
    (task,) = tasks_of(read_row(row), Origin.FILE, Lineage(source="x"))
    return task


def test_the_same_and_nearly_the_same_are_near() -> None:
    seen = Seen([change("pay")])
    assert seen.near(change("pay")) == change("pay").id
    assert seen.near(change("refund")) == change("pay").id
    assert seen.near(change("pay", severity="major")) == change("pay").id  # whatever the answer


def test_other_code_is_not() -> None:
    seen = Seen([change("pay")])
    assert seen.near(change("x", "\n".join(f"    say('{n} of {{name}}', {n})" for n in range(12)))) is None
    assert Seen().near(change("pay")) is None
    half = CODE.replace("rate_1", "tax").replace("order.part", "order.find")
    assert seen.near(change("pay", half)) is None


def test_short_changes_are_compared_too() -> None:
    assert Seen([a_task(1)]).near(a_task(2)) is None
    assert Seen([a_task(1)]).near(a_task(1, "none")) == a_task(1).id


def test_a_change_that_only_removes_is_compared_by_what_it_shows() -> None:
    rows: dict[str, object] = {"path": "a.py", "diff": "@@ -1,3 +1,2 @@\n a = 1\n-b = 2\n c = 3\n", "severity": "none"}
    (task,) = tasks_of(read_row(rows), Origin.FILE, Lineage(source="x"))
    assert Seen([task]).near(task) == task.id


def test_of_several_that_are_near_each_other_the_first_stays() -> None:
    tasks = [a_task(1), a_task(1, "none"), a_task(2), a_task(1)]
    assert list(distinct(tasks)) == [a_task(1), a_task(2)]
    assert list(without_leaks(tasks, [a_task(1, "minor")])) == [a_task(2)]
    seen = Seen(tasks)
    seen.add(a_task(1))  # once more
    assert seen.near(a_task(2)) == a_task(2).id


TASKS = st.lists(st.builds(a_task, st.integers(0, 9), st.sampled_from(["none", "major"])), max_size=20)


@settings(deadline=None)
@given(TASKS, TASKS)
def test_nothing_of_the_held_out_set_is_left(tasks: list[Task], heldout: list[Task]) -> None:
    left = list(without_leaks(tasks, heldout))
    assert not {task.id for task in left} & {task.id for task in heldout}
    assert all(Seen(heldout).near(task) is None for task in left)
    kept = list(distinct(tasks))
    assert len({task.id for task in kept}) == len(kept)
    assert bool(kept) == bool(tasks)
