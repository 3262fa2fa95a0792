"""Reviews as durable workflows, in this process: what `tests.e2e` shows only slowly, or never."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dbos import DBOS
from dbos._dbos import _get_or_create_dbos_registry
from structlog.testing import capture_logs

from bot import event, jobs
from bot.conversation import Conversation
from bot.desk import Claim, Due
from bot.event import MergeRequestChanged, NoteWritten, Trigger
from bot.forge import Person
from bot.gitlab import GitLabForge, door
from bot.jobs import Jobs, Patience, Worker, forget_workflows, system_database
from bot.merge_review import MergeReview, Ready
from bot.settings import Settings
from bot.step import End, Wait, now
from bot.store import Arrival, ReviewState, Store
from bot.telemetry import Metrics
from tests.e2e.place import careful, findings, place, summaries, until
from tests.fakes.bot_world import SALT, BotWorld, bot_world
from tests.fakes.student import Request, Said

pytestmark = pytest.mark.process  # threads, a database file, seconds

QUICK = Patience(first=0.01, longest=0.05, total=0.2)
Start = Callable[..., Worker]


@pytest.fixture
def student() -> list[Said]:
    """What the student says instead of doing its work, the next thing last."""
    return []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: list[Said]) -> Iterator[BotWorld]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with bot_world(tmp_path, lambda request: student.pop() if student else careful(request)) as made:
        yield made


@pytest.fixture
def start(here: BotWorld, tmp_path: Path) -> Iterator[Start]:
    begun: list[Worker] = []

    def begin(steps: MergeReview = here.steps) -> Worker:
        begun.append(worker(here.store, lambda: Jobs(steps, here.talk, QUICK, here.metrics), tmp_path))
        return begun[-1]

    yield begin
    for each in begun:
        each.stop(5)


def worker(store: Store, make: Callable[[], Jobs], folder: Path) -> Worker:
    # DBOS knows instances by name, as long as the process lives; here it sees several bots.
    _get_or_create_dbos_registry().instance_info_map.clear()
    return Worker(
        store,
        name="worker-1",
        database=system_database(None, folder),
        jobs=make,
        reviews_at_once=4,
        reviews_per_project=4,
        debounce=timedelta(0),
    )


def opened(here: BotWorld, key: str = "opened") -> Arrival:
    told = MergeRequestChanged(
        key=key,
        delivery="1",
        ref=here.ref,
        trigger=Trigger.OPENED,
        head=here.merge.head,
        old_head=None,
        draft=False,
        author=here.alice.id,
        actor=here.alice.id,
        asked=(),
        at=now(),
    )
    return Arrival(key, told.kind, here.ref.project, here.ref.iid, event.dump(told), now())


def free(here: BotWorld) -> bool:
    row = here.store.desk(here.ref)
    return row is not None and row.claim is None


def run_due(here: BotWorld, one: Worker) -> None:
    assert one.start_due() == 1
    until(lambda: free(here))


def counted(here: BotWorld, line: str) -> bool:
    return line in here.metrics.render()[0].decode().splitlines()


def test_a_delivery_becomes_one_review_and_is_counted(here: BotWorld, start: Start) -> None:
    one = start()
    here.store.receive_many([opened(here), opened(here, "opened by another hook")])
    one.beat()
    assert counted(here, "apprentice_inbox_deliveries 2.0")
    assert one.take_deliveries() == 2
    with capture_logs() as lines:
        run_due(here, one)
    one.beat()
    assert one.take_deliveries() == one.start_due() == 0
    assert len(here.notes) == len(here.summaries) == 1
    for line in (
        "apprentice_inbox_deliveries 0.0",
        'apprentice_reviews_total{outcome="posted"} 1.0',
        'apprentice_findings_total{severity="major",shown="yes"} 1.0',
        "apprentice_student_requests_total 1.0",
        'apprentice_student_tokens_total{kind="prompt"} 100.0',
        "apprentice_review_seconds_count 1.0",
    ):
        assert counted(here, line), line
    (said,) = [line for line in lines if line["event"] == "review ended"]
    assert (said["state"], said["shown"], said["hidden"]) == (ReviewState.POSTED, 1, 0)


def test_what_was_said_is_attended_to_once(here: BotWorld, start: Start) -> None:
    one = start()
    note = here.merge.comment(here.alice, "/apprentice help")
    assert note
    told = NoteWritten(
        key="note:1",
        delivery="1",
        ref=here.ref,
        note=note.id,
        discussion=here.merge.discussion_of(note).id,
        author=Person(here.alice.id, here.alice.username),
        body=note.body,
        internal=False,
        at=note.created_at,
    )
    here.store.receive(Arrival("note:1", told.kind, here.ref.project, here.ref.iid, event.dump(told), now()))
    assert one.take_deliveries() == 1
    until(lambda: len(here.merge.discussion_of(note).notes) == 2)
    until(lambda: [workflow.status for workflow in DBOS.list_workflows(name="attend")] == ["SUCCESS"])
    forget_workflows(timedelta(hours=1), "attend")
    assert len(DBOS.list_workflows(name="attend")) == 1
    forget_workflows(timedelta(0), "review")
    assert len(DBOS.list_workflows(name="attend")) == 1
    forget_workflows(timedelta(0), "attend")
    assert DBOS.list_workflows(name="attend") == []


def test_a_delivery_of_another_version_is_passed_over(here: BotWorld, start: Start) -> None:
    one = start()
    here.store.receive(Arrival("odd", "note", 1, 1, '{"kind": "odd"}', now()))
    assert one.take_deliveries() == 1
    assert here.store.waiting() == 0


def test_a_student_that_is_down_for_long_is_told_and_given_up(
    here: BotWorld, start: Start, student: list[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_LONG_SECONDS", 0.1)
    here.policy("fail_on: major\n")
    student += [Said("", drop=True)] * 50
    here.store.ask(Due(here.ref, now(), "a test"))
    one = start()
    run_due(here, one)
    (told,) = here.summaries
    assert "waits: the student could not be reached. I will try again by myself." in told
    assert len([line for line in here.wrote if line.startswith("POST") and line.endswith("/notes")]) == 1
    assert here.statuses == ["canceled"]
    assert counted(here, 'apprentice_reviews_total{outcome="failed"} 1.0')
    student.clear()
    here.store.ask(Due(here.ref, now(), "the next push"))
    run_due(here, one)
    assert len(here.notes) == len(here.summaries) == 1
    assert here.statuses[-1] == "failed"


class Broken(MergeReview):
    """Has a fault that nobody foresaw, in one place."""

    def __init__(self, here: BotWorld, where: str) -> None:
        super().__init__(here.forge, here.store, here.steps.chosen)
        self.where = where

    def ask(self, claim: Claim, tries: int) -> Ready | Wait | End:
        if self.where == "ask":
            raise ZeroDivisionError
        return super().ask(claim, tries)

    def seed(self, claim: Claim, ready: Ready) -> End:
        del claim, ready
        raise ZeroDivisionError


@pytest.mark.parametrize(("where", "state"), [("ask", ReviewState.FAILED), ("seed", ReviewState.POSTED)])
def test_an_unforeseen_error_ends_that_step_and_nothing_else(
    here: BotWorld, start: Start, where: str, state: ReviewState
) -> None:
    one = start(Broken(here, where))
    here.store.ask(Due(here.ref, now(), "a test"))
    with capture_logs() as lines:
        run_due(here, one)
    assert [line["step"] for line in lines if line["event"] == "step broke"] == [where]
    assert counted(here, f'apprentice_reviews_total{{outcome="{state}"}} 1.0')
    assert len(here.summaries) == (state is ReviewState.POSTED)


def test_a_claim_whose_review_was_never_begun_is_begun_at_the_next_start(here: BotWorld, start: Start) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    here.store.ask(Due(here.ref, long_ago, "a test"))
    assert here.store.claim(here.ref, long_ago)
    start()
    until(lambda: free(here))
    assert len(here.notes) == 1


def test_what_a_dead_worker_left_is_taken_over(tmp_path: Path) -> None:
    bots: list[Callable[[], None]] = []

    def answer(request: Request) -> Said:
        if bots:
            bots.pop()()
        return careful(request)

    with place(tmp_path, answer=answer, APPRENTICE_WORKER_NAME="worker-0") as made:
        bots.append(made.bot.kill)
        merge = made.open("pay", {"pay.py": "def pay(cents):\n    query(f'insert {cents}')  # BUG\n"})
        until(lambda: not bots)
        assert made.bot.process is not None
        made.bot.process.wait()
        data = tmp_path / "data"
        store = Store(f"sqlite:///{data / 'apprentice.sqlite'}")
        forge = GitLabForge(made.gitlab.url, made.gitlab.bot_token)
        chosen = Settings(student_url=made.student.url, data_dir=data, state_dir=tmp_path / "state")
        metrics = Metrics()
        steps, talk = MergeReview(forge, store, chosen), Conversation(forge, store, SALT, metrics)
        other = worker(store, lambda: Jobs(steps, talk, QUICK, metrics), data)
        try:
            other.rescue()  # it has beaten a moment ago
            assert summaries(made, merge) == []
            store.beat("worker-0", now() - timedelta(minutes=2))
            other.rescue()
            until(lambda: summaries(made, merge))
            until(lambda: not store.running())
        finally:
            other.stop(5)
            forge.close()
            store.close()
        assert [(finding.file, finding.line) for finding in findings(made, merge)] == [("pay.py", 2)]
