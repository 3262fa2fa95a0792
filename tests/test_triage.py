import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.diff import Change, FileDiff, LineKind, parse_file
from bot.domain import Category, Finding, HiddenReason, Judged, Severity
from bot.policy import PathRule, Policy
from bot.triage import MAX_QUOTE, Candidate, triage

DIFF = """\
@@ -1,6 +1,8 @@
 import os

-def total(items):
+def total(items, rate):
+    if rate == 0:
+        return None
     result = 0
-    for item in items:
+    for item in items: # all
         result += item.price
@@ -40,4 +42,6 @@
     result = 0
+    {
+    }
     return sum(
         values,
     )
"""
FILE = parse_file(DIFF, old_path="shop.py", new_path="shop.py")
EVERYTHING = Policy(severity=Severity.TRIVIAL, max_findings=100)


def finding(quote: str, line: int = 1, **changes: object) -> Finding:
    it = Finding(
        file="shop.py",
        line=line,
        end_line=line,
        severity=Severity.MAJOR,
        category=Category.CORRECTNESS,
        title="title",
        explanation="explanation",
        quote=quote,
    )
    return replace(it, **changes)  # type: ignore[arg-type]


def judge(*findings: Finding, policy: Policy = EVERYTHING, files: Sequence[FileDiff] = (FILE,)) -> tuple[Judged, ...]:
    return triage([Candidate(it) for it in findings], files, policy)


@pytest.mark.parametrize(
    ("quote", "claimed", "place"),
    [
        ("def total(items, rate):", 3, (3, 3)),
        ("def total(items, rate):", 1, (3, 3)),
        ("def total(items, rate):", 999, (3, 3)),
        ("def total(items, rate):", -7, (3, 3)),
        ("def  total( items,rate ) :", 3, (3, 3)),
        ("    if rate == 0:\n        return None", 4, (4, 5)),
        ("if rate == 0: return None", 4, (4, 5)),
        ("import os\ndef total(items, rate):", 1, (1, 3)),  # the blank line between does not count
        ("return sum(\n values,\n)", 45, (45, 47)),
        ("total(items", 3, (3, 3)),
        ("== 0:\n return", 4, (4, 5)),
        # copied marks
        ("    3 + def total(items, rate):", 3, (3, 3)),
        ("3: def total(items, rate):", 3, (3, 3)),
        ("3| def total(items, rate):", 3, (3, 3)),
        ("+def total(items, rate):", 3, (3, 3)),
        ("    6       result = 0", 6, (6, 6)),
        ("`def total(items, rate):`", 3, (3, 3)),
        ("```python\ndef total(items, rate):\n```", 3, (3, 3)),
        ("-def total(items):\n+def total(items, rate):", 3, (3, 3)),
        ("    4 +    if rate == 0:\n    5 +        return None", 4, (4, 5)),
        ("def total(items, rate): ...", 3, (3, 3)),
        ("def total(items, rate…", 3, (3, 3)),
        # several places: the nearest, whole lines before parts, added lines before context
        ("result = 0", 1, (6, 6)),
        ("result = 0", 40, (42, 42)),
        ("result", 8, (8, 8)),
        ("item", 7, (7, 7)),
    ],
)
def test_the_line_is_where_the_quote_stands(quote: str, claimed: int, place: tuple[int, int]) -> None:
    [judged] = judge(finding(quote, claimed))
    assert judged.shown
    assert (judged.finding.line, judged.finding.end_line) == place
    lines = [FILE.new_lines[number].text for number in range(place[0], place[1] + 1)]
    assert judged.finding.quote == "\n".join(lines)


@pytest.mark.parametrize(
    "quote",
    [
        "",
        " \n\t",
        "}",
        "):",
        "{\n}",
        "0",
        "= 0",
        "os",  # too little for a part of a line
        "ite",  # no whole word
        "def total(items):",  # removed by the change
        "-def total(items):",
        "def total(items, rate, more):",
        "import os {",  # 1 and 43: not one after the other
        "result += item.price result = 0",  # across two hunks
        "return None\nfor item in items: # all",
        "...",
        "```\n```",
    ],
)
def test_a_quote_found_nowhere_is_hidden_not_dropped(quote: str) -> None:
    said = finding(quote, 999, end_line=1002, suggestion="x")
    [judged] = judge(said)
    assert judged == Judged(replace(said, suggestion=None), HiddenReason.UNVERIFIED)


