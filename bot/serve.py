"""`apprentice serve`: receiver and worker, in one process or apart."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Literal

import structlog
import uvicorn

from bot.app import create_app, server_config
from bot.clerk import Chores, Clerk
from bot.conversation import Conversation
from bot.gitlab import GitLabForge
from bot.interview import connect, find_endpoint
from bot.jobs import Jobs, Patience, Worker, forget_workflows, system_database
from bot.merge_review import MergeReview
from bot.parts import (
    hidden_values,
    lacks_gitlab,
    lacks_secret,
    on_server,
    open_admin,
    open_forge,
    ready_store,
    salt,
    value,
    wanted_hook,
    webhook_secrets,
)
from bot.ready import Check
from bot.serving import put_back
from bot.settings import Settings, SettingsError
from bot.store import Store
from bot.telemetry import Metrics, set_up_logging
from bot.upkeep import Upkeep

log = structlog.get_logger()

STOP_SECONDS = 10
"""How long running steps may finish at a stop. What is not done then goes on at the next start."""

_CHECK_SECONDS = 5

Role = Literal["all", "web", "worker"]


def required(chosen: Settings, role: Role) -> None:
    """Make sure that what a bot cannot do without is set.

    Raises:
        SettingsError: with all that is missing.
    """
    missing = lacks_gitlab(chosen) + lacks_secret(chosen)
    if role != "web" and on_server(chosen) and chosen.vote_salt is None:
        missing.append("APPRENTICE_VOTE_SALT is not set: with PostgreSQL all workers need the same one")
    if role != "all" and not on_server(chosen):
        missing.append(f"--role {role} needs APPRENTICE_DATABASE_URL with a PostgreSQL that all parts share")
    if missing:
        raise SettingsError(missing)


def run(chosen: Settings, *, host: str, port: int, role: Role) -> None:
    """Serve until a signal comes.

    Raises:
        SettingsError: something is missing.
        StoreError: the database cannot be used.
    """
    required(chosen, role)
    secrets = webhook_secrets(chosen)
    set_up_logging(secrets=hidden_values(chosen))
    metrics = Metrics()
    store = ready_store(chosen)
    forge = open_forge(chosen, metrics.heard_forge)
    worker = None if role == "web" else _worker(chosen, store, forge, metrics)
    clerk = None if worker is None else _clerk(chosen, store, forge, worker)
    speaker = _Speaker(chosen, store)
    app = create_app(
        store=store,
        secrets=secrets,
        metrics=metrics,
        checks=_checks(store, forge, clerk, speaker),
        adapter=None if clerk is None else lambda: speaker.adapter,
        bot=lambda: forge.known_me.id if forge.known_me else None,
    )
    log.info("serving", role=role, address=f"http://{host}:{port}", gitlab=chosen.gitlab_url, database=store.name)
    server = uvicorn.Server(server_config(app, host=host, port=port))
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises a signal anew when it has stopped: we go on to stop
        signal.signal(number, server.handle_exit)
    server.run()
    if worker is not None and clerk is not None:
        clerk.stop()
        worker.stop(STOP_SECONDS)
    log.info("stopped")
    sys.stdout.flush()
    os._exit(0)  # a step that still runs is recorded as begun, and runs again at the next start: do not wait for it


def _checks(store: Store, forge: GitLabForge, clerk: Clerk | None, speaker: "_Speaker") -> Mapping[str, Check]:
    """What `/readyz` asks."""
    checks: dict[str, Check] = {"database": store.check, "gitlab": forge.check}
    if clerk is not None:
        checks |= {"student": speaker.check, "worker": clerk.check}
    return checks


class _Speaker:
    """Who answers reviews: the adapter that the settings pin or the learning loop promoted, or the base model."""

    def __init__(self, chosen: Settings, store: Store) -> None:
        self.chosen = chosen
        self.store = store
        self.adapter: str | None = None

    def check(self) -> None:
        """Ask the student whether it serves that; raises where it does not."""
        serving = self.store.serving_adapter()
        self.adapter = self.chosen.student_adapter or (serving.name if serving else None)
        asyncio.run(asyncio.wait_for(self._ask(), timeout=_CHECK_SECONDS))

    async def _ask(self) -> None:
        async with connect(find_endpoint(self.chosen), self.chosen, self.adapter) as client:
            await client.base()


def _worker(chosen: Settings, store: Store, forge: GitLabForge, metrics: Metrics) -> Worker:
    url = value(chosen.database_url)
    return Worker(
        store,
        name=chosen.worker_name,
        database=system_database(url, chosen.data_dir),
        jobs=lambda: Jobs(
            MergeReview(forge, store, chosen), Conversation(forge, store, salt(chosen), metrics), Patience(), metrics
        ),
        reviews_at_once=chosen.reviews_at_once,
        reviews_per_project=chosen.reviews_per_project,
        debounce=timedelta(seconds=chosen.debounce_seconds),
    )


def _clerk(chosen: Settings, store: Store, forge: GitLabForge, worker: Worker) -> Clerk:
    chores = Chores(
        forge,
        store,
        hooks=Upkeep(open_admin(chosen), store, partial(wanted_hook, chosen)).look_after,
        put_back=lambda: put_back(chosen, store),
        sweep=worker.jobs.conversation.sweep,
        clean=forget_workflows,
        keep=timedelta(days=chosen.retention_days),
        debounce=timedelta(seconds=chosen.debounce_seconds),
    )
    clerk = Clerk(worker, chores)
    clerk.start()
    return clerk
