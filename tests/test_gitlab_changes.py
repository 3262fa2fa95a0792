"""Whole changes out of GitLab's diffs: odd files, and those that GitLab finds too large."""

from collections.abc import Mapping

import pytest

from bot.diff import Change, FileDiff
from bot.domain import NotRead
from bot.gitlab import changes
from bot.gitlab import forge as gitlab_forge
from bot.gitlab.answers import Diff
from tests.fakes.forge_world import LINES, World, comment, world
from tests.fakes.gitlab.repository import Content

BINARY = b"\x89PNG\0\x01\x02"


def read(here: World) -> tuple[dict[str, FileDiff], tuple[NotRead, ...]]:
    change = here.forge.read_change(here.merge)
    files = {file.path: file for file in change.files}
    assert len(files) == len(change.files)
    return files, change.not_read


@pytest.mark.parametrize(
    ("old", "new", "paths", "change", "unreadable"),
    [
        ({"f": "a\n"}, {"f": "b\n"}, ("f", "f"), Change.MODIFIED, None),
        ({}, {"f": "b\n"}, (None, "f"), Change.ADDED, None),
        ({"f": "a\n"}, {"f": None}, ("f", None), Change.DELETED, None),
        ({"e": LINES}, {"e": None, "f": f"{LINES}x\n"}, ("e", "f"), Change.RENAMED, None),
        ({"e": LINES}, {"e": None, "f": LINES}, ("e", "f"), Change.RENAMED, "renamed without a change"),
        ({"f": "a\n"}, {"f": ("100755", b"a\n")}, ("f", "f"), Change.MODIFIED, "mode change only"),
        ({}, {"f": ""}, (None, "f"), Change.ADDED, "empty or binary file"),
        ({"f": ""}, {"f": None}, ("f", None), Change.DELETED, "empty or binary file"),
        ({}, {"f": BINARY}, (None, "f"), Change.ADDED, "binary file"),
        ({"f": BINARY}, {"f": BINARY + b"x"}, ("f", "f"), Change.MODIFIED, "binary file"),
        ({}, {"f": ("120000", b"app.py")}, (None, "f"), Change.ADDED, "symlink"),
        ({}, {"f": ("160000", b"a" * 40)}, (None, "f"), Change.ADDED, "submodule"),
        ({"f": ("160000", b"a" * 40)}, {"f": ("160000", b"b" * 40)}, ("f", "f"), Change.MODIFIED, "submodule"),
    ],
)
def test_an_odd_file(
    *,
    old: Mapping[str, Content],
    new: Mapping[str, Content],
    paths: tuple[str | None, str | None],
    change: Change,
    unreadable: str | None,
) -> None:
    with world(new, {"keep": "x\n", **old}) as here:
        files, not_read = read(here)
        (file,) = files.values()
        assert (file.old_path, file.new_path) == paths
        assert (file.change, file.unreadable) == (change, unreadable)
        assert bool(file.hunks) is (unreadable is None)
        assert not_read == ()
        assert here.gitlab.count("GET", "raw_diffs") == 0


def test_a_file_that_becomes_a_link_is_two() -> None:
    with world({"f": ("120000", b"keep")}, {"keep": "x\n", "f": "a\n"}) as here:
        change = here.forge.read_change(here.merge)
        assert [(file.change, file.unreadable) for file in change.files] == [
            (Change.DELETED, None),
            (Change.ADDED, "symlink"),
        ]


def test_files_of_all_pages() -> None:
    names = [f"{number:03}.py" for number in range(205)]
    with world(dict.fromkeys(names, "x\n")) as here:
        here.forget_requests()
        assert list(read(here)[0]) == names
        assert here.requests() == ["GET /"] + ["GET /diffs"] * 3


# --- what GitLab withholds


def grown(by: int) -> str:
    return LINES + "more code\n" * by


