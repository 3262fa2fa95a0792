"""Whatever happens to the process, to GitLab or to the student: one review, whole, on each head."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.store import Store
from tests.e2e.place import Place, add_hook, careful, findings, place, summaries, threads_of, until
from tests.fakes.gitlab import MergeRequest
from tests.fakes.gitlab.faults import Fault, Faults, Kind
from tests.fakes.student import Request, Said

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

FILES = {
    "pay.py": "def pay(cents):\n    query(f'insert {cents}')  # BUG\n    send(cents)\n",
    "tax.py": "RATE = 19\nPERCENT = RATE / 10  # BUG\n",
}
WANTED = [("pay.py", 2), ("tax.py", 2)]


class Killer(Faults):
    """Counts the bot's requests, and at the one that is next kills it: before it is looked at, or after it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.at: int | None = None
        self.kind: Kind = "reset_before"
        self.done = threading.Event()
        self.place: Place | None = None

    def next(self, number: int, kind: Kind) -> None:
        """Kill it at this request from now on."""
        self.count, self.at, self.kind = 0, number, kind
        self.done.clear()

    def strikes_before(self, here: Place, merge: MergeRequest) -> bool:
        """Wait until the bot is killed or its review stands there whole; whether it was killed."""
        until(lambda: self.done.is_set() or whole(here, merge), 60, here.bot.log[-3000:])
        if self.done.is_set() and here.bot.process is not None:
            here.bot.process.wait()
        return self.done.is_set()

    def draw(self, method: str, path: str) -> Fault | None:
        self.count += 1
        if self.count != self.at:
            return super().draw(method, path)
        self.at = None
        assert self.place is not None
        if self.kind == "reset_before":
            self.place.bot.kill()
        else:  # the answer must not reach it: it is killed while GitLab works
            threading.Thread(target=self.place.bot.kill).start()
        self.done.set()
        return Fault(self.kind)


@pytest.fixture
def database(database_url: str) -> str | None:
    """None: the bot makes its own, which is SQLite."""
    if database_url.startswith("sqlite"):
        return None
    store = Store(database_url)  # `serve` does not migrate a server
    store.migrate()
    store.close()
    return database_url


@pytest.fixture
def here(tmp_path: Path, database: str | None) -> Iterator[Place]:
    with place(tmp_path, database=database) as made:
        yield made


def until_whole(here: Place, merge: MergeRequest, seconds: float = 60) -> None:
    until(lambda: whole(here, merge), seconds, here.bot.log[-3000:])


def whole(here: Place, merge: MergeRequest) -> bool:
    """Whether the review of its newest head stands there to its last part."""
    return any(merge.head[:8] in body for body in summaries(here, merge)) and all(
        len(thread.notes[0].awards) == 2 for thread, _ in threads_of(here, merge)
    )


def check(here: Place, merge: MergeRequest) -> None:
    """Exactly one review: each finding once, one summary, no draft left behind, nothing acted."""
    assert [(finding.file, finding.line) for finding in findings(here, merge)] == WANTED
    assert len(summaries(here, merge)) == 1
    assert [draft for draft in merge.drafts if draft.author is here.gitlab.bot] == []
    assert here.gitlab.actions == []
    assert "Traceback" not in here.bot.log


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
def test_killed_at_each_request_in_turn(here: Place, kind: Kind) -> None:
    """A review makes some twenty requests to GitLab; all steps lie between them.

    The bot is killed at the first one of the first merge request, at the second one of the second, and so on, until
    a review ends before its turn to be killed comes.
    """
    here.gitlab.faults = killer = Killer()
    killer.place = here
    number = 0
    while True:
        number += 1
        killer.next(number, kind)
        merge = here.open(f"change-{number}", FILES)
        was_killed = killer.strikes_before(here, merge)
        if was_killed:
            here.bot.start()
        until_whole(here, merge)
        check(here, merge)
        if not was_killed:
            break
    assert number > 12


def test_killed_while_the_student_thinks(tmp_path: Path, database: str | None) -> None:
    once, killed = threading.Lock(), threading.Event()

    def answer(request: Request) -> Said:
        if once.acquire(blocking=False):
            made.bot.kill()
            killed.set()
        return careful(request)

    with place(tmp_path, answer=answer, database=database) as made:
        merge = made.open("pay", FILES)
        assert killed.wait(30)
        made.bot.start()
        until_whole(made, merge)
        check(made, merge)


def test_stopped_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    asked = threading.Event()

    def answer(request: Request) -> Said:
        asked.set()
        return careful(request)

    with place(tmp_path, answer=answer) as made:
        merge = made.open("pay", FILES)
        assert asked.wait(30)
        assert made.bot.stop() == 0
        made.bot.start()
        until_whole(made, merge)
        check(made, merge)


def test_deliveries_that_come_again_and_by_two_hooks(here: Place) -> None:
    here.gitlab.hooks.repeat_share = 0.3
    add_hook(here.project, here.bot.url)
    merges = [here.open(f"change-{number}", FILES) for number in range(6)]
    for merge in merges:
        until_whole(here, merge)
    here.gitlab.settle()
    until(lambda: "apprentice_deliveries_total" in here.bot.metrics())
    for merge in merges:
        check(here, merge)


def test_a_fifth_of_gitlabs_answers_fail(here: Place) -> None:
    here.gitlab.faults.chaos(0.2, seed=7)
    merges = [here.open(f"change-{number}", FILES) for number in range(4)]
    for merge in merges:
        until_whole(here, merge, 240)
    here.gitlab.faults.clear()
    for merge in merges:
        check(here, merge)


def test_the_student_is_gone_for_a_while(tmp_path: Path, database: str | None) -> None:
    gone = threading.Event()
    gone.set()
    asked = threading.Event()

    def answer(request: Request) -> Said:
        asked.set()
        return Said("down", status=503) if gone.is_set() else careful(request)

    with place(tmp_path, answer=answer, database=database, APPRENTICE_STUDENT_RETRIES="0") as made:
        merge = made.open("pay", FILES)
        assert asked.wait(30)
        until(lambda: "step waits" in made.bot.log)
        assert summaries(made, merge) == []
        gone.clear()
        until_whole(made, merge)
        check(made, merge)