@pytest.mark.parametrize("path", ["other.py", "a/shop.py", "binary", ""])
def test_a_file_without_lines_in_the_change_is_not_believed(path: str) -> None:
    binary = FileDiff("binary", "binary", Change.MODIFIED, (), "binary file")
    [judged] = judge(finding("def total(items, rate):", file=path), files=[FILE, binary])
    assert judged.hidden is HiddenReason.UNVERIFIED


def test_added_lines_win_a_tie_and_else_the_upper() -> None:
    diff = "@@ -1,3 +1,4 @@\n go(home)\n middle\n+go(home)\n go(home)\n"
    file = parse_file(diff, old_path="shop.py", new_path="shop.py")
    assert judge(finding("go(home)", 2), files=[file])[0].finding.line == 3
    diff = diff.replace("@@ -1,3", "@@ -1,4").replace("+go", " go")
    file = parse_file(diff, old_path="shop.py", new_path="shop.py")
    assert judge(finding("go(home)", 2), files=[file])[0].finding.line == 1


def test_a_quote_that_the_answer_cut_is_found_by_what_is_left() -> None:
    line = "value = some_function(" + ", ".join(f"argument_{number}" for number in range(20)) + ")"
    file = parse_file(f"@@ -0,0 +1 @@\n+{line}\n", old_path=None, new_path="shop.py")
    assert judge(finding(line[:150]), files=[file])[0].finding.quote == line
    assert judge(finding(line[:50]), files=[file])[0].hidden is HiddenReason.UNVERIFIED


def test_of_a_very_long_line_only_the_quoted_part_is_kept() -> None:
    line = "start(); " + "x=1;" * MAX_QUOTE + "  danger( user . input ) ;" + "y=2;" * MAX_QUOTE
    file = parse_file(f"@@ -0,0 +1,3 @@\n+{line}\n+next();\n+{line}\n", old_path=None, new_path="shop.py")
    [judged] = judge(finding("danger(user.input)", 3), files=[file])
    assert (judged.finding.line, judged.finding.quote) == (3, "danger( user . input )")
    assert judge(judged.finding, files=[file]) == (judged,)
    [judged] = judge(finding("y = 2; next(); start()", 1), files=[file])
    assert (judged.finding.line, judged.finding.end_line) == (1, 3)
    assert judged.finding.quote == "y=2;\nnext();\nstart()"


REASONS = [
    (finding("import os", 1), False, None),
    (finding("no such code", 1), True, HiddenReason.UNVERIFIED),
    (finding("if rate == 0:", 4, severity=Severity.TRIVIAL), True, HiddenReason.REFUTED),
    (finding("if rate == 0:", 4, severity=Severity.TRIVIAL), False, HiddenReason.BELOW_THRESHOLD),
    (finding("if rate == 0:", 4, confidence=0.49), False, HiddenReason.LOW_CONFIDENCE),
    (finding("if rate == 0:", 4, confidence=0.5), False, None),
    (finding("if rate == 0:", 4, confidence=None), False, None),
]


@pytest.mark.parametrize(("said", "refuted", "hidden"), REASONS)
def test_the_first_reason_is_told(said: Finding, refuted: bool, hidden: HiddenReason | None) -> None:  # noqa: FBT001 -- a table's column
    policy = Policy(severity=Severity.MINOR, min_confidence=0.5)
    [judged] = triage([Candidate(said, refuted=refuted)], [FILE], policy)
    assert judged.hidden is hidden


def test_the_threshold_is_that_of_the_path() -> None:
    policy = Policy(severity=Severity.TRIVIAL, paths=(PathRule(glob="shop.py", severity=Severity.CRITICAL),))
    assert judge(finding("import os"), policy=policy)[0].hidden is HiddenReason.BELOW_THRESHOLD


def test_what_was_said_already_is_hidden_and_the_worse_one_stays() -> None:
    minor = finding("import os", severity=Severity.MINOR, confidence=0.9)
    unsure = finding("import os", confidence=0.5)
    sure = finding("import os", confidence=0.6, title="another title")
    other = finding("import os", category=Category.STYLE)
    assert judge(minor, unsure, other, sure) == (
        Judged(replace(sure, line=1)),
        Judged(unsure, HiddenReason.DUPLICATE),
        Judged(other),
        Judged(minor, HiddenReason.DUPLICATE),
    )


