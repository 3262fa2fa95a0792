"""`python -m tests.demo`: play what Alice, who writes code, Bob, who reviews it, and an operator would do.

The commands are shown before they run, so that what scrolls by is also the lesson.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
from rich.console import Console
from rich.text import Text

from bot import settings
from bot.cli import app
from bot.domain import Finding
from bot.feedback import SEEDS
from bot.local.demo import BRANCH, PLANTED, Planted, git, make_repository, mend
from bot.local.state import running
from bot.report import count_words
from bot.terminal import PIPE_WIDTH
from tests.demo import page, parts
from tests.demo.parts import DemoError, Part, clock, play, wait_for

BOT, ALICE, BOB = "apprentice", "alice", "bob"
REVIEW_SECONDS = 900
"""How long a review may take: two questions at a time on a slow CPU take minutes."""
VOTE_SECONDS = 30
INTERRUPTED = 130


@dataclass(frozen=True)
class Place:
    """What the acts share.

    Args:
        console: where the demo is shown.
        folder: of the demo: repositories, database, logs.
        operator: the environment of the bot's commands.
        gitlab: the stand-in; `bot_url`: the bot.
        alice, bob: as whom the demo uses GitLab.
        parts: what must not end meanwhile.
    """

    console: Console
    folder: Path
    operator: Mapping[str, str]
    gitlab: parts.GitLabAddress
    bot_url: str
    alice: page.Person
    bob: page.Person
    parts: list[Part]

    @property
    def clone(self) -> Path:
        """Alice's clone."""
        return self.folder / "shop"

    def act(self, title: str) -> None:
        """Begin an act."""
        self.console.print()
        self.console.print(Text(f"▌ {title}", "bold green"))


# --- commands


def play_git(place: Place, *words: str) -> None:
    """Run git in Alice's clone, showing it first."""
    place.console.print(Text(f"\n$ git {shlex.join(words)}", "bold"))
    git(place.clone, *words)


# --- acts


def start_student(console: Console, folder: Path, chosen: settings.Settings) -> None:
    """Start a student on this machine, unless the settings name one elsewhere or one runs."""
    if chosen.student_url is None:
        play(console, folder, "student", "start")
    else:
        console.print(f"The student is at {chosen.student_url}, as APPRENTICE_STUDENT_URL says.")


def open_place(stack: ExitStack, console: Console, folder: Path) -> Place:
    """Start GitLab and the bot; the stack stops them."""
    server, here = stack.enter_context(parts.gitlab(folder))
    operator = parts.bot_environment(os.environ, here, BOT, folder)
    console.print(Text("\n$ apprentice serve", "bold"))
    bot, url = stack.enter_context(parts.bot(folder, operator))
    alice, bob = (page.Person(here.url, here.tokens[name], here.project.id) for name in (ALICE, BOB))
    console.print(f"GitLab (a stand-in of the tests) runs at {here.url}, the bot at {url}")
    console.print(f"{url}/readyz says: {parts.ready(bot, url).words}")
    return Place(console, folder, operator, here, url, alice, bob, [server, bot])


def connect(place: Place) -> None:
    """Hang the bot's webhook up."""
    if not any(getattr(command.callback, "__name__", "") == "connect" for command in app.registered_commands):
        bot = page.Person(place.gitlab.url, place.gitlab.tokens[BOT], place.gitlab.project.id)
        bot.hang_up_hook(f"{place.bot_url}/webhook", place.operator["APPRENTICE_WEBHOOK_SECRET"])
        place.console.print("(by hand, until there is `apprentice connect`)")
        return
    play(
        place.console,
        place.folder,
        "connect",
        place.gitlab.project.path,
        "--url",
        place.bot_url,
        environment=place.operator,
    )


def push(place: Place) -> None:
    """Alice pushes her branch, and GitLab opens a merge request for it."""
    git(place.clone, "remote", "add", "origin", str(place.gitlab.project.folder))
    git(place.clone, "push", "--quiet", "origin", "main")
    play_git(
        place, "push", "--quiet", "-o", "merge_request.create", "-o", "merge_request.target=main", "origin", BRANCH
    )


