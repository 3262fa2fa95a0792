"""Every line that a diff shows can be commented; the stand-in's own reading of GitLab's rules is the judge."""

import difflib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.diff import FileDiff, LineKind, parse, parse_file
from bot.forge import Anchor, DiffRefs
from bot.position import anchor, position
from tests.fakes.gitlab.positions import DiffLine, diff_lines, line_code
from tests.fakes.gitlab.repository import FileChange

REFS = DiffRefs("b" * 40, "5" * 40, "a" * 40)
SHAS = {"base_sha": "b" * 40, "start_sha": "5" * 40, "head_sha": "a" * 40}
APP = hashlib.sha1(b"app.py", usedforsecurity=False).hexdigest()

# old 10..13 -> new 10..14: 10/10, +11, -11, 12/12, +13, +14, 13/15; then a second hunk
DIFF = """@@ -10,4 +10,6 @@ def f():
 ten
+eleven
-old eleven
 twelve
+thirteen
+fourteen
 fifteen
@@ -40,3 +42,2 @@
 forty
-gone
 last
\\ No newline at end of file
"""


def changed(diff: str = DIFF, old_path: str | None = "app.py", new_path: str | None = "app.py") -> FileDiff:
    file = parse_file(diff, old_path=old_path, new_path=new_path)
    assert file.unreadable is None
    return file


@pytest.mark.parametrize(
    ("line", "old", "new", "code"),
    [
        (10, 10, 10, "10_10"),  # unchanged: both
        (11, None, 11, "11_11"),  # added: new only
        (12, 12, 12, "12_12"),
        (13, None, 13, "13_13"),
        (14, None, 14, "13_14"),
        (15, 13, 15, "13_15"),
        (42, 40, 42, "40_42"),
        (43, 42, 43, "42_43"),  # the last line, which has no line ending
    ],
)
def test_a_line_is_named_by_the_sides_it_is_on(line: int, old: int | None, new: int, code: str) -> None:
    assert anchor(changed(), line, line) == Anchor("app.py", "app.py", old, new, line_code=f"{APP}_{code}")


def test_several_lines_stand_at_the_last_one_and_begin_at_the_first() -> None:
    assert anchor(changed(), 11, 15) == Anchor("app.py", "app.py", 13, 15, None, 11, f"{APP}_13_15", f"{APP}_11_11")


def test_lines_that_begin_before_their_hunk_begin_with_it() -> None:
    place = anchor(changed(), 14, 43)
    assert (place.start_old, place.start_new, place.old_line, place.new_line) == (40, 42, 42, 43)


@pytest.mark.parametrize("last", [9, 16, 41, 44])
def test_where_the_diff_does_not_show_the_last_line_the_comment_stands_at_the_file(last: int) -> None:
    assert anchor(changed(), 9, last) == Anchor("app.py", "app.py", None, None)


def test_a_renamed_file_has_both_of_its_paths_and_its_codes_the_new_one() -> None:
    place = anchor(changed(old_path="old.py"), 11, 11)
    assert place == Anchor("old.py", "app.py", None, 11, line_code=f"{APP}_11_11")


def test_a_new_file_has_its_path_twice_and_counts_nothing_on_the_old_side() -> None:
    place = anchor(changed("@@ -0,0 +1,2 @@\n+one\n+two\n", old_path=None), 1, 2)
    assert place == Anchor("app.py", "app.py", None, 2, None, 1, f"{APP}_0_2", f"{APP}_0_1")


def test_in_a_deleted_file_lines_are_the_old_ones() -> None:
    place = anchor(changed("@@ -1,2 +0,0 @@\n-one\n-two\n", new_path=None), 1, 2)
    assert place == Anchor("app.py", "app.py", 2, None, 1, None, f"{APP}_2_0", f"{APP}_1_0")


def test_a_file_without_hunks_is_commented_as_a_whole() -> None:
    (file,) = parse("diff --git a/a.bin b/a.bin\nBinary files a/a.bin and b/a.bin differ\n")
    assert anchor(file, 1, 1) == Anchor("a.bin", "a.bin", None, None)


