"""Post findings on a merge request: as drafts, which one request publishes with one notification.

GitLab takes a draft on any line, tells only by a missing `line_code` that it will find no such line, and loses such a
draft without a word when it publishes. Its answer to a POST may be lost on the way as well. So nothing counts as posted
before it was seen among the discussions, and nothing is sent again before somebody looked whether it stands there.
A finding is known again by its marker (`bot.comment`), in notes of the bot alone.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from bot.comment import parse_marker
from bot.forge import (
    Comment,
    DiffRefs,
    Discussion,
    ForgeBusy,
    ForgeRefused,
    ForgeUnreachable,
    MergeRequest,
    Note,
    NotFound,
    NotPosted,
    Posted,
    Publication,
)
from bot.gitlab import answers
from bot.gitlab.api import Api
from bot.position import position

POSTS = 3
"""How often a POST is sent at most, where it came to nothing each time."""
SETTLE_SECONDS = 1.0
"""Between two looks at what a publishing that gave no answer has got done: it may go on."""
LOOKS = 10

_NO_SUCH_LINE = "GitLab finds no such line in the diff"

_Answer = TypeVar("_Answer", bound=answers.Answer)
_Where = Literal["line", "file"]


class Publishing:
    """One attempt to post one review.

    Args:
        api: the way to GitLab.
        merge: the version that the anchors speak of.
        refs: its commits.
        bot: the bot's own id.
    """

    def __init__(self, api: Api, merge: MergeRequest, refs: DiffRefs, bot: int) -> None:
        self._api = api
        self._refs = refs
        self._bot = bot
        self._path = f"/projects/{merge.ref.project}/merge_requests/{merge.ref.iid}"
        self._numbered = True
        self._doubtful = False
        self.discussions: tuple[Discussion, ...] = ()
        """As they were when they were read last."""

    def publish(self, comments: Iterable[Comment], *, again: bool) -> Publication:
        """See `bot.forge.Forge.publish`."""
        wanted: dict[str, Comment] = {}
        for comment in comments:
            wanted.setdefault(comment.fingerprint, comment)
        standing: dict[str, Posted] = {}
        if again:
            standing = self._look()
            self._clear(self._drafts(), keep=())
        drafted: list[str] = []
        results: dict[str, Posted | NotPosted] = {}
        for fingerprint, comment in wanted.items():
            if fingerprint not in standing:
                refused = self._draft(comment)
                if refused is None:
                    drafted.append(fingerprint)
                else:
                    results[fingerprint] = refused
        if drafted:
            standing = self._publish(drafted)
            self._remove_doubles(wanted)
        for fingerprint, comment in wanted.items():
            if fingerprint not in results:
                results[fingerprint] = standing.get(fingerprint) or self._post(comment)
        ordered = [results[fingerprint] for fingerprint in wanted]
        return Publication(
            tuple(result for result in ordered if isinstance(result, Posted)),
            tuple(result for result in ordered if isinstance(result, NotPosted)),
        )

    # --- what stands there

    def _look(self) -> dict[str, Posted]:
        """The bot's findings that stand there, by fingerprint."""
        self.discussions = tuple(threads(self._api, self._path))
        standing: dict[str, Posted] = {}
        for discussion, fingerprint in self._own():
            standing.setdefault(fingerprint, _posted(discussion, fingerprint))
        return standing

    def _own(self) -> list[tuple[Discussion, str]]:
        """The bot's threads and their findings. One that the bot resolved itself is over: its finding may come back."""
        found: list[tuple[Discussion, str]] = []
        for discussion in self.discussions:
            note = discussion.notes[0]
            over = note.resolved and note.resolved_by is not None and note.resolved_by.id == self._bot
            if note.author.id == self._bot and not over and (fingerprint := _fingerprint(note.body)):
                found.append((discussion, fingerprint))
        return found

    def _remove_doubles(self, wanted: Iterable[str]) -> None:
        """Of two notes with one finding, remove the younger one, unless somebody answered it."""
        wanted, seen = set(wanted), set[str]()
        for discussion, fingerprint in self._own():
            if fingerprint in seen and fingerprint in wanted and len(discussion.notes) == 1:
                self._delete(f"discussions/{discussion.id}/notes/{discussion.notes[0].id}")
            seen.add(fingerprint)

    def _drafts(self) -> list[tuple[answers.Draft, str]]:
        """The drafts of findings, each with its fingerprint; others' are not shown to us, and none of our business."""
        drafts = self._api.pages(f"{self._path}/draft_notes", answers.Draft)
        named = ((draft, _fingerprint(draft.note or "")) for draft in drafts)
        return [(draft, fingerprint) for draft, fingerprint in named if fingerprint]

    def _clear(self, drafts: Sequence[tuple[answers.Draft, str]], keep: Iterable[str]) -> int:
        """Delete drafts, all but the first of each finding that is to be kept; says how many are left."""
        left = set(keep)
        kept = 0
        for draft, fingerprint in drafts:
            if fingerprint in left:
                left.remove(fingerprint)
                kept += 1
            else:
                self._delete(f"draft_notes/{draft.id}")
        return kept

    def _delete(self, below: str) -> None:
        try:
            self._api.delete(f"{self._path}/{below}")
        except NotFound:  # gone already
            return

    # --- drafts

    def _draft(self, comment: Comment) -> NotPosted | None:
        """Make a draft: at its line, else at its file. Says why there is none."""
        reason = ""
        for where in _places(comment):
            try:
                draft = self._post_draft(comment, where)
            except ForgeRefused as refused:
                reason = reason or _refusal(refused)
                continue
            if draft.line_code is not None or where == "file":
                return None
            self._delete(f"draft_notes/{draft.id}")
            reason = reason or _NO_SUCH_LINE
        return NotPosted(comment.fingerprint, reason)

    def _post_draft(self, comment: Comment, where: _Where) -> answers.Draft:
        failure: ForgeBusy | ForgeUnreachable | None = None
        for _ in range(POSTS):
            try:
                return self._send("draft_notes", "note", comment, where, answers.Draft)
            except (ForgeBusy, ForgeUnreachable) as error:
                failure = _if_to_be_tried_again(error)
                self._doubtful = True
                for draft, fingerprint in self._drafts():
                    if fingerprint == comment.fingerprint:
                        return draft
        raise failure or AssertionError("it is sent once at least")

    def _publish(self, drafted: Sequence[str]) -> dict[str, Posted]:
        """Publish drafts, and look what stands there then."""
        if self._doubtful:  # a POST that gave no answer may have been late
            self._clear(self._drafts(), keep=drafted)
        self._bulk_publish()
        standing = self._look()
        if not standing.keys() >= set(drafted):  # they come late, or got lost without a word
            time.sleep(SETTLE_SECONDS)
            self._settled()
            self._clear(self._drafts(), keep=())
            standing = self._look()
        return standing

    def _bulk_publish(self) -> None:
        """Publish all drafts of the bot. Where that gives no answer, see what has become of them."""
        failure: ForgeBusy | ForgeUnreachable | None = None
        for _ in range(POSTS):
            try:
                self._api.act(f"{self._path}/draft_notes/bulk_publish")
            except (ForgeBusy, ForgeUnreachable) as error:
                failure = _if_to_be_tried_again(error)
                if self._settled():
                    return
            else:
                return
        raise failure or AssertionError("it is sent once at least")

    def _settled(self) -> bool:
        """Wait until no more notes come, and delete the drafts of those that came; whether no draft is left."""
        before = -1
        for _ in range(LOOKS):
            standing, drafts = self._look(), self._drafts()
            if not drafts or len(standing) == before:
                break
            before = len(standing)
            time.sleep(SETTLE_SECONDS)
        return not self._clear(drafts, keep={fingerprint for _, fingerprint in drafts} - set(standing))

    # --- single notes

    def _post(self, comment: Comment) -> Posted | NotPosted:
        """Post what got lost when the drafts were published: at its line, else at its file."""
        reason = ""
        for where in _places(comment):
            try:
                return self._post_note(comment, where)
            except ForgeRefused as refused:
                reason = reason or _refusal(refused)
        return NotPosted(comment.fingerprint, reason)

    def _post_note(self, comment: Comment, where: _Where) -> Posted:
        failure: ForgeBusy | ForgeUnreachable | None = None
        for _ in range(POSTS):
            try:
                made = self._send("discussions", "body", comment, where, answers.Discussion)
                return _posted(made.value(), comment.fingerprint)
            except (ForgeBusy, ForgeUnreachable) as error:
                failure = _if_to_be_tried_again(error)
                if there := self._look().get(comment.fingerprint):
                    return there
        raise failure or AssertionError("it is sent once at least")

    def _send(self, below: str, name: str, comment: Comment, where: _Where, model: type[_Answer]) -> _Answer:
        while True:
            at = comment.anchor if where == "line" else replace(comment.anchor, old_line=None, new_line=None)
            place = position(self._refs, at, numbered=self._numbered)
            try:
                return self._api.post(f"{self._path}/{below}", {name: comment.body, "position": place}, model)
            except ForgeRefused as refused:
                if "json schema" not in refused.said or not self._numbered or "line_range" not in place:
                    raise
                self._numbered = False