def reviewed(place: Place) -> tuple[page.MergeRequest, tuple[page.Thread, ...]]:
    """Wait for the review of the branch's newest commit, and print the page as a person sees it then."""
    head = subprocess.check_output(("git", "rev-parse", "HEAD"), cwd=place.clone, text=True).strip()

    def ready() -> tuple[page.MergeRequest, tuple[page.Thread, ...]] | None:
        merge = place.bob.merge_request()
        if merge is None or merge.sha != head:
            return None
        threads = place.bob.threads(merge.iid)
        return (merge, threads) if is_reviewed(threads, head) else None

    with clock(place.console, "The bot heard of it and reviews"):
        found = wait_for(ready, place.parts, REVIEW_SECONDS, "the review")
    place.console.print()
    page.show(*found, place.console)
    return found


def is_reviewed(threads: Sequence[page.Thread], head: str) -> bool:
    """Whether the bot's summary speaks of this commit, and all its findings have their emoji."""
    notes = [thread.first for thread in threads]
    said = any(note.summary and f"`{head[:8]}`" in note.body for note in notes)
    return said and all(len(note.awards) >= len(SEEDS) for note in notes if note.finding)


def vote(place: Place, merge: page.MergeRequest, voted: "Voted") -> None:
    """Bob gives a finding an emoji, and the bot counts it."""
    finding, sign = voted.finding, "👍" if voted.up else "👎"
    verdict = "is right" if voted.up else "is no defect"
    place.console.print(f"Bob knows that “{finding.title}” in {finding.file} {verdict}. He clicks {sign}.")
    place.bob.give(merge.iid, voted.note, "thumbsup" if voted.up else "thumbsdown")

    def counted() -> bool:
        done = subprocess.run(
            (sys.executable, "-m", "bot", "votes", "export"), env=place.operator, capture_output=True, check=True
        )
        return bool(done.stdout)

    wait_for(counted, place.parts, VOTE_SECONDS, "the vote")
    play(place.console, place.folder, "votes", "export", environment=place.operator)


def correct(place: Place, defect: Planted) -> None:
    """Alice mends a defect, asks the student before she commits, and pushes."""
    mend(place.clone, defect)
    play_git(place, "--no-pager", "diff", "--staged", "--unified=0")
    play(place.console, place.clone, "review", "--staged", environment=place.operator)  # not with the user's own bot
    play_git(place, "commit", "--quiet", "--message", f"Correct {defect.file}")
    play_git(place, "push", "--quiet", "origin", BRANCH)


def answered(chosen: settings.Settings) -> int:
    """Questions that the student on this machine has answered, by vLLM's own log."""
    here = running(chosen.state_dir) if chosen.student_url is None else None
    return here.log.read_text("utf-8", "replace").count('POST /v1/chat/completions HTTP/1.1" 200') if here else 0


# --- what is decided by what the student found


@dataclass(frozen=True, slots=True)
class Voted:
    """The finding that Bob votes on: the note with it, and what he thinks."""

    note: int
    finding: Finding
    up: bool


def is_true(finding: Finding, defect: Planted) -> bool:
    """Whether a finding is about a planted defect."""
    return finding.file == defect.file and defect.code in finding.quote


def to_mend(threads: Sequence[page.Thread]) -> Planted:
    """The first planted defect that was found; the first of all where none was."""
    findings = [finding for thread in threads if (finding := thread.first.finding)]
    return next((defect for defect in PLANTED if any(is_true(one, defect) for one in findings)), PLANTED[0])


def to_vote(threads: Sequence[page.Thread], mended: Planted) -> Voted | None:
    """A false finding to vote down; where there is none a true one to vote up; None where there is nothing else."""
    others = [
        (thread.first.id, finding, any(is_true(finding, defect) for defect in PLANTED))
        for thread in threads
        if (finding := thread.first.finding) and finding.file != mended.file
    ]
    for note, finding, true in sorted(others, key=lambda other: other[2]):
        return Voted(note, finding, up=true)
    return None


# --- the end


def planted_words() -> str:
    """What the student should have found, in words."""
    rows = (f"  {defect.file:<20} {defect.words}" for defect in PLANTED)
    return "\n".join(
        (
            "Planted in the change, for comparison:",
            *rows,
            "Everything else in it is fine. The demo's student is a small base model that has learnt nothing yet: it",
            "finds some, misses some and invents some. Judging well is what the adapter is for.",
        )
    )


