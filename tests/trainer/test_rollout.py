"""The swap: whatever fails or is killed in the middle of it, what served serves on, and no server dies."""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from bot.domain import MergeRef
from bot.endpoint import StudentError
from bot.interview import NoStudentError
from bot.plan import Question
from bot.prompt import Brief
from bot.store import AdapterState, ReviewState
from tests.fakes import adapters as fake
from tests.fakes.adapters import NOON, World, make_base
from tests.fakes.replica import DropError
from tests.vllm_adapter import make_adapter
from trainer import rollout
from trainer.rollout import RolloutError, Swapped, smoke

OLD, NEW = "student-r0001", "student-r0002"
BOTH = [[NEW], [NEW]]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.02)
    with fake.world(tmp_path) as made:
        yield made


@pytest.fixture
def here(empty: World) -> World:
    """One adapter serves, another one is published."""
    empty.publish(OLD)
    empty.rollout.roll_out(OLD)
    empty.publish(NEW, parent=OLD, seed=2)
    empty.forget_calls()
    return empty


def asks(here: World, review: str) -> None:
    """A review that asks the serving adapter at present."""
    here.store.begin_review(review, MergeRef(1, 1), None, full=True, trigger="push", at=NOON)
    here.store.take_adapter(review)


def ends(here: World, review: str) -> None:
    here.store.finish_review(review, ReviewState.POSTED, at=NOON)


def state(here: World, name: str) -> AdapterState:
    adapter = here.store.adapter(name)
    assert adapter
    return adapter.state


# --- the swap


def test_a_swap_loads_asks_points_and_unloads_in_that_order(here: World) -> None:
    seen: list[tuple[str, str | None]] = []
    here.servers[0].hook = lambda call, when: seen.append((call, here.serving)) if when == "before" else None
    said = here.rollout.roll_out(NEW)
    assert seen == [(f"load {NEW}", OLD), (f"chat {NEW}", OLD), (f"unload {OLD}", NEW)]
    assert here.calls[0] == here.calls[1]
    assert said == Swapped(NEW, OLD, tuple(f"{OLD} at {server.url}" for server in here.servers))
    assert (here.serving, state(here, OLD), here.loaded) == (NEW, AdapterState.RETIRED, BOTH)
    assert (here.folder / OLD).is_dir()


def test_no_request_ever_asks_to_load_in_place(here: World) -> None:
    here.rollout.roll_out(NEW)
    here.rollout.rollback()
    sent = [body for server in here.servers for body in server.bodies if "lora_name" in body]
    assert {frozenset(body) - {"lora_path"} for body in sent} == {frozenset({"lora_name"})}
    assert {body["lora_path"] for body in sent if "lora_path" in body} == {
        str(here.folder / OLD),
        str(here.folder / NEW),
    }


def test_a_swap_that_is_done_again_does_nothing(here: World) -> None:
    here.rollout.roll_out(NEW)
    here.forget_calls()
    assert here.rollout.roll_out(NEW) == Swapped(NEW, OLD)
    assert here.calls == [[], []]


def test_the_old_one_stays_until_no_review_asks_it(here: World) -> None:
    asks(here, "r1")
    swap = threading.Thread(target=here.rollout.roll_out, args=(NEW,))
    swap.start()
    while here.serving != NEW:
        pass
    asks(here, "r2")  # begins after the pointer moved: it does not hold the old one
    assert here.store.adapters_in_use() == {OLD: 1, NEW: 1}
    assert here.loaded == [[OLD, NEW], [OLD, NEW]]
    ends(here, "r1")
    swap.join()
    assert here.loaded == BOTH


def test_a_review_that_takes_too_long_keeps_its_adapter_and_restore_unloads_it_later(here: World) -> None:
    asks(here, "r1")
    said = here.rollout.roll_out(NEW, patience_seconds=0)
    assert said == Swapped(NEW, OLD, (), (f"{OLD} stays loaded: reviews that ask it: 1",))
    here.rollout.restore()
    assert here.loaded == [[OLD, NEW]] * 2
    ends(here, "r1")
    here.rollout.restore()
    assert here.loaded == BOTH


