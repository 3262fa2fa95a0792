"""The bot's own threads on a merge request: what is said already, what is dismissed, what is no longer true.

A thread is the bot's when its first note is the bot's and ends with a finding's marker (`bot.comment`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bot.comment import parse_marker
from bot.diff import FileDiff
from bot.domain import Finding, HiddenReason, Judged, Vote
from bot.feedback import Opinion, read_reply
from bot.forge import Discussion, Note, Person, ReadChange
from bot.policy import Policy

OUTDATED = "The code that this is about is no longer part of the change, so I resolve this thread."
"""What the bot says when it resolves an outdated thread."""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread that the bot began, and its finding.

    `replies` are those of people: neither of the bot, nor of other bots, nor of the forge itself.
    """

    discussion: Discussion
    finding: Finding
    replies: tuple[Note, ...]

    @property
    def note(self) -> Note:
        """The bot's note with the finding."""
        return self.discussion.notes[0]

    @property
    def open(self) -> bool:
        """Whether nobody resolved it yet."""
        return not self.discussion.resolved


def own_threads(discussions: Iterable[Discussion], bot: int) -> tuple[Thread, ...]:
    """The bot's threads among these."""
    threads = (own_thread(discussion, bot) for discussion in discussions)
    return tuple(thread for thread in threads if thread)


def own_thread(discussion: Discussion, bot: int) -> Thread | None:
    """This thread with its finding, where it is the bot's."""
    first, *others = discussion.notes
    finding = parse_marker(first.body) if first.author.id == bot else None
    replies = tuple(note for note in others if not note.system and _is_human(note.author, bot))
    return Thread(discussion, finding, replies) if finding else None


def _is_human(person: Person, bot: int) -> bool:
    return person.id != bot and not person.bot


# --- what is not said, or not again


@dataclass(frozen=True, slots=True)
class Before:
    """What was said on the merge request in earlier reviews, and what people did not want to hear.

    `gone` are fingerprints of posted findings whose note is no longer there: somebody withdrew or deleted it.
    """

    said: tuple[Finding, ...] = ()
    dismissed: tuple[Finding, ...] = ()
    gone: frozenset[str] = frozenset()

    def reason_to_hide(self, finding: Finding) -> HiddenReason | None:
        """Why a finding is not said (again); None for a new one."""
        if finding.fingerprint in self.gone or any(_same(finding, other) for other in self.dismissed):
            return HiddenReason.DISMISSED
        return HiddenReason.ALREADY_SAID if any(_same(finding, other) for other in self.said) else None


def look_back(threads: Sequence[Thread], bot: int, *, posted: Iterable[str], votes: Iterable[Vote]) -> Before:
    """Gather what was said before.

    A thread that the bot resolved itself, because its code was gone, does not count as said: should the code come
    back, so does the finding.

    Args:
        threads: the bot's threads.
        bot: the bot's own id in the forge.
        posted: fingerprints of all that was ever posted on this merge request, by the bot's own book.
        votes: the effective votes on this merge request.
    """
    rejected = {vote.fingerprint for vote in votes if not vote.up}
    dismissed = [thread for thread in threads if thread.finding.fingerprint in rejected or _is_dismissed(thread, bot)]
    said = [thread for thread in threads if thread.open or not _is_resolved_by(thread, bot)]
    return Before(
        said=tuple(thread.finding for thread in said),
        dismissed=tuple(thread.finding for thread in dismissed),
        gone=frozenset(posted) - {thread.finding.fingerprint for thread in threads},
    )


def _is_dismissed(thread: Thread, bot: int) -> bool:
    """Whether somebody's last word rejects it, or a person resolved it."""
    opinions: dict[int, Opinion] = {}
    for reply in thread.replies:
        if opinion := read_reply(reply.body):
            opinions[reply.author.id] = opinion
    if any(not opinion.up for opinion in opinions.values()):
        return True
    resolver = thread.note.resolved_by
    return not thread.open and (resolver is None or _is_human(resolver, bot))


def _is_resolved_by(thread: Thread, person: int) -> bool:
    return thread.note.resolved_by is not None and thread.note.resolved_by.id == person


_MIN_CODE = 12  # characters without blanks: shorter code, within other code, says nothing


def _same(one: Finding, other: Finding) -> bool:
    """Whether two findings are the same, also where the student quoted a line more or less the second time."""
    if one.fingerprint == other.fingerprint:
        return True
    short, long = sorted((_without_blanks(one.quote), _without_blanks(other.quote)), key=len)
    return (one.file, one.category) == (other.file, other.category) and len(short) >= _MIN_CODE and short in long


def withhold(judged: Sequence[Judged], before: Before, policy: Policy) -> tuple[Judged, ...]:
    """Hide what was said before or dismissed; what comes after it in `bot.triage`'s order moves up below the cap."""
    shown = 0
    result: list[Judged] = []
    for each in judged:
        hidden = each.hidden
        if hidden in {None, HiddenReason.OVER_CAP}:
            hidden = before.reason_to_hide(each.finding)
            shown += hidden is None
            if hidden is None and shown > policy.max_findings:
                hidden = HiddenReason.OVER_CAP
        result.append(Judged(each.finding, hidden))
    return tuple(result)


# --- what is no longer true


def outdated(threads: Iterable[Thread], change: ReadChange) -> tuple[Thread, ...]:
    """The threads to resolve: open, nobody but bots answered, and the quoted code is gone from the change.

    Args:
        threads: the bot's threads.
        change: the whole change, from base to the new head.
    """
    return tuple(
        thread
        for thread in threads
        if thread.open and thread.note.resolvable and not thread.replies and stands(thread.finding, change) is False
    )


_MARK = re.compile(r"\[redacted:[a-z0-9-]{1,60}\]")  # what `bot.redact` puts in a secret's place
_TOKEN = re.compile(r"\w+|[^\w\s]")


def stands(finding: Finding, change: ReadChange) -> bool | None:
    """Whether the code that a finding quotes is still part of the change; None where that cannot be told.

    White space does not count, nor what stands in the place of a secret.

    Args:
        finding: as it was posted.
        change: the whole change, from base to head, with or without its secrets.
    """
    files = [file for file in change.files if finding.file in {file.old_path, file.new_path}]
    if any(file.unreadable for file in files) or (change.not_read and not files):
        return None
    if finding.file in {missing.file for missing in change.not_read}:
        return None
    pieces = [piece for piece in _MARK.split(finding.quote) if piece.strip()]
    if not pieces:
        return None
    runs = [run for file in files for run in _runs(file)]
    if _MARK.search(finding.quote):  # a mark may stand for a part of a word
        return any(all(_without_blanks(piece) in _without_blanks(run) for piece in pieces) for run in runs)
    return any(_words(finding.quote) in _words(run) for run in runs)


def _runs(file: FileDiff) -> Iterator[str]:
    """The new side of its hunks, as texts of lines that follow each other."""
    run: list[str] = []
    for number in sorted(file.new_lines):
        if run and number - 1 not in file.new_lines:
            yield "\n".join(run)
            run = []
        run.append(file.new_lines[number].text)
    yield "\n".join(run)


def _words(text: str) -> str:
    return f" {' '.join(_TOKEN.findall(text))} "


def _without_blanks(text: str) -> str:
    return "".join(text.split())
