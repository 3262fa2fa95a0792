import dataclasses
import difflib
import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bot.diff import Change, DiffError, FileDiff, Hunk, Line, LineKind, parse, parse_file

ONE_HUNK = "--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,3 @@ def f():\n one\n-two\n+TWO\n+three\n"


def git(header: str, hunks: str = "") -> str:
    return f"diff --git {header}\n{hunks}"


def one(patch: str) -> FileDiff:
    (file,) = parse(patch)
    return file


def texts(file: FileDiff) -> list[str]:
    return [line.kind + line.text for hunk in file.hunks for line in hunk.lines]


def after(old: list[str], file: FileDiff) -> list[str]:
    """The file's new lines, made from the old ones by the hunks alone; checks every number on the way."""
    new: list[str] = []
    taken = 0
    for hunk in file.hunks:
        for line in hunk.lines:
            if line.old is not None:
                new += old[taken : line.old - 1]
                taken = line.old
                assert old[line.old - 1].removesuffix("\r") == line.text
            elif line.kind is LineKind.ADDED and line is hunk.lines[0]:
                assert line.new is not None
                gap = line.new - 1 - len(new)
                new += old[taken : taken + gap]
                taken += gap
            if line.new is not None:
                new.append(line.text)
                assert line.new == len(new)
    return [line.removesuffix("\r") for line in new + old[taken:]]


# --- what a file looks like ---


def test_a_hunk_has_its_lines_with_their_numbers_on_both_sides() -> None:
    file = one(git("a/x.py b/x.py", "index 1..2 100644\n" + ONE_HUNK))
    assert file == FileDiff(
        "x.py",
        "x.py",
        Change.MODIFIED,
        (
            Hunk(
                (
                    Line(LineKind.CONTEXT, "one", 1, 1),
                    Line(LineKind.REMOVED, "two", 2, None),
                    Line(LineKind.ADDED, "TWO", None, 2),
                    Line(LineKind.ADDED, "three", None, 3),
                ),
                "def f():",
            ),
        ),
    )
    assert file.hunks[0].old_range == range(1, 3)
    assert file.hunks[0].new_range == range(1, 4)
    assert {number: line.text for number, line in file.new_lines.items()} == {1: "one", 2: "TWO", 3: "three"}
    assert file.new_lines is file.new_lines
    assert (file.line_count, file.changed_count) == (4, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        file.unreadable = "no"  # type: ignore[misc]


def test_a_hunk_that_only_removes_has_no_new_lines() -> None:
    file = one("--- a/x\n+++ b/x\n@@ -3,2 +2,0 @@\n-a\n-b\n")
    assert file.hunks[0].new_range == range(0)
    assert file.hunks[0].old_range == range(3, 5)
    assert file.new_lines == {}


@pytest.mark.parametrize("nothing", ["", "\n", " \n\t\n", "\ufeff"])
def test_a_blank_patch_has_no_files(nothing: str) -> None:
    assert parse(nothing) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello\n--- world\n", "no diff in the text"),
        ("--- a/x", "no diff in the text"),
        ("*** a\n--- b\n***************\n", "no diff in the text"),
        ("Binary files are fun and differ\nBinary files a and b vary\n", "no diff in the text"),
        ("@@ -1 +1 @@\n-a\n+b\n", "does not say which file"),
    ],
)
def test_text_without_a_diff_is_an_error(text: str, words: str) -> None:
    with pytest.raises(DiffError, match=words):
        parse(text)