def threads(api: Api, merge: str) -> Iterator[Discussion]:
    """All threads of a merge request (by its path in the API), oldest first."""
    return (thread.value() for thread in api.pages(f"{merge}/discussions", answers.Discussion) if thread.notes)


def _fingerprint(body: str) -> str | None:
    finding = parse_marker(body)
    return finding.fingerprint if finding else None


def _places(comment: Comment) -> tuple[_Where, ...]:
    at = comment.anchor
    return ("file",) if at.old_line is None and at.new_line is None else ("line", "file")


def _posted(discussion: Discussion, fingerprint: str) -> Posted:
    note = discussion.notes[0]
    return Posted(fingerprint, discussion.id, note.id, "line" if _is_at_line(note) else "file")


def _is_at_line(note: Note) -> bool:
    return note.anchor is not None and not (note.anchor.old_line is None and note.anchor.new_line is None)


def _refusal(refused: ForgeRefused) -> str:
    return f"GitLab refused it: {refused.said or refused.status}"


def _if_to_be_tried_again(error: ForgeBusy | ForgeUnreachable) -> ForgeBusy | ForgeUnreachable:
    """The error, unless GitLab said when to come again: that is not to be waited for here."""
    if isinstance(error, ForgeBusy) and error.retry_after is not None:
        raise error
    return error
