r"""Read a diff: text in, one frozen `FileDiff` per file out, each line with its numbers on both sides.

Only "\n" ends a line: form feeds, U+2028 and lone carriage returns are part of the code. unidiff counts the
lines of the hunks; what is around them is read here, because one broken file must not take the others with
it, and because unidiff (1.0) guesses at renames, quoted paths and translated "No newline" marks.
"""

import enum
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from unidiff.errors import UnidiffParseError
from unidiff.patch import Line as UnidiffLine
from unidiff.patch import PatchSet

MAX_FILE_LINES = 20_000
"""Most lines, changed ones and context, that are read of one file."""


class DiffError(ValueError):
    """The text holds no diff at all."""


class LineKind(enum.StrEnum):
    """What the change did to a line."""

    ADDED = "+"
    REMOVED = "-"
    CONTEXT = " "


class Change(enum.StrEnum):
    """What happened to a file. A renamed or copied one may be edited too."""

    ADDED = "added"
    DELETED = "deleted"
    MODIFIED = "modified"
    RENAMED = "renamed"
    COPIED = "copied"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a hunk, without its line ending; a single carriage return at its end goes with that.

    `old` and `new` are its numbers in the file before and after the change, from 1; None where it is not.
    """

    kind: LineKind
    text: str
    old: int | None
    new: int | None


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines of a file that follow each other; `section` is the text after the second `@@`, if any."""

    lines: tuple[Line, ...]
    section: str

    @property
    def old_range(self) -> range:
        """The numbers of its lines before the change; empty where it only adds."""
        return _span([line.old for line in self.lines if line.old is not None])

    @property
    def new_range(self) -> range:
        """The numbers of its lines after the change; empty where it only removes."""
        return _span([line.new for line in self.lines if line.new is not None])


def _span(numbers: list[int]) -> range:
    return range(numbers[0], numbers[-1] + 1) if numbers else range(0)


@dataclass(frozen=True)  # no slots: `new_lines` is kept in the instance
class FileDiff:
    """What a change does to one file.

    Args:
        old_path: its path before the change, None for an added file.
        new_path: its path after the change, None for a deleted file.
        change: what happened to it.
        hunks: its changed places in order; empty when it is unreadable.
        unreadable: why nothing in it can be read, in words for a person, or None.
    """

    old_path: str | None
    new_path: str | None
    change: Change
    hunks: tuple[Hunk, ...]
    unreadable: str | None = None

    @property
    def path(self) -> str:
        """Its path after the change (before it, for a deleted file)."""
        return self.new_path or self.old_path or "(unnamed file)"

    @functools.cached_property
    def new_lines(self) -> dict[int, Line]:
        """Every line inside a hunk that is in the new file, by its number there: these can take a comment."""
        return {line.new: line for hunk in self.hunks for line in hunk.lines if line.new is not None}

    @property
    def line_count(self) -> int:
        """How many lines its hunks hold, context included."""
        return sum(len(hunk.lines) for hunk in self.hunks)

    @property
    def changed_count(self) -> int:
        """How many lines it adds and removes."""
        return sum(line.kind is not LineKind.CONTEXT for hunk in self.hunks for line in hunk.lines)


def parse(patch: str) -> tuple[FileDiff, ...]:
    """Read a whole patch, as `git diff`, `git show`, `git format-patch` or `diff -u` write it.

    Text around the diffs is skipped. A blank patch has no files.

    Raises:
        DiffError: the text is not blank and holds no diff.
    """
    lines = _lines(patch)
    files = tuple(_read(section, lines) for section in _split(lines))
    if not files and "".join(lines).strip():
        if any(_HUNK.match(line) for line in lines):
            raise DiffError(
                "the diff does not say which file it changes: lines like `--- a/FILE` and `+++ b/FILE` "
                "must stand before the first `@@`"
            )
        raise DiffError("there is no diff in the text: give it the output of `git diff` or `diff -u`")
    return files


def parse_file(diff: str, *, old_path: str | None, new_path: str | None) -> FileDiff:
    """Read the diff of one file whose paths are known, as GitLab sends it: hunks without a header.

    A path is None on the side where the file does not exist. Symlinks cannot be told from other files here.
    """
    lines = _lines(diff)
    section, *others = _split(lines, _Section(0, _Kind.GIT))
    if others:
        section.break_at(others[0].start, "a second file begins")
    return _file_diff(section, lines, _Names(old_path, new_path, _change(old_path, new_path)))


