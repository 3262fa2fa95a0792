"""`bot.forge.Forge` for GitLab, from 17.9 on in full; older ones lack the diffs of large files."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import structlog

from bot.diff import FileDiff
from bot.domain import MergeRef
from bot.forge import (
    SUMMARY_MARKER,
    Award,
    Comment,
    Discussion,
    ForgeBusy,
    ForgeDenied,
    ForgeRefused,
    MergeRequest,
    Note,
    NotFound,
    Person,
    Publication,
    ReadChange,
    StatusState,
)
from bot.gitlab import answers, changes
from bot.gitlab.access import Access
from bot.gitlab.api import Api
from bot.gitlab.publish import Publishing, threads

MAX_FILE_BYTES = 1_000_000
"""Most bytes of a file that is read whole."""
MAX_RAW_BYTES = 20_000_000
"""Most bytes of a raw diff that are read."""

_CHECK_SECONDS = 2.5
_FRESH_SECONDS = 60.0
_STATUS = "apprentice"
_STATUS_LETTERS = 250

log = structlog.get_logger()


class GitLabForge:
    """A GitLab server, as one of its users sees it. May be used from many threads.

    Args:
        url: its address, with its path if it has one.
        token: access token of the bot's user, scope `api`.
        ca_file: certificates (PEM) to trust instead of SSL_CERT_FILE or the system's.
        timeout_seconds: how long to wait for one answer.
        heard: called for each request that is sent, with the method and the answer's status, or `unreachable`.

    Raises:
        UntrustedForge: the CA file cannot be used.
        ForgeDenied: the token cannot be one.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_file: Path | None = None,
        timeout_seconds: float = 30,
        heard: Callable[[str, str], None] = lambda _method, _status: None,
    ) -> None:
        access = Access(url.rstrip("/"), token, ca_file, timeout_seconds, heard=heard)
        self._api = Api(access)
        self._checking = Api(replace(access, timeout_seconds=min(timeout_seconds, _CHECK_SECONDS), tries=1))
        self._summaries: dict[MergeRef, tuple[float, int | None]] = {}
        self.known_me: Person | None = None
        """The bot's own user, once it was asked for."""

    def close(self) -> None:
        """Close all connections."""
        self._api.close()
        self._checking.close()

    def check(self) -> None:
        """Raise a `ForgeError` where GitLab does not take us in at once."""
        self.known_me = self._checking.get("/user", answers.User).value()

    def me(self) -> Person:
        """The bot's own user; asked once."""
        if self.known_me is None:
            self.known_me = self._api.get("/user", answers.User).value()
        return self.known_me

    # --- reading

    def merge_request(self, ref: MergeRef) -> MergeRequest:
        """A merge request as it is now."""
        return self._api.get(_merge(ref), answers.Merge).value()

    def read_change(self, merge: MergeRequest) -> ReadChange:
        """Its whole diff, from base to head."""
        diffs = list(self._api.pages(f"{_merge(merge.ref)}/diffs", answers.Diff))
        overflow = merge.changes_count.endswith("+")
        whole: Mapping[str, FileDiff] = {}
        lacks = ""
        if overflow or any(diff.withheld and not diff.generated_file for diff in diffs):
            whole, lacks = self._raw(merge.ref)
        return changes.together(diffs, overflow=overflow, whole=whole, lacks=lacks)

    def _raw(self, ref: MergeRef) -> tuple[Mapping[str, FileDiff], str]:
        """The files of the raw diff, and why not all of them."""
        try:
            patch, complete = self._api.fetch(f"{_merge(ref)}/raw_diffs", MAX_RAW_BYTES)
        except NotFound:
            return {}, "GitLab before 17.9 gives it in no other way"
        lacks = "" if complete else f"the change has more than {MAX_RAW_BYTES // 1_000_000} MB"
        return changes.raw_files(patch, complete=complete), lacks

    def changed_since(self, merge: MergeRequest, head: str) -> tuple[FileDiff, ...] | None:
        """What its commits changed since an earlier head; None where nobody can tell (a force-push, too much)."""
        if merge.refs is None:
            return None
        query = {"from": head, "to": merge.refs.head}
        try:
            said = self._api.get(f"/projects/{merge.ref.project}/repository/compare", answers.Compare, query)
        except NotFound:  # the old commit is gone
            return None
        # GitLab compares from the merge base on. That is the old head if and only if one of the commits since then
        # has it for a parent.
        follows = any(head in (commit.parent_ids or ()) for commit in said.commits or ())
        same = head == merge.refs.head
        return changes.shown(said.diffs) if (follows or same) and not said.compare_timeout else None

    def read_file(self, project: int, path: str, ref: str) -> str | None:
        """The text of a file at a commit or branch; None where there is none, or no text, or too much of it."""
        where = f"/projects/{project}/repository/files/{quote(path, safe='')}/raw"
        try:
            data, complete = self._api.fetch(where, MAX_FILE_BYTES, {"ref": ref})
        except NotFound:
            return None
        if not complete or b"\0" in data:
            return None
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None

    def discussions(self, ref: MergeRef) -> tuple[Discussion, ...]:
        """All threads, oldest first."""
        return tuple(threads(self._api, _merge(ref)))

    def awards(self, ref: MergeRef, note: int) -> tuple[Award, ...]:
        """The emoji of a note, the bot's own too."""
        return tuple(each.value() for each in self._api.pages(f"{_merge(ref)}/notes/{note}/award_emoji", answers.Award))

    def access_level(self, project: int, person: int) -> int:
        """A person's level in a project, inherited ones too: 30 is Developer, 40 Maintainer; 0 is none."""
        try:
            return self._api.get(f"/projects/{project}/members/all/{person}", answers.Member).access_level
        except NotFound:
            return 0

    def updated_since(self, project: int, since: datetime) -> Iterator[MergeRequest]:
        """Open merge requests of a project that changed since then, for what no webhook told (`refs` is None)."""
        query = {"state": "opened", "updated_after": since.isoformat(), "order_by": "updated_at", "sort": "asc"}
        for each in self._api.pages(f"/projects/{project}/merge_requests", answers.Merge, query):
            yield each.value()

    # --- writing

    def publish(self, merge: MergeRequest, comments: Sequence[Comment], *, again: bool) -> Publication:
        """Post findings as one review with one notification.

        Args:
            merge: the version that the anchors speak of.
            comments: what to post; one whose fingerprint stands there already is not posted twice.
            again: an earlier attempt may have got somewhere, or left drafts: look at what stands there first.
        """
        if not comments:
            return Publication((), ())
        if merge.refs is None:
            raise ForgeBusy(f"GitLab has not prepared the diff of {merge.web_url} yet.")
        publishing = Publishing(self._api, merge, merge.refs, self.me().id)
        publication = publishing.publish(comments, again=again)
        if publishing.discussions:
            notes = (note for discussion in publishing.discussions for note in discussion.notes)
            found = next((note.id for note in notes if self._is_summary(note)), None)
            self._summaries[merge.ref] = (time.monotonic(), found)
        return publication

    def write_summary(self, ref: MergeRef, body: str, note: int | None) -> int:
        """Write the summary note, in place where there is one (`note`, if known); returns its number."""
        # What `publish` has just seen saves a look; not twice, for the POST below may come to nothing.
        seen_at, seen = self._summaries.pop(ref, (0.0, None))
        fresh = seen_at and time.monotonic() - seen_at < _FRESH_SECONDS
        known = note or (seen if fresh else self._find_summary(ref))
        if known is not None:
            try:
                return self._rewrite(ref, known, body)
            except NotFound:  # somebody deleted it
                if note is not None and (other := self._find_summary(ref)) is not None:
                    return self._rewrite(ref, other, body)
        return self._api.post(f"{_merge(ref)}/notes", {"body": body}, answers.Note).id

    def _rewrite(self, ref: MergeRef, note: int, body: str) -> int:
        return self._api.put(f"{_merge(ref)}/notes/{note}", {"body": body}, answers.Note).id

    def _find_summary(self, ref: MergeRef) -> int | None:
        query = {"sort": "asc", "order_by": "created_at", "activity_filter": "only_comments"}
        notes = self._api.pages(f"{_merge(ref)}/notes", answers.Note, query)
        return next((note.id for note in notes if self._is_summary(note.value())), None)

    def _is_summary(self, note: Note) -> bool:
        return note.author.id == self.me().id and note.body.rstrip().endswith(SUMMARY_MARKER)

    def reply(self, ref: MergeRef, discussion: str, body: str) -> int:
        """Answer in a thread; returns the note's number."""
        return self._api.post(f"{_merge(ref)}/discussions/{discussion}/notes", {"body": body}, answers.Note).id

    def resolve(self, ref: MergeRef, discussion: str) -> None:
        """Resolve a thread."""
        self._api.put(f"{_merge(ref)}/discussions/{discussion}", {"resolved": True}, answers.Nothing)

    def delete_note(self, ref: MergeRef, discussion: str, note: int) -> None:
        """Withdraw a note of the bot; one that is gone already is fine."""
        try:
            self._api.delete(f"{_merge(ref)}/discussions/{discussion}/notes/{note}")
        except NotFound:
            return

    def seed(self, ref: MergeRef, note: int, names: Sequence[str]) -> None:
        """Give a note emoji by name, so that people only need to click; those that stand there are fine."""
        for name in names:
            try:
                self._api.post(f"{_merge(ref)}/notes/{note}/award_emoji", {"name": name}, answers.Nothing)
            except NotFound:  # so GitLab says too that it stands there, that emoji are off, that the note is gone
                continue

    def set_status(self, merge: MergeRequest, state: StatusState, description: str) -> None:
        """Set the commit status `apprentice` of its head. In a fork, where the bot has no rights, nothing is set."""
        if merge.refs is None:
            return
        body = {
            "state": state,
            "name": _STATUS,
            "ref": merge.source_branch,
            "description": description[:_STATUS_LETTERS],
            "target_url": merge.web_url,
        }
        try:
            self._api.post(f"/projects/{merge.source_project}/statuses/{merge.refs.head}", body, answers.Nothing)
        except ForgeRefused as refused:
            # It is so already, or somebody else sets it just now.
            if refused.status != HTTPStatus.CONFLICT and "cannot transition status" not in refused.said.lower():
                raise
        except (ForgeDenied, NotFound) as error:
            if merge.source_project == merge.ref.project:
                raise
            log.info("no status in a fork", merge=str(merge.ref), why=str(error))


def _merge(ref: MergeRef) -> str:
    return f"/projects/{ref.project}/merge_requests/{ref.iid}"
