import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bot.command import parse
from bot.comment import parse_marker
from bot.domain import Category, Finding, HiddenReason, Judged, NotRead, Review, Severity, Usage
from bot.forge import SUMMARY_MARKER
from bot.summary import policy_broken, reviewed, waiting
from tests.test_comment import FINDINGS, TEXTS, alive

HEAD, SINCE = "1a2b3c4d" * 5, "99887766" * 5
FINDING = Finding(
    file="src/cart.py",
    line=40,
    end_line=40,
    severity=Severity.MAJOR,
    category=Category.CORRECTNESS,
    title="Division by zero",
    explanation="An empty cart.",
    quote="    return total / len(items)",
    confidence=0.87,
)
CRITICAL, MINOR = replace(FINDING, severity=Severity.CRITICAL), replace(FINDING, severity=Severity.MINOR)
CLEAN = Review(
    findings=(),
    read=("src/cart.py", "src/order.py"),
    not_read=(),
    model="qwen",
    adapter="team-7",
    prompt_id="c41446d0dd0a",
    usage=Usage(5, 2000, 1000, 600, 33.71),
)
ASK = (
    "<sub>`/apprentice review` asks for another review, `/apprentice help` shows what else I do. "
    "Rate my comments: 👍 👎</sub>"
)
VOICE = "<sub>adapter `team-7` on model `qwen` · prompt `c41446d0dd0a` · 2,600 tokens, 33.7 s</sub>"


def first_line(review: Review) -> str:
    return reviewed(review, head=HEAD, since=None).partition("\n")[0].removeprefix("**Apprentice:** ")


def test_a_clean_review_is_told_in_two_lines() -> None:
    assert reviewed(CLEAN, head=HEAD, since=None) == (
        "**Apprentice:** **no findings**\n"
        "\n"
        "I read 2 files at `1a2b3c4d`: the whole change.\n"
        "\n"
        f"{ASK}\\\n"
        f"{VOICE}\n"
        "\n"
        "<!-- apprentice:summary:v1 -->"
    )


def test_a_review_with_everything() -> None:
    review = replace(
        CLEAN,
        findings=(
            Judged(CRITICAL),
            Judged(FINDING),
            Judged(FINDING),
            Judged(MINOR, HiddenReason.BELOW_THRESHOLD),
            Judged(MINOR, HiddenReason.BELOW_THRESHOLD),
            Judged(FINDING, HiddenReason.DISMISSED),
            Judged(FINDING, HiddenReason.UNVERIFIED),
        ),
        not_read=(
            NotRead("a.lock", "lock file"),
            NotRead("b.png", "image"),
            NotRead("c.py", "lines 1 to 9: no answer in *time*", failed=True),
            NotRead("d.png", "image"),
        ),
        adapter=None,
        redacted=(("aws", 1), ("jwt", 2)),
    )
    unplaced = [(FINDING, "400: line_code can't be blank @all")]
    assert reviewed(review, head=HEAD, since=SINCE, unplaced=unplaced, still_open=3) == (
        "**Apprentice:** 🔴 **1 critical** · 🟠 **2 major** · ⚠️ **incomplete**, see what was not read\n"
        "\n"
        "I read 2 files at `1a2b3c4d`: what changed since `99887766`. 3 earlier comments of mine are still open.\n"
        "\n"
        "**1 finding** could not be put at a line:\n"
        "\n"
        "#### `src/cart.py:40` (87% sure)\n"
        "\n"
        "🟠 **major** · correctness\n"
        "\n"
        "**Division by zero**\n"
        "\n"
        "An empty cart.\n"
        "\n"
        "```text\n"
        "40 |     return total / len(items)\n"
        "```\n"
        "\n"
        "<sub>Not at its line: 400: line_code can't be blank \\@\u2060all</sub>\n"
        "\n"
        "Hidden: 2 below the severity threshold, 1 dismissed on this merge request, 1 not verified.\n"
        "\n"
        "<details>\n"
        "<summary>Not read, or not all of it: 4 files</summary>\n"
        "\n"
        "- ⚠️ lines 1 to 9: no answer in \\*time\\* · `c.py`\n"
        "- image · `b.png`, `d.png`\n"
        "- lock file · `a.lock`\n"
        "\n"
        "</details>\n"
        "\n"
        f"{ASK}\\\n"
        "<sub>model `qwen`, no adapter · prompt `c41446d0dd0a` · 2,600 tokens, 33.7 s · "
        "3 secrets taken out before reading: `1 aws, 2 jwt`</sub>\n"
        "\n"
        "<!-- apprentice:summary:v1 -->"
    )