def test_the_same_code_at_two_places_and_two_quotes_of_one_line_are_said_once() -> None:
    twice = judge(finding("result = 0", 6), finding("result = 0", 42))
    assert [judged.hidden for judged in twice] == [None, HiddenReason.DUPLICATE]
    line = judge(finding("if rate == 0:", 4), finding("if rate == 0:\n return None", 4))
    assert [judged.hidden for judged in line] == [None, HiddenReason.DUPLICATE]


def test_a_hidden_finding_does_not_hide_another_as_its_duplicate() -> None:
    refuted = Candidate(finding("import os", severity=Severity.CRITICAL), refuted=True)
    judged = triage([refuted, Candidate(finding("import os"))], [FILE], EVERYTHING)
    assert [it.hidden for it in judged] == [HiddenReason.REFUTED, None]


def test_the_worst_stay_under_the_cap() -> None:
    context = finding("import os", 1, confidence=1.0)
    unknown = finding("def total(items, rate):", 3)
    sure = finding("if rate == 0:", 4, confidence=0.8)
    critical = finding("return None", 5, severity=Severity.CRITICAL, confidence=0.1)
    judged = judge(context, unknown, sure, critical, policy=Policy(max_findings=2))
    assert [(it.finding.line, it.hidden) for it in judged] == [
        (5, None),
        (4, None),
        (3, HiddenReason.OVER_CAP),  # a confidence that is not known comes last ...
        (1, HiddenReason.OVER_CAP),  # ... but before what stands on lines that did not change
    ]


IF = "    if rate == 0:"


@pytest.mark.parametrize(
    ("quote", "end_line", "suggestion", "kept"),
    [
        (IF, 4, "    if not rate:", "    if not rate:"),
        (IF, 4, "    if not rate:\n        log()\n", "    if not rate:\n        log()"),
        (IF, 4, "    if not rate:\r\n        log()\r\n", "    if not rate:\n        log()"),
        # the indentation that the student left out
        ("if rate == 0:", 4, "if not rate:\n\n    log()", "    if not rate:\n\n        log()"),
        ("if rate == 0:", 4, "    if not rate:", "    if not rate:"),
        ("  if rate == 0:", 4, "  if not rate:\nlog()", None),
        ("  if rate == 0:", 4, "if not rate:", None),
        (IF, 4, "if not rate:", None),
        # nothing that would change the code
        (IF, 4, IF, None),
        (IF, 4, IF + "  \n", None),
        ("if rate == 0:", 4, "if rate == 0:", None),
        (IF, 4, "", None),
        (IF, 4, " \n", None),
        (IF, 4, None, None),
        # not exactly these lines
        ("rate == 0", 4, "    if not rate:", None),
        ("+" + IF, 4, "    if not rate:", None),
        (IF + "\n        return None", 5, "    assert rate", "    assert rate"),
        (IF + "\n        return None", 4, "    assert rate", None),
        (IF, 5, "    assert rate", None),
        # advice instead of code
        (IF, 4, "    Check the rate against a small number.", None),
        (IF, 4, "    use `if not rate:` here", None),
    ],
)
def test_a_suggestion_stays_only_where_it_fits(
    quote: str, end_line: int, suggestion: str | None, kept: str | None
) -> None:
    [judged] = judge(finding(quote, 4, end_line=end_line, suggestion=suggestion))
    assert judged.shown
    assert judged.finding.suggestion == kept


def test_prose_may_take_the_place_of_prose() -> None:
    diff = "@@ -1 +1,2 @@\n # Shop\n+Call the function `total` with care.\n"
    manual = parse_file(diff, old_path="shop.py", new_path="shop.py")
    better = "Call the function `total` with a rate."
    [judged] = judge(finding("Call the function `total` with care.", 2, suggestion=better), files=[manual])
    assert judged.finding.suggestion == better


@pytest.mark.no_cover  # a tracer would take most of the time
def test_ten_thousand_findings_take_about_linear_time() -> None:
    lines = [f"value_{number} = compute({number})" for number in range(2_000)]
    body = "".join(f"+{line}\n" for line in lines)
    file = parse_file(f"@@ -0,0 +1,{len(lines)} @@\n{body}", old_path=None, new_path="shop.py")
    said = [finding(f"{lines[number % 2_000]} # {number % 7}"[: 40 + number % 3], number) for number in range(5_000)]
    said += [finding(lines[number % 2_000], 1, title=str(number)) for number in range(5_000)]
    start = time.perf_counter()
    judged = judge(*said, files=[file])
    assert time.perf_counter() - start < 10
    assert len(judged) == 10_000
    assert sum(it.shown for it in judged) == 100


