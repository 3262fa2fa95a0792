"""Files of a change out of GitLab's diffs. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bot.diff import FileDiff, parse, parse_file
from bot.domain import NotRead
from bot.forge import ReadChange
from bot.gitlab.answers import Diff

_NO_MODE = (None, "", "0", "000000")
_SYMLINK, _SUBMODULE = "120000", "160000"

GENERATED = "generated file (by the project's .gitattributes or GitLab's own list)"
WITHHELD = "too large: GitLab does not show its diff"
OVERFLOW = "not in GitLab's list, which ends after so many files"


def file_of(diff: Diff) -> FileDiff:
    """What a change does to a file, as far as GitLab shows it."""
    old_path = None if diff.new_file else diff.old_path
    new_path = None if diff.deleted_file else diff.new_path
    file = parse_file(diff.diff or "", old_path=old_path, new_path=new_path)
    return replace(file, hunks=(), unreadable=reason) if (reason := _unreadable(diff)) else file


def _unreadable(diff: Diff) -> str | None:
    """Why nothing of it can be read, where that does not stand in its hunks."""
    modes = {diff.a_mode, diff.b_mode}
    if _SUBMODULE in modes:
        return "submodule"
    if _SYMLINK in modes:
        return "symlink"
    if diff.diff or diff.renamed_file:
        return None
    if diff.new_file or diff.deleted_file:
        return "empty or binary file"
    return "mode change only" if len(modes.difference(_NO_MODE)) > 1 else None


def together(diffs: Iterable[Diff], *, overflow: bool, whole: Mapping[str, FileDiff], lacks: str) -> ReadChange:
    """The change.

    Args:
        diffs: what GitLab lists.
        overflow: there are more files than that.
        whole: files from the raw diff, by path; empty where it was not needed or is not to be had.
        lacks: why a file that GitLab withholds is not in `whole` either; empty where there is nothing to say.
    """
    files: list[FileDiff] = []
    not_read: list[NotRead] = []
    listed: set[str] = set()
    for diff in diffs:
        path = diff.old_path if diff.deleted_file else diff.new_path
        listed.add(path)
        if diff.generated_file:
            not_read.append(NotRead(path, GENERATED))
        elif not diff.withheld:
            files.append(file_of(diff))
        elif path in whole:
            files.append(whole[path])
        else:
            not_read.append(NotRead(path, _because(WITHHELD, lacks)))
    if overflow:
        files += (file for path, file in whole.items() if path not in listed)
        if lacks:
            not_read.append(NotRead("(more files)", _because(OVERFLOW, lacks)))
    return ReadChange(tuple(files), tuple(not_read))


def _because(reason: str, lacks: str) -> str:
    return f"{reason}, and {lacks}" if lacks else reason


def raw_files(patch: bytes, *, complete: bool) -> dict[str, FileDiff]:
    """The files of a raw diff by path; without the last one where the text ends before it does."""
    text = patch.decode("utf-8", "replace")
    if not complete:
        text = text[: text.rfind("\ndiff --git ") + 1]
    return {file.path: file for file in parse(text)}


def shown(diffs: Sequence[Diff] | None) -> tuple[FileDiff, ...] | None:
    """The files of a comparison; None where GitLab withholds one."""
    if diffs is None or any(diff.withheld for diff in diffs):
        return None
    return tuple(file_of(diff) for diff in diffs)
