"""GitLab's rules for places in a diff: which line a position means, its line code, and where a push moves it."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.fakes.gitlab.repository import FileChange, Repository

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclass(frozen=True, slots=True)
class Refs:
    """The three commits of a version of a diff."""

    base: str
    start: str
    head: str

    def json(self) -> dict[str, object]:
        return {"base_sha": self.base, "head_sha": self.head, "start_sha": self.start}


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a diff, as a client gave it or as it was moved."""

    refs: Refs
    kind: str
    old_path: str | None
    new_path: str | None
    old_line: int | None = None
    new_line: int | None = None
    line_range: dict[str, object] | None = None

    @property
    def complete(self) -> bool:
        refs = all((self.refs.base, self.refs.start, self.refs.head))
        line = self.kind != "text" or bool(self.old_line or self.new_line)
        return refs and line and bool(self.new_path or self.old_path)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for path in (self.old_path, self.new_path) if path))

    def json(self) -> dict[str, object]:
        known: dict[str, object] = {
            "base_sha": self.refs.base,
            "start_sha": self.refs.start,
            "head_sha": self.refs.head,
            "old_path": self.old_path,
            "new_path": self.new_path,
            "position_type": self.kind,
        }
        if self.kind == "text":
            known |= {"old_line": self.old_line, "new_line": self.new_line, "line_range": self.line_range}
        return known


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of a hunk with GitLab's two counters; `old`/`new` are None on the side where it is not."""

    old: int | None
    new: int | None
    old_counter: int
    new_counter: int


def diff_lines(change: FileChange) -> tuple[DiffLine, ...]:
    """All lines of a file's hunks. A mark like "No newline at end of file" is none."""
    lines: list[DiffLine] = []
    old = new = 0
    for line in change.text.split("\n"):
        if head := _HUNK.match(line):
            old, new = int(head[1]), int(head[3])
        elif line[:1] == "+":
            lines.append(DiffLine(None, new, old, new))
            new += 1
        elif line[:1] == "-":
            lines.append(DiffLine(old, None, old, new))
            old += 1
        elif line[:1] == " ":
            lines.append(DiffLine(old, new, old, new))
            old, new = old + 1, new + 1
    return tuple(lines)


def line_code(path: str, line: DiffLine) -> str:
    return f"{hashlib.sha1(path.encode()).hexdigest()}_{line.old_counter}_{line.new_counter}"  # noqa: S324 -- GitLab's


def file_of(repository: Repository, position: Position) -> FileChange | None:
    """The file that a position speaks of, in the diff of its own commits limited to its own paths, as GitLab looks.

    With only the new path of a renamed file, git shows a new file: then all its lines are added ones.
    """
    start, head = repository.resolve(position.refs.start), repository.resolve(position.refs.head)
    base = start and head and repository.merge_base(start, head)
    if not (position.complete and base and head):
        return None
    return next(iter(repository.diff(base, head, position.paths)), None)


def line_of(change: FileChange, position: Position) -> DiffLine | None:
    place = (position.old_line, position.new_line)
    return next((line for line in diff_lines(change) if (line.old, line.new) == place), None)


def code_of(repository: Repository, position: Position) -> str | None:
    """The line code of a text position, None where GitLab finds no such line."""
    change = file_of(repository, position)
    line = change and line_of(change, position)
    return line_code(change.new_path or change.old_path, line) if change and line else None


def problems(position: Position, code: str | None) -> dict[str, list[str]]:
    """What GitLab's validation says of a diff note with this position and line code; empty when it is fine.

    It looks at no path of a file position.
    """
    found: dict[str, list[str]] = {}
    if position.kind == "text" and code is None:
        found["line_code"] = ["can't be blank", "must be a valid line code"]
    if not position.complete:
        found["position"] = ["is incomplete"]
    return found


def ruby(errors: Mapping[str, list[str]]) -> str:
    """A hash of errors as Ruby writes it into GitLab's messages."""
    parts = (f":{key}=>[{', '.join(_ruby_text(text) for text in texts)}]" for key, texts in errors.items())
    return "{" + ", ".join(parts) + "}"


def _ruby_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- where a position goes when the diff changes