def test_an_adapter_that_the_settings_pin_stays(here: World) -> None:
    here.chosen = here.chosen.model_copy(update={"student_adapter": OLD})
    here.rollout.roll_out(NEW)
    assert here.loaded == [[OLD, NEW]] * 2


def test_it_is_asked_what_it_was_told_to_ask(here: World) -> None:
    (question,) = smoke()
    here.rollout.roll_out(NEW, [question, Question(question.part, Brief(title="Another question"))])
    told = [str(body["messages"]) for body in here.servers[1].bodies if body.get("model") == NEW]
    assert len(told) == 2
    assert sum("Another question" in text for text in told) == 1


# --- what fails before the pointer moves


def unmoved(here: World) -> None:
    assert (here.serving, state(here, OLD), state(here, NEW)) == (OLD, AdapterState.SERVING, AdapterState.CANDIDATE)
    assert here.loaded == [[OLD], [OLD]]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["load", "chat"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_line_that_breaks_moves_nothing(here: World, number: int, verb: str, when: str) -> None:
    def drop(call: str, now: str) -> None:
        if (call, now) == (f"{verb} {NEW}", when):
            raise DropError

    here.servers[number].hook = drop
    with pytest.raises(RolloutError, match="cannot be reached"):
        here.rollout.roll_out(NEW)
    unmoved(here)
    here.servers[number].hook = lambda _call, _when: None
    here.rollout.roll_out(NEW)
    assert (here.serving, here.loaded) == (NEW, BOTH)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(("Certainly! Here is", "stop"), "it is not JSON"), (("{", "length"), "every answer was cut off")],
)
def test_an_answer_that_no_review_can_use_moves_nothing(here: World, answer: tuple[str, str], said: str) -> None:
    here.servers[1].answer = answer
    with pytest.raises(RolloutError, match=f"{NEW} gives no usable answer: ") as caught:
        here.rollout.roll_out(NEW)
    assert said in str(caught.value) or "JSON" in str(caught.value)
    unmoved(here)


def other_weights(here: World) -> None:
    made = make_adapter(here.chosen.data_dir / "other", here.base, seed=9)
    shutil.copy(made / "adapter_model.safetensors", here.folder / NEW)


def other_base(here: World) -> None:
    shutil.rmtree(here.base)
    make_base(here.base, layers=1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_weights, "was changed after it was published"),
        (other_base, "does not fit the model"),
        (lambda here: shutil.rmtree(here.folder / NEW), "is gone"),
        (lambda here: here.store.mark_adapter(NEW, AdapterState.REFUSED), "was refused"),
    ],
)
def test_what_is_not_as_it_was_published_never_reaches_a_server(
    here: World, spoil: Callable[[World], object], said: str
) -> None:
    spoil(here)
    with pytest.raises(RolloutError, match=said):
        here.rollout.roll_out(NEW)
    assert here.calls == [[], []]
    assert (here.serving, here.loaded) == (OLD, [[OLD], [OLD]])


def test_a_name_that_a_server_has_from_another_folder_is_refused(here: World) -> None:
    """The same name with new weights: vLLM would answer from a cache of the old ones."""
    here.servers[1].loaded[NEW] = Path("/elsewhere") / NEW
    with pytest.raises(RolloutError, match=f"serves {NEW} from /elsewhere"):
        here.rollout.roll_out(NEW)
    assert here.serving == OLD


def test_what_nobody_knows_is_named(here: World) -> None:
    with pytest.raises(RolloutError, match="There is no adapter student-r9999"):
        here.rollout.roll_out("student-r9999")
    here.chosen = here.chosen.model_copy(update={"student_url": None})
    with pytest.raises(RolloutError, match="no student is running"):
        here.rollout.roll_out(NEW)


# --- what fails, or is killed, at any point


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fakes.adapters", "openai"])
    return context


STEPS = [
    (number, verb, when) for verb in ("load", "chat", "unload") for number in (0, 1) for when in ("before", "after")
]


