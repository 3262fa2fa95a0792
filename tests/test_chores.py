"""The rare chores: catching up, retention; and the clerk that goes on when one of its tasks fails."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from bot import clerk
from bot.clerk import Chores, Clerk
from bot.complaints import Complaints
from bot.desk import DeskRow, Due
from bot.domain import MergeRef
from bot.forge import ForgeBusy, ForgeDenied
from bot.gitlab import door
from bot.jobs import Worker
from bot.serving import Loaded
from bot.step import Done, Wait, now
from bot.store import Arrival, StoreError
from tests.fakes.bot_world import BotWorld, bot_world

pytestmark = pytest.mark.world

KEEP, DEBOUNCE = timedelta(days=30), timedelta(seconds=20)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BotWorld]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with bot_world(tmp_path) as made:
        made.store.remember_project(made.project.id, made.project.path, None)
        yield made


def chores(
    here: BotWorld,
    *,
    sweep: Callable[[MergeRef], object] | None = None,
    cleaned: list[tuple[timedelta, str | None]] | None = None,
    loaded: Iterator[Loaded] | None = None,
) -> Chores:
    removed = [] if cleaned is None else cleaned
    return Chores(
        here.forge,
        here.store,
        hooks=lambda: None,
        put_back=Loaded if loaded is None else lambda: next(loaded),
        sweep=sweep or here.talk.sweep,
        clean=lambda keep, name: removed.append((keep, name)),
        keep=KEEP,
        debounce=DEBOUNCE,
    )


def row_of(here: BotWorld) -> DeskRow:
    row = here.store.desk(here.ref)
    assert row
    return row


# --- catching up


def test_a_merge_request_that_no_webhook_told_of_is_put_on_the_desk(here: BotWorld) -> None:
    chores(here).catch_up()
    row = row_of(here)
    assert (row.reason, row.asked, row.full) == ("catch up", False, False)
    (project,) = here.store.projects()
    assert project.swept_at is not None


def test_votes_that_no_webhook_told_of_are_counted(here: BotWorld) -> None:
    here.review()
    here.merge.award(here.notes[0], here.alice, "thumbsdown")
    chores(here).catch_up()
    assert [(vote.origin.value, vote.up) for vote in here.store.votes()] == [("emoji", False)]


def test_a_push_that_waits_is_not_pulled_forward(here: BotWorld) -> None:
    here.store.ask(Due(here.ref, now(), "pushed", wait=DEBOUNCE))
    waits = row_of(here).due_at
    chores(here).catch_up()
    again = row_of(here).due_at
    assert waits
    assert again
    assert again >= waits


def test_a_paused_merge_request_stays_paused(here: BotWorld) -> None:
    here.store.set_paused(here.ref, True)  # noqa: FBT003 -- it is the thing that is set
    chores(here).catch_up()
    assert row_of(here).due_at is None


@pytest.mark.parametrize("end", ["closed", "quiet"])
def test_what_is_closed_or_has_not_changed_since_is_left_alone(here: BotWorld, end: str) -> None:
    if end == "closed":
        here.merge.close()
    else:
        here.merge.updated_at = now() - timedelta(hours=2)
    swept: list[MergeRef] = []
    chores(here, sweep=swept.append).catch_up()
    assert here.store.desk(here.ref) is None
    assert swept == []


@pytest.mark.parametrize(("ago", "seen"), [(timedelta(minutes=1), True), (timedelta(minutes=5), False)])
def test_it_looks_back_to_the_last_time_and_a_little_more(here: BotWorld, ago: timedelta, *, seen: bool) -> None:
    """The two clocks differ, and a change may come while the last look was under way."""
    here.store.swept(here.project.id, now())
    here.merge.updated_at = now() - ago
    chores(here).catch_up()
    assert (here.store.desk(here.ref) is not None) is seen


def test_what_failed_half_way_is_looked_at_again(here: BotWorld) -> None:
    """A project counts as seen only once all of it was."""
    here.gitlab.faults.add("500", method="GET", pattern="/merge_requests$")
    with capture_logs() as logged:
        chores(here).catch_up()
    assert [entry["task"] for entry in logged] == [f"catch up with {here.project.path}"]
    assert here.store.projects()[0].swept_at is None
    here.gitlab.faults.clear()
    chores(here).catch_up()
    assert here.store.projects()[0].swept_at is not None


def test_a_sweep_that_must_wait_holds_up_no_other(here: BotWorld) -> None:
    here.project.push("more", {"more.py": "A = 1\n"})
    here.project.open_merge_request("more")
    swept: list[MergeRef] = []

    def sweep(ref: MergeRef) -> Done | Wait:
        swept.append(ref)
        return Wait("GitLab is busy", 60) if ref == here.ref else Done()

    with capture_logs() as logged:
        chores(here, sweep=sweep).catch_up()
    assert len(swept) == 2
    assert [(entry["event"], entry["merge"], entry["why"]) for entry in logged] == [
        ("sweep waits", str(here.ref), "GitLab is busy")
    ]
    assert here.store.projects()[0].swept_at is not None


# --- the student's adapters


def test_lost_adapters_are_told_once_until_they_are_back(here: BotWorld) -> None:
    told = [Loaded(problems=("a1 is gone",))] * 2 + [Loaded(adapters=("a1 at http://b",)), Loaded()]
    made = chores(here, loaded=iter(told))
    with capture_logs() as logged:
        for _ in told:
            made.adapters()
    assert [(entry["event"], entry.get("error"), entry.get("outcome")) for entry in logged] == [
        ("clerk", "a1 is gone", None),
        ("adapters put back", None, None),
        ("clerk", None, "works again"),
    ]


# --- retention


def test_what_is_older_than_it_is_kept_is_removed(here: BotWorld) -> None:
    cleaned: list[tuple[timedelta, str | None]] = []
    old, fresh = now() - KEEP - timedelta(days=1), now() - KEEP + timedelta(days=1)
    for key, at in (("old", old), ("fresh", fresh)):
        here.store.receive(Arrival(key, "note", here.project.id, 1, "{}", at))
    for delivery in here.store.unhandled(10):
        here.store.handle(delivery.id, outcome="attended", at=now())
    here.store.receive(Arrival("waits", "note", here.project.id, 1, "{}", old))
    with capture_logs() as logged:
        chores(here, cleaned=cleaned).expire()
    assert logged == [{"event": "expired", "log_level": "info", "deliveries": 1}]
    assert cleaned == [(KEEP, None)]
    assert [delivery.arrival.key for delivery in here.store.unhandled(10)] == ["waits"]
    assert here.store.receive(Arrival("old", "note", here.project.id, 1, "{}", now()))  # it is not known any more
    assert not here.store.receive(Arrival("fresh", "note", here.project.id, 1, "{}", now()))


def test_who_wrote_what_is_forgotten_soon(here: BotWorld) -> None:
    cleaned: list[tuple[timedelta, str | None]] = []
    chores(here, cleaned=cleaned).forget()
    assert cleaned == [(timedelta(hours=1), "attend")]


# --- the clerk


def failing(error: Exception) -> Callable[[], None]:
    def task() -> None:
        raise error

    return task


@pytest.mark.parametrize(
    "error",
    [StoreError("locked"), ForgeBusy("503"), ForgeDenied("401"), OperationalError("SELECT", {}, Exception("gone"))],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_is_told_once_and_so_is_its_end(error: Exception) -> None:
    complaints = Complaints()
    with capture_logs() as logged:
        for act in (failing(error), failing(error), lambda: None, lambda: None):
            clerk._try("beat", act, complaints)
    assert [(entry["log_level"], entry["task"]) for entry in logged] == [("warning", "beat"), ("info", "beat")]


def test_another_failure_is_told_too() -> None:
    complaints = Complaints()
    with capture_logs() as logged:
        for words in ("locked", "locked", "disk full"):
            clerk._try("beat", failing(StoreError(words)), complaints)
    assert [entry["error"] for entry in logged] == ["locked", "disk full"]


def test_what_nobody_foresaw_is_logged_with_its_traceback_each_time() -> None:
    with capture_logs() as logged:
        for _ in range(2):
            clerk._try("beat", failing(KeyError("a bug")), Complaints())
    assert [(entry["log_level"], entry["exc_info"]) for entry in logged] == [("error", True)] * 2


class BusyWorker:
    """A worker of which one task always fails; it counts how often each is called."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def beat(self) -> None:
        self.called.append("beat")

    def take_deliveries(self) -> None:
        self.called.append("take_deliveries")
        raise StoreError("locked")

    def start_due(self) -> None:
        self.called.append("start_due")

    def rescue(self) -> None:
        self.called.append("rescue")


def test_the_clerk_goes_on_when_a_task_fails_until_it_is_stopped(
    here: BotWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clerk, "TICK_SECONDS", 0.005)
    worker = BusyWorker()
    ours = Clerk(cast(Worker, worker), chores(here))
    ours.start()
    while worker.called.count("start_due") < 3:
        time.sleep(0.005)
    ours.check()
    ours.stop()
    done = list(worker.called)
    assert done.count("take_deliveries") >= 3
    assert done.count("beat") == done.count("rescue") == 1  # they come more seldom
    assert done[:4] == ["beat", "take_deliveries", "start_due", "rescue"]
    time.sleep(0.02)
    assert worker.called == done


def test_a_clerk_that_does_not_go_round_is_noticed(here: BotWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Clerk(cast(Worker, BusyWorker()), chores(here))
    stuck.check()
    monkeypatch.setattr(clerk, "RESCUE_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="has not gone round"):
        stuck.check()
