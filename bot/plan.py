"""Which lines go to the student in which request, and which are not read and why.

A small student answers best when it is asked for little at a time, so one request is about at most `PART_LINES`
lines of one hunk, with the enclosing function around them. Nothing is cut silently: what does not fit is split at
line boundaries with overlap, and what still does not fit is listed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bot.context import enclosing
from bot.diff import FileDiff, Hunk, Line, LineKind
from bot.domain import NotRead
from bot.policy import Policy
from bot.prompt import ELIDED, Brief, Message, Part, review_messages
from bot.redact import redact
from bot.skip import reason_to_skip

PART_LINES = 60
"""Most diff lines in one request."""
OVERLAP = 3
"""Lines that two neighbouring parts of a split hunk share, so that neither begins in mid-air."""
HEAD_LINES = 2
"""Lines of a long function's or class's beginning that are shown although it is too long to be shown whole."""
NEAR_LINES = 25
"""Lines of the enclosing function shown directly before and directly after the diff."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request: the part it is about and what the student is told about the change as a whole."""

    part: Part
    brief: Brief

    @property
    def messages(self) -> list[Message]:
        """What the student reads."""
        return review_messages(self.part, self.brief)


@dataclass(frozen=True, slots=True)
class Plan:
    """The questions of one review, in the diff's order, and what no question is about."""

    questions: tuple[Question, ...]
    not_read: tuple[NotRead, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """How much one request can hold.

    Args:
        tokens: most tokens of a prompt: the student's context less the longest answer.
        count: tokens of a text, by the base model's tokenizer.
        requests: most requests of one review.
    """

    tokens: int
    count: Callable[[str], int]
    requests: int

    def holds(self, messages: Sequence[Message]) -> bool:
        """Whether the prompt fits.

        A byte-level tokenizer never makes more tokens than there are bytes: short prompts need no counting.
        """
        texts = [message["content"] for message in messages]
        room = self.tokens - MESSAGE_TOKENS * len(texts)
        if sum(len(text.encode("utf-8", "replace")) for text in texts) <= room:
            return True
        return sum(map(self.count, texts)) <= room


MESSAGE_TOKENS = 16
"""What a chat template adds to each message, rounded up."""


def plan(
    files: Sequence[FileDiff], read_file: Callable[[str], str | None], policy: Policy, brief: Brief, room: Room
) -> Plan:
    """Divide a change into questions.

    Args:
        files: the change, redacted.
        read_file: text of a file after the change, redacted, or None where it is not known.
        policy: what the repository wants skipped, and its instructions by path.
        brief: title and description of the change.
        room: what fits one request, and how many requests there may be.
    """
    questions: list[Question] = []
    not_read: list[NotRead] = []
    for file in files:
        reason = reason_to_skip(file, policy)
        if reason is not None:
            not_read.append(NotRead(file.path, reason))
            continue
        source = read_file(file.path)
        told = replace(brief, instructions=redact(policy.instructions_for(file.path)).text, language=policy.language)
        for hunk in file.hunks:
            for found in _divide(file.path, hunk, source, told, room):
                if isinstance(found, NotRead):
                    not_read.append(found)
                elif len(questions) < room.requests:
                    questions.append(found)
                else:
                    not_read.append(_over_limit(found.part, room.requests))
    return Plan(tuple(questions), tuple(not_read))


def _over_limit(part: Part, limit: int) -> NotRead:
    return NotRead(
        part.path,
        f"lines {part.first} to {part.last}: over the limit of {limit} requests for one review "
        "(APPRENTICE_MAX_REQUESTS)",
        failed=True,
    )


def _divide(path: str, hunk: Hunk, source: str | None, brief: Brief, room: Room) -> Iterator[Question | NotRead]:
    start = 0
    while start < len(hunk.lines):
        question, count = _fitting(path, hunk.lines[start : _cut(hunk.lines, start)], source, brief, room)
        lines = hunk.lines[start : start + count]
        if _asks(lines):
            if question is None:
                room_words = f"{max(room.tokens, 0)} tokens for a prompt"
                yield NotRead(path, f"{_where(lines)}: longer than the student's context ({room_words})", failed=True)
            elif question.part.first:
                yield question
            else:
                yield NotRead(path, f"{_where(lines)}: removed, with no line beside them that can take a comment")
        overlap = OVERLAP if start + count < len(hunk.lines) and count > 2 * OVERLAP else 0
        start += count - overlap


def _asks(lines: Sequence[Line]) -> bool:
    return any(line.kind is not LineKind.CONTEXT for line in lines)


def _where(lines: Sequence[Line]) -> str:
    numbers = [number for line in lines if (number := line.new or line.old) is not None]
    return f"line {numbers[0]}" if len(numbers) == 1 else f"lines {numbers[0]} to {numbers[-1]}"


def _cut(lines: Sequence[Line], start: int) -> int:
    """End of the part that begins at `start`: by preference behind a blank line in its last third."""
    end = start + PART_LINES
    if end >= len(lines):
        return len(lines)
    blank = [at + 1 for at in range(end - PART_LINES // 3, end) if not lines[at].text.strip()]
    return blank[-1] if blank else end


def _fitting(
    path: str, lines: tuple[Line, ...], source: str | None, brief: Brief, room: Room
) -> tuple[Question | None, int]:
    """Find the longest beginning of the lines that fits, and how many lines that is; None: not even the first does.

    Rather than lines of the change, the code around them is left out.
    """
    count = len(lines)
    while True:
        part = Part(path, lines[:count])
        for candidate in (_surround(part, source), part):
            question = Question(candidate, brief)
            if room.holds(question.messages):
                return question, count
        if count == 1:
            return None, count
        count //= 2


def _surround(part: Part, source: str | None) -> Part:
    """Put the enclosing function or class around the part, shortened in its middle where it is long."""
    if source is None or not part.first:
        return part
    block = enclosing(source, part.path, part.first, part.last)
    if block is None:
        return part
    text = block.text.split("\n")
    before = text[: max(part.first - block.start, 0)]
    after = text[part.last - block.start + 1 :]
    if len(before) > HEAD_LINES + NEAR_LINES:
        before = [*before[:HEAD_LINES], ELIDED, *before[-NEAR_LINES:]]
    if len(after) > NEAR_LINES:
        after = [*after[:NEAR_LINES], ELIDED]
    return replace(part, before=tuple(before), after=tuple(after))
