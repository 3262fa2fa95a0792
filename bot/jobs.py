"""Durable work on DBOS: a process may be killed at any moment, and what it had begun goes on where it was.

A workflow is named by what it is about, so that it exists once however often it is begun. Its steps are recorded;
after a crash those that are done are not run again, and the one that was running is. What is recorded is plain JSON.

A worker that comes back under its name goes on with its workflows by itself. For one that does not come back there
is `Worker.rescue`: whoever beats last finds it silent and takes over.
"""

import functools
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import structlog
from dbos import DBOS, DBOSConfig, DBOSConfiguredInstance, DBOSPortableJSONSerializer, SetWorkflowID
from pydantic import Field, TypeAdapter

from bot import event
from bot.conversation import Conversation
from bot.desk import Claim
from bot.merge_review import MergeReview, Ready
from bot.step import Done, End, Wait, now
from bot.store import ReviewState, Store
from bot.telemetry import Metrics

APPLICATION = "apprentice-bot"
VERSION = "1"
"""Workflows of another version are not picked up. It changes when the steps of a workflow do."""
SILENT = timedelta(seconds=60)
"""A worker that has not beaten for so long is dead."""
BEAT_SECONDS = 10.0
_BATCH = 500
_LONG_SECONDS = 60.0

Outcome = Ready | Wait | End | Done
_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Annotated[Outcome, Field(discriminator="kind")])
_CLAIM: TypeAdapter[Claim] = TypeAdapter(Claim)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait when something cannot go on, where nobody says so: twice as long each time.

    All in seconds: the first wait, the longest one, and all of them together before a step is given up.
    """

    first: float = 2.0
    longest: float = 300.0
    total: float = 24 * 3600.0

    def wait(self, count: int) -> float:
        """How long the wait of this number is, from 0."""
        return min(self.first * 2.0 ** min(count, 30), self.longest)


@DBOS.dbos_class()
class Jobs(DBOSConfiguredInstance):
    """The workflows. One instance a process.

    Args:
        reviews: the steps of a review.
        conversation: what is done about what people say.
        patience: how long to wait for what is down.
        metrics: where what they come to is counted.
    """

    def __init__(self, reviews: MergeReview, conversation: Conversation, patience: Patience, metrics: Metrics) -> None:
        super().__init__("bot")
        self.reviews = reviews
        self.conversation = conversation
        self.patience = patience
        self.metrics = metrics

    @DBOS.workflow(name="review")
    def review(self, claimed: str) -> str:
        """Make the review of a claim (as JSON); says how it ended."""
        claim = _CLAIM.validate_json(claimed)
        steps = self.reviews
        ready = self._until_done(
            "ask", lambda tries: steps.ask(claim, tries), long=lambda wait: steps.tell_waiting(claim, wait)
        )
        end = ready if isinstance(ready, End) else End(ReviewState.POSTED, "")
        if isinstance(ready, Ready):
            posted = self._until_done("post", lambda _: steps.post(claim, ready))
            if isinstance(posted, End):
                end = posted
            else:  # it is posted: what fails from here on takes nothing of that back
                self._until_done("resolve", lambda _: steps.resolve_outdated(claim, ready))
                self._until_done("summarise", lambda _: steps.summarise(claim, ready))
                self._until_done("seed", lambda _: steps.seed(claim, ready))
                self._until_done("gate", lambda _: steps.gate(claim, ready))
        if end.state is not ReviewState.POSTED:
            self._until_done("ungate", lambda _: steps.ungate(claim))
        DBOS.run_step({"name": "close"}, lambda: self._close(claim, end))
        if isinstance(ready, Ready) and end.state is ReviewState.POSTED:
            self._run("shadow", lambda: steps.shadow(claim, ready))  # once: whatever goes wrong, nobody waits for it
        return end.state.value

    @DBOS.workflow(name="attend")
    def attend(self, told: str) -> None:
        """Do what an event (as JSON) asks for that is no review: a command, a vote, the end of a merge request."""
        heard = event.load(told)
        self._until_done("attend", lambda _: self.conversation.attend(heard))

    def _close(self, claim: Claim, end: End) -> None:
        self.reviews.close(claim, end.state, end.why)
        store, metrics = self.reviews.store, self.metrics
        metrics.reviews.labels(end.state).inc()
        review, findings = store.review(claim.workflow), store.findings_of(claim.workflow)
        log.info(
            "review ended",
            workflow=claim.workflow,
            state=end.state,
            why=end.why,
            shown=sum(stored.hidden is None for stored in findings),
            hidden=sum(stored.hidden is not None for stored in findings),
        )
        if review is None:  # it had not begun
            return
        if review.finished_at is not None:
            metrics.review_seconds.observe((review.finished_at - review.started_at).total_seconds())
        for stored in findings:
            metrics.findings.labels(stored.finding.severity.value, "no" if stored.hidden else "yes").inc()
        usage = review.usage
        metrics.student_requests.inc(usage.requests)
        metrics.student_tokens.labels("prompt").inc(usage.prompt_tokens)
        metrics.student_tokens.labels("cached").inc(usage.cached_tokens)
        metrics.student_tokens.labels("completion").inc(usage.completion_tokens)

    def _until_done(
        self, name: str, step: Callable[[int], Outcome], *, long: Callable[[Wait], Outcome] | None = None
    ) -> Outcome:
        """Run a step, again and again as long as it says `Wait`.

        Args:
            name: the step's.
            step: called with how often the student was asked and failed.
            long: what is done, once, where it waits for so long that somebody should be told.
        """
        waited, count, tries = 0.0, 0, 0
        while True:
            outcome = self._run(name, functools.partial(step, tries))
            if isinstance(outcome, End) and outcome.state is ReviewState.FAILED:
                log.warning("step failed", step=name, workflow=DBOS.workflow_id, why=outcome.why)
            if not isinstance(outcome, Wait):
                return outcome
            if waited >= self.patience.total:
                return End(ReviewState.FAILED, f"given up after {waited / 3600:.0f} hours: {outcome.why}")
            seconds = self.patience.wait(count) if outcome.seconds is None else outcome.seconds
            log.info("step waits", step=name, workflow=DBOS.workflow_id, seconds=seconds, why=outcome.why)
            if long is not None and outcome.said and waited + seconds >= _LONG_SECONDS:
                self._run(f"{name}: tell", functools.partial(long, outcome))
                long = None
            DBOS.sleep(seconds)
            waited, count, tries = waited + seconds, count + 1, tries + outcome.spent

    def _run(self, name: str, step: Callable[[], Outcome]) -> Outcome:
        """Run a step once, or give what is recorded of it."""

        def run() -> dict[str, object]:
            told: dict[str, object] = _OUTCOME.dump_python(_caught(name, step), mode="json")
            return told

        return _OUTCOME.validate_python(DBOS.run_step({"name": name}, run))


def _caught(name: str, step: Callable[[], Outcome]) -> Outcome:
    """Run a step; an error that nobody foresaw ends this review, and no other one."""
    try:
        return step()
    except Exception:
        log.exception("step broke", step=name, workflow=DBOS.workflow_id)
        return End(ReviewState.FAILED, "an internal error: the bot's log has it")


def system_database(database_url: str | None, data_dir: Path) -> str:
    """Where the workflows are recorded: in the PostgreSQL database, or in a SQLite file of their own."""
    if database_url and not database_url.startswith("sqlite"):
        return database_url
    path = data_dir / "workflows.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # it stays so; twice the throughput
    connection.close()
    return f"sqlite:///{path}"


class Worker:
    """The process's part in the durable work: it runs workflows from `launch` to `stop`.

    Args:
        store: what the bot remembers.
        name: this worker's name; the same after a restart.
        database: where the workflows are recorded (`system_database`).
        jobs: makes the workflows; called once DBOS is there.
        reviews_at_once: limits of all workers together, `reviews_per_project` of one project.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        database: str,
        jobs: Callable[[], Jobs],
        reviews_at_once: int,
        reviews_per_project: int,
        debounce: timedelta,
    ) -> None:
        self.store = store
        self.name = name
        self.reviews_at_once = reviews_at_once
        self.reviews_per_project = reviews_per_project
        self.debounce = debounce
        DBOS(
            config=DBOSConfig(
                name=APPLICATION,
                system_database_url=database,
                application_version=VERSION,
                executor_id=name,
                serializer=DBOSPortableJSONSerializer(),
                log_level="WARNING",
                max_executor_threads=reviews_at_once + 8,  # a review that waits holds its thread
                notification_listener_polling_interval_sec=0.2,
            )
        )
        self.jobs = jobs()
        DBOS.launch()
        self._start_orphans()

    def stop(self, seconds: int) -> None:
        """Let running steps finish for so long; what is not done then goes on at the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=seconds)

    # --- what the clerk does, several times a second

    def take_deliveries(self, most: int = 100) -> int:
        """Turn what webhooks brought into reviews that are due and workflows; says how many deliveries that were."""
        deliveries = self.store.unhandled(most)
        for delivery in deliveries:
            try:
                told = event.load(delivery.arrival.payload)
            except ValueError:  # written by another version of this program
                log.warning("delivery not understood", key=delivery.arrival.key)
                self.store.handle(delivery.id, outcome="not_understood", at=now())
                continue
            due = self.jobs.conversation.due(told, self.debounce)
            if due is None:  # known by its name: a second one of the same name does nothing
                with SetWorkflowID(f"attend:{told.key}"):
                    DBOS.start_workflow(self.jobs.attend, event.dump(told))
            self.store.handle(delivery.id, outcome="due" if due else "attended", at=now(), due=due)
        return len(deliveries)

    def start_due(self) -> int:
        """Begin the reviews whose turn it is; says how many."""
        claims = self.store.claim_due(now(), per_project=self.reviews_per_project, total=self.reviews_at_once)
        self._start(claims)
        return len(claims)

    def beat(self) -> None:
        """Show that this worker lives, and how much there is to do."""
        self.store.beat(self.name, now())
        self.jobs.metrics.inbox.set(self.store.waiting())

    def rescue(self) -> None:
        """Take over what dead workers have left."""
        for name in self.store.silent_workers(now() - SILENT):
            pending = DBOS.list_workflows(status="PENDING", executor_id=[name], load_input=False, load_output=False)
            if pending:
                log.warning("taking over", worker=name, workflows=len(pending))
                DBOS.resume_workflows([workflow.workflow_id for workflow in pending])
            self.store.drop_worker(name)
        self._start_orphans()

    def _start_orphans(self) -> None:
        """Begin reviews that were claimed by a process that died before it began them."""
        old = now() - SILENT
        claims = [claim for claim in self.store.running() if claim.at < old]
        self._start([claim for claim in claims if DBOS.get_workflow_status(claim.workflow) is None])

    def _start(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            with SetWorkflowID(claim.workflow):
                DBOS.start_workflow(self.jobs.review, _CLAIM.dump_json(claim).decode())


def forget_workflows(older_than: timedelta, name: str | None = None) -> None:
    """Remove the record of workflows (those of one name, or all) that ended so long ago: nothing else does."""
    before = (now() - older_than).isoformat()
    while ended := DBOS.list_workflows(
        name=name, completed_before=before, limit=_BATCH, load_input=False, load_output=False
    ):
        DBOS.delete_workflows([workflow.workflow_id for workflow in ended])