# --- what GitLab takes


def test_position_of_an_added_line() -> None:
    assert position(REFS, anchor(changed(), 11, 11)) == {
        **SHAS,
        "position_type": "text",
        "old_path": "app.py",
        "new_path": "app.py",
        "new_line": 11,
    }


def test_position_of_an_unchanged_line_has_both_numbers() -> None:
    place = position(REFS, anchor(changed(), 15, 15))
    assert (place["old_line"], place["new_line"]) == (13, 15)
    assert "line_range" not in place


def test_position_of_a_removed_line_has_the_old_number_alone() -> None:
    place = position(REFS, anchor(changed("@@ -1,2 +0,0 @@\n-one\n-two\n", new_path=None), 1, 2))
    assert place["old_line"] == 2
    assert "new_line" not in place
    assert place["line_range"] == {
        "start": {"line_code": f"{APP}_1_0", "type": "old", "old_line": 1},
        "end": {"line_code": f"{APP}_2_0", "type": "old", "old_line": 2},
    }


def test_position_of_several_lines() -> None:
    place = anchor(changed(), 11, 15)
    assert position(REFS, place)["line_range"] == {
        "start": {"line_code": f"{APP}_11_11", "type": "new", "new_line": 11},
        "end": {"line_code": f"{APP}_13_15", "old_line": 13, "new_line": 15},
    }
    assert position(REFS, place, numbered=False)["line_range"] == {
        "start": {"line_code": f"{APP}_11_11", "type": "new"},
        "end": {"line_code": f"{APP}_13_15"},
    }


def test_position_of_a_file_has_no_lines() -> None:
    place = position(REFS, Anchor("old.py", "new.py", None, None))
    assert place == {**SHAS, "position_type": "file", "old_path": "old.py", "new_path": "new.py"}


# --- any diff

_LINES = st.lists(st.sampled_from(["", "a", "b", "c = 1", "\tx", "+", "-", "@@ -1 +1 @@", "\\ no", "é\r"]), max_size=30)


def unified(old: list[str], new: list[str], context: int = 3) -> str:
    """The bare hunks of a diff, as git and so GitLab write them."""
    return "".join(f"{line}\n" for line in list(difflib.unified_diff(old, new, n=context, lineterm=""))[2:])


@given(_LINES, _LINES)
def test_every_line_of_any_diff_is_placed_as_gitlab_counts(old: list[str], new: list[str]) -> None:
    text = unified(old, new)
    if not text:
        return
    file = parse_file(text, old_path="app.py", new_path="app.py")
    change = FileChange("app.py", "app.py", "100644", "100644", "M", text)
    known = {(line.old, line.new): line for line in diff_lines(change)}
    for number, line in file.new_lines.items():
        place = anchor(file, number, number)
        seen = known[place.old_line, place.new_line]
        assert place.line_code == line_code("app.py", seen)
        assert (place.old_line is None) is (line.kind is LineKind.ADDED)
        assert place.new_line == number


@given(_LINES, _LINES, st.integers(1, 31), st.integers(0, 31))
def test_any_lines_end_at_the_last_one_or_stand_at_the_file(
    old: list[str], new: list[str], first: int, more: int
) -> None:
    text = unified(old, new)
    file = parse_file(text, old_path="app.py", new_path="app.py")
    last = first + more
    place = anchor(file, first, last)
    assert place.new_line == (last if last in file.new_lines else None)
    assert place.start_new is None or first <= place.start_new < last
    known: dict[str, DiffLine] = {
        line_code("app.py", line): line
        for line in diff_lines(FileChange("app.py", "app.py", "100644", "100644", "M", text))
    }
    if place.start_code:
        assert known[place.start_code].new in {place.start_new, None}
    said = position(REFS, place)
    assert said["position_type"] == ("text" if last in file.new_lines else "file")
    assert None not in said.values()
