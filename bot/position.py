"""Places in a diff: lines of a file -> `Anchor` -> the position that GitLab takes. Pure.

GitLab knows an added line by its new number alone, a removed one by its old number alone, an unchanged one by both. It
refuses everything else, and every line that its diff does not show, always with the same words.
"""

import hashlib
from collections.abc import Iterator

from bot.diff import FileDiff, Hunk, Line, LineKind
from bot.forge import Anchor, DiffRefs


def anchor(file: FileDiff, first: int, last: int) -> Anchor:
    """Where a comment on some lines stands: at the last of them, and from the first one that is in the same hunk.

    Where the diff does not show the last line, it stands at the file: on another line, a suggestion would replace
    the wrong ones.

    Args:
        file: what the change does to the file.
        first: number of the first line, in the new file (in the old one, if it is deleted).
        last: that of the last line; the same as `first` for a single line.
    """
    path = file.path
    old_path, new_path = file.old_path or path, file.new_path or path
    for hunk in file.hunks:
        spots = [(line, code) for line, code in _coded(hunk, path) if first <= _number(file, line) <= last]
        if spots and _number(file, spots[-1][0]) == last:
            (start, start_code), (end, end_code) = spots[0], spots[-1]
            if start is end:
                return Anchor(old_path, new_path, end.old, end.new, line_code=end_code)
            return Anchor(old_path, new_path, end.old, end.new, start.old, start.new, end_code, start_code)
    return Anchor(old_path, new_path, None, None)


def _number(file: FileDiff, line: Line) -> int:
    """The line's number on the side that comments speak of; 0 where it is not on that side."""
    return (line.old if file.new_path is None else line.new) or 0


def _coded(hunk: Hunk, path: str) -> Iterator[tuple[Line, str]]:
    """The lines of a hunk with GitLab's names of them: hash of the path, and a counter for each side.

    On the side where a line is not, the counter stands at the next line that is there (at 0 in an empty file).
    """
    name = hashlib.sha1(path.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
    old, new = hunk.old_range.start, hunk.new_range.start
    for line in hunk.lines:
        yield line, f"{name}_{old}_{new}"
        old += line.kind is not LineKind.ADDED
        new += line.kind is not LineKind.REMOVED


def position(refs: DiffRefs, at: Anchor, *, numbered: bool = True) -> dict[str, object]:
    """What GitLab takes as `position`: of a line, of several ones, or of the file where the anchor has no line.

    Args:
        refs: the version of the diff that the anchor speaks of.
        at: the place.
        numbered: say the line numbers in `line_range` too. Some versions of GitLab refuse them there
            (gitlab-org/gitlab#572121); without them its pages do not show where the range begins.
    """
    place: dict[str, object] = {
        "base_sha": refs.base,
        "start_sha": refs.start,
        "head_sha": refs.head,
        "old_path": at.old_path,
        "new_path": at.new_path,
    }
    if at.old_line is None and at.new_line is None:
        return place | {"position_type": "file"}
    place |= {"position_type": "text", **_numbers(at.old_line, at.new_line)}
    if at.start_code:
        place["line_range"] = {
            "start": _end(at.start_code, at.start_old, at.start_new, numbered=numbered),
            "end": _end(at.line_code, at.old_line, at.new_line, numbered=numbered),
        }
    return place


def _end(code: str, old: int | None, new: int | None, *, numbered: bool) -> dict[str, object]:
    end: dict[str, object] = {"line_code": code}
    if old is None or new is None:  # GitLab takes no side of an unchanged line
        end["type"] = "old" if new is None else "new"
    return {**end, **_numbers(old, new)} if numbered else end


def _numbers(old: int | None, new: int | None) -> dict[str, int]:
    return {name: number for name, number in (("old_line", old), ("new_line", new)) if number is not None}