PATHS = [
    ("diff --git a/my file.txt b/my file.txt\nold mode 100644\nnew mode 100755\n", "my file.txt"),
    (
        git("a/my file b/my file", "--- a/my file\t\n+++ b/my file\t\n@@ -1 +1 @@\n-a\n+b\n"),
        "my file",
    ),
    ('diff --git "a/\\303\\244 \\"x\\".txt" "b/\\303\\244 \\"x\\".txt"\nnew file mode 100644\n', 'ä "x".txt'),
    ('diff --git "a/\\ttab\\\\" "b/\\ttab\\\\"\n--- "a/\\ttab\\\\"\n+++ "b/\\ttab\\\\"\n', "\ttab\\"),
    ('diff --git "a/ä\\q\\377" "b/ä\\q\\377"\nnew mode 100755\n', "äq\ufffd"),
    ('diff --git "a/broken b/broken\nnew mode 100755\n', "broken"),
    ("diff --git a/ü b/ü\nnew mode 100755\n", "ü"),
    ("diff --git a/-rf b/-rf\nnew mode 100755\n", "-rf"),
    ("diff --git a/--help b/--help\n--- a/--help\n+++ b/--help\n@@ -1 +1 @@\n-a\n+b\n", "--help"),
    ("diff --git a/x b/y b/x b/y\nnew mode 100755\n", "x b/y"),
    ("diff --git i/x w/x\nnew mode 100755\n", "x"),
    ("diff --git src/x src/x\n--- src/x\n+++ src/x\n@@ -1 +1 @@\n-a\n+b\n", "src/x"),
    ("diff --git x x\nnew mode 100755\n", "x"),
    ("diff --git from/x to/x\nnew mode 100755\n", "from/x to/x"),
    ("diff --git old/x new/x\n--- old/x\n+++ new/x\n@@ -1 +1 @@\n-a\n+b\n", "x"),
    ("diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+b\r\n", "x"),
    ("--- x.orig\t2024-01-01 00:00:00.000000000 +0000\n+++ x\t2024-01-01\n@@ -1 +1 @@\n-a\n+b\n", "x"),
    ("--- linux.orig/kernel/a.c\n+++ linux/kernel/a.c\n@@ -1 +1 @@\n-a\n+b\n", "kernel/a.c"),
    ('--- "a/\\303\\244"\n+++ "b/\\303\\244"\n@@ -1 +1 @@\n-a\n+b\n', "ä"),
    ("diff --cc a file\nindex 1,2..3\n", "a file"),
    ('diff --combined "\\303\\244"\n', "ä"),
    ("Binary files a/x.png and b/x.png differ\n", "x.png"),
    ("Submodule libs/x 1234567..89abcde:\n  > a commit\n", "libs/x"),
    ("--- \n+++ \n@@ -1 +1 @@\n-a\n+b\n", "(unnamed file)"),
    ("diff --git \n", "(unnamed file)"),
    ("--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", "(unnamed file)"),
]


@pytest.mark.parametrize(("patch", "path"), PATHS, ids=[path for _, path in PATHS])
def test_the_path_is_the_files_own(patch: str, path: str) -> None:
    assert one(patch).path == path