SKIPPED, FAILED = NotRead("a.lock", "lock file"), NotRead("c.py", "the student was lost", failed=True)


@pytest.mark.parametrize(
    ("review", "verdict"),
    [
        (CLEAN, "**no findings**"),
        (replace(CLEAN, findings=(Judged(MINOR, HiddenReason.REFUTED),)), "**no findings**"),
        (replace(CLEAN, findings=(Judged(MINOR),), not_read=(SKIPPED,)), "🟡 **1 minor**"),
        (replace(CLEAN, not_read=(FAILED,)), "**no findings** · ⚠️ **incomplete**, see what was not read"),
        (replace(CLEAN, read=(), not_read=(FAILED,)), "⚠️ **no review**, I could read nothing of this change"),
        (replace(CLEAN, read=(), not_read=(SKIPPED,)), "**nothing to review** here"),
        (replace(CLEAN, read=()), "**nothing to review** here"),
        (
            replace(CLEAN, read=(), findings=(Judged(MINOR),), not_read=(FAILED,)),
            "🟡 **1 minor** · ⚠️ **incomplete**, see what was not read",
        ),
    ],
)
def test_the_verdict_comes_first(review: Review, verdict: str) -> None:
    assert first_line(review) == verdict


def test_one_open_thread_is_one() -> None:
    assert "1 earlier comment of mine is still open." in reviewed(CLEAN, head=HEAD, since=None, still_open=1)


def test_long_lists_are_cut_and_say_so() -> None:
    not_read = [NotRead(f"gen/{number}.py", "generated file") for number in range(1_234)]
    not_read += [NotRead(f"{number}.sql", f"ignored by the policy: {number}.sql") for number in range(30)]
    note = reviewed(replace(CLEAN, not_read=tuple(not_read)), head=HEAD, since=None)
    assert "Not read, or not all of it: 1,264 files" in note
    assert re.search(r"^- generated file · (`gen/\d\.py`, ){9}`gen/9\.py` and 1,224 more files$", note, re.MULTILINE)
    assert note.count("- ignored by the policy") == 19
    assert "\n- and 11 more files for other reasons\n" in note


def test_a_long_name_is_cut() -> None:
    note = reviewed(replace(CLEAN, not_read=(NotRead("x" * 5_000, "y" * 5_000),)), head=HEAD, since=None)
    assert f"- {'y' * 199}… · `{'x' * 199}…`" in note


def test_no_finding_is_lost_however_many_there_are() -> None:
    long = replace(FINDING, file="f" * 5_000, explanation="é " * 4_000, quote="`\n" * 2_000, title="t" * 5_000)
    unplaced = [(replace(long, line=number, end_line=number), "r" * 5_000) for number in range(1, 131)]
    unplaced.append((replace(FINDING, line=999, end_line=999), "refused"))
    note = reviewed(CLEAN, head=HEAD, since=None, unplaced=unplaced)
    full = re.findall(r"^#### `f{199}…:(\d+)` \(87% sure\)$", note, re.MULTILINE)
    named = re.findall(r"^- `f{199}…:(\d+)` major: `t{199}…`$", note, re.MULTILINE)
    assert [int(number) for number in full + named] == list(range(1, len(full) + 101))
    assert 2 < len(full) < 25
    assert "#### `src/cart.py:999`" in note
    assert f"\n- and {130 - 100 - len(full)} more findings\n" in note
    assert "**131 findings** could not be put at a line:" in note
    assert len(note) < 300_000


