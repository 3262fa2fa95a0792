import difflib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.diff import Change, FileDiff, LineKind, parse_file
from bot.increment import narrow

LINES = [f"line {number}" for number in range(1, 41)]


def edited(lines: Sequence[str], **changes: str | None) -> list[str]:
    """Lines with some of them (`n10="text"`, from 1) changed, removed (None), or made several (`\\n`)."""
    result: list[str] = []
    for number, line in enumerate(lines, 1):
        new = changes.get(f"n{number}", line)
        result += [] if new is None else new.split("\n")
    return result


def diff(old: Sequence[str], new: Sequence[str], path: str = "a.py", old_path: str | None = None) -> FileDiff:
    """What git says, with its three lines of context."""
    _, _, *rows = [*difflib.unified_diff(list(old), list(new), lineterm="", n=3)] or ["", ""]
    return parse_file("\n".join(rows), old_path=old_path or path, new_path=path)


def added(files: Sequence[FileDiff]) -> dict[str, list[str]]:
    """The added lines that are read, by file."""
    return {
        file.path: [line.text for hunk in file.hunks for line in hunk.lines if line.kind is LineKind.ADDED]
        for file in files
    }


FIRST = edited(LINES, n10="TEN", n30="THIRTY")
"""The change at the earlier head."""


@pytest.mark.parametrize(
    ("second", "read"),
    [
        (edited(FIRST, n10="TEN again"), ["TEN again"]),  # the same place
        (edited(FIRST, n30="THIRTY again"), ["THIRTY again"]),
        (edited(FIRST, n20="TWENTY"), ["TWENTY"]),  # another one
        (edited(FIRST, n13="THIRTEEN"), ["TEN", "THIRTEEN"]),  # in the same hunk: what stands around it belongs to it
        (edited(FIRST, n1="new\nline 1"), ["new"]),  # all others move down
        (edited(FIRST, n11=None), ["TEN"]),  # removed below it
        (edited(FIRST, n9=None), ["TEN"]),  # and above it
        (edited(FIRST, n10="line 10"), None),  # taken back: nothing of it stands in the change any more
        (edited(FIRST, n10="line 10", n30="THIRTY!"), ["THIRTY!"]),
        (edited(FIRST, n40=None), []),  # only removed: there is nothing to comment, and it is read all the same
    ],
)
def test_only_the_hunks_are_read_that_newer_commits_touched(second: list[str], read: list[str] | None) -> None:
    kept = narrow([diff(LINES, second)], [diff(FIRST, second)])
    assert added(kept) == ({} if read is None else {"a.py": read})


def test_files_that_newer_commits_left_alone_are_not_read() -> None:
    whole = [diff(LINES, FIRST, "a.py"), diff(LINES, FIRST, "b.py")]
    assert [file.path for file in narrow(whole, [diff(LINES, FIRST, "b.py")])] == ["b.py"]
    assert narrow(whole, []) == ()


def test_what_came_from_the_target_branch_is_not_read() -> None:
    """After a merge of it, the newer commits touch more than the change does."""
    merged = edited(FIRST, n20="from main")
    whole = [diff(edited(LINES, n20="from main"), merged)]
    assert narrow(whole, [diff(FIRST, merged), diff([], LINES, "main.py")]) == ()


def test_a_file_that_was_renamed_since_then() -> None:
    second = edited(FIRST, n10="TEN again")
    whole = [diff(LINES, second, "new.py", "old.py")]
    assert added(narrow(whole, [diff(FIRST, second, "new.py", "old.py")])) == {"new.py": ["TEN again"]}


def test_a_new_name_alone_is_nothing_to_read() -> None:
    whole = [diff(LINES, FIRST, "new.py", "old.py")]
    assert narrow(whole, [parse_file("", old_path="old.py", new_path="new.py")]) == ()


def test_a_deleted_file_is_not_read() -> None:
    gone = parse_file("@@ -1 +0,0 @@\n-a\n", old_path="a.py", new_path=None)
    assert gone.change is Change.DELETED
    assert narrow([gone], [gone]) == ()


def test_a_file_without_hunks_is_kept_for_others_to_say_why_it_is_not_read() -> None:
    renamed = parse_file("", old_path="old.py", new_path="new.py")
    assert narrow([renamed], [renamed]) == (renamed,)


def test_a_file_that_was_binary_before_is_read_whole() -> None:
    """What was committed as UTF-16 and is UTF-8 now: git shows no line of the newer commit."""
    whole = diff([], FIRST)
    assert narrow([whole], [parse_file("", old_path="a.py", new_path="a.py")]) == (whole,)


def test_an_emptied_file() -> None:
    kept = narrow([diff(["a", "b"], [])], [diff(["a", "b", "c"], [])])
    assert kept == ()  # there is no line left in it to say anything about


texts = st.lists(st.sampled_from(["a", "b", "c"]), max_size=30)


@given(base=texts, first=texts, second=texts)
def test_every_line_that_is_new_since_then_and_in_the_change_is_read(
    base: list[str], first: list[str], second: list[str]
) -> None:
    whole, newer = diff(base, second), diff(first, second)
    kept = narrow([whole], [newer])
    fresh = {line.new for hunk in newer.hunks for line in hunk.lines if line.kind is LineKind.ADDED}
    read = {number for file in kept for number in file.new_lines}
    assert fresh & set(whole.new_lines) <= read
    assert all(hunk in whole.hunks for file in kept for hunk in file.hunks)