CHANGES = [
    ("a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n", None, "x", Change.ADDED),
    ("a/x b/x\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n", None, "x", Change.ADDED),
    (
        "a/x b/x\ndeleted file mode 100644\n--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
        "x",
        None,
        Change.DELETED,
    ),
    ("a/x b/x\n--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "x", None, Change.DELETED),
    (
        'a/x b/y\nrename from x\nrename to "y\\""\n--- a/x\n+++ "b/y\\""\n@@ -1 +1 @@\n-a\n+b\n',
        "x",
        'y"',
        Change.RENAMED,
    ),
    ("a/x b/y\n--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n", "x", "y", Change.RENAMED),
    ("a/x b/y\ncopy from x\ncopy to y\n--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n", "x", "y", Change.COPIED),
    ("a/x b/x\n--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+was empty\n", "x", "x", Change.MODIFIED),
]


@pytest.mark.parametrize(("patch", "old", "new", "change"), CHANGES)
def test_git_says_what_happened(patch: str, old: str | None, new: str | None, change: Change) -> None:
    file = one(git(patch))
    assert (file.old_path, file.new_path, file.change, file.unreadable) == (old, new, change, None)
    assert file.path == (new or old)
    assert file.hunks


@pytest.mark.parametrize(
    ("patch", "old", "new", "change"),
    [
        ("--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n", None, "x", Change.ADDED),
        ("--- old/x\t1970-01-01\n+++ new/x\n@@ -0,0 +1 @@\n+a\n", None, "x", Change.ADDED),
        ("--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "x", None, Change.DELETED),
        ("--- x\n+++ x\n@@ -1 +0,0 @@\n-a\n", "x", None, Change.DELETED),
        ("--- x.orig\n+++ x\n@@ -1 +1 @@\n-a\n+b\n", "x.orig", "x", Change.MODIFIED),
    ],
)
def test_a_plain_diff_says_it_by_names_and_ranges(patch: str, old: str | None, new: str | None, change: Change) -> None:
    file = one("diff -u old new\n" + patch)
    assert (file.old_path, file.new_path, file.change, file.unreadable) == (old, new, change, None)


MOVED = f"-Subproject commit {'1' * 40}\n+Subproject commit {'2' * 40}\n"
NO_END = "\\ No newline at end of file"
UNREADABLE = [
    ("diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n", "renamed without a change"),
    ("diff --git a/x b/y\nsimilarity index 100%\ncopy from x\ncopy to y\n", "copied without a change"),
    ("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n", "mode change only"),
    ("diff --git a/x b/x\nnew file mode 100644\nindex 0000000..e69de29\n", "empty file"),
    ("diff --git a/x b/x\ndeleted file mode 100644\nindex e69de29..0000000\n", "empty file"),
    ("diff --git a/x b/x\nindex 1..2\n", "the diff shows no line of it"),
    ("--- a/x\n+++ b/x\n", "the diff shows no line of it"),
    ("diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n", "binary file"),
    (
        git("a/x b/x", "index 1..2 100644\nGIT binary patch\nliteral 3\nKcmZ\n\nliteral 0\nHcmV?d00001\n\n"),
        "binary file",
    ),
    ("diff -r old new\nBinary files old/x and /dev/null differ\n", "binary file"),
    (git("a/x b/x", f"index 1..2 160000\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n{MOVED}"), "submodule"),
    (f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n{MOVED}", "submodule"),
    ("Submodule x 1234567...89abcde (new submodule)\n", "submodule"),
    (
        git(
            "a/x b/x",
            f"new file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc/passwd\n{NO_END}\n",
        ),
        "symlink",
    ),
    ("--- \n+++ \n@@ -1 +1 @@\n-a\n+b\n", "the diff does not name the file"),
    ("--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", "the diff does not name the file"),
    (
        "diff --cc x\nindex 1,2..3\n--- a/x\n+++ b/x\n@@@ -1,1 -1,1 +1,2 @@@\n--- gone\n+++ came\n",
        "combined diff of a merge: review the merge's result against its first parent instead",
    ),
]


@pytest.mark.parametrize(("patch", "reason"), UNREADABLE)
def test_what_cannot_be_read_says_why_and_the_next_file_is_read(patch: str, reason: str) -> None:
    file, following = parse(patch + git("a/z b/z", "--- a/z\n+++ b/z\n@@ -1 +1 @@\n-a\n+b\n"))
    assert (file.unreadable, file.hunks, file.new_lines) == (reason, (), {})
    assert (following.path, texts(following)) == ("z", ["-a", "+b"])


def test_a_file_over_the_limit_is_not_read_and_costs_little() -> None:
    count = 200_000
    began = time.process_time()
    file = one(f"--- /dev/null\n+++ b/big.json\n@@ -0,0 +1,{count} @@\n" + "+x\n" * count)
    assert file.unreadable == "too large: 200,000 lines (limit 20,000)"
    assert file.hunks == ()
    assert time.process_time() - began < 1


def test_the_largest_file_is_read() -> None:
    assert one("--- a/x\n+++ b/x\n@@ -0,0 +1,20000 @@\n" + "+\n" * 20_000).line_count == 20_000


@pytest.mark.parametrize("piece", ["Binary files ", " and ", '"', "\\", "Submodule ", "a b/ ", "diff --git a/", "1"])
def test_a_line_of_a_megabyte_costs_little(piece: str) -> None:
    began = time.process_time()
    for start in ("diff --git ", "Binary files ", "Submodule x ", "--- ", "@@ -", "diff --cc "):
        parse(start + piece * (1_000_000 // len(piece)) + "\n+++ b\n" + git("a/x b/x"))
    assert time.process_time() - began < 3


# --- lines are split at "\n" only, and never taken for headers inside a hunk ---


@pytest.mark.parametrize("odd", ["\f", "\u2028", "\u2029", "\x85", "\x1c", "\x1d", "\x1e", "\v", "\r", "\0", "\ufffd"])
def test_odd_characters_stay_inside_their_line(odd: str) -> None:
    file = one(f"--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a{odd}b\n+c{odd}d\n {odd}e\n")
    assert texts(file) == [f"-a{odd}b", f"+c{odd}d", f" {odd}e"]
    assert [line.new for line in file.hunks[0].lines] == [None, 1, 2]


def test_a_carriage_return_at_the_end_is_no_code() -> None:
    file = one("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ def f():\r\n-a\r\n+b\n \r\r\n")
    assert texts(file) == ["-a", "+b", " \r"]
    assert file.hunks[0].section == "def f():"


def test_empty_context_lines_may_have_lost_their_blank() -> None:
    assert texts(one("--- a/x\n+++ b/x\n@@ -1,4 +1,4 @@\n\n-a\n+b\n\r\n c")) == [" ", "-a", "+b", " ", " c"]


@pytest.mark.parametrize("mark", ["\\ No newline at end of file", "\\ Kein Zeilenumbruch am Dateiende.", "\\ "])
def test_the_mark_of_a_missing_newline_is_no_line(mark: str) -> None:
    file, following = parse(
        f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n{mark}\n+b\n{mark}\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n"
    )
    assert (file.unreadable, texts(file)) == (None, ["-a", "+b"])
    assert texts(following) == ["-a", "+b"]


def test_headers_inside_a_hunk_are_code() -> None:
    body = [
        "--- a/y",
        "+++ b/y",
        "+@@ -1 +1 @@",
        "-diff --git a/z b/z",
        "+diff --cc q",
        " Binary files a and b differ",
    ]
    file = one("--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@\n" + "\n".join(body) + "\n@@ -9 +10 @@\n-a\n+b\n")
    assert texts(file) == [*body, "-a", "+b"]


def test_text_around_the_diffs_is_skipped() -> None:
    mail = (
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
        "Subject: [PATCH 1/2] A thing\n\n- a list\n+ of things\n---\n x.py | 2 +-\n\n"
        f"diff --git a/x.py b/x.py\nindex 1..2 100644\n{ONE_HUNK}-- \n2.39.5\n\n"
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n- more\n---\n"
        "diff --git a/y b/z\nsimilarity index 100%\nrename from y\nrename to z\n-- \n2.39.5\n\n"
    )
    first, second = parse(mail)
    assert (first.path, first.unreadable, first.line_count) == ("x.py", None, 4)
    assert (second.path, second.unreadable) == ("z", "renamed without a change")


# --- broken diffs: one file is lost, the others are not ---

BROKEN = [
    ("@@ -1,3 +1,2 @@\n a\n b\n", "at line 5", "head counts"),
    ("@@ -1,2 +1,3 @@\n a\n b\n", "at line 5", "head counts"),
    ("@@ -1,2 +1,2 @@\n a\n-b\n", "at line 5", "head counts"),
    ("@@ -1,3 +1,3 @@\n a\n@@ -9 +9 @@\n-a\n+b\n", "at line 5", "head counts"),
    ("@@ -1 +1,2 @@\n+a\n+b\n+c\n-d\n", "at line 6", "head counts"),
    ("@@ -1 +1 @@\n a\n+b\n", "at line 5", "in no hunk"),
    ("@@ -1 +1 @@\n a\n\n-b\n", "at line 6", "in no hunk"),
    ("+b\n@@ -1 +1 @@\n a\n", "at line 3", "in no hunk"),
    ("@@ -1 +1 @@\n a\n????\n@@ -9 +9 @@\n a\n", "at line 6", "no part of a diff"),
    ("@@ -1,2 +1,2 @@\n a\n\rb\n", "at line 4", "head counts"),
    ("@@ -a +b @@\n-a\n", "at line 3", "no hunk that can be read"),
    ("@@ -1 +9999999999999999999 @@\n-a\n", "at line 3", "no hunk that can be read"),
    ("@@ -\u0661 +1 @@\n a\n", "at line 3", "no hunk that can be read"),
    ("@@ -0,0 +0,0 @@\n", "at line 3", "no hunk that can be read"),
    ("@@ -0 +0 @@\n a\n", "at line 3", "overlaps"),
    ("@@ -5 +5 @@\n a\n@@ -1 +9 @@\n a\n", "at line 5", "overlaps"),
    ("@@ -5 +5 @@\n a\n@@ -9 +5 @@\n a\n", "at line 5", "overlaps"),
]


@pytest.mark.parametrize("start", ["", "diff --git a/z b/z\nindex 1..2 100644\n", "Index: z\n=====\n"])
@pytest.mark.parametrize(("hunks", "where", "why"), BROKEN)
def test_a_broken_file_names_its_line_and_the_next_is_read(hunks: str, where: str, why: str, start: str) -> None:
    file, following = parse(
        f"--- a/x\n+++ b/x\n{hunks}{start}--- a/z\n+++ b/z\n@@ -1 +1 @@ {'' if start else 'x'}\n-a\n+b\n"
    )
    assert file.unreadable is not None
    if start:
        assert where in file.unreadable
    assert why in file.unreadable
    assert (file.path, file.hunks) == ("x", ())
    assert (following.path, texts(following)) == ("z", ["-a", "+b"])


# --- GitLab's bare hunks ---


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("x", "x", Change.MODIFIED),
        ("x", "y", Change.RENAMED),
        (None, "y", Change.ADDED),
        ("x", None, Change.DELETED),
    ],
)
@pytest.mark.parametrize("names", ["", "--- a/q\n+++ b/q\n"])
def test_bare_hunks_take_their_paths_from_outside(old: str | None, new: str | None, change: Change, names: str) -> None:
    file = parse_file(names + "@@ -1 +1 @@\n-a\n+b\n@@ -7 +7 @@\n-c\n+d\n", old_path=old, new_path=new)
    assert (file.old_path, file.new_path, file.change) == (old, new, change)
    assert texts(file) == ["-a", "+b", "-c", "+d"]


@pytest.mark.parametrize(
    ("diff", "new", "reason"),
    [
        ("", "y", "renamed without a change"),
        ("", "x", "the diff shows no line of it"),
        ("Binary files a/x and b/x differ\n", "x", "binary file"),
        (
            f"@@ -1 +1 @@\n-Subproject commit {'1' * 40}\n+Subproject commit {'2' * 40}-dirty\n",
            "x",
            "submodule",
        ),
        ("@@ -1,2 +1,2 @@\n a\n", "x", "the diff is broken at line 2: the hunk does not have the lines"),
        (
            "@@ -1 +1 @@\n-a\n+b\n--- a/z\n+++ b/z\n",
            "x",
            "the diff is broken at line 4: a second file begins",
        ),
        ("???\n@@ -1 +1 @@\n-a\n+b\n", "x", "the diff is broken at line 2: a hunk follows"),
    ],
)
def test_a_bare_diff_that_cannot_be_read_says_why(diff: str, new: str, reason: str) -> None:
    file = parse_file(diff, old_path="x", new_path=new)
    assert (file.unreadable or "").startswith(reason)
    assert file.hunks == ()


# --- properties ---

ODD_LINES = [
    "",
    " ",
    "\r",
    "a\r",
    "\fb",
    "c\u2028d",
    "\x85",
    "\x1c",
    "-- a/x",
    "++ b/x",
    "--- a/x",
    "+++ b/x",
    "@@ -1 +1 @@",
    "@@ -1,9 +1,9 @@ f()",
    "diff --git a/x b/x",
    "diff --cc x",
    "rename from x",
    "rename to y",
    "new file mode 100644",
    "index 1..2 160000",
    "Binary files a/x and b/x differ",
    "GIT binary patch",
    "\\ No newline at end of file",
    "Submodule x 1234567..89abcde:",
    f"+Subproject commit {'1' * 40}",
    "-- ",
    "+x",
    "-x",
]
LINES = st.lists(
    st.sampled_from(ODD_LINES) | st.text(st.characters(exclude_characters="\n\0"), max_size=5), max_size=12
)


@given(st.text() | LINES.map("\n".join))
@settings(deadline=None, max_examples=200)
def test_any_text_parses_or_is_refused_clearly(text: str) -> None:
    try:
        files = parse(text)
    except DiffError:
        return
    assert files == parse(text)
    for file in files:
        assert file.path
        assert bool(file.hunks) != bool(file.unreadable)
        numbers = [line.new for hunk in file.hunks for line in hunk.lines if line.new is not None]
        assert numbers == sorted(set(numbers)) == sorted(file.new_lines)
        assert all(number > 0 for number in numbers)


@given(st.text() | LINES.map("\n".join))
@settings(deadline=None)
def test_any_text_is_one_bare_file(text: str) -> None:
    file = parse_file(text, old_path="x", new_path="x")
    assert (file.old_path, file.new_path) == ("x", "x")
    assert bool(file.hunks) != bool(file.unreadable)


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """A file before and after: pieces kept, removed and put in."""
    old: list[str] = []
    new: list[str] = []
    for kept, gone, put in draw(st.lists(st.tuples(LINES, LINES, LINES), max_size=4)):
        old += kept + gone
        new += kept + put
    return old, new


@given(edits(), st.integers(0, 4))
@settings(deadline=None, max_examples=150)
def test_a_diff_by_difflib_gives_the_new_text(pair: tuple[list[str], list[str]], context: int) -> None:
    old, new = pair
    made = list(difflib.unified_diff(old, new, "a/x", "b/x", lineterm="", n=context))
    files = parse("\n".join(made) + "\n")
    assert len(files) == (old != new)
    for file in files:
        assert file.unreadable in (None, "submodule")
        if not file.unreadable:
            assert after(old, file) == [line.removesuffix("\r") for line in new]


@given(edits(), st.data())
@settings(deadline=None, max_examples=150)
def test_a_broken_file_leaves_the_files_around_it_alone(pair: tuple[list[str], list[str]], data: st.DataObject) -> None:
    before, middle, behind = (
        [
            f"diff --git a/{name} b/{name}",
            *difflib.unified_diff(*texts, f"a/{name}", f"b/{name}", lineterm=""),
        ]
        for name, texts in (("x", (["1"], ["2"])), ("y", pair), ("z", (["3"], ["-- a", "++ b"])))
    )
    at = data.draw(st.integers(1, len(middle)))
    middle[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(st.sampled_from(ODD_LINES), max_size=2))
    first, *_, last = parse("\n".join([*before, *middle, *behind]))
    assert first == one("\n".join(before))
    assert last == one("\n".join(behind))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diff")


@given(edits(), st.integers(0, 3), st.sampled_from(["", "\n"]), st.sampled_from(["", "\n"]))
@settings(deadline=None, max_examples=60)
def test_a_diff_by_git_gives_the_new_text(
    folder: Path, pair: tuple[list[str], list[str]], context: int, old_end: str, new_end: str
) -> None:
    old, new = ("\n".join(lines) + end for lines, end in zip(pair, (old_end, new_end), strict=True))
    assume(not re.search("[\ud800-\udfff]", old + new))  # no file holds half of a character
    (folder / "old").write_bytes(old.encode())
    (folder / "new").write_bytes(new.encode())
    command = ["git", "diff", "--no-index", "--no-color", "--no-ext-diff", f"-U{context}", "old", "new"]
    made = subprocess.run(command, cwd=folder, capture_output=True, check=False).stdout
    files = parse(made.decode())
    assert len(files) == (old != new)
    old_lines, new_lines = (text.removesuffix("\n").split("\n") if text else [] for text in (old, new))
    for file in files:
        assert (file.old_path, file.new_path) == ("old", "new")
        assert file.unreadable in (None, "submodule")
        if not file.unreadable:
            assert after(old_lines, file) == [line.removesuffix("\r") for line in new_lines]