def test_the_other_notes() -> None:
    assert waiting("the student could not be reached", HEAD) == (
        "**Apprentice:** The review of `1a2b3c4d` waits: the student could not be reached. I will try again by myself."
        f"\n\n{SUMMARY_MARKER}"
    )
    assert waiting("no student is running", "").startswith("**Apprentice:** The review waits: no student is running. ")
    assert policy_broken(['.apprentice.yml:1:1: unknown key "`@all`"', ".apprentice.yml:2:1: x"], "main") == (
        "**Apprentice:** I cannot review this: my policy file on `main` has mistakes.\n"
        "\n"
        '- ``.apprentice.yml:1:1: unknown key "`@all`"``\n'
        "- `.apprentice.yml:2:1: x`\n"
        "\n"
        "I read it from there only, so please correct it there. Then `/apprentice review` makes me look again.\n"
        "\n"
        f"{SUMMARY_MARKER}"
    )


def test_many_problems_of_a_policy_are_cut() -> None:
    note = policy_broken(["p" * 5_000] * 33, "b" * 5_000)
    assert note.count("- `ppp") == 20
    assert "\n- and 13 more problems\n" in note
    assert len(note) < 15_000


# --- nothing in it acts

MARKDOWN = MarkdownIt("commonmark")
OURS = {
    *("paragraph_open", "paragraph_close", "inline", "fence", "heading_open", "heading_close", "html_block"),
    *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
}
INLINE = {"text", "text_special", "code_inline", "hardbreak", "strong_open", "strong_close", "html_inline"}
NOT_READS = st.lists(st.builds(NotRead, TEXTS, TEXTS, st.booleans()), max_size=4).map(tuple)
REVIEWS = st.builds(
    Review,
    findings=st.lists(st.builds(Judged, FINDINGS, st.none() | st.sampled_from(HiddenReason)), max_size=3).map(tuple),
    read=st.lists(TEXTS, max_size=3).map(tuple),
    not_read=NOT_READS,
    model=TEXTS,
    adapter=st.none() | TEXTS,
    prompt_id=TEXTS,
    usage=st.builds(
        Usage,
        prompt_tokens=st.integers(0, 10**9),
        completion_tokens=st.integers(0, 10**9),
        seconds=st.floats(0, 10**6),
    ),
    redacted=st.lists(st.tuples(TEXTS, st.integers(1, 99)), max_size=3).map(tuple),
)
NOTES = st.one_of(
    st.builds(
        reviewed,
        REVIEWS,
        head=TEXTS,
        since=st.none() | TEXTS,
        unplaced=st.lists(st.tuples(FINDINGS, TEXTS), max_size=2),
        still_open=st.integers(0, 9),
    ),
    st.builds(waiting, TEXTS, TEXTS),
    st.builds(policy_broken, st.lists(TEXTS, max_size=3), TEXTS),
)


@settings(max_examples=300, deadline=None)
@given(NOTES)
def test_whatever_others_wrote_does_nothing(note: str) -> None:
    note.encode()
    assert note.endswith(f"\n\n{SUMMARY_MARKER}")
    assert note.count(SUMMARY_MARKER) >= 1
    assert parse_marker(note) is None
    assert parse(note, "apprentice") is None
    blocks = MARKDOWN.parse(note)
    assert {token.type for token in blocks} <= OURS
    html = [token.content.strip() for token in blocks if token.type == "html_block"]
    assert html[-1] == SUMMARY_MARKER
    details = [tag.partition("\n")[0] for tag in html[:-1]]
    assert details in ([], ["<details>", "</details>"])
    children = [child for token in blocks for child in token.children or ()]
    assert {child.type for child in children} <= INLINE
    assert {child.content for child in children if child.type == "html_inline"} <= {"<sub>", "</sub>"}
    assert alive(note) == []
    assert not re.search(r"^\s*/", note, re.MULTILINE)
