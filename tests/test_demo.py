"""The demo: what it decides and shows, and the whole of it with a student that answers at once."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from rich.console import Console

from bot.comment import render
from bot.domain import Category, Finding, Severity
from bot.feedback import FOOTER, SEEDS
from bot.local.demo import PLANTED, Planted, make_repository, mend
from tests.demo.__main__ import comparison, is_reviewed, to_mend, to_vote
from tests.demo.page import Author, Award, MergeRequest, Note, Position, Thread, emoji_line, place, seen, show
from tests.demo.parts import DemoError, GitLabAddress, Part, ProjectAddress, bot_environment, wait_for
from tests.fakes import student as fake_student
from tests.fakes.student import FINE, Request, Said, suspect

HEAD = "0123456789abcdef"
BASKET, INVOICES, TRACK = PLANTED
BOT = Author(username="apprentice", name="Apprentice")
FALSE = Planted("billing/dates.py", "def overdue(issued: date) -> bool:", "no defect")


def thread(note: int, defect: Planted, *, resolved: bool = False, seeded: bool = True) -> Thread:
    finding = Finding(
        file=defect.file,
        line=6,
        end_line=6,
        quote=defect.code,
        severity=Severity.MAJOR,
        category=Category.CORRECTNESS,
        title="A title",
        explanation="Because.",
    )
    return Thread(
        notes=(
            Note(
                id=note,
                body=render(finding, FOOTER),
                author=BOT,
                system=False,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
                resolved=resolved,
                position=Position(new_path=defect.file, old_path=defect.file, new_line=6),
                awards=tuple(Award(name=name, user=BOT) for name in SEEDS) if seeded else (),
            ),
        )
    )


def summary(words: str) -> Thread:
    body = f"{words}\n\n<!-- apprentice:summary:v1 -->"
    return Thread(notes=(Note(id=1, body=body, author=BOT, system=False, created_at=datetime(2026, 1, 1, tzinfo=UTC)),))


# --- what it decides


@pytest.mark.parametrize(
    ("found", "mended", "voted", "up"),
    [
        ([BASKET, FALSE], BASKET, FALSE, False),
        ([FALSE, INVOICES], INVOICES, FALSE, False),
        ([TRACK, INVOICES], INVOICES, TRACK, True),  # all true: one is praised
        ([BASKET, TRACK, FALSE], BASKET, FALSE, False),
        ([FALSE], BASKET, FALSE, False),
        ([BASKET], BASKET, None, None),
        ([], BASKET, None, None),
    ],
)
def test_what_is_mended_and_what_is_voted_on(
    found: list[Planted],
    mended: Planted,
    voted: Planted | None,
    up: bool | None,  # noqa: FBT001 -- of the table
) -> None:
    threads = [summary("x"), *(thread(number, defect) for number, defect in enumerate(found, 2))]
    assert to_mend(threads) == mended
    chosen = to_vote(threads, mended)
    assert (chosen and (chosen.finding.file, chosen.up)) == (voted and (voted.file, up))


def test_reviewed_is_when_the_summary_speaks_of_the_head_and_all_emoji_are_there() -> None:
    said = summary(f"I read 1 file at `{HEAD[:8]}`.")
    assert is_reviewed([said, thread(2, BASKET)], HEAD)
    assert not is_reviewed([said, thread(2, BASKET, seeded=False)], HEAD)
    assert not is_reviewed([said], "fedcba9876543210")
    assert not is_reviewed([thread(2, BASKET)], HEAD)


def test_the_second_review_in_words() -> None:
    before = [summary("x"), thread(2, BASKET), thread(3, FALSE)]
    after = [summary("x"), thread(2, BASKET, resolved=True), thread(3, FALSE), thread(4, TRACK)]
    words = comparison(before, after)
    assert "1 thread resolved" in words
    assert "1 new, nothing said twice" in words
    assert "1 new, 1 said twice" in comparison(before, [*before, thread(5, FALSE)])


def test_nothing_of_the_users_own_bot_reaches_the_demos() -> None:
    known = {
        "PATH": "/bin",
        "APPRENTICE_DATABASE_URL": "postgresql://mine",
        "APPRENTICE_GITLAB_TOKEN_FILE": "/mine",
        "APPRENTICE_RETENTION_DAYS": "1",
        "APPRENTICE_STUDENT_URL": "http://gpu:8000/v1",
        "APPRENTICE_STATE_DIR": "/state",
    }
    here = GitLabAddress(
        url="http://127.0.0.1:1",
        project=ProjectAddress(id=1, path="demo/shop", folder=Path("/x")),
        tokens={"apprentice": "t"},
    )
    made = bot_environment(known, here, "apprentice", Path("/demo"))
    assert {name: made.get(name) for name in known} == {
        "PATH": "/bin",
        "APPRENTICE_DATABASE_URL": "sqlite:////demo/data/apprentice.sqlite",
        "APPRENTICE_GITLAB_TOKEN_FILE": None,
        "APPRENTICE_RETENTION_DAYS": None,
        "APPRENTICE_STUDENT_URL": "http://gpu:8000/v1",
        "APPRENTICE_STATE_DIR": "/state",
    }
    assert made["APPRENTICE_GITLAB_TOKEN"] == "t"


def test_waiting_ends_when_a_part_ends_or_it_takes_too_long(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("the reason\n")
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    ended.wait()
    with pytest.raises(DemoError, match=r"(?s)The bot has ended with 3.*the reason"):
        wait_for(lambda: None, [Part("The bot", ended, log)], 10, "it")
    with pytest.raises(DemoError, match="After 0 seconds there is still nothing of the review"):
        wait_for(lambda: None, [], 0, "the review")


@pytest.mark.parametrize("defect", PLANTED, ids=lambda defect: defect.file)
def test_each_planted_defect_stands_in_the_sample_until_it_is_mended(defect: Planted, tmp_path: Path) -> None:
    make_repository(tmp_path / "shop", "Alice", "alice@example.com")

    def diff(*options: str) -> str:
        return subprocess.check_output(["git", "diff", *options], cwd=tmp_path / "shop", text=True)

    assert re.search(rf"^\+\s*{re.escape(defect.code)}$", diff("main...HEAD"), re.MULTILINE)
    mend(tmp_path / "shop", defect)
    assert re.search(rf"^-\s*{re.escape(defect.code)}$", diff("--staged"), re.MULTILINE)
    assert diff() == ""


# --- what it shows


def test_a_page_shows_what_a_browser_shows() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    merge = MergeRequest(
        iid=1,
        title="A [bold]title[/bold]",
        state="opened",
        source_branch="fix",
        target_branch="main",
        sha=HEAD,
        web_url="http://gitlab/x",
        author=Author(username="alice", name="Alice"),
    )
    show(merge, (thread(3, FALSE), summary("**No** findings"), thread(2, BASKET, resolved=True)), console)
    text = console.export_text()
    assert "apprentice:finding" not in text
    assert "A [bold]title[/bold]" in text
    places = [text.index(words) for words in ("No findings", "billing/dates.py, line 6", "web/basket.js, line 6")]
    assert places == sorted(places)
    assert "web/basket.js, line 6 · resolved" in text
    assert "👍 1 (apprentice)   👎 1 (apprentice)" in text


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("a\u2060b<!-- hidden\nlines -->", "ab"),
        ("<sub>small</sub>", "small"),
        ("<details>\n<summary>Not read: 1 file</summary>\n\n- a\n\n</details>", "Not read: 1 file\n\n- a"),
        ("```suggestion:-0+0\nx\n```", "*Suggested change, applied by a click:*\n\n```\nx\n```"),
        ("\x1b[31mred", "\\x1b[31mred"),
    ],
)
def test_markdown_as_it_is_seen(body: str, shown: str) -> None:
    assert seen(body) == shown


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (None, "On the merge request"),
        (Position(new_path="a.py", old_path="b.py", new_line=3), "a.py, line 3"),
        (Position(new_path="a.py", old_path="b.py", old_line=4), "b.py, removed line 4"),
        (Position(new_path="a.py", old_path="a.py", position_type="file"), "a.py"),
    ],
)
def test_where_a_note_stands(position: Position | None, words: str) -> None:
    note = thread(1, BASKET).first.model_copy(update={"position": position})
    assert place(note) == words


def test_emoji_with_their_givers() -> None:
    bob = Award(name="thumbsdown", user=Author(username="bob", name="Bob"))
    first = thread(1, BASKET).first
    other = Award(name="mag", user=bob.user)
    note = first.model_copy(update={"awards": (*first.awards, bob, other)})
    assert emoji_line(note) == "👍 1 (apprentice)   👎 2 (apprentice, bob)   :mag: 1 (bob)"


# --- the whole of it

_ADDED = re.compile(r"^\s*(\d+) \+ ?(.*)$", re.MULTILINE)


def found_at_once(request: Request) -> Said:
    """Find two of the planted defects, and one that is none."""
    messages = request["messages"]
    assert isinstance(messages, list)
    asked = "\n".join(str(message["content"]) for message in messages)
    for number, code in _ADDED.findall(asked):
        quote = code.strip()
        if quote in {BASKET.code, INVOICES.code}:
            return Said(suspect(line=int(number), quote=quote, title="A defect", severity="critical"))
        if quote.startswith("def overdue"):
            return Said(suspect(line=int(number), quote=quote, title="A false alarm", severity="minor"))
    return Said(FINE)


def demo(folder: Path, student_url: str) -> subprocess.Popen[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("APPRENTICE_")}
    environment = known | {
        "APPRENTICE_CACHE_DIR": str(folder / "cache"),
        "APPRENTICE_STATE_DIR": str(folder / "state"),
        "APPRENTICE_STUDENT_URL": student_url,
        "APPRENTICE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/mine",  # the user's own bot is left alone
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo"],
        cwd=Path(__file__).parents[1],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.e2e
def test_the_whole_demo(tmp_path: Path) -> None:
    with fake_student.serve(found_at_once) as student:
        process = demo(tmp_path, student.url)
        said, complaints = process.communicate(timeout=180)
    assert process.returncode == 0, said + complaints
    assert complaints == ""
    wanted = [
        "$ apprentice serve",
        "database ok, gitlab ok, student ok, worker ok",
        "$ git push --quiet -o merge_request.create",
        "2 critical · 🟡 1 minor",
        "billing/dates.py, line 11",
        "billing/invoices.py, line 20",
        "web/basket.js, line 6",
        "“A false alarm” in billing/dates.py is no defect. He clicks 👎.",
        "$ apprentice votes export",
        '"up": false, "origin": "emoji"',
        "Alice corrects web/basket.js",
        "+  return basket[basket.length - 1];",
        "$ apprentice review --staged",
        "No findings.",
        "what changed since",
        "👎 2 (apprentice, bob)",
        "web/basket.js, line 6 · resolved",
        "1 thread resolved because the code is gone, 0 new, nothing said twice",
        "/demo/shop/-/merge_requests/1",
        "/readyz and http://127.0.0.1:",
        "What now?",
        "GitLab and the bot are stopped.",
    ]
    at = 0
    for words in wanted:
        at = said.find(words, at)
        assert at >= 0, f"{words!r} is missing in:\n{said}"
    assert "apprentice:finding" not in said
    addresses = set(re.findall(r"http://127\.0\.0\.1:\d+", said)) - {student.url.removesuffix("/v1")}
    assert len(addresses) == 2
    for address in addresses:
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(address)


@pytest.mark.e2e
def test_ctrl_c_stops_all_parts(tmp_path: Path) -> None:
    begun: list[float] = []

    def slow(_: Request) -> Said:
        begun.append(time.monotonic())
        time.sleep(20)
        return Said(FINE)

    with fake_student.serve(slow) as student:
        process = demo(tmp_path, student.url)
        while not begun:  # the review runs
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said + complaints
    assert "Stopped: GitLab and the bot are gone" in complaints
    for address in set(re.findall(r"http://127\.0\.0\.1:\d+", said)) - {student.url.removesuffix("/v1")}:
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(address)


@pytest.mark.e2e
def test_what_is_missing_is_said_without_a_traceback(tmp_path: Path) -> None:
    process = demo(tmp_path, "http://127.0.0.1:9/v1")
    said, complaints = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "The demo stops here: The bot is not ready: database ok, gitlab ok, student failed" in complaints
    assert "cannot be reached" in complaints
    assert "Traceback" not in said + complaints
