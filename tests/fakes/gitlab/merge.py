"""A merge request: its versions, who is on it, its state; and what a person does with it in a test."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from tests.fakes.gitlab import diffs, notes, payloads
from tests.fakes.gitlab.hooks import Chain
from tests.fakes.gitlab.model import JSON, Award, Discussion, Draft, Note, User, Version
from tests.fakes.gitlab.positions import Refs, code_of, trace
from tests.fakes.gitlab.repository import FileChange

if TYPE_CHECKING:
    from tests.fakes.gitlab.project import Project

_DRAFT = re.compile(r"\s*(\[draft\]|\(draft\)|draft:)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Opening:
    """With what a merge request begins."""

    author: User
    title: str
    description: str
    source_project: "Project"
    source_branch: str
    target_branch: str
    reviewers: tuple[User, ...]


@dataclass
class Outcome:
    """How it ended, if it did."""

    merged_by: User | None = None
    merged_at: datetime | None = None
    merge_commit: str | None = None
    closed_by: User | None = None
    closed_at: datetime | None = None
    approvals: list[User] = field(default_factory=list)


class MergeRequest:
    """A merge request of a project."""

    def __init__(self, project: "Project", number: int, iid: int, opening: Opening) -> None:
        self.project, self.id, self.iid = project, number, iid
        self.gitlab = project.gitlab
        self.author, self.title, self.description = opening.author, opening.title, opening.description
        self.source_project, self.source_branch = opening.source_project, opening.source_branch
        self.target_branch = opening.target_branch
        self.state = "opened"
        self.labels: list[str] = []
        self.assignees: list[User] = []
        self.reviewers: dict[User, str] = dict.fromkeys(opening.reviewers, "unreviewed")
        self.outcome = Outcome()
        self.versions: list[Version] = []
        self.discussions: list[Discussion] = []
        self.drafts: list[Draft] = []
        self.created_at = self.updated_at = self.gitlab.now()
        self.unprepared = self.gitlab.settings.unprepared_gets
        """So many GETs more until its diff is ready."""
        self._add_version()

    # --- what it is

    @property
    def draft(self) -> bool:
        return _DRAFT.match(self.title) is not None

    @property
    def refs(self) -> Refs:
        return self.versions[-1].refs

    @property
    def head(self) -> str:
        return self.refs.head

    @property
    def prepared(self) -> bool:
        return self.unprepared <= 0

    @property
    def changes(self) -> tuple[FileChange, ...]:
        """All files of its diff, whatever their size."""
        return self.project.repository.diff(self.refs.base, self.refs.head)

    @property
    def changes_count(self) -> str:
        return diffs.count(self.changes, self.gitlab.settings.limits)

    @property
    def web_url(self) -> str:
        return f"{self.project.web_url}/-/merge_requests/{self.iid}"

    def discussion(self, key: str) -> Discussion | None:
        return next((one for one in self.discussions if one.id == key), None)

    def all_notes(self) -> list[Note]:
        return [note for discussion in self.discussions for note in discussion.notes]

    def note(self, number: int) -> Note | None:
        return next((note for note in self.all_notes() if note.id == number), None)

    def discussion_of(self, note: Note) -> Discussion:
        return next(one for one in self.discussions if note in one.notes)

    # --- pushes

    def pushed(self, head: str, user: User, chain: Chain) -> None:
        """Its source branch moved: a new version; the notes on its diff move along or become outdated."""
        old = self.refs
        if head == old.head:
            return
        self._add_version()
        for discussion in self.discussions:
            self._move(discussion, old)
        known = self.project.repository.merge_base(old.head, head)
        new = self.project.repository.commits(known or self.refs.base, head)
        listed = "".join(f"<li>{commit.id[:8]} - {commit.title}</li>" for commit in new)
        plural = "" if len(new) == 1 else "s"
        self.system_note(f"added {len(new)} commit{plural}\n\n<ul>{listed}</ul>", user)
        changes: JSON = {"updated_at": payloads.change(self.updated_at, self.gitlab.now())}
        self.announce("update", changes, user=user, oldrev=old.head, chain=chain)

    def _add_version(self) -> None:
        source = self.source_project.repository
        head, target = source.resolve(self.source_branch), self.project.repository.resolve(self.target_branch)
        if head is None or target is None:
            raise ValueError(f"there is no branch {self.source_branch!r} or {self.target_branch!r}")
        own = self.project.repository
        if source is not own:
            own.git("fetch", "--quiet", str(source.path), f"+{self.source_branch}:refs/merge-requests/{self.iid}/head")
        else:
            own.point(f"refs/merge-requests/{self.iid}/head", head)
        base = own.merge_base(target, head)
        if base is None:
            raise ValueError(f"{self.source_branch!r} and {self.target_branch!r} have nothing in common")
        number = self.gitlab.next_id("version", 1000)
        self.versions.append(Version(number, Refs(base, target, head), self.gitlab.now()))

    def _move(self, discussion: Discussion, old: Refs) -> None:
        position = discussion.notes[0].position
        if position is None or position.refs != old:
            return
        repository = self.project.repository
        traced = trace(repository, position, self.refs)
        for note in discussion.notes:
            if note.position is None:
                continue
            if traced.outdated:
                note.change_position = traced.position
            elif traced.position:
                note.position = traced.position
                note.line_code = code_of(repository, traced.position) if traced.position.kind == "text" else None

    # --- changes of state

    def announce(
        self, action: str, changes: JSON, *, user: User, oldrev: str | None = None, chain: Chain | None = None
    ) -> None:
        """Say to the hooks what happened."""
        self.updated_at = self.gitlab.now()
        make = partial(payloads.merge_event, self, action, changes, user, oldrev)
        self.gitlab.hooks.fire(self.project.all_hooks(), "merge_requests_events", make, chain=chain or Chain())

    def system_note(self, body: str, user: User) -> Note:
        now = self.gitlab.now()
        note = Note(self.gitlab.next_id("note", 5000), None, user, body, now, now, system=True)
        self.discussions.append(Discussion(self.gitlab.hex_id(), [note]))
        return note

    def edit(
        self,
        user: User | None = None,
        *,
        title: str | None = None,
        description: str | None = None,
        target: str | None = None,
        labels: list[str] | None = None,
        assignees: list[User] | None = None,
        reviewers: list[User] | None = None,
        chain: Chain | None = None,
    ) -> None:
        """Change some of its fields, as one edit with one hook."""
        with self.gitlab.lock:
            changes: JSON = {}
            if title is not None and title != self.title:
                was = self.draft
                changes["title"] = {"previous": self.title, "current": title}
                self.title = title
                if was != self.draft:
                    changes["draft"] = {"previous": was, "current": self.draft}
            if description is not None and description != self.description:
                changes["description"] = {"previous": self.description, "current": description}
                self.description = description
            if target is not None and target != self.target_branch:
                changes["target_branch"] = {"previous": self.target_branch, "current": target}
                old, self.target_branch = self.refs, target
                self._add_version()
                for discussion in self.discussions:
                    self._move(discussion, old)
            if labels is not None and labels != self.labels:
                before = payloads.labels(self)
                self.labels = labels
                changes["labels"] = {"previous": before, "current": payloads.labels(self)}
            if assignees is not None and assignees != self.assignees:
                before = [payloads.user(person) for person in self.assignees]
                self.assignees = assignees
                changes["assignees"] = {"previous": before, "current": [payloads.user(one) for one in assignees]}
            if reviewers is not None and reviewers != list(self.reviewers):
                before = payloads.reviewers(self)
                self.reviewers = {one: self.reviewers.get(one, "unreviewed") for one in reviewers}
                changes["reviewers"] = {"previous": before, "current": payloads.reviewers(self)}
            if changes:
                changes["updated_at"] = payloads.change(self.updated_at, self.gitlab.now())
                self.announce("update", changes, user=user or self.author, chain=chain)

    def mark_ready(self, user: User | None = None) -> None:
        self.edit(user, title=_DRAFT.sub("", self.title, count=1))

    def ask_again(self, reviewer: User, user: User | None = None) -> None:
        """Request another review of somebody who is a reviewer already: the hook has another shape then."""
        with self.gitlab.lock:
            before = payloads.reviewers(self)
            self.reviewers[reviewer] = "unreviewed"
            after = payloads.reviewers(self, again=reviewer)
            self.announce("update", {"reviewers": [before, after]}, user=user or self.author)

    def close(self, user: User | None = None) -> None:
        with self.gitlab.lock:
            self.state = "closed"
            self.outcome.closed_by, self.outcome.closed_at = user or self.author, self.gitlab.now()
            self.announce("close", payloads.state_change(1, 2), user=user or self.author)

    def reopen(self, user: User | None = None) -> None:
        with self.gitlab.lock:
            self.state = "opened"
            self.outcome.closed_by = self.outcome.closed_at = None
            self.announce("reopen", payloads.state_change(2, 1), user=user or self.author)

    def merge(self, user: User | None = None) -> str:
        """Merge it with a real merge commit; returns its SHA."""
        with self.gitlab.lock:
            person = user or self.author
            repository = self.project.repository
            target = repository.resolve(self.target_branch) or ""
            tree = repository.git("merge-tree", "--write-tree", target, self.head).decode().split("\n", 1)[0]
            who = f"{person.name} <{person.email}>"
            stamp = int(self.gitlab.now().timestamp())
            lines = (f"tree {tree}", f"parent {target}", f"parent {self.head}", f"author {who} {stamp} +0000")
            text = "\n".join((*lines, f"committer {who} {stamp} +0000", "", f"Merge branch '{self.source_branch}'\n"))
            sha = repository.git("hash-object", "-t", "commit", "-w", "--stdin", given=text.encode()).decode().strip()
            self.state = "merged"
            self.outcome.merged_by, self.outcome.merged_at = person, self.gitlab.now()
            self.outcome.merge_commit = sha
            self.project.push_commit(self.target_branch, sha, user=person)
            self.announce("merge", payloads.state_change(1, 3), user=person)
            return sha

    def approve(self, user: User, *, chain: Chain | None = None) -> None:
        self.outcome.approvals.append(user)
        self.announce("approved", {}, user=user, chain=chain)

    def unapprove(self, user: User, *, chain: Chain | None = None) -> None:
        self.outcome.approvals.remove(user)
        self.announce("unapproved", {}, user=user, chain=chain)

    # --- what a person does in a test; all of it fires the hooks that it would

    def comment(self, user: User, body: str, *, internal: bool = False) -> Note | None:
        """Write a note that stands alone; None where it held only quick actions."""
        with self.gitlab.lock:
            return notes.write(self, user, body, kind=None, internal=internal).note

    def reply(self, to: Note, user: User, body: str) -> Note | None:
        """Answer in the thread of a note."""
        with self.gitlab.lock:
            return notes.write(self, user, body, discussion=self.discussion_of(to)).note

    def rewrite(self, note: Note, user: User, body: str) -> None:
        with self.gitlab.lock:
            notes.edit(self, note, user, body)

    def resolve(self, note: Note, user: User, *, resolved: bool = True) -> None:
        """Resolve the thread of a note, or take that back."""
        with self.gitlab.lock:
            notes.resolve(self, self.discussion_of(note).notes, user, resolved=resolved)

    def award(self, note: Note, user: User, name: str) -> Award:
        with self.gitlab.lock:
            return notes.award(self, note, user, name)

    def revoke(self, note: Note, user: User, name: str) -> None:
        """Take an emoji back."""
        with self.gitlab.lock:
            given = next(award for award in note.awards if award.user is user and award.name == name)
            notes.revoke(self, note, given)

    def apply(self, note: Note, user: User) -> str:
        """Apply the first suggestion of a note; returns the commit's SHA."""
        with self.gitlab.lock:
            return notes.apply(self, note.suggestions[0], user)
