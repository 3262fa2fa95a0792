"""`apprentice review` as a user runs it: real git, a real HTTP student that the test scripts."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import app
from tests.fakes.student import FINE, Request, Said, serve, suspect

GIT = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false")
PATCH = (
    "--- a/pay.py\n+++ b/pay.py\n@@ -1,2 +1,3 @@\n def pay(cents):\n+    query(f'insert {cents}')\n     send(cents)\n"
)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


def environment(**given: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("APPRENTICE_", "COV_"))}
    return clean | {"NO_COLOR": "1"} | given


def apprentice(*arguments: str, folder: Path, stdin: bytes = b"", **given: str) -> Ran:
    """The command in this process: imports are paid once. Tests of signals and pipes start one of their own."""
    forgotten: dict[str, str | None] = {name: None for name in os.environ if name.startswith("APPRENTICE_")}
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, arguments, input=stdin, env=forgotten | {"NO_COLOR": "1"} | given)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)


def review(
    folder: Path, *arguments: str, answer: Callable[[Request], Said] = lambda _: Said(FINE), stdin: bytes = b""
) -> Ran:
    with serve(answer) as student:
        return apprentice("review", *arguments, folder=folder, stdin=stdin, APPRENTICE_STUDENT_URL=student.url)


def found(**told: object) -> Callable[[Request], Said]:
    return lambda _: Said(suspect(**({"quote": "query(f'insert {cents}')", "severity": "major"} | told)))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")

    def git(*arguments: str) -> None:
        subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)

    git("init", "-b", "main")
    (folder / "pay.py").write_text("def pay(cents):\n    send(cents)\n")
    (folder / ".apprentice.yml").write_text("severity: major\nignore: [docs/]\n")
    git("add", "-A")
    git("commit", "-m", "Start")
    git("switch", "-c", "topic")
    (folder / "pay.py").write_text("def pay(cents):\n    query(f'insert {cents}')\n    send(cents)\n")
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("# A\n")
    (folder / ".apprentice.yml").write_text("severity: critical\n")
    git("add", "-A")
    git("commit", "-m", "Pay by query")
    return folder


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(template, tmp_path / "repository")
    subprocess.run([*GIT, "update-index", "--refresh"], cwd=folder, check=True)  # the copies' times are others
    return folder


def test_the_branch_is_reviewed_by_the_policy_of_its_target(repository: Path) -> None:
    ran = review(repository, "--format", "json", answer=found())
    document = ran.json
    assert ran.code == 0
    assert list(document) == [
        "schema",
        "findings",
        "read",
        "not_read",
        "model",
        "adapter",
        "prompt_id",
        "usage",
    ]
    shown = [one for one in document["findings"] if one["shown"]]  # type: ignore[attr-defined]
    assert [(one["file"], one["line"], one["severity"]) for one in shown] == [("pay.py", 2, "major")]
    assert {"file": "docs/a.md", "reason": "ignored by the policy: docs/"} in document["not_read"]  # type: ignore[operator]
    read, not_read = document["read"], document["not_read"]
    assert sorted([*read, *(one["file"] for one in not_read)]) == [  # type: ignore[misc,attr-defined]
        ".apprentice.yml",
        "docs/a.md",
        "pay.py",
    ]
    assert (document["model"], document["adapter"]) == ("base", None)


def test_findings_in_the_terminal(repository: Path) -> None:
    ran = review(repository, answer=found(title="Injection", explanation="cents comes from outside"))
    assert ran.code == 0
    for words in ("pay.py:2", "major", "Injection", "cents comes from outside", "query(f'insert {cents}')", "base"):
        assert words in ran.out
    assert "1 finding shown" in ran.out
    assert "docs/a.md" in ran.out


@pytest.mark.parametrize(
    ("arguments", "told", "code"),
    [
        ((), {}, 0),
        (("--fail-on", "major"), {}, 1),
        (("--fail-on", "critical"), {}, 0),
        (("--fail-on", "major", "--severity", "critical"), {}, 0),  # hidden findings fail nothing
        (("--fail-on", "minor", "--severity", "trivial"), {"severity": "trivial"}, 0),
        (("--fail-on", "trivial"), {"severity": "none"}, 0),
    ],
)
def test_exit_codes_of_a_whole_review(
    repository: Path, arguments: tuple[str, ...], told: dict[str, object], code: int
) -> None:
    assert review(repository, *arguments, answer=found(**told)).code == code


def test_severity_on_the_command_line_beats_the_policy(repository: Path) -> None:
    def shown(*arguments: str) -> int:
        ran = review(repository, "--format", "json", *arguments, answer=found(severity="minor"))
        return sum(one["shown"] for one in ran.json["findings"])  # type: ignore[attr-defined]

    assert shown() == 0
    assert shown("--severity", "minor") == 1


def test_hidden_findings_on_demand(repository: Path) -> None:
    answer = found(severity="minor", title="A small thing")
    assert "A small thing" not in review(repository, answer=answer).out
    ran = review(repository, "--show-hidden", answer=answer)
    assert "A small thing" in ran.out
    assert "below the severity threshold" in ran.out


@pytest.mark.parametrize("name", ["sarif", "codequality", "markdown"])
def test_other_formats(repository: Path, name: str) -> None:
    ran = review(repository, "--format", name, answer=found())
    assert ran.code == 0
    if name == "markdown":
        assert "pay.py" in ran.out
    else:
        assert json.loads(ran.out)


def test_staged_range_and_patch_name_the_same_change(repository: Path, tmp_path: Path) -> None:
    subprocess.run([*GIT, "reset", "--soft", "main"], cwd=repository, check=True)
    (tmp_path / "a.diff").write_text(PATCH)

    def place(*arguments: str, stdin: bytes = b"") -> tuple[str, int]:
        ran = review(repository, "--severity", "minor", "--format", "json", *arguments, answer=found(), stdin=stdin)
        one = next(one for one in ran.json["findings"] if one["shown"])  # type: ignore[attr-defined]
        return one["file"], one["line"]

    assert place("--staged") == place("--patch", str(tmp_path / "a.diff")) == ("pay.py", 2)
    assert place("--patch", "-", stdin=PATCH.encode()) == ("pay.py", 2)
    subprocess.run([*GIT, "commit", "-qm", "Again"], cwd=repository, check=True)
    assert place("--range", "main..HEAD") == ("pay.py", 2)


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        (("--patch", "-"), b"", 0, "nothing to review"),
        (("--patch", "-"), b"hello, world\n", 2, "no diff in the text"),
        (("--patch", "missing.diff"), b"", 2, "missing.diff"),
        (("--range", "main..nowhere"), b"", 2, "nowhere"),
        (("--range=--output=/tmp/x",), b"", 2, "--output"),
        (("--staged", "--patch", "-"), b"", 2, "exclude each other"),
        (("--severity", "blocker"), b"", 2, "blocker"),
        (("--adapter", ""), b"", 2, "student_adapter"),
    ],
)
def test_bad_and_empty_input(repository: Path, arguments: tuple[str, ...], stdin: bytes, code: int, words: str) -> None:
    ran = review(repository, *arguments, stdin=stdin)
    assert ran.code == code
    assert words in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_outside_a_repository(tmp_path: Path) -> None:
    ran = review(tmp_path)
    assert ran.code == 2
    assert "not in a git repository" in ran.err
    assert review(tmp_path, "--patch", "-", stdin=PATCH.encode()).code == 0


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("severty: major\n", 'unknown key "severty"'),
        ("severity: blocker\n", "trivial, minor, major or critical"),
        ("severity:\n\t- major\n", "tab"),
        ("severity: minor\nseverity: major\n", "already"),
        ("a: &a [x]\nb: [*a, *a]\n", "aliases are not allowed"),
    ],
)
def test_a_broken_policy_names_the_place(repository: Path, policy: str, words: str) -> None:
    (repository / ".apprentice.yml").write_text(policy)
    for arguments in (("add", "-A"), ("commit", "-qm", "Policy"), ("branch", "-f", "main")):
        subprocess.run([*GIT, *arguments], cwd=repository, check=True)
    (repository / "pay.py").write_text("x = 1\n")
    subprocess.run([*GIT, "commit", "-qam", "More"], cwd=repository, check=True)
    ran = review(repository)
    assert ran.code == 2
    assert words in ran.err
    assert ".apprentice.yml:" in ran.err


def test_explain_config_says_where_each_value_comes_from(repository: Path) -> None:
    key = "very-secret-" + "key"
    ran = apprentice(
        "review",
        "--explain-config",
        "--severity",
        "minor",
        folder=repository,
        APPRENTICE_STUDENT_URL="http://127.0.0.1:9/v1",
        APPRENTICE_STUDENT_API_KEY=key,
    )
    assert ran.code == 0
    rows = {line.split("  ")[0].strip(): line for line in ran.out.splitlines()}
    assert "http://127.0.0.1:9/v1" in rows["student_url"]
    assert "APPRENTICE_STUDENT_URL" in rows["student_url"]
    assert "command line" in rows["policy: severity"]
    assert ".apprentice.yml" in rows["policy: ignore"]
    assert "default" in rows["policy: verify"]
    assert key not in ran.out + ran.err


def test_explain_config_outside_a_repository_shows_the_settings(tmp_path: Path) -> None:
    ran = apprentice("review", "--explain-config", folder=tmp_path)
    assert ran.code == 0
    assert "student_url" in ran.out
    assert "no policy is read" in ran.err


def test_a_policy_that_is_no_text_is_no_absent_policy(repository: Path) -> None:
    subprocess.run([*GIT, "switch", "-q", "main"], cwd=repository, check=True)
    (repository / ".apprentice.yml").write_bytes("severity: critical\n".encode("utf-16"))
    subprocess.run([*GIT, "commit", "-qam", "By PowerShell"], cwd=repository, check=True)
    subprocess.run([*GIT, "switch", "-q", "topic"], cwd=repository, check=True)
    ran = review(repository)
    assert ran.code == 2
    assert "UTF-8" in ran.err


def test_a_ca_file_that_is_none_is_a_clear_error(repository: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("not pem")
    ran = apprentice(
        "review",
        folder=repository,
        APPRENTICE_STUDENT_URL="https://example.invalid/v1",
        APPRENTICE_STUDENT_CA_FILE=str(bad),
    )
    assert ran.code == 3
    assert "bad.pem" in ran.err


def test_a_context_too_small_for_any_question_is_no_success(repository: Path) -> None:
    with serve(found()) as student:
        ran = apprentice(
            "review", folder=repository, APPRENTICE_STUDENT_URL=student.url, APPRENTICE_STUDENT_CONTEXT_TOKENS="512"
        )
    assert ran.code == 3
    assert "longer than the student's context" in ran.out


def test_nothing_to_review_needs_no_student(tmp_path: Path) -> None:
    ran = apprentice(
        "review", "--patch", "-", "--format", "json", folder=tmp_path, APPRENTICE_STATE_DIR=str(tmp_path / "none")
    )
    assert ran.code == 0
    assert ran.json["read"] == []


def test_a_misspelt_setting_is_named(repository: Path) -> None:
    ran = apprentice("review", folder=repository, APPRENTICE_STUDNT_URL="http://127.0.0.1:9/v1")
    assert ran.code == 2
    assert "APPRENTICE_STUDENT_URL" in ran.err


def test_no_student_at_all(repository: Path, tmp_path: Path) -> None:
    ran = apprentice("review", folder=repository, APPRENTICE_STATE_DIR=str(tmp_path / "state"))
    assert ran.code == 3
    assert "apprentice student start" in ran.err
    assert "APPRENTICE_STUDENT_URL" in ran.err


def test_a_student_that_is_down_still_gives_the_report(repository: Path) -> None:
    ran = apprentice("review", "--format", "json", folder=repository, APPRENTICE_STUDENT_URL="http://127.0.0.1:9/v1")
    assert ran.code == 3
    assert "127.0.0.1:9" in ran.err
    assert {one["file"] for one in ran.json["not_read"]} >= {"pay.py", "docs/a.md"}  # type: ignore[attr-defined]


def test_lost_in_the_middle_keeps_what_there_is(tmp_path: Path) -> None:
    answered: list[int] = []

    def answer(_: Request) -> Said:
        answered.append(1)
        return Said(suspect(quote="x =")) if len(answered) <= 12 else Said(drop=True)

    patch = "".join(f"--- a/f{n}.py\n+++ b/f{n}.py\n@@ -0,0 +1 @@\n+x = {n}\n" for n in range(40))
    ran = review(tmp_path, "--patch", "-", "--format", "json", answer=answer, stdin=patch.encode())
    assert ran.code == 3
    assert ran.json["read"]
    assert len(ran.json["read"]) + len(ran.json["not_read"]) == 40  # type: ignore[arg-type]
    assert ran.json["findings"]
    assert "Traceback" not in ran.err


def test_a_file_of_200_000_lines_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    lines = "\n".join(f"+x{number} = {number}" for number in range(200_000))
    patch = f"--- /dev/null\n+++ b/big.py\n@@ -0,0 +1,200000 @@\n{lines}\n{PATCH}"
    ran = review(tmp_path, "--patch", "-", "--format", "json", stdin=patch.encode())
    assert ran.code == 0
    assert ran.json["read"] == ["pay.py"]
    assert ran.json["not_read"] == [{"file": "big.py", "reason": "too large: 200,000 lines (limit 20,000)"}]


def test_odd_text_survives_the_whole_way(tmp_path: Path) -> None:
    odd = (
        b"--- a/o.py\n+++ b/o.py\n@@ -1 +1,4 @@\n-a\r\n+bee\x0c\r\n+c\xe2\x80\xa8d\n+\xff\xfe\n+e\n"
        b"\\ No newline at end of file\n"
    )
    for name in ("text", "json", "markdown", "sarif", "codequality"):
        ran = review(
            tmp_path,
            "--patch",
            "-",
            "--format",
            name,
            stdin=odd,
            answer=lambda _: Said(suspect(quote="b", title="\x1b[31m")),
        )
        assert ran.code == 0, ran.err
        assert "\x1b" not in ran.out


@pytest.mark.process
def test_ctrl_c_leaves_no_mess(tmp_path: Path) -> None:
    arrived, release = threading.Event(), threading.Event()

    def answer(_: Request) -> Said:
        arrived.set()
        release.wait(20)
        return Said(FINE)

    with serve(answer) as student:
        running = subprocess.Popen(
            [sys.executable, "-m", "bot", "review", "--patch", "-"],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(APPRENTICE_STUDENT_URL=student.url),
        )
        assert running.stdin
        running.stdin.write(PATCH.encode())
        running.stdin.close()
        running.stdin = None
        assert arrived.wait(20)
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
        release.set()
    assert running.returncode == 130
    assert out == b""
    assert b"Traceback" not in err


@pytest.mark.process
def test_a_reader_that_closes_the_pipe_is_no_error(repository: Path) -> None:
    with serve(found()) as student:
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m bot review --format json | head -c 1"],
            cwd=repository,
            capture_output=True,
            env=environment(APPRENTICE_STUDENT_URL=student.url),
            check=False,
        )
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


def test_help_teaches() -> None:
    ran = apprentice("review", "--help", folder=Path.cwd(), COLUMNS="200")
    for words in ("--range", "--staged", "--patch", "--fail-on", "Exit codes", ".apprentice.yml"):
        assert words in ran.out