# --- where files and hunks begin and end

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@", re.ASCII)
_HEADER = re.compile(
    r"(old mode|new mode|deleted file mode|new file mode|copy from|copy to|rename from|rename to"
    r"|similarity index|dissimilarity index|index|Binary files|GIT binary patch)(?: (.*))?$",
    re.DOTALL,
)
_BINARY = re.compile(r"Binary files (.+) and (.+) differ\r?$")
_DIFFER = (" differ", " differ\r")
_SUBMODULE = re.compile(r"Submodule (.+) [0-9a-f]{7,64}\.{2,3}[0-9a-f]{7,64}\b")
_POINTER = re.compile(r"[-+]Subproject commit [0-9a-f]{40,64}(?:-dirty)?\r?$")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_SIGNATURE = ("-- ", "--", "-- \r")  # ends a patch of `git format-patch`
_NO_FILE = "/dev/null"


class _Kind(enum.Enum):
    GIT = enum.auto()  # a header of its own, then perhaps `---`, `+++` and hunks
    PLAIN = enum.auto()  # `---`, `+++` and hunks
    COMBINED = enum.auto()
    BINARY = enum.auto()  # one line outside of any header, and so is the next
    SUBMODULE = enum.auto()


@dataclass(slots=True)
class _Section:
    """The lines that speak of one file; all numbers are indexes into the patch's lines."""

    start: int
    kind: _Kind
    header: dict[str, str] = field(default_factory=dict)
    names: int | None = None  # where `---` stands; `+++` follows it
    hunks: list[tuple[int, int]] = field(default_factory=list)
    ended: bool = False  # text that is no diff came after it
    broken: str | None = None

    @property
    def in_header(self) -> bool:
        return self.kind is _Kind.GIT and self.names is None and not self.hunks and not self.ended

    def break_at(self, at: int, why: str) -> None:
        self.broken = self.broken or f"the diff is broken at line {at + 1}: {why}"

    def take(self, at: int, line: str) -> None:
        """Look at a line that is in no hunk and begins no file."""
        if self.in_header and (known := _HEADER.match(line)):
            self.header[known[1]] = (known[2] or "").removesuffix("\r")
        elif self.ended or line[:1] in ("", "\r", "\\"):
            return
        elif line[0] in "+- " and line not in _SIGNATURE:
            self.break_at(at, "this line is in no hunk")
        else:
            self.ended = True

    def take_hunk(self, at: int, lines: Sequence[str]) -> int:
        """Note the hunk that begins here; says where it ends."""
        head = _HUNK.match(lines[at])
        if self.ended:
            self.break_at(at, "a hunk follows on lines that are no part of a diff")
        if head is None or head[2] == head[4] == "0":
            self.break_at(at, "this is no hunk that can be read")
            return at + 1
        end = _hunk_end(lines, at, head)
        self.hunks.append((at, end))
        return end


def _lines(text: str) -> list[str]:
    lines = text.removeprefix("\ufeff").split("\n")
    return lines if lines[-1] else lines[:-1]


def _split(lines: Sequence[str], opened: _Section | None = None) -> list[_Section]:
    """Find the files of a patch. Lines inside hunks are counted, never taken for headers."""
    sections = [opened] if opened else []
    at = 0
    while at < len(lines):
        section = sections[-1] if sections else None
        kind = _opens(lines, at, section)
        if kind is not None:
            names = at if kind is _Kind.PLAIN else None
            sections.append(_Section(at, kind, names=names))
            at += 1 if names is None else 2
        elif section is None or section.kind is _Kind.COMBINED:
            at += 1
        elif _is_names(lines, at):
            section.names = at
            at += 2
        elif lines[at].startswith("@@ -"):
            at = section.take_hunk(at, lines)
        else:
            section.take(at, lines[at])
            at += 1
    return sections


def _opens(lines: Sequence[str], at: int, section: _Section | None) -> _Kind | None:
    """What kind of section the line opens, if it opens one after this section."""
    line = lines[at]
    if line.startswith("diff --git "):
        return _Kind.GIT
    if line.startswith(("diff --cc ", "diff --combined ")):
        return _Kind.COMBINED
    if section and section.kind is _Kind.COMBINED:
        return None
    if _SUBMODULE.match(line):
        return _Kind.SUBMODULE
    if (section is None or not section.in_header) and _is_names(lines, at):
        return _Kind.PLAIN
    return _Kind.BINARY if (section is None or not section.in_header) and _is_binary(line) else None


def _is_binary(line: str) -> bool:
    # the plain checks first: the pattern alone takes quadratic time on a long line that does not match
    return line.startswith("Binary files ") and line.endswith(_DIFFER) and _BINARY.match(line) is not None


def _is_names(lines: Sequence[str], at: int) -> bool:
    return lines[at].startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ ")


