"""What is new in a change since an earlier head: the hunks of the whole change that newer commits touched. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bot.diff import Change, FileDiff, Hunk, LineKind


def narrow(whole: Sequence[FileDiff], newer: Iterable[FileDiff]) -> tuple[FileDiff, ...]:
    """Keep of the whole change what newer commits touched.

    Comments are placed in the whole change, so that is what is read; what the newer commits brought along from the
    target branch stands in `newer`, but not in the whole change, and is not read.

    Args:
        whole: the change from base to head.
        newer: what its commits changed from an earlier head to the same head.
    """
    later = {file.new_path: file for file in newer if file.new_path is not None}
    return tuple(kept for file in whole if (kept := _kept(file, later)) is not None)


def _kept(file: FileDiff, later: dict[str, FileDiff]) -> FileDiff | None:
    if file.new_path not in later:
        return None
    if not file.hunks:  # it cannot be read, or only its name or mode changed: that is for others to say
        return file
    newer = later[file.new_path]
    if not newer.hunks and newer.change is not Change.RENAMED:  # nobody shows what changed: it was binary before
        return file
    touched = _touched(newer)
    hunks = tuple(hunk for hunk in file.hunks if _meets(hunk, touched))
    return replace(file, hunks=hunks) if hunks else None


def _meets(hunk: Hunk, lines: set[int]) -> bool:
    return any(number in lines for number in hunk.new_range)


def _touched(file: FileDiff) -> set[int]:
    """Numbers in the new file of the lines that were added, and of those on both sides of removed ones."""
    touched: set[int] = set()
    for hunk in file.hunks:
        last = hunk.new_range.start - 1 if hunk.new_range else 0
        for line in hunk.lines:
            if line.kind is LineKind.REMOVED:
                touched |= {last, last + 1}
            else:
                last = line.new or last
                if line.kind is LineKind.ADDED:
                    touched.add(last)
    return touched
