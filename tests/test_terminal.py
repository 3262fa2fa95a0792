import io
import os
import pty
import re
import signal
import subprocess
import sys
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bot.domain import Category, Finding, HiddenReason, Judged, NotRead, Review, Severity, Usage
from bot.terminal import printable, printable_lines, progress, render, stdout_console

INJECTION = Finding(
    file="src/app.py",
    line=42,
    end_line=43,
    severity=Severity.CRITICAL,
    category=Category.SECURITY,
    title="SQL built from user input",
    explanation="A request with `1 OR 1=1` reads every row.\nPass the id as a parameter.",
    quote="run(\n\tsql + user_id)",
    suggestion="run(sql, user_id)",
    confidence=0.934,
)
NIT = Finding(
    file="src/app.py",
    line=7,
    end_line=7,
    severity=Severity.TRIVIAL,
    category=Category.STYLE,
    title="Name says little",
    explanation="Call it user.",
    quote="x = 1",
)
EMPTY = Review(
    findings=(),
    read=(),
    not_read=(),
    model="qwen",
    adapter=None,
    prompt_id="9f2c41d0",
    usage=Usage(),
)
TWO_READ = replace(EMPTY, read=("src/app.py", "web/cart.ts"))

HOSTILE = "\x00\x07\x1b\x7f\x85\x9b\r\t\x0b\x0c\u200b\u200e\u2028\u2029\u202e\u2066\ufeff\ud800\U000e0041"
TEXT = st.text(st.characters() | st.sampled_from(HOSTILE + "\n[]:`"), max_size=30)
FINDINGS = st.builds(
    Finding,
    file=TEXT,
    line=st.integers(1, 10**7),
    end_line=st.integers(1, 10**7),
    severity=st.sampled_from(Severity),
    category=st.sampled_from(Category),
    title=TEXT,
    explanation=TEXT,
    quote=TEXT,
    suggestion=st.none() | TEXT,
    confidence=st.none() | st.floats(0, 1),
)
REVIEWS = st.builds(
    Review,
    findings=st.lists(st.builds(Judged, FINDINGS, st.none() | st.sampled_from(HiddenReason)), max_size=4).map(tuple),
    read=st.lists(TEXT, max_size=3).map(tuple),
    not_read=st.lists(st.builds(NotRead, TEXT, TEXT, st.booleans()), max_size=3).map(tuple),
    model=TEXT,
    adapter=st.none() | TEXT,
    prompt_id=TEXT,
    usage=st.builds(Usage, *[st.integers(0, 10**9)] * 4, st.floats(0, 10**6)),
    redacted=st.lists(st.tuples(TEXT, st.integers(1, 9)), max_size=2).map(tuple),
)


