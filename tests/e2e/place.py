"""A whole bot for tests: `apprentice serve` as a process, a GitLab stand-in, a student; and how to kill it."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from bot.comment import parse_marker
from bot.domain import Finding
from bot.forge import SUMMARY_MARKER
from tests.conftest import free_port
from tests.fakes import gitlab as fake_gitlab
from tests.fakes import student as fake_student
from tests.fakes.gitlab import GitLab, MergeRequest, Project
from tests.fakes.gitlab.model import Discussion
from tests.fakes.student import FINE, FakeStudent, Request, Said, suspect

SECRET = "a-webhook-secret"
_BUG = re.compile(r"^\s*(\d+) \+ ?(.*BUG.*)$", re.MULTILINE)


def careful(request: Request) -> Said:
    """Answer like a student that finds each line with BUG in it, one a question, and nothing else."""
    asked = str(request["messages"])
    found = _BUG.search(asked.replace("\\n", "\n").replace("\\\\", "\\"))
    if found is None:
        return Said(FINE)
    return Said(suspect(line=int(found[1]), quote=found[2].strip(), severity="major", title="A bug"))


def until(true: Callable[[], object], seconds: float = 30, words: str = "") -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s {words}"
        time.sleep(0.05)


@dataclass
class Bot:
    """`apprentice serve`, as an operator starts it."""

    folder: Path
    settings: dict[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        path = self.folder / "bot.log"
        return path.read_text() if path.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this bot is started with."""
        known = {name: value for name, value in os.environ.items() if not name.startswith("APPRENTICE_")}
        return known | self.settings

    def start(self) -> None:
        with (self.folder / "bot.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bot", "serve", "--port", str(self.port)],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        until(self.answers, words=self.log[-3000:])

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        try:
            return httpx2.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def metrics(self) -> str:
        return httpx2.get(f"{self.url}/metrics", timeout=5).text

    def ready(self) -> tuple[int, dict[str, str]]:
        """What /readyz says."""
        said = httpx2.get(f"{self.url}/readyz", timeout=10)
        return said.status_code, said.json()["parts"]

    def handled(self) -> bool:
        """Whether all deliveries that came are turned into work."""
        database = self.folder / "data" / "apprentice.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM deliveries WHERE handled_at IS NULL")
            return bool(count == 0)

    def kill(self) -> None:
        """Like a machine that loses its power, for this process."""
        process = self.process  # whoever waits for its end may start the next one before we have seen it
        assert process is not None
        process.kill()
        process.wait()

    def stop(self) -> int:
        """As systemd and Kubernetes do."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@dataclass
class Place:
    """All of it together."""

    gitlab: GitLab
    project: Project
    student: FakeStudent
    bot: Bot

    def statuses(self, merge: MergeRequest) -> list[dict[str, str]]:
        """The newest commit status of each name at the head of a merge request."""
        said = httpx2.get(
            f"{self.gitlab.url}/api/v4/projects/{self.project.id}/repository/commits/{merge.head}/statuses",
            headers={"private-token": self.gitlab.bot_token},
        )
        statuses: list[dict[str, str]] = said.json()
        return statuses

    def open(self, branch: str, files: dict[str, str], **more: object) -> MergeRequest:
        """Open a merge request with these files on a branch of its own."""
        self.project.push(branch, dict(files))
        return self.project.open_merge_request(branch, title=f"Change {branch}", **more)  # type: ignore[arg-type]


def threads_of(place: Place, merge: MergeRequest) -> list[tuple[Discussion, Finding]]:
    """The bot's threads and their findings, by file and line."""
    found = [
        (thread, finding)
        for thread in merge.discussions
        for note in thread.notes[:1]
        if note.author.id == place.gitlab.bot.id and (finding := parse_marker(note.body))
    ]
    return sorted(found, key=lambda each: (each[1].file, each[1].line))


def findings(place: Place, merge: MergeRequest) -> list[Finding]:
    """What the bot says inline on a merge request, by file and line."""
    return [finding for _, finding in threads_of(place, merge)]


def summaries(place: Place, merge: MergeRequest) -> list[str]:
    """The bot's summary notes."""
    bot = place.gitlab.bot
    notes = [note for thread in merge.discussions for note in thread.notes if note.author.id == bot.id]
    return [note.body for note in notes if note.body.rstrip().endswith(SUMMARY_MARKER)]


@contextmanager
def place(
    folder: Path,
    *,
    answer: Callable[[Request], Said] = careful,
    database: str | None = None,
    start: bool = True,
    **settings: str,
) -> Iterator[Place]:
    """A GitLab with one project and its hook, a student, and a bot that runs."""
    with fake_gitlab.serve() as gitlab, fake_student.serve(answer) as student:
        project = gitlab.project("team/tools/shop")
        project.push("main", {"README.md": "A shop.\n"})
        given = {
            "APPRENTICE_GITLAB_URL": gitlab.url,
            "APPRENTICE_GITLAB_TOKEN": gitlab.bot_token,
            "APPRENTICE_WEBHOOK_SECRET": SECRET,
            "APPRENTICE_STUDENT_URL": student.url,
            "APPRENTICE_DATA_DIR": str(folder / "data"),
            "APPRENTICE_STATE_DIR": str(folder / "state"),
            "APPRENTICE_DEBOUNCE_SECONDS": "0.2",
            "APPRENTICE_WORKER_NAME": "worker-0",
        }
        if database:
            given |= {"APPRENTICE_DATABASE_URL": database, "APPRENTICE_VOTE_SALT": "a-salt"}
        bot = Bot(folder, given | settings)
        add_hook(project, bot.url)
        if start:
            bot.start()
        try:
            yield Place(gitlab, project, student, bot)
        finally:
            if bot.process is not None:
                bot.stop()


def add_hook(project: Project, url: str) -> None:
    """Make the bot's webhook, as `apprentice connect` does."""
    project.add_hook(f"{url}/webhook", token=SECRET)