def addresses(place: Place, merge: page.MergeRequest, chosen: settings.Settings) -> str:
    """Where every part is."""
    here = running(chosen.state_dir) if chosen.student_url is None else None
    rows = [
        ("merge request", merge.web_url),
        ("bot", f"{place.bot_url}/readyz and {place.bot_url}/metrics"),
        ("student", here.url if here else str(chosen.student_url)),
        ("bot's log", str(place.folder / "bot.log")),
        ("GitLab's log", str(place.folder / "gitlab.log")),
        ("student's log", str(here.log) if here else "on its own machine"),
        ("bot's database", str(place.folder / "data")),
        ("Alice's clone", str(place.clone)),
    ]
    return "\n".join(f"  {name:<16}{where}" for name, where in rows)


def what_now() -> str:
    """What to do next."""
    rows = [
        (f"export PATH={Path(sys.executable).parent}:$PATH", ""),
        ("cd YOUR/REPOSITORY && apprentice review", "on a branch of yours; --help tells of thresholds and formats"),
        ("apprentice serve --help", "with your own GitLab: README.md tells how"),
        ("apprentice student status", "the student runs on; `apprentice student stop` ends it"),
    ]
    return "\n".join(("What now?", *(f"  {command:<43}{words}".rstrip() for command, words in rows)))


def linger(place: Place) -> None:
    """Leave GitLab and the bot running for whoever sits there, until they press Enter."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        place.console.print("\nGitLab and the bot run until you press Enter: look at their pages.", style="bold")
        sys.stdin.readline()


def perform(stack: ExitStack, console: Console, chosen: settings.Settings) -> None:
    """All acts, one after the other.

    Raises:
        DemoError: it cannot go on.
    """
    folder, begun = chosen.cache_dir / "demo", time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    make_repository(folder / "shop", "Alice", f"{ALICE}@example.com")
    console.print(f"A sample repository with a branch to merge stands in {folder / 'shop'}")
    start_student(console, folder, chosen)
    asked = answered(chosen)

    place = open_place(stack, console, folder)
    place.act("The operator connects the bot with the project")
    connect(place)
    place.act("Alice pushes a branch; the push opens a merge request")
    push(place)
    merge, threads = reviewed(place)

    defect = to_mend(threads)
    place.act("Bob votes: from votes the student will learn")
    if voted := to_vote(threads, defect):
        vote(place, merge, voted)
    else:
        console.print("There is nothing to vote on: this time the student has found nothing else.")
    place.act(f"Alice corrects {defect.file}, and asks the student herself before she pushes")
    correct(place, defect)
    _, after = reviewed(place)
    console.print(comparison(threads, after))

    place.act(f"That was the reviewing half, in {time.monotonic() - begun:.0f} s")
    if count := answered(chosen) - asked:
        console.print(f"vLLM's own access log counts {count_words(count, 'answered question')} in it.\n")
    console.print(f"{planted_words()}\n\nWhere everything is:\n{addresses(place, merge, chosen)}\n\n{what_now()}",
                  highlight=False, soft_wrap=True)  # fmt: skip
    linger(place)


def comparison(before: Sequence[page.Thread], after: Sequence[page.Thread]) -> str:
    """What the second review did, in words."""
    known = {thread.first.id for thread in before}
    findings = [(thread.first, finding) for thread in after if (finding := thread.first.finding)]
    resolved = sum(note.resolved for note, _ in findings)
    new = sum(note.id not in known for note, _ in findings)
    again = len(findings) - len({finding.fingerprint for _, finding in findings})
    summaries = sum(thread.first.summary for thread in after)
    return (
        f"Only what is new was read: {count_words(resolved, 'thread')} resolved because the code is gone, {new} new, "
        f"{again or 'nothing'} said twice, and still {count_words(summaries, 'summary note')}, updated in place."
    )


def main() -> int:
    """Play the demo; gives the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started this in the background
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)
    try:
        chosen = settings.load({})
        with ExitStack() as stack:
            perform(stack, console, chosen)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped: GitLab and the bot are gone, the student (if it was started) runs on.\n")
        return INTERRUPTED
    except settings.SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (DemoError, OSError, subprocess.SubprocessError, httpx2.HTTPError) as error:
        sys.stderr.write(f"\nThe demo stops here: {error}\n")
        return 1
    console.print("\nGitLab and the bot are stopped.", style="dim")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__).parse_args()  # `--help` plays nothing
    sys.exit(main())
