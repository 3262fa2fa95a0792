"""Decide which findings a person sees: find the quoted code in the change, then threshold, duplicates and cap.

A finding is believed only where the code that it quotes stands. The quote is looked for as words and signs, so
white space does not count; its place then replaces the line that the student claimed. Nothing is dropped: what
is not shown keeps its reason.
"""

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bot.diff import FileDiff, LineKind
from bot.domain import Finding, HiddenReason, Judged
from bot.policy import Policy

MAX_QUOTE = 4_000
"""Characters of quoted lines. Of longer ones, minified code for example, only the quoted part is kept."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finding as the student said it; `refuted` when the second look did not confirm it."""

    finding: Finding
    refuted: bool = False


def triage(candidates: Sequence[Candidate], files: Sequence[FileDiff], policy: Policy) -> tuple[Judged, ...]:
    """Judge every candidate.

    Args:
        candidates: what the student said; their order does not matter.
        files: the change.
        policy: threshold, confidence floor and cap.

    Returns:
        One judged finding for each candidate, worst first: by severity, then those on changed lines before those
        on context lines only, then by confidence (an unknown one last), file and line.
    """
    codes: dict[str, list[_Code]] = {}
    for file in files:  # a patch of several commits may hold a file more than once
        codes.setdefault(file.path, []).append(_Code(file))
    located = [_locate(candidate, codes.get(candidate.finding.file, [])) for candidate in candidates]
    threshold_for = functools.cache(policy.threshold_for)
    said: set[tuple[object, ...]] = set()
    shown = 0
    judged: list[Judged] = []
    for found in sorted(located, key=lambda found: found.order):
        finding = found.finding
        same = {(finding.fingerprint,), (finding.file, finding.line, finding.category)}
        hidden: HiddenReason | None = None
        if not found.verified:
            hidden = HiddenReason.UNVERIFIED
        elif found.refuted:
            hidden = HiddenReason.REFUTED
        elif finding.severity < threshold_for(finding.file):
            hidden = HiddenReason.BELOW_THRESHOLD
        elif finding.confidence is not None and finding.confidence < policy.min_confidence:
            hidden = HiddenReason.LOW_CONFIDENCE
        elif said & same:  # the worse and the surer one came before it
            hidden = HiddenReason.DUPLICATE
        else:
            said |= same
            shown += 1
            hidden = HiddenReason.OVER_CAP if shown > policy.max_findings else None
        judged.append(Judged(finding, hidden))
    return tuple(judged)


@dataclass(frozen=True, slots=True)
class _Located:
    """A finding at the place of its quote or, when that was not found, at the one that was claimed."""

    finding: Finding
    refuted: bool
    verified: bool
    changed: bool  # an added line is in its place

    @property
    def order(
        self,
    ) -> tuple[tuple[int, bool, float, str, int, int], tuple[str, str, str, str, bool, str], tuple[bool, bool]]:
        """Worst first; all fields count, so the order is total."""
        it = self.finding
        confidence = -1.0 if it.confidence is None else it.confidence
        return (
            (-it.severity.rank, not self.changed, -confidence, it.file, it.line, it.end_line),
            (it.category, it.title, it.explanation, it.quote, it.suggestion is None, it.suggestion or ""),
            (self.refuted, not self.verified),
        )


def _locate(candidate: Candidate, codes: "Sequence[_Code]") -> _Located:
    finding = candidate.finding
    places = [(place, code) for code in codes if (place := code.nearest(finding.quote, finding.line))]
    if not places:
        unverified = replace(finding, suggestion=None)
        return _Located(unverified, candidate.refuted, verified=False, changed=False)
    place, code = min(places, key=lambda found: abs(found[0].first - finding.line))
    verified = replace(
        finding,
        line=place.first,
        end_line=place.last,
        quote=code.quote(place),
        suggestion=_suggestion(finding, place, code),
    )
    return _Located(verified, candidate.refuted, verified=True, changed=code.is_changed(place))


# --- where a quote stands

_TOKEN = re.compile(r"\w+|[^\w\s]")
_MIN_LINE = 3  # characters of a quote that is a whole line: `}` or `fi` says nothing about where it stands
_MIN_PART = 3  # letters and digits of a quote that is a part of a line
_CUT_FROM = 100  # characters; the last word of so long a quote may be cut, an answer's strings are bounded