def test_a_collapsed_and_a_too_large_file_come_from_the_raw_diff_in_one_read() -> None:
    with world({"app.py": grown(10), "large.py": grown(400), "huge.py": "x\n" * 12_000}) as here:
        here.gitlab.settings.limits.collapsed_bytes = 1_000
        here.gitlab.settings.limits.too_large_bytes = 10_000
        here.forget_requests()
        files, not_read = read(here)
        assert list(files) == ["app.py", "huge.py", "large.py"]
        assert len(files["huge.py"].new_lines) == 12_000
        assert not_read == ()
        assert here.requests() == ["GET /", "GET /diffs", "GET /raw_diffs"]
        (posted,) = here.forge.publish(here.merge, [comment(files["large.py"], 100)], again=False).posted
        assert posted.where == "line"


def test_before_17_9_a_large_file_is_not_read() -> None:
    with world({"app.py": grown(10), "large.py": grown(4000)}) as here:
        here.gitlab.settings.raw_diffs = False
        files, not_read = read(here)
        assert list(files) == ["app.py"]
        reason = "too large: GitLab does not show its diff, and GitLab before 17.9 gives it in no other way"
        assert not_read == (NotRead("large.py", reason),)


def test_more_files_than_gitlab_lists_come_from_the_raw_diff() -> None:
    names = [f"{number:02}.py" for number in range(12)]
    with world(dict.fromkeys(names, "x\n")) as here:
        here.gitlab.settings.limits.files = 5
        merge = here.merge
        assert merge.changes_count == "5+"
        files, not_read = read(here)
        assert list(files) == names
        assert not_read == ()


def test_before_17_9_the_files_that_gitlab_does_not_list_are_mentioned() -> None:
    with world(dict.fromkeys("abcdef", "x\n")) as here:
        here.gitlab.settings.limits.files = 5
        here.gitlab.settings.raw_diffs = False
        files, not_read = read(here)
        assert list(files) == list("abcde")
        reason = "not in GitLab's list, which ends after so many files, and GitLab before 17.9 gives it in no other way"
        assert not_read == (NotRead("(more files)", reason),)


def test_of_an_enormous_change_the_first_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitlab_forge, "MAX_RAW_BYTES", 1_000_000)
    with world({"a.py": "a\n" * 200_000, "b.py": "b\n" * 200_000, "c.py": "c\n" * 200_000}) as here:
        files, not_read = read(here)
        assert list(files) == ["a.py"]
        assert files["a.py"].unreadable == "too large: 200,000 lines (limit 20,000)"
        reason = "too large: GitLab does not show its diff, and the change has more than 1 MB"
        assert not_read == (NotRead("b.py", reason), NotRead("c.py", reason))


def test_a_file_that_the_raw_diff_lacks_is_not_read() -> None:
    """As when it was pushed away between the two reads."""
    withheld = Diff(old_path="f", new_path="f", collapsed=True)
    change = changes.together([withheld], overflow=False, whole={}, lacks="")
    assert change.not_read == (NotRead("f", "too large: GitLab does not show its diff"),)


def test_a_generated_file_is_not_read_and_not_fetched() -> None:
    diffs = [
        Diff(old_path="f", new_path="f", diff="@@ -1 +1 @@\n-a\n+b\n", generated_file=True),
        Diff(old_path="g", new_path="g", deleted_file=True, generated_file=True, too_large=True),
    ]
    change = changes.together(diffs, overflow=False, whole={}, lacks="")
    assert change.files == ()
    assert change.not_read == (NotRead("f", changes.GENERATED), NotRead("g", changes.GENERATED))


def test_a_cut_raw_diff_loses_its_last_file() -> None:
    def patch(name: str) -> str:
        return f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-a\n+b\n"

    two = f"{patch('one')}{patch('two')}".encode()
    assert list(changes.raw_files(two, complete=True)) == ["one", "two"]
    assert list(changes.raw_files(two[:-3], complete=False)) == ["one"]
    assert list(changes.raw_files(two[:20], complete=False)) == []
    assert list(changes.raw_files(b"", complete=True)) == []


@pytest.mark.parametrize("modes", [(None, None), ("", ""), ("100644", "100644"), ("0", "100644")])
def test_a_diff_without_lines_and_modes_is_just_that(modes: tuple[str | None, str | None]) -> None:
    file = changes.file_of(Diff(old_path="f", new_path="f", diff=None, a_mode=modes[0], b_mode=modes[1]))
    assert file.unreadable == "the diff shows no line of it"


def test_a_comparison_without_diffs_says_nothing() -> None:
    assert changes.shown(None) is None
