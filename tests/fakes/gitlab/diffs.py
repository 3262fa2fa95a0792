"""A merge request's diff as the API shows it: with GitLab's limits, which leave files without their text."""

from collections.abc import Iterable

from tests.fakes.gitlab.model import JSON, Limits
from tests.fakes.gitlab.repository import FileChange


def shown(changes: Iterable[FileChange], limits: Limits) -> list[JSON]:
    """The items of `/diffs`; files beyond the limit on their number are not there at all."""
    return [item(change, limits) for change in list(changes)[: limits.files]]


def item(change: FileChange, limits: Limits, *, unified: bool = False) -> JSON:
    size, lines = len(change.text.encode()), change.text.count("\n")
    too_large = size > limits.too_large_bytes or lines > limits.too_large_lines
    collapsed = not too_large and (size > limits.collapsed_bytes or lines > limits.collapsed_lines)
    text = "" if too_large or collapsed else change.text
    if unified and text.startswith("@@"):
        old = "/dev/null" if change.new_file else f"a/{change.old_path}"
        new = "/dev/null" if change.deleted_file else f"b/{change.new_path}"
        text = f"--- {old}\n+++ {new}\n{text}"
    return {
        "diff": text,
        "new_path": change.new_path,
        "old_path": change.old_path,
        "a_mode": change.a_mode,
        "b_mode": change.b_mode,
        "new_file": change.new_file,
        "renamed_file": change.renamed_file,
        "deleted_file": change.deleted_file,
        "generated_file": None,
        "collapsed": collapsed,
        "too_large": too_large,
    }


def count(changes: Iterable[FileChange], limits: Limits) -> str:
    """`changes_count`: a text, with a plus where GitLab stopped counting."""
    number = len(list(changes))
    return f"{limits.files}+" if number > limits.files else str(number)
