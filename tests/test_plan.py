from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.diff import FileDiff, LineKind, parse
from bot.domain import NotRead
from bot.plan import OVERLAP, PART_LINES, Plan, Room, plan
from bot.policy import PathRule, Policy
from bot.prompt import ELIDED, Brief


def room(tokens: int = 100_000, requests: int = 100) -> Room:
    """A room where a token is a character: nothing fits by the shortcut that would not fit by counting."""
    return Room(tokens, len, requests)


def added(path: str, lines: list[str]) -> tuple[FileDiff, ...]:
    body = "\n".join(f"+{line}" for line in lines)
    return parse(f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n{body}\n")


def planned(
    files: tuple[FileDiff, ...],
    *,
    source: str | None = None,
    policy: Policy | None = None,
    within: Room | None = None,
) -> Plan:
    read: Callable[[str], str | None] = lambda _: source  # noqa: E731
    return plan(files, read, policy or Policy(), Brief(), within or room())


def asked_lines(made: Plan) -> set[int]:
    """New-side lines that some question is about."""
    return {line.new for question in made.questions for line in question.part.lines if line.new is not None}


def test_a_small_hunk_is_one_question_and_every_line_is_in_it() -> None:
    made = planned(added("a.py", ["x = 1", "y = 2"]))
    (question,) = made.questions
    assert (question.part.path, question.part.first, question.part.last) == ("a.py", 1, 2)
    assert made.not_read == ()


def test_skipped_files_are_listed_with_their_reason() -> None:
    made = planned((*added("package-lock.json", ["{}"]), *added("docs/a.md", ["x"])), policy=Policy(ignore=("docs/",)))
    assert made.questions == ()
    assert [missing.file for missing in made.not_read] == ["package-lock.json", "docs/a.md"]
    assert not any(missing.failed for missing in made.not_read)


def test_a_long_hunk_is_split_behind_blank_lines_with_overlap_and_no_line_is_lost() -> None:
    lines = ["" if number in {50, 110} else f"value_{number} = {number}" for number in range(1, 201)]
    made = planned(added("a.py", lines))
    spans = [(question.part.first, question.part.last) for question in made.questions]
    assert spans[0] == (1, 50)
    assert spans[1][0] == 50 - OVERLAP + 1
    assert asked_lines(made) == set(range(1, 201))
    assert all(last - first < PART_LINES for first, last in spans)


def test_the_enclosing_function_stands_around_the_change() -> None:
    source = "import os\n\n\ndef pay(cents):\n    check(cents)\n    send(cents)\n    return True\n"
    files = parse("--- a/a.py\n+++ b/a.py\n@@ -6 +6 @@\n-    post(cents)\n+    send(cents)\n")
    (question,) = planned(files, source=source).questions
    assert question.part.before == ("def pay(cents):", "    check(cents)")
    assert question.part.after == ("    return True",)


def test_a_long_function_is_shown_by_its_head_and_what_is_near() -> None:
    body = [f"    step({number})" for number in range(200)]
    source = "\n".join(["def pay():", *body]) + "\n"
    files = parse("--- a/a.py\n+++ b/a.py\n@@ -100 +100 @@\n-    old()\n+    step(98)\n")
    (question,) = planned(files, source=source).questions
    assert question.part.before[:3] == ("def pay():", "    step(0)", ELIDED)
    assert question.part.before[-1] == "    step(97)"
    assert question.part.after[0] == "    step(99)"
    assert question.part.after[-1] == ELIDED


def test_without_room_the_code_around_goes_first_then_lines_are_split() -> None:
    source = "def pay():\n" + "".join(f"    step({number})\n" for number in range(20))
    files = parse("--- a/a.py\n+++ b/a.py\n@@ -10 +10 @@\n-    old()\n+    step(8)\n")
    (whole,) = planned(files, source=source).questions
    size = sum(len(message["content"]) + 16 for message in whole.messages)
    (bare,) = planned(files, source=source, within=room(size - 1)).questions
    assert bare.part.before == ()
    lines = [f"value_{number} = {number}" for number in range(1, 41)]
    (one,) = planned(added("a.py", lines)).questions
    size = sum(len(message["content"]) + 16 for message in one.messages)
    made = planned(added("a.py", lines), within=room(size - 1))
    assert len(made.questions) > 1
    assert asked_lines(made) == set(range(1, 41))


def test_a_line_longer_than_the_context_is_listed_and_its_neighbours_are_read() -> None:
    lines = [*(f"a{number} = 1" for number in range(10)), "x" * 5_000, *(f"b{number} = 1" for number in range(10))]
    made = planned(added("a.py", lines), within=room(4_500))
    assert made.not_read == (
        NotRead("a.py", "line 11: longer than the student's context (4500 tokens for a prompt)", failed=True),
    )
    assert asked_lines(made) == set(range(1, 22)) - {11}


def test_questions_over_the_limit_are_listed_as_missing() -> None:
    files = (*added("a.py", ["a = 1"]), *added("b.py", ["b = 1"]), *added("c.py", ["c = 1"]))
    made = planned(files, within=room(requests=2))
    assert [question.part.path for question in made.questions] == ["a.py", "b.py"]
    (missing,) = made.not_read
    assert missing.file == "c.py"
    assert missing.failed
    assert "APPRENTICE_MAX_REQUESTS" in missing.reason


def test_removed_lines_alone_are_listed() -> None:
    made = planned(parse("--- a/a.py\n+++ b/a.py\n@@ -3,2 +2,0 @@\n-x = 1\n-y = 2\n"))
    assert made.questions == ()
    assert made.not_read == (
        NotRead("a.py", "lines 3 to 4: removed, with no line beside them that can take a comment"),
    )


def test_removed_lines_too_long_for_the_context_are_named_by_their_old_numbers() -> None:
    made = planned(parse("--- a/a.py\n+++ b/a.py\n@@ -3 +2,0 @@\n-" + "x" * 9_000 + "\n"), within=room(4_500))
    (missing,) = made.not_read
    assert missing.reason.startswith("line 3: longer than")


def test_instructions_and_language_of_the_policy_reach_the_question() -> None:
    policy = Policy(language="de", instructions="All", paths=(PathRule(glob="*.py", instructions="Py"),))
    (question,) = planned(added("a.py", ["a = 1"]), policy=policy).questions
    assert question.brief.language == "de"
    assert question.brief.instructions == "All\nPy"


def test_a_context_only_stretch_of_a_split_hunk_is_not_asked_about() -> None:
    lines = ["+first = 1", *(f" same_{number} = {number}" for number in range(150)), "+last = 1"]
    files = parse("--- a/a.py\n+++ b/a.py\n@@ -1,150 +1,152 @@\n" + "\n".join(lines) + "\n")
    made = planned(files)
    assert len(made.questions) == 2
    assert all(any(line.kind is LineKind.ADDED for line in question.part.lines) for question in made.questions)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab c", max_size=12) | st.just("") | st.just("y" * 3_000), min_size=1, max_size=150),
    st.integers(3_800, 9_000),
)
def test_every_changed_line_is_asked_about_or_listed_and_every_prompt_fits(lines: list[str], tokens: int) -> None:
    within = room(tokens)
    made = planned(added("a.py", lines), within=within)
    listed = {int(missing.reason.split()[1].rstrip(":")) for missing in made.not_read}
    assert asked_lines(made) | listed == set(range(1, len(lines) + 1))
    assert all(within.holds(question.messages) for question in made.questions)


@pytest.mark.parametrize(("tokens", "holds"), [(47, False), (48, True)])
def test_bytes_are_counted_only_where_a_short_cut_does_not_decide(tokens: int, holds: bool) -> None:  # noqa: FBT001
    within = Room(tokens, lambda text: len(text) // 2, 1)
    assert within.holds([{"role": "user", "content": "ä" * 64}]) is holds