class Mapper:
    """Line numbers of a file from one commit to another, both ways."""

    def __init__(self, change: FileChange | None) -> None:
        self.lines = diff_lines(change) if change else ()

    def forward(self, line: int) -> int | None:
        return self._map(line, [(at.old, at.new, at.new_counter - at.old_counter) for at in self.lines])

    def back(self, line: int) -> int | None:
        return self._map(line, [(at.new, at.old, at.old_counter - at.new_counter) for at in self.lines])

    @staticmethod
    def _map(line: int, pairs: list[tuple[int | None, int | None, int]]) -> int | None:
        shift = 0
        for source, target, offset in pairs:
            if source == line:
                return target
            if source is not None and source > line:
                # between two hunks, the distance is that at the beginning of the next
                return line + offset
            shift = offset + (target is not None and source is None) - (source is not None and target is None)
        return line + shift


@dataclass(frozen=True, slots=True)
class Traced:
    """Where a position stands now; `outdated`: it is gone, and the position says where it last was."""

    position: Position | None
    outdated: bool


def trace(repository: Repository, position: Position, new: Refs) -> Traced:
    """Follow a position, whose start and head there must be, from its own version of the diff to another one."""
    return _Tracer(repository, position, new).trace()


class _Tracer:
    """A and B are the old base and head, C and D the new ones."""

    def __init__(self, repository: Repository, position: Position, new: Refs) -> None:
        start, head = (repository.resolve(sha) or "" for sha in (position.refs.start, position.refs.head))
        base = repository.resolve(position.refs.base) or repository.merge_base(start, head) or start
        self.position, self.new = position, new
        self.old_to_new_base = repository.diff(base, new.base)
        self.old_to_new_head = repository.diff(head, new.head)
        self.now = repository.diff(new.base, new.head)

    def trace(self) -> Traced:
        if self.position.kind != "text":
            return self._file()
        if self.position.old_line is None:
            return self._added()
        if self.position.new_line is None:
            return self._removed()
        return self._unchanged()

    def _file(self) -> Traced:
        path = self.position.new_path or self.position.old_path or ""
        touched = _with_old(self.old_to_new_head, path)
        shown = _with_new(self.now, path)
        return Traced(replace(self.position, refs=self.new), outdated=bool(touched or not shown))

    def _added(self) -> Traced:
        path, line = self.position.new_path or "", self.position.new_line or 0
        moved = _with_old(self.old_to_new_head, path)
        at = Mapper(moved).forward(line)
        if at is None or (moved and moved.deleted_file):
            return self._gone(moved, line, None)
        shown = _with_new(self.now, moved.new_path if moved else path)
        before = Mapper(shown).back(at) if shown else at
        there = self._at(shown, before, at)
        return there or self._gone(shown, None, at)

    def _removed(self) -> Traced:
        path, line = self.position.old_path or "", self.position.old_line or 0
        base = _with_old(self.old_to_new_base, path)
        at = Mapper(base).forward(line)
        if at is None:
            return self._gone(base, line, None)
        shown = _with_old(self.now, base.new_path if base else path)
        after = Mapper(shown).forward(at) if shown else at
        there = None if after is not None else self._at(shown, at, None)
        return there or self._gone(shown, None, after)

    def _unchanged(self) -> Traced:
        base = _with_old(self.old_to_new_base, self.position.old_path or "")
        moved = _with_old(self.old_to_new_head, self.position.new_path or "")
        old = Mapper(base).forward(self.position.old_line or 0)
        new = Mapper(moved).forward(self.position.new_line or 0)
        if new is None:
            return self._gone(moved, self.position.new_line, None)
        shown = _with_old(self.now, base.new_path if base else self.position.old_path or "")
        return self._at(shown, old, new) or Traced(None, outdated=True)

    def _at(self, shown: FileChange | None, old: int | None, new: int | None) -> Traced | None:
        """The place in the new diff, if it shows that line."""
        if shown is None:
            return None
        moved = replace(
            self.position, refs=self.new, old_path=shown.old_path, new_path=shown.new_path, old_line=old, new_line=new
        )
        return Traced(moved, outdated=False) if line_of(shown, moved) else None

    def _gone(self, change: FileChange | None, old: int | None, new: int | None) -> Traced:
        known = (change.old_path, change.new_path) if change else (self.position.old_path, self.position.new_path)
        moved = replace(self.position, refs=self.new, old_path=known[0], new_path=known[1], old_line=old, new_line=new)
        return Traced(moved, outdated=True)


def _with_old(changes: tuple[FileChange, ...], path: str) -> FileChange | None:
    return next((change for change in changes if change.old_path == path and not change.new_file), None)


def _with_new(changes: tuple[FileChange, ...], path: str) -> FileChange | None:
    return next((change for change in changes if change.new_path == path and not change.deleted_file), None)