# --- properties

WORDS = st.sampled_from(["x", "}", "foo(bar)", "foo", "bar", "  ", "return foo", "a = b", "+", "- 1", "# é", "12: foo"])
LINES = st.lists(st.tuples(st.sampled_from("+- "), st.lists(WORDS, max_size=3).map(" ".join)), min_size=1, max_size=12)


@st.composite
def changes(draw: st.DrawFn) -> list[FileDiff]:
    files = []
    for path in draw(st.lists(st.sampled_from(["a.py", "b.py"]), unique=True, max_size=2)):
        hunks, old, new = "", 1, 1
        for lines in draw(st.lists(LINES, max_size=2)):
            counts = [sum(kind != skipped for kind, _ in lines) for skipped in "+-"]
            starts = (old if counts[0] else old - 1, new if counts[1] else new - 1)
            hunks += f"@@ -{starts[0]},{counts[0]} +{starts[1]},{counts[1]} @@\n"
            hunks += "".join(f"{kind}{text}\n" for kind, text in lines)
            gap = draw(st.integers(0, 3))
            old, new = old + counts[0] + gap, new + counts[1] + gap
        files.append(parse_file(hunks, old_path=path, new_path=path))
    return files


@st.composite
def reviews(draw: st.DrawFn) -> tuple[list[Candidate], list[FileDiff], Policy]:
    files = draw(changes())
    texts = [line.text for file in files for hunk in file.hunks for line in hunk.lines] or ["x"]
    quotes = st.one_of(
        st.text(max_size=20),
        st.lists(st.sampled_from(texts), max_size=3).map("\n".join),
        st.sampled_from(texts).map(lambda text: "   7 + " + text),
    )
    said = st.builds(
        Finding,
        file=st.sampled_from(["a.py", "b.py", "c.py"]),
        line=st.integers(-2, 30),
        end_line=st.integers(-2, 30),
        severity=st.sampled_from(Severity),
        category=st.sampled_from([Category.STYLE, Category.SECURITY]),
        title=st.sampled_from(["a", "b"]),
        explanation=st.just("why"),
        quote=quotes,
        suggestion=st.one_of(st.none(), quotes),
        confidence=st.one_of(st.none(), st.floats(0, 1)),
    )
    candidates = draw(st.lists(st.builds(Candidate, said, st.booleans()), max_size=12))
    policy = Policy(
        severity=draw(st.sampled_from(Severity)),
        max_findings=draw(st.integers(1, 4)),
        min_confidence=draw(st.sampled_from([0.0, 0.5])),
    )
    return candidates, files, policy


@settings(max_examples=100, deadline=None)
@given(reviews())
def test_every_shown_finding_stands_on_lines_that_can_take_a_comment(
    review: tuple[list[Candidate], list[FileDiff], Policy],
) -> None:
    candidates, files, policy = review
    judged = triage(candidates, files, policy)
    lines = {file.path: file.new_lines for file in files}
    for it in judged:
        if it.shown:
            place = [lines[it.finding.file][n] for n in range(it.finding.line, it.finding.end_line + 1)]
            assert it.finding.quote == "\n".join(line.text for line in place)
            assert all(line.kind is not LineKind.REMOVED for line in place)
            assert any(map(str.isalnum, it.finding.quote))
    assert sum(it.shown for it in judged) <= policy.max_findings
    assert len(judged) == len(candidates)
    ranks = [it.finding.severity.rank for it in judged]
    assert ranks == sorted(ranks, reverse=True)


@settings(max_examples=100, deadline=None)
@given(reviews(), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    review: tuple[list[Candidate], list[FileDiff], Policy], shuffler: random.Random
) -> None:
    candidates, files, policy = review
    shuffled = candidates.copy()
    shuffler.shuffle(shuffled)
    assert triage(shuffled, files, policy) == triage(candidates, files, policy)


@settings(max_examples=100, deadline=None)
@given(reviews())
def test_triage_of_its_own_findings_changes_nothing(
    review: tuple[list[Candidate], list[FileDiff], Policy],
) -> None:
    candidates, files, policy = review
    judged = triage(candidates, files, policy)
    again = [Candidate(it.finding, refuted=it.hidden is HiddenReason.REFUTED) for it in judged]
    assert triage(again, files, policy) == judged
