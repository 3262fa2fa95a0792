"""What the bot needs of a forge: values and a protocol. `bot.gitlab` keeps it for GitLab; nothing here does I/O."""

# ruff: noqa: N818 -- the errors here are named for what happened; all are a ForgeError

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from bot.diff import FileDiff
from bot.domain import MergeRef, NotRead

SUMMARY_MARKER = "<!-- apprentice:summary:v1 -->"
"""The last line of the bot's summary note, by which it is found again (its author must be the bot)."""


class ForgeError(RuntimeError):
    """The forge did not do what was asked. The message says what was tried, what happened and the way out."""


class ForgeUnreachable(ForgeError):
    """Nobody answers there, or not in time. To be tried again later."""


class ForgeBusy(ForgeError):
    """It asks for patience (429) or fails for the moment (5xx). To be tried again, and no attempt is spent.

    Args:
        message: as in every `ForgeError`.
        retry_after: seconds to wait by its own word; None where it gave none.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ForgeDenied(ForgeError):
    """401 or 403: the token is wrong or expired, or its user may not do that. Final until an operator acts."""


class NotFound(ForgeError):
    """404: it is not there, or the token's user may not see it; GitLab does not tell which. Final."""


class ForgeRefused(ForgeError):
    """Another 4xx, or an answer that is none: the request was not to its taste. Final.

    Args:
        message: as in every `ForgeError`.
        status: the HTTP status of the answer.
        said: the forge's own words.
    """

    def __init__(self, message: str, *, status: int = 400, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class UntrustedForge(ForgeError):
    """The forge's certificate is signed by nobody whom this machine trusts."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the forge; `bot` as far as it tells (project, group and service accounts)."""

    id: int
    username: str
    bot: bool = False


@dataclass(frozen=True, slots=True)
class DiffRefs:
    """The three commits that a position in a diff needs: merge base, start and head (full SHAs)."""

    base: str
    start: str
    head: str


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """A merge request as it is now.

    Args:
        ref: its project and number.
        title: one line; `description`: what the author wrote.
        author: who opened it.
        state: opened, closed, merged or locked.
        draft: not ready for review.
        source_branch: where the change comes from; `source_project`: of which project (a fork's differs).
        target_branch: where it goes to; policy is read from there.
        refs: None for a moment after it was opened, until the forge has prepared its diff.
        web_url: its page.
        reviewers: ids of the people who were asked for a review.
        changes_count: how many files change, as the forge writes it: "3", or "1000+" where it stopped counting.
        commented: False where the forge says that nobody, the bot neither, has written a note on it.
    """

    ref: MergeRef
    title: str
    description: str
    author: Person
    state: Literal["opened", "closed", "merged", "locked"]
    draft: bool
    source_branch: str
    source_project: int
    target_branch: str
    refs: DiffRefs | None
    web_url: str
    reviewers: tuple[int, ...] = ()
    changes_count: str = ""
    commented: bool = True


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a comment stands in a diff: its last line, and the first one where it spans several.

    An added line has only a new number, a removed one only an old number, a context line both. Without any line the
    comment stands at the file. The codes are the forge's names of the two lines; only `bot.position.anchor` knows them.
    """

    old_path: str
    new_path: str
    old_line: int | None
    new_line: int | None
    start_old: int | None = None
    start_new: int | None = None
    line_code: str = ""
    start_code: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """One comment of a discussion.

    Args:
        id: the forge's number of it.
        author: who wrote it.
        body: Markdown.
        system: written by the forge itself ("added 1 commit").
        created_at: when.
        resolvable: whether it can be resolved; `resolved`: whether it is, and `resolved_by` whom.
        anchor: where it stands in the newest version of the diff, None for a general one.
        head: the head SHA that the anchor speaks of.
        suggestion_applied: somebody applied its suggestion.
    """

    id: int
    author: Person
    body: str
    system: bool
    created_at: datetime
    resolvable: bool = False
    resolved: bool = False
    resolved_by: Person | None = None
    anchor: Anchor | None = None
    head: str | None = None
    suggestion_applied: bool = False


@dataclass(frozen=True, slots=True)
class Discussion:
    """A thread: at least one note, oldest first."""

    id: str
    notes: tuple[Note, ...]

    @property
    def resolved(self) -> bool:
        """Whether all in it that can be resolved is."""
        resolvable = [note for note in self.notes if note.resolvable]
        return bool(resolvable) and all(note.resolved for note in resolvable)


@dataclass(frozen=True, slots=True)
class Award:
    """An emoji that a person gave to a note. `id` is the forge's number of the award."""

    id: int
    name: str
    person: Person
    at: datetime


@dataclass(frozen=True, slots=True)
class ReadChange:
    """The diff of a merge request, and the files whose diff the forge does not give, with the reason."""

    files: tuple[FileDiff, ...]
    not_read: tuple[NotRead, ...]


@dataclass(frozen=True, slots=True)
class Comment:
    """A finding on its way to the forge: its fingerprint, the note's Markdown, and where it shall stand."""

    fingerprint: str
    body: str
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Posted:
    """A finding that stands on the merge request: at its line, or at its file where the line was refused."""

    fingerprint: str
    discussion: str
    note: int
    where: Literal["line", "file"]


@dataclass(frozen=True, slots=True)
class NotPosted:
    """A finding that the forge took nowhere; it goes into the summary."""

    fingerprint: str
    reason: str


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of each comment of a review."""

    posted: tuple[Posted, ...]
    not_posted: tuple[NotPosted, ...]


StatusState = Literal["pending", "success", "failed", "canceled"]
"""What a commit status says; canceled: there will be no review of this head."""


class Forge(Protocol):
    """A forge. Every method may raise a `ForgeError`; none repeats a write blindly."""

    def me(self) -> Person:
        """The bot's own user; asked once."""
        ...

    def merge_request(self, ref: MergeRef) -> MergeRequest:
        """A merge request as it is now."""
        ...

    def read_change(self, merge: MergeRequest) -> ReadChange:
        """Its whole diff, from base to head."""
        ...

    def changed_since(self, merge: MergeRequest, head: str) -> tuple[FileDiff, ...] | None:
        """What its commits changed since an earlier head; None where nobody can tell (a force-push, too much)."""
        ...

    def read_file(self, project: int, path: str, ref: str) -> str | None:
        """The text of a file at a commit or branch; None where there is none, or no text."""
        ...

    def discussions(self, ref: MergeRef) -> tuple[Discussion, ...]:
        """All threads, oldest first."""
        ...

    def publish(self, merge: MergeRequest, comments: Sequence[Comment], *, again: bool) -> Publication:
        """Post findings as one review with one notification.

        Args:
            merge: the version that the anchors speak of.
            comments: what to post; one whose fingerprint stands there already is not posted twice.
            again: an earlier attempt may have got somewhere: look at what stands there first.
        """
        ...

    def write_summary(self, ref: MergeRef, body: str, note: int | None) -> int:
        """Write the summary note, in place where there is one (`note`, if known); returns its number."""
        ...

    def reply(self, ref: MergeRef, discussion: str, body: str) -> int:
        """Answer in a thread; returns the note's number."""
        ...

    def resolve(self, ref: MergeRef, discussion: str) -> None:
        """Resolve a thread."""
        ...

    def delete_note(self, ref: MergeRef, discussion: str, note: int) -> None:
        """Withdraw a note of the bot; one that is gone already is fine."""
        ...

    def seed(self, ref: MergeRef, note: int, names: Sequence[str]) -> None:
        """Give a note emoji by name, so that people only need to click; those that stand there are fine."""
        ...

    def awards(self, ref: MergeRef, note: int) -> tuple[Award, ...]:
        """The emoji of a note, the bot's own too."""
        ...

    def access_level(self, project: int, person: int) -> int:
        """A person's level in a project, inherited ones too: 30 is Developer, 40 Maintainer; 0 is none."""
        ...

    def set_status(self, merge: MergeRequest, state: StatusState, description: str) -> None:
        """Set the commit status `apprentice` of its head."""
        ...

    def updated_since(self, project: int, since: datetime) -> Iterator[MergeRequest]:
        """Open merge requests of a project that changed since then, for what no webhook told (`refs` may be None)."""
        ...