def rendered(review: Review, *, show_hidden: bool = False, width: int = 100, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    render(review, show_hidden=show_hidden, console=console)
    return out.getvalue()


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def controls(text: str) -> set[str]:
    """The characters other than a line break that steer a terminal or reorder text."""
    return {
        char
        for char in text
        if char not in "\n\u200c\u200d" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }


def test_a_whole_review() -> None:
    review = replace(
        TWO_READ,
        findings=(
            Judged(INJECTION),
            Judged(NIT, HiddenReason.BELOW_THRESHOLD),
            Judged(NIT, HiddenReason.UNVERIFIED),
            Judged(NIT, HiddenReason.BELOW_THRESHOLD),
        ),
        not_read=(
            NotRead("a.lock", "lock file"),
            NotRead("logo.png", "binary"),
            NotRead("b.lock", "lock file"),
        ),
        adapter="team-7",
        usage=Usage(5, 8210, 6144, 1, 7.345),
        redacted=(("aws-key", 1), ("jwt", 2)),
    )
    assert rendered(review) == (
        "src/app.py:42-43  critical  security  93% sure\n"
        "  SQL built from user input\n"
        "  A request with `1 OR 1=1` reads every row.\n"
        "  Pass the id as a parameter.\n"
        "      42 │ run(\n"
        "      43 │     sql + user_id)\n"
        "  suggestion:\n"
        "       + │ run(sql, user_id)\n"
        "\n"
        "1 finding shown (1 critical), 3 hidden: 2 below the severity threshold, 1 not verified.\n"
        "The student read 2 files.\n"
        "Not read, on purpose (3):\n"
        "  lock file: a.lock, b.lock\n"
        "  binary: logo.png\n"
        "\n"
        "3 secrets were taken out before the student read the change: 1 aws-key, 2 jwt.\n"
        "5 requests, 8,210 prompt tokens (6,144 from the cache), 1 completion token, 7.3 s\n"
        "model qwen, adapter team-7, prompt 9f2c41d0\n"
    )


def test_hidden_findings_follow_with_their_reason_when_asked_for() -> None:
    made_up = replace(NIT, line=999, end_line=999)
    review = replace(
        TWO_READ,
        findings=(
            Judged(made_up, HiddenReason.UNVERIFIED),
            Judged(INJECTION),
            Judged(NIT, HiddenReason.OVER_CAP),
        ),
    )
    assert "Name says little" not in rendered(review)
    text = rendered(review, show_hidden=True)
    shown, hidden = text.split("Hidden findings\n\n")
    assert "SQL built" in shown
    assert hidden.startswith(
        "src/app.py:999  trivial  style\n"
        "  hidden: not verified: the quoted code is not in the change\n"
        "  Name says little\n"
        "  Call it user.\n"
        "         │ x = 1\n"  # no line number: the code stands nowhere
        "\n"
        "src/app.py:7  trivial  style\n"
        "  hidden: over the cap of findings for one review\n"
    )


def test_show_hidden_without_any_hidden() -> None:
    review = replace(TWO_READ, findings=(Judged(INJECTION),))
    assert rendered(review, show_hidden=True) == rendered(review)


@pytest.mark.parametrize(
    ("review", "words"),
    [
        (TWO_READ, "No findings.\nThe student read 2 files: src/app.py, web/cart.ts.\n\n"),
        (EMPTY, "No findings.\nThere is nothing to review: the change is empty.\n\n"),
        (
            replace(EMPTY, not_read=(NotRead("a.lock", "lock file"),)),
            "No findings.\nThe student read nothing of this change.\nNot read, on purpose (1):\n",
        ),
        (
            replace(TWO_READ, findings=(Judged(NIT, HiddenReason.REFUTED),)),
            "No findings shown, 1 hidden: 1 refuted by the second look.\nThe student read 2 files: ",
        ),
    ],
)
def test_no_findings_says_what_was_read(review: Review, words: str) -> None:
    assert rendered(review).startswith(words)


def test_an_incomplete_review_says_so_before_what_was_skipped() -> None:
    missing = (NotRead("a.lock", "lock file"), NotRead("src/b.py", "the student is down", failed=True))
    assert (
        "! This review is incomplete: 1 part of the change could not be read.\n"
        "  ! src/b.py: the student is down\n"
        "Not read, on purpose (1):\n"
        "  lock file: a.lock\n"
    ) in rendered(replace(TWO_READ, not_read=missing))


def test_long_lists_are_cut_with_the_count() -> None:
    failed = [NotRead(f"f{number}.py", "down", failed=True) for number in range(13)]
    skipped = [NotRead(f"s{number}.js", "generated") for number in range(12)]
    text = rendered(replace(TWO_READ, not_read=(*skipped, *failed)))
    assert "incomplete: 13 parts" in text
    assert "  ! f9.py: down\n  and 3 more; --format json lists them all\n" in text
    assert "s9.js and 2 more\n" in text
    assert "f10.py" not in text
    assert "s10.js" not in text


@pytest.mark.parametrize(("lines", "end"), [(20, "l19\n\n"), (21, "l19\n     ... │ 1 more line\n\n")])
def test_a_long_quote_is_cut_with_the_count(lines: int, end: str) -> None:
    long = replace(NIT, end_line=99, quote="\n".join(f"l{number}" for number in range(lines)))
    text = rendered(replace(TWO_READ, findings=(Judged(long),)))
    assert f"      26 │ {end}" in text


def test_quoted_lines_after_the_place_have_no_number() -> None:
    text = rendered(replace(TWO_READ, findings=(Judged(replace(NIT, quote="x = 1\r\ny = 2\n")),)))
    assert "       7 │ x = 1\n         │ y = 2\n\n" in text


def test_everything_wraps_inside_the_width_and_keeps_its_indentation() -> None:
    wide = replace(
        NIT, title="title " * 10, explanation="- item " * 12, quote="y" * 60 + "界" * 20, suggestion="z" * 70
    )
    lines = rendered(replace(EMPTY, findings=(Judged(wide),)), width=40).splitlines()
    body = lines[1 : lines.index("")]
    assert all(line.startswith("  ") for line in body)
    assert max(len(line) + line.count("界") for line in lines) <= 40
    assert sum(line.count("y") for line in body) == 60
    assert not any(line.endswith(" ") for line in lines)


def test_a_terminal_of_no_width_still_gets_the_words() -> None:
    assert rendered(TWO_READ, width=1).startswith("No findings.\nThe student read 2\n")


@pytest.mark.parametrize(
    "text", ["[red]alarm[/red]", "[/]", "[link=https://evil.example]here[/link]", ":smile:", "\\[bold]"]
)
@pytest.mark.parametrize("colour", [False, True])
def test_rich_markup_in_text_is_printed_as_it_stands(text: str, *, colour: bool) -> None:
    finding = Finding(text, 1, 1, Severity.MINOR, Category.STYLE, text, text, text, text)
    review = replace(EMPTY, findings=(Judged(finding),), not_read=(NotRead(text, text, failed=True),), model=text)
    assert without_styles(rendered(review, colour=colour)).count(text) == 8


def test_colour_on_a_terminal_never_is_the_only_sign() -> None:
    review = replace(
        TWO_READ,
        findings=(
            *(Judged(replace(NIT, severity=each)) for each in Severity),
            Judged(NIT, HiddenReason.DUPLICATE),
        ),
        not_read=(NotRead("b.py", "down", failed=True),),
    )
    coloured = rendered(review, show_hidden=True, colour=True)
    assert "\x1b[1;31mcritical\x1b[0m" in coloured
    assert "\x1b[1;31m! This review is incomplete" in coloured
    assert "\x1b[2m" in coloured.split("Hidden findings")[1]
    assert without_styles(coloured) == rendered(review, show_hidden=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünï 界 👍", "plain ünï 界 👍"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc\x7f", "a\\rb\\nc\\x7f"),
        ("a\tb", "a   b"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u2028\ufeff\U000e0041\udc80", "\\u2028\\ufeff\\U000e0041\\udc80"),
        ("می\u200cشود \u00a0!", "می\u200cشود \u00a0!"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected


def test_printable_lines_keeps_the_lines() -> None:
    assert printable_lines("a\r\n\x1bb\n\n\tc\n") == "a\n\\x1bb\n\n    c"


@settings(max_examples=150, deadline=None)
@given(review=REVIEWS, show_hidden=st.booleans(), width=st.integers(1, 200), colour=st.booleans())
def test_nothing_hostile_reaches_the_terminal(review: Review, *, show_hidden: bool, width: int, colour: bool) -> None:
    text = rendered(review, show_hidden=show_hidden, width=width, colour=colour)
    assert controls(without_styles(text)) == set()
    assert not any(line.endswith(" ") for line in text.split("\n"))


def test_a_pipe_is_plain_and_100_wide(capsys: pytest.CaptureFixture[str]) -> None:
    review = replace(TWO_READ, findings=(Judged(replace(INJECTION, explanation="word " * 40)),))
    render(review, show_hidden=False, console=stdout_console())
    out = capsys.readouterr().out
    assert out == rendered(review, width=100)


def on_a_terminal(
    program: str, *, stop: bool = False, environment: dict[str, str] | None = None, both: bool = False
) -> tuple[str, str]:
    """Run a Python program whose stderr (with `both`: stdout too) is a terminal; what stdout and it got.

    With `stop`, press Ctrl-C as soon as the program has printed something on its stdout.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=slave,
        stdout=slave if both else subprocess.PIPE,
        stderr=slave,
        env={key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
        | {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
        | (environment or {}),
    )
    os.close(slave)
    out = ""
    with process:
        if process.stdout:
            if stop:
                out = process.stdout.readline().decode()
                process.send_signal(signal.SIGINT)
            out += process.stdout.read().decode()
        shown = bytearray()
        try:
            while chunk := os.read(master, 65536):
                shown += chunk
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
    os.close(master)
    return out, shown.decode()


def test_no_color_is_respected() -> None:
    program = (
        "from bot import terminal; from bot.domain import *;"
        "finding = Finding('a.py', 1, 1, Severity.CRITICAL, Category.STYLE, 't', 'e', 'q');"
        "review = Review((Judged(finding),), ('a.py',), (), 'm', None, 'p', Usage());"
        "terminal.render(review, show_hidden=False, console=terminal.stdout_console())"
    )
    _, coloured = on_a_terminal(program, both=True)
    _, plain = on_a_terminal(program, both=True, environment={"NO_COLOR": "1"})
    assert "\x1b[1;31mcritical" in coloured
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain)
    assert without_styles(plain) == without_styles(coloured)


WORK = (
    "import sys, time\n"
    "from bot.terminal import progress\n"
    "with progress(enabled={enabled}, total=3) as step:\n"
    "    step(1, 3, 'reading [red]a\\x1b[2J.py')\n"
    "    print('result', flush=True)\n"
    "    time.sleep({seconds})\n"
)


def test_progress_is_on_stderr_and_goes_away() -> None:
    out, shown = on_a_terminal(WORK.format(enabled=True, seconds=0.3))
    assert out == "result\n"
    assert "reading [red]a\\x1b[2J.py" in without_styles(shown)
    assert "1/3" in without_styles(shown)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert shown.endswith("\x1b[2K")


def test_ctrl_c_gives_the_cursor_back() -> None:
    out, shown = on_a_terminal(WORK.format(enabled=True, seconds=60), stop=True)
    assert out == "result\n"
    assert "KeyboardInterrupt" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_progress_can_be_switched_off() -> None:
    assert on_a_terminal(WORK.format(enabled=False, seconds=0)) == ("result\n", "")


def test_progress_is_silent_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(enabled=True) as step:
        step(1, 2, "reading")
    assert capsys.readouterr() == ("", "")
