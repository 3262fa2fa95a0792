import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bot.command import (
    FORGOTTEN,
    NOT_ALLOWED,
    NOT_IN_THREAD,
    NOT_OPEN,
    PAUSED,
    RESUMED,
    SLASH,
    Command,
    Forget,
    Help,
    Pause,
    Resume,
    Review,
    Threshold,
    Unknown,
    Why,
    help_text,
    may_command,
    parse,
    threshold_set,
    unknown,
    why,
)
from bot.domain import Category, Finding, Severity
from bot.feedback import EMOJI, read_reply
from tests.test_comment import QUICK_ACTIONS

BOT = "review.bot-1"
AGAIN, FULL = Review(full=False), Review(full=True)


@pytest.mark.parametrize(
    ("note", "command"),
    [
        # the two forms
        ("/apprentice review", AGAIN),
        ("@review.bot-1 review", AGAIN),
        ("/Apprentice REVIEW", AGAIN),
        ("@Review.Bot-1 Review!", AGAIN),
        ("@review.bot-1, review please", AGAIN),
        ("@review.bot-1: please review this again", AGAIN),
        ("@review.bot-1\treview", AGAIN),
        ("/apprentice review full", FULL),
        ("@review.bot-1 review full.", FULL),
        ("/apprentice `pause`", Pause()),
        ("@review.bot-1 pause", Pause()),
        ("/apprentice resume", Resume()),
        ("/apprentice threshold major", Threshold(Severity.MAJOR)),
        ("@review.bot-1 threshold to Trivial", Threshold(Severity.TRIVIAL)),
        ("/apprentice why", Why()),
        ("/apprentice why is that a problem?", Why()),
        ("@review.bot-1 why?", Why()),
        ("/apprentice forget", Forget()),
        ("/apprentice help", Help()),
        ("/apprentice", Help()),
        ("/apprentice please", Help()),
        ("@review.bot-1", Help()),
        ("@review.bot-1 \n \n", Help()),
        # only the first line that is not blank, whatever follows
        ("\n \r\n\t\n   /apprentice forget\nIt is nonsense.", Forget()),
        ("/apprentice review\r\n", AGAIN),
        ("/apprentice forget\r\n/apprentice pause", Forget()),
        ("I do not agree\n/apprentice forget", None),
        ("Thanks!\n@review.bot-1 review", None),
        # unknown ones
        ("/apprentice reveiw", Unknown("reveiw")),
        ("/apprentice merge this right away", Unknown("merge right away")),
        ("/apprentice review everything", Unknown("review everything")),
        ("/apprentice threshold", Unknown("threshold")),
        ("/apprentice threshold blocker", Unknown("threshold blocker")),
        ("/apprentice 👍", Unknown("👍")),
        (f"/apprentice {'x' * 200}", Unknown("x" * 60)),
        ("@review.bot-1 summarize", Unknown("summarize")),
        ("@review.bot-1 approve this!", Unknown("approve")),
        ("@review.bot-1 review everything", Unknown("review everything")),
        # a mention that is no command
        ("@review.bot-1 thanks!", None),
        ("@review.bot-1 ok, thank you", None),
        ("@review.bot-1 !!!", Help()),
        ("@review.bot-1 👍", None),
        ("@review.bot-1 good catch", None),
        ("@review.bot-1 false positive", None),
        ("@review.bot-1 fixed", None),
        ("@review.bot-1 @ann", None),
        ("@review.bot-1 review is wrong, this can never be None", None),
        ("@review.bot-1 I do not think that you are right", None),
        ("@review.bot-1\nI do not agree", None),
        ("cc @review.bot-1 review", None),
        ("What does @review.bot-1 review?", None),
        # somebody else, something else
        ("@review.bot-10 review", None),
        ("@review.bot-1x review", None),
        ("@review.bot-1.x review", None),
        ("@review.bot-1-x review", None),
        ("@reviewXbot-1 review", None),
        ("me@review.bot-1 review", None),
        ("/apprentices review", None),
        ("/apprentice-review", None),
        ("/review", None),
        ("apprentice review", None),
        ("\\/apprentice review", None),
        # quotes, code, lists
        ("> @review.bot-1 review", None),
        (">>>\n/apprentice review\n>>>", None),
        ("```\n/apprentice review\n```", None),
        ("    /apprentice review", None),
        ("\t/apprentice review", None),
        ("`/apprentice review`", None),
        ("- /apprentice review", None),
        ("<!-- x -->\n/apprentice review", None),
        ("", None),
        (" \n", None),
        (f"/apprentice {'x' * 300}", None),
    ],
)
def test_what_a_note_tells_the_bot(note: str, command: Command | None) -> None:
    assert parse(note, BOT) == command


def test_a_mention_with_a_full_stop_is_a_mention() -> None:
    assert parse("@bot. review", "bot") == AGAIN


@pytest.mark.parametrize("name", QUICK_ACTIONS.split())
def test_gitlab_does_not_swallow_a_command(name: str) -> None:
    """Its extractor's pattern, see lib/gitlab/quick_actions/extractor.rb, with each documented name."""
    pattern = re.compile(rf"^/{name}(?:[ ][^\n]*)?(?:\s*\n|$)", re.IGNORECASE | re.MULTILINE)
    assert pattern.search(f"/{name} x")
    for line in ("/apprentice", "/apprentice review", "/apprentice threshold major\n", "@bot review", f"@bot {name}"):
        assert not pattern.search(line)