def _hunk_end(lines: Sequence[str], start: int, head: re.Match[str]) -> int:
    """The index after the hunk's last line, by the counts of its head or where its lines stop before that."""
    old, new = (int(count or "1") for count in head.group(2, 4))
    at = start + 1
    while at < len(lines) and (old > 0 or new > 0):
        mark = lines[at][:1]
        if mark == "+":
            new -= 1
        elif mark == "-":
            old -= 1
        elif mark in ("", " ") or lines[at] == "\r":  # mail programs cut the blank of an empty context line
            old -= 1
            new -= 1
        elif mark != "\\":
            break
        at += 1
    # when the counts are wrong, its last lines may be the names of the next file
    names = at - 1 if old == new == 0 else at - 2
    for begin in range(max(names, start + 1), at):
        if _is_names(lines, begin) and any(map(_HUNK.match, lines[begin + 2 : begin + 3])):
            return begin
    return at


# --- from a section to a file


@dataclass(frozen=True, slots=True)
class _Names:
    old: str | None
    new: str | None
    change: Change


def _read(section: _Section, lines: Sequence[str]) -> FileDiff:
    first = lines[section.start].removesuffix("\r")
    match section.kind:
        case _Kind.GIT:
            return _file_diff(section, lines, _git_names(section, lines))
        case _Kind.PLAIN:
            return _file_diff(section, lines, _plain_names(section, lines))
        case _Kind.COMBINED:
            path = _path(first.split(" ", 2)[2])
            reason = "combined diff of a merge: review the merge's result against its first parent instead"
            return FileDiff(path, path, Change.MODIFIED, (), reason)
        case _Kind.BINARY:
            [(said_old, said_new)] = _BINARY.findall(first)
            old, new = _stripped(_path(said_old), _path(said_new))
            return FileDiff(old, new, _plain_change(old, new), (), "binary file")
        case _Kind.SUBMODULE | _:
            [path] = _SUBMODULE.findall(first)
            return FileDiff(path, path, Change.MODIFIED, (), "submodule")


def _git_names(section: _Section, lines: Sequence[str]) -> _Names:
    header = section.header
    for verb, change in (("rename", Change.RENAMED), ("copy", Change.COPIED)):
        if f"{verb} from" in header and f"{verb} to" in header:
            return _Names(_path(header[f"{verb} from"]), _path(header[f"{verb} to"]), change)
    both = _both(lines[section.start].removesuffix("\r").removeprefix("diff --git "))
    said = both if section.names is None else _said(lines, section.names)
    old, new = _stripped(said[0] or both[0], said[1] or both[1])
    if "new file mode" in header or said[0] is None:
        old = None
    elif "deleted file mode" in header or said[1] is None:
        new = None
    return _Names(old, new, _change(old, new))


def _plain_names(section: _Section, lines: Sequence[str]) -> _Names:
    old, new = _stripped(*_said(lines, section.start))
    head = _HUNK.match(lines[section.hunks[0][0]]) if section.hunks else None
    if head and new and head.group(1, 2) == ("0", "0"):
        old = None
    elif head and old and head.group(3, 4) == ("0", "0"):
        new = None
    return _Names(old, new, _plain_change(old, new))


def _plain_change(old: str | None, new: str | None) -> Change:
    """Two names do not mean a rename here: they may be `FILE.orig` and `FILE`."""
    change = _change(old, new)
    return Change.MODIFIED if change is Change.RENAMED else change


def _said(lines: Sequence[str], at: int) -> tuple[str | None, str | None]:
    """The names in the `---` and `+++` lines; None for no file."""
    old, new = (_path(line[4:].removesuffix("\r").partition("\t")[0]) for line in lines[at : at + 2])
    return (None if old == _NO_FILE else old), (None if new == _NO_FILE else new)


def _both(rest: str) -> tuple[str, str]:
    """The two names in a `diff --git` line: where they count, they are the same but for the prefix."""
    if quoted := re.fullmatch(f"({_QUOTED}) ({_QUOTED})", rest):
        return _path(quoted[1]), _path(quoted[2])
    half = len(rest) // 2
    old, new = rest[:half], rest[half + 1 :]
    if rest[half : half + 1] == " " and old.partition("/")[2] == new.partition("/")[2]:
        return old, new
    old, blank, new = rest.partition(" b/")
    return (old, f"b/{new}") if blank else (rest, rest)