# What a student copies from the prompt or from a diff: `   12 + code`, `12: code`, `12| code`, `+code`
_GUTTER = re.compile(r"\A\s*(?:\d{1,7}\s*[:|]?)?\s*(?P<sign>[+-])?(?P<code>.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Place:
    """Lines of the new file, first and last, and where the quote is in the text of `_Code`.

    `whole` tells a quote of whole lines from a part of lines; `reading` is 0 when it stands there as it was
    said, without taking marks away.
    """

    first: int
    last: int
    start: int
    end: int
    whole: bool
    reading: int = 0


class _Code:
    """The new side of one file's hunks, as one text of words and signs with a blank around each."""

    def __init__(self, file: FileDiff) -> None:
        self._lines = file.new_lines
        self._numbers: list[int] = []  # of the lines that are not blank
        self._starts: list[int] = []  # where in the text these lines begin ...
        self._ends: list[int] = []  # ... and end
        parts = [" "]
        at, before = 1, 0
        for number in sorted(self._lines):
            if number != before + 1:  # between hunks: no quote holds "\n", so none reaches across
                parts.append("\n ")
                at += 2
            before = number
            if words := _words(self._lines[number].text):
                self._numbers.append(number)
                self._starts.append(at)
                self._ends.append(at + len(words))
                parts.append(f"{words} ")
                at += len(words) + 1
        self._text = "".join(parts)
        self._places = functools.cache(self._find)
        self.quote = functools.cache(self._quote)

    def nearest(self, quote: str, line: int) -> _Place | None:
        """Find the quote; where it stands more than once, take the place nearest to this line.

        At the same distance whole lines win, then the quote as it was said, then added lines, then the upper.
        """
        places = [
            replace(place, reading=reading)
            for reading, words in enumerate(_readings(quote))
            for some in self._places(words)
            for place in _neighbours(some, line)
        ]
        return min(
            places,
            key=lambda it: (abs(it.first - line), not it.whole, it.reading, not self.is_changed(it), it.first),
            default=None,
        )

    def is_changed(self, place: _Place) -> bool:
        return any(self._lines[number].kind is LineKind.ADDED for number in range(place.first, place.last + 1))

    def lines(self, place: _Place) -> list[str]:
        return [self._lines[number].text for number in range(place.first, place.last + 1)]

    def _find(self, words: str) -> tuple[list[_Place], list[_Place]]:
        """All places of whole lines, then all others, each from the top."""
        whole: list[_Place] = []
        parts: list[_Place] = []
        characters = sum(map(str.isalnum, words))
        at = self._text.find(f" {words} ") if characters else -1
        while at >= 0:
            start, end = at + 1, at + 1 + len(words)
            first = bisect.bisect_right(self._starts, start) - 1
            last = bisect.bisect_right(self._starts, end - 1) - 1
            is_whole = start == self._starts[first] and end == self._ends[last]
            place = _Place(self._numbers[first], self._numbers[last], start, end, is_whole)
            if is_whole and len(words) - words.count(" ") >= _MIN_LINE:
                whole.append(place)
            elif not is_whole and characters >= _MIN_PART:
                parts.append(place)
            at = self._text.find(f" {words} ", start)
        return whole, parts

    def _quote(self, place: _Place) -> str:
        """The lines as they stand in the diff, or the quoted part of very long ones."""
        lines = self.lines(place)
        if sum(map(len, lines)) + len(lines) - 1 <= MAX_QUOTE:
            return "\n".join(lines)
        end = self._column(place.last, place.end - 1).end()
        start = self._column(place.first, place.start).start()
        lines[-1] = lines[-1][:end]
        lines[0] = lines[0][start:]
        return "\n".join(lines)

    def _column(self, number: int, at: int) -> re.Match[str]:
        """The word or sign in this line of the file that is at this place in the text."""
        start = self._starts[bisect.bisect_left(self._numbers, number)]
        before = self._text.count(" ", start, at)
        matches = _TOKEN.finditer(self._lines[number].text)
        return next(match for count, match in enumerate(matches) if count == before)


def _words(text: str) -> str:
    return " ".join(_TOKEN.findall(text))


def _readings(quote: str) -> Iterator[str]:
    """What the student may have meant: its words as they are, without copied marks, without a cut last word."""
    words = _words(quote)
    yield words
    unfenced = "\n".join(line for line in quote.splitlines() if not line.lstrip().startswith("```"))
    rows = (_GUTTER.sub(_without_gutter, line) for line in unfenced.strip().strip("`").splitlines())
    plain = _words("\n".join(rows).strip().removesuffix("...").removesuffix("…"))
    if plain != words:
        yield plain
    if len(quote) >= _CUT_FROM:
        yield plain.rpartition(" ")[0]


def _without_gutter(row: re.Match[str]) -> str:
    return "" if row["sign"] == "-" else row["code"]


def _neighbours(places: list[_Place], line: int) -> Iterator[_Place]:
    """The place at or next below this line, and the one next above it."""
    after = bisect.bisect_left(places, line, key=lambda place: place.first)
    if after < len(places):
        yield places[after]
    if after:
        above = places[after - 1].first
        yield places[bisect.bisect_left(places, above, key=lambda place: place.first)]


# --- the suggestion


def _suggestion(finding: Finding, place: _Place, code: _Code) -> str | None:
    """Keep a suggestion only where it can replace exactly the quoted lines, changes them, and is code.

    It is given the indentation of the code where the student left that out of quote and suggestion alike.
    """
    lines = code.lines(place)
    said = (finding.suggestion or "").replace("\r\n", "\n").removesuffix("\n")
    as_claimed = place.last - place.first == finding.end_line - finding.line
    if not said.strip() or not place.whole or place.reading or not as_claimed:
        return None
    if _is_advice(said, "\n".join(lines)):
        return None
    have, own = _indent("\n".join(lines)), _indent(said)
    rows = [row.rstrip() for row in said.split("\n")]
    if own != have:
        if own != _indent(finding.quote) or not all(row.startswith(own) for row in rows if row):
            return None
        rows = [have + row.removeprefix(own) if row else row for row in rows]
    return None if rows == [line.rstrip() for line in lines] else "\n".join(rows)


_PROSE = re.compile(r"\s*[A-Z][a-z]+(?: [a-z']+,?){3}|[^`]*`[^`]*`")


def _is_advice(said: str, code: str) -> bool:
    """Whether it speaks about the code instead of being code, as small students often do."""
    return bool(_PROSE.match(said)) and not _PROSE.match(code)


def _indent(text: str) -> str:
    """The white space before the first line that is not blank."""
    return text[: len(text) - len(text.lstrip())].rpartition("\n")[2]