@pytest.mark.process
@pytest.mark.parametrize("resume", ["roll_out", "restore"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_between_any_two_steps_a_swap_loses_nothing(
    here: World,
    processes: multiprocessing.context.ForkServerContext,
    step: tuple[int, str, str],
    resume: str,
) -> None:
    number, verb, when = step
    name = OLD if verb == "unload" else NEW
    victims: list[BaseProcess] = []

    def kill(call: str, now: str) -> None:
        if victims and (call, now) == (f"{verb} {name}", when):
            pid = victims.pop().pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            raise DropError

    here.servers[number].hook = kill
    urls = [server.url for server in here.servers]
    process = processes.Process(target=fake.roll_out, args=(here.chosen.data_dir, urls, NEW))
    victims.append(process)
    process.start()
    process.join()
    assert (process.exitcode, victims) == (-signal.SIGKILL, [])
    moved = verb == "unload"
    assert here.serving == (NEW if moved else OLD)
    assert all(here.serving in loaded for loaded in here.loaded)  # no review misses its adapter
    if resume == "restore":
        here.rollout.restore()
        assert here.serving == (NEW if moved else OLD)
        assert all(here.serving in loaded for loaded in here.loaded)
        if moved:
            here.rollout.rollback()
            assert (here.serving, here.loaded) == (OLD, [[OLD], [OLD]])
    here.rollout.roll_out(NEW)
    assert (here.serving, here.loaded) == (NEW, BOTH)
    assert not any(server.dead for server in here.servers)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_unload_that_fails_is_a_problem_for_later(here: World, when: str) -> None:
    def drop(call: str, now: str) -> None:
        if (call, now) == (f"unload {OLD}", when):
            raise DropError

    here.servers[0].hook = drop
    said = here.rollout.roll_out(NEW)
    assert (here.serving, here.loaded[1]) == (NEW, [NEW])
    assert "cannot be reached" in said.problems[0]
    here.servers[0].hook = lambda _call, _when: None
    assert here.rollout.restore().problems == ()
    assert here.loaded == BOTH


# --- going back


def test_going_back_is_one_move_and_ends_at_the_base_model(here: World) -> None:
    here.rollout.roll_out(NEW)
    here.forget_calls()
    said = here.rollout.rollback()
    assert (said.serving, said.before, here.serving) == (OLD, NEW, OLD)
    assert here.calls[0] == [f"load {OLD}", f"unload {NEW}"]
    assert here.rollout.rollback().serving is None
    assert here.loaded == [[], []]
    with pytest.raises(RolloutError, match="nothing to go back to"):
        here.rollout.rollback()


def test_going_back_to_a_named_one(here: World) -> None:
    here.rollout.roll_out(NEW)
    here.publish("student-r0003", parent=NEW, seed=3)
    here.rollout.roll_out("student-r0003")
    assert here.rollout.rollback(OLD).serving == OLD
    assert here.rollout.rollback("base").serving is None
    assert here.rollout.rollback(NEW).serving == NEW
    with pytest.raises(RolloutError, match="There is no adapter nobody"):
        here.rollout.rollback("nobody")
    assert (here.serving, here.loaded) == (NEW, BOTH)


def test_going_back_waits_for_no_review_and_for_no_server_that_is_down(here: World) -> None:
    here.rollout.roll_out(NEW)
    asks(here, "r1")
    here.servers[1].dead = True
    said = here.rollout.rollback()
    assert here.serving == OLD
    assert f"{NEW} stays loaded: reviews that ask it: 1" in said.problems
    here.servers[1].restart()
    ends(here, "r1")
    here.rollout.restore()
    assert here.loaded == [[OLD], [OLD]]


def test_going_back_to_an_adapter_whose_folder_is_gone_is_refused_and_to_the_base_is_not(here: World) -> None:
    here.rollout.roll_out(NEW)
    shutil.rmtree(here.folder / OLD)
    with pytest.raises(RolloutError, match="is gone"):
        here.rollout.rollback()
    assert here.serving == NEW
    here.servers[0].dead = here.servers[1].dead = True
    assert here.rollout.rollback("base").serving is None


# --- a candidate


def test_a_candidate_is_tried_out_beside_the_serving_one_and_withdrawn(here: World) -> None:
    here.rollout.try_out(NEW)
    here.rollout.try_out(NEW)
    here.rollout.restore()  # the round that examines it goes on
    assert here.loaded == [[OLD, NEW]] * 2
    assert here.serving == OLD
    here.rollout.withdraw(NEW)
    here.rollout.withdraw(NEW)
    unmoved(here)
    with pytest.raises(RolloutError, match="cannot be withdrawn"):
        here.rollout.withdraw(OLD)


def test_a_refused_candidate_is_unloaded_by_restore(here: World) -> None:
    here.rollout.try_out(NEW)
    here.store.mark_adapter(NEW, AdapterState.REFUSED)
    here.rollout.restore()
    assert here.loaded == [[OLD], [OLD]]


# --- upkeep


def test_restore_brings_back_what_a_restart_forgot_and_touches_nothing_of_others(here: World) -> None:
    here.servers[0].restart()
    here.servers[1].loaded["somebodys"] = Path("/x")
    said = here.rollout.restore()
    assert said.adapters == (f"{OLD} at {here.servers[0].url}",)
    assert here.loaded == [[OLD], ["somebodys", OLD]]
    assert here.rollout.restore().adapters == ()


def test_restore_says_what_it_could_not_do(here: World) -> None:
    here.rollout.roll_out(NEW)
    here.servers[0].dead = True
    said = here.rollout.restore()
    assert len(said.problems) == 1
    assert "EngineCore" in said.problems[0]
    here.chosen = here.chosen.model_copy(update={"student_url": None})
    assert "no student is running" in here.rollout.restore().problems[0]


def test_restore_without_adapters_asks_nobody(empty: World) -> None:
    empty.chosen = empty.chosen.model_copy(update={"student_url": None})
    assert empty.rollout.restore().problems == ()


def test_old_folders_are_removed_once_nobody_lists_them(here: World) -> None:
    """Folder gone: the engine would die at the next request to an adapter that was put aside."""
    later = NOON + timedelta(days=9999)
    here.rollout.roll_out(NEW)
    for number, name in enumerate(("student-r0003", "student-r0004", "student-r0005"), start=3):
        here.publish(name, parent=NEW, seed=number)
    here.rollout.roll_out("student-r0003")
    here.store.mark_adapter("student-r0004", AdapterState.REFUSED)
    asks(here, "r1")
    here.store.take_adapter("r1", "student-r0004")
    here.rollout.try_out("student-r0005")
    assert here.rollout.prune(NOON - timedelta(days=1)) == ()
    (here.folder / ".pruned-student-r0000").mkdir()  # a process was killed here
    assert here.rollout.prune(later) == (OLD,)  # the newer one is what a rollback goes back to
    ends(here, "r1")
    here.servers[0].loaded["student-r0004"] = here.folder / "student-r0004"
    assert here.rollout.prune(later) == ("student-r0004",)  # unloaded first
    left = sorted(path.name for path in here.folder.iterdir() if not path.name.startswith(".lock"))
    assert left == [NEW, "student-r0003", "student-r0005"]
    assert here.rollout.prune(later) == ()
    assert here.store.adapter(OLD)  # what is known of it stays


def test_where_a_server_does_not_tell_or_does_not_unload_nothing_is_removed(here: World) -> None:
    later = NOON + timedelta(days=9999)
    here.publish("student-r0003", seed=3)
    here.store.mark_adapter("student-r0003", AdapterState.REFUSED)
    here.servers[1].dead = True
    with pytest.raises(StudentError):
        here.rollout.prune(later)
    here.servers[1].restart()
    here.servers[1].loaded["student-r0003"] = here.folder / "student-r0003"

    def drop(call: str, _when: str) -> None:
        if call == "unload student-r0003":
            raise DropError

    here.servers[1].hook = drop
    assert here.rollout.prune(later) == ()
    assert (here.folder / "student-r0003").is_dir()
    here.chosen = here.chosen.model_copy(update={"student_url": None})
    with pytest.raises(NoStudentError):
        here.rollout.prune(later)