@pytest.mark.parametrize(
    ("level", "may"), [(0, False), (5, False), (10, False), (20, False), (30, True), (40, True), (50, True)]
)
def test_developers_may_command(level: int, may: bool) -> None:  # noqa: FBT001 -- a table's column
    assert may_command(level) is may


LINES = st.lists(
    st.sampled_from(
        [
            "/apprentice",
            f"@{BOT}",
            "review",
            "full",
            "threshold",
            "major",
            "why",
            "please",
            "x",
            ".",
            "`",
            ">",
            "\n",
            " ",
        ]
    ),
    max_size=8,
)


@given(st.one_of(st.text(), LINES.map(" ".join), LINES.map("".join)))
def test_any_note_can_be_read_and_quoted_text_is_no_command(note: str) -> None:
    command = parse(note, BOT)
    if command is not None:
        assert SLASH in note.lower() or f"@{BOT}" in note.lower()
        assert parse(f"\n\n{note}\nmore", BOT) == command or command == Help()
    assert parse("".join(f"> {line}\n" for line in note.split("\n")), BOT) is None
    assert parse(f"```\n{note}\n```", BOT) is None
    assert parse(f"See: {note}", BOT) is None


@pytest.mark.parametrize("note", [" \n" * 500_000, " " * 1_000_000, "@" * 1_000_000, f"/apprentice{' ' * 1_000_000}"])
def test_a_hostile_note_takes_no_time(note: str) -> None:
    start = time.perf_counter()
    assert parse(note, BOT) is None
    assert time.perf_counter() - start < 1


# --- the answers

FINDING = Finding(
    file="src/`@all`.py",
    line=40,
    end_line=41,
    severity=Severity.MAJOR,
    category=Category.CORRECTNESS,
    title="Division by zero",
    explanation="x",
    quote="/merge\n```\n@all </details>",
    confidence=0.874,
)
TEXTS = [NOT_ALLOWED, NOT_OPEN, NOT_IN_THREAD, PAUSED, RESUMED, FORGOTTEN, *map(threshold_set, Severity)]


def reason(finding: Finding, *, adapter: str | None, verified: bool) -> str:
    return why(finding, model="qwen `2`", adapter=adapter, prompt_id="9f2c41d0", head="1a2b3c4d" * 5, verified=verified)


def test_why_tells_what_led_to_a_finding() -> None:
    assert reason(FINDING, adapter="team-7", verified=True) == (
        "- **major**, correctness; I was 87% sure that there is a problem at all\n"
        "- I took a second look, and still held it real\n"
        "- said by adapter `team-7` on model `` qwen `2` ``, prompt `9f2c41d0`, in the review of `1a2b3c4d`\n"
        "- about this code, ``src/`@all`.py:40-41``:\n"
        "\n"
        "```text\n"
        "40 | /merge\n"
        "41 | ```\n"
        "42 | @all </details>\n"
        "```"
    )
    unsure = reason(replace(FINDING, confidence=None), adapter=None, verified=False)
    assert "how sure I was is not known" in unsure
    assert "no second look" in unsure
    assert "said by model `` qwen `2` ``, no adapter, prompt" in unsure


def test_help_names_every_command_and_all_of_them_work() -> None:
    text = help_text("project_7_bot_`x`")
    written = re.findall(r"^\| `(/apprentice [^`]*)` \|", text, re.MULTILINE)
    commands = [parse(line.replace("LEVEL", "major"), BOT) for line in written]
    assert commands == [AGAIN, FULL, Pause(), Threshold(Severity.MAJOR), Why(), Forget(), Help()]
    assert parse("/apprentice resume", BOT) == Resume()
    assert "`resume`" in text
    assert all(f"`{level}`" in text for level in Severity)
    assert "`` @project_7_bot_`x` ``" in text
    assert {read_reply(sign) for sign in text if read_reply(sign)} == set(EMOJI.values())


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@pytest.mark.parametrize(
    "answer",
    [
        *TEXTS,
        help_text(BOT),
        unknown("`@all` /merge </details> |", BOT),
        reason(FINDING, adapter="@all", verified=True),
    ],
)
def test_no_answer_acts_or_is_a_command_itself(answer: str) -> None:
    assert parse(answer, BOT) is None
    assert read_reply(answer) is None or answer == help_text(BOT)
    assert not re.search(r"^\s*/", answer, re.MULTILINE)
    texts = [child for token in MARKDOWN.parse(answer) for child in token.children or [] if child.type == "text"]
    assert not any(re.search("[@#!~<]", text.content) for text in texts)


@given(st.text(max_size=60))
def test_any_unknown_command_is_answered_as_text(words: str) -> None:
    answer = unknown(words, BOT)
    assert answer.endswith(help_text(BOT))
    tokens = MARKDOWN.parse(answer.partition("\n\n")[0])
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert [child.type for child in tokens[1].children or []] == ["text", "code_inline", "text"]