def _stripped(old: str | None, new: str | None) -> tuple[str | None, str | None]:
    """The names without the prefixes `a/` and `b/` (or others, where all the rest is the same)."""
    old, new = (None if old == _NO_FILE else old), (None if new == _NO_FILE else new)
    if old is None or new is None:
        return old and old.removeprefix("a/"), new and new.removeprefix("b/")
    (old_top, _, old_rest), (new_top, _, new_rest) = old.partition("/"), new.partition("/")
    told_apart = old_top != new_top and old_rest and new_rest
    if told_apart and (old_rest == new_rest or (old_top, new_top) == ("a", "b")):
        return old_rest, new_rest
    return old, new


def _path(name: str) -> str:
    """A path as it stands in a diff, out of git's quotes where it is in them."""
    if not re.fullmatch(_QUOTED, name):
        return name
    raw = re.sub(rb"\\([0-7]{3}|.)", _unescape, name[1:-1].encode("utf-8", "replace"))
    return raw.decode("utf-8", "replace")


_ESCAPES = dict(zip(b"abtnvfr", b"\a\b\t\n\v\f\r", strict=True))


def _unescape(escape: re.Match[bytes]) -> bytes:
    code = escape[1]
    return bytes([int(code, 8) & 0xFF if len(code) > 1 else _ESCAPES.get(code[0], code[0])])


def _change(old: str | None, new: str | None) -> Change:
    if old is None:
        return Change.ADDED
    if new is None:
        return Change.DELETED
    return Change.MODIFIED if old == new else Change.RENAMED


def _file_diff(section: _Section, lines: Sequence[str], names: _Names) -> FileDiff:
    unreadable = _unreadable(section, lines, names)
    hunks: tuple[Hunk, ...] = ()
    if unreadable is None:
        try:
            hunks = _hunks(section, lines)
        except DiffError as error:
            unreadable = str(error)
    return FileDiff(names.old, names.new, names.change, hunks, unreadable)


def _unreadable(section: _Section, lines: Sequence[str], names: _Names) -> str | None:
    """Why the file cannot be read, as far as that shows without reading its hunks."""
    if reason := _not_text(section, lines) or section.broken:
        return reason
    if (names.old is None and names.new is None) or "" in {names.old, names.new}:
        return "the diff does not name the file"
    if not section.hunks:
        return _without_hunks(section.header, names.change)
    count = sum(end - first - 1 for first, end in section.hunks)
    return f"too large: {count:,} lines (limit {MAX_FILE_LINES:,})" if count > MAX_FILE_LINES else None


def _not_text(section: _Section, lines: Sequence[str]) -> str | None:
    header = section.header
    modes = {value[-6:] for key, value in header.items() if key.endswith("mode") or key == "index"}
    first, end = section.hunks[0] if len(section.hunks) == 1 else (0, 1)
    if "160000" in modes or (end - first > 1 and all(map(_POINTER.match, lines[first + 1 : end]))):
        return "submodule"
    if "120000" in modes:
        return "symlink"
    return "binary file" if "Binary files" in header or "GIT binary patch" in header else None


def _without_hunks(header: dict[str, str], change: Change) -> str:
    if change in {Change.RENAMED, Change.COPIED}:
        return f"{change} without a change"
    if "new file mode" in header or "deleted file mode" in header:
        return "empty file"
    return "mode change only" if "new mode" in header else "the diff shows no line of it"


_KINDS = {kind.value: kind for kind in LineKind}


def _hunks(section: _Section, lines: Sequence[str]) -> tuple[Hunk, ...]:
    last = section.start

    def feed() -> Iterator[str]:
        nonlocal last
        yield from ("--- a\n", "+++ b\n")
        for first, end in section.hunks:
            for last in range(first, end):  # where unidiff stopped: its errors name no line
                if not lines[last].startswith("\\"):
                    yield lines[last] + "\n"

    try:
        (patched,) = PatchSet(feed())
    except UnidiffParseError:
        section.break_at(last, "the hunk does not have the lines that its head counts")
        raise DiffError(section.broken) from None
    old_next = new_next = 1
    for (at, _), hunk in zip(section.hunks, patched, strict=True):
        old, new = hunk.source_start + (not hunk.source_length), hunk.target_start + (not hunk.target_length)
        if old < old_next or new < new_next:
            section.break_at(at, "the hunk overlaps the one before it")
            raise DiffError(section.broken)
        old_next, new_next = old + hunk.source_length, new + hunk.target_length
    return tuple(Hunk(tuple(map(_line, hunk)), hunk.section_header.removesuffix("\r")) for hunk in patched)


def _line(line: UnidiffLine) -> Line:
    text = line.value.removesuffix("\n").removesuffix("\r")
    return Line(_KINDS[line.line_type], text, line.source_line_no, line.target_line_no)
