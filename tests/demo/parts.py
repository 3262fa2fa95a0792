"""The parts that the demo starts and stops: processes with a log, and how long to wait for something."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from pydantic import BaseModel
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

KEPT = (
    "APPRENTICE_CACHE_DIR",
    "APPRENTICE_CONFIG",
    "APPRENTICE_MAX_REQUESTS",
    "APPRENTICE_STATE_DIR",
    "APPRENTICE_STUDENT_",
)
"""Which settings of the user the demo's bot gets: those about the student, and the file that may hold some."""
START_SECONDS = 60
READY_SECONDS = 20
STOP_SECONDS = 20
POLL_SECONDS = 0.3
LOG_LINES = 15

Found = TypeVar("Found")


class DemoError(RuntimeError):
    """Why the demo cannot go on, for a person."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the demo, and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """See to it that it runs.

        Raises:
            DemoError: it has ended.
        """
        if self.process.poll() is not None:
            raise DemoError(f"{self.name} has ended with {self.process.returncode}. {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
        return "\n  ".join((f"The end of {self.log}:", *lines))


def play(console: Console, folder: Path, *words: str, environment: Mapping[str, str] = os.environ) -> None:
    """Run an `apprentice` command as a person would, showing it first.

    Raises:
        DemoError: it failed; it has said why.
    """
    console.print(Text(f"\n$ apprentice {shlex.join(words)}", "bold"))
    done = subprocess.run(
        (sys.executable, "-m", "trainer", *words),
        cwd=folder,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        check=False,
    )
    if done.returncode:
        raise DemoError(f"`apprentice {words[0]}` ended with {done.returncode}.")


@contextlib.contextmanager
def run(name: str, log: Path, *arguments: str, environment: Mapping[str, str]) -> Iterator[Part]:
    """Run a Python module as a part, for as long as the block takes."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield Part(name, process, log)
    finally:
        process.send_signal(signal.SIGTERM)  # does nothing to one that has ended
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ProjectAddress(BaseModel):
    """The project that the stand-in made: `folder` takes `git push`."""

    id: int
    path: str
    folder: Path


class GitLabAddress(BaseModel):
    """What the stand-in says of itself: where it is, and a token for each of its users."""

    url: str
    project: ProjectAddress
    tokens: dict[str, str]


@contextlib.contextmanager
def gitlab(folder: Path) -> Iterator[tuple[Part, GitLabAddress]]:
    """Run the GitLab stand-in; its repositories and its log are in that folder."""
    log = folder / "gitlab.log"
    arguments = ("tests.fakes.gitlab", "--folder", str(folder / "gitlab"))
    (folder / "gitlab").mkdir()
    with run("the GitLab stand-in", log, *arguments, environment=os.environ) as part:
        yield part, wait_for(lambda: _address(log), [part], START_SECONDS, "the GitLab stand-in")


def _address(log: Path) -> GitLabAddress | None:
    first, end, _ = log.read_text().partition("\n")
    return GitLabAddress.model_validate(json.loads(first)) if end else None


@contextlib.contextmanager
def bot(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Part, str]]:
    """Run `apprentice serve`, and say where it is."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with run("the bot", folder / "bot.log", "bot", "serve", "--port", str(port), environment=environment) as part:
        wait_for(lambda: _answers(url), [part], START_SECONDS, "the bot")
        yield part, url


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", timeout=2, trust_env=False).is_success
    except httpx2.TransportError:
        return False


class Readiness(BaseModel):
    """What `/readyz` says of each part: ok, failed or late."""

    parts: dict[str, str]

    @property
    def well(self) -> bool:
        """Whether nothing is missing."""
        return set(self.parts.values()) == {"ok"}

    @property
    def words(self) -> str:
        """All parts."""
        return ", ".join(f"{name} {said}" for name, said in self.parts.items())


def ready(bot: Part, url: str) -> Readiness:
    """See to it that the bot has all that it needs; on a busy machine an answer may be late.

    Raises:
        DemoError: something is missing; the bot's log says why.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        said = Readiness.model_validate_json(httpx2.get(f"{url}/readyz", timeout=10, trust_env=False).content)
        if said.well:
            return said
        bot.check()
        if "failed" in said.parts.values() or time.monotonic() > deadline:
            raise DemoError(f"The bot is not ready: {said.words}. {bot.last_words()}")
        time.sleep(POLL_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def bot_environment(known: Mapping[str, str], here: GitLabAddress, bot_user: str, folder: Path) -> dict[str, str]:
    """What the bot and its operator's commands are started with: none of the user's own bot is in it.

    Args:
        known: the environment of the demo.
        here: the stand-in.
        bot_user: as whom the bot signs in.
        folder: for the bot's database.
    """
    kept = {name: value for name, value in known.items() if not name.startswith("APPRENTICE_") or name.startswith(KEPT)}
    return kept | {
        "APPRENTICE_GITLAB_URL": here.url,
        "APPRENTICE_GITLAB_TOKEN": here.tokens[bot_user],
        "APPRENTICE_WEBHOOK_SECRET": "the-secret-of-the-demo",
        "APPRENTICE_DATA_DIR": str(folder / "data"),
        "APPRENTICE_DATABASE_URL": f"sqlite:///{folder / 'data' / 'apprentice.sqlite'}",  # whatever the file says
        "APPRENTICE_DEBOUNCE_SECONDS": "1",  # nobody pushes twice in a row here
        "PYTHONUNBUFFERED": "1",
    }


def wait_for(ready: Callable[[], Found | None], parts: list[Part], seconds: float, what: str) -> Found:
    """Wait until there is something.

    Args:
        ready: gives it, or None (or False) as long as it is not there.
        parts: what must not end meanwhile.
        seconds: how long to wait.
        what: its name, for a person.

    Raises:
        DemoError: a part has ended, or it takes too long.
    """
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        for part in parts:
            part.check()
        if time.monotonic() > deadline:
            logs = "\n".join(part.last_words() for part in parts)
            raise DemoError(f"After {seconds:g} seconds there is still nothing of {what}.\n{logs}")
        time.sleep(POLL_SECONDS)
    return found


@contextlib.contextmanager
def clock(console: Console, words: str) -> Iterator[None]:
    """Show on a terminal that something takes its time, and say in the end how long it took."""
    begun = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(words, total=None)
        yield
    console.print(f"{words}: {time.monotonic() - begun:.0f} s", style="dim")
