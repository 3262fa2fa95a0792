"""GitLab's answers, as far as they are used, and the forge's values that they become. Pure.

`null` stands for what an edition, a version or a moment does not have, so nearly every field may be None.
"""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

from bot import forge
from bot.domain import MergeRef

_BOT_NAME = re.compile(r"(?:project|group)_\d+_bot(?:_?[0-9a-z]*)|service_account_.+")
"""Users that GitLab makes for access tokens and service accounts; most of its answers tell them by the name only."""

_Time = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]


class Answer(BaseModel):
    """What is not named here may hold anything."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Nothing(Answer):
    """Only that it was done counts."""


class User(Answer):
    """A person, or what acts as one."""

    id: int
    username: str = ""
    bot: bool | None = None

    def value(self) -> forge.Person:
        """The forge's value."""
        return forge.Person(self.id, self.username, bot=bool(self.bot or _BOT_NAME.fullmatch(self.username)))


def _person(user: User | None) -> forge.Person:
    """The forge's value; nobody's, for what was imported from elsewhere and belongs to nobody here."""
    return user.value() if user else forge.Person(0, "")


class Refs(Answer):
    """The commits of a version of a diff."""

    base_sha: str | None = None
    start_sha: str | None = None
    head_sha: str | None = None

    def value(self) -> forge.DiffRefs | None:
        """The forge's value; None where one of them is not known yet."""
        if self.base_sha and self.start_sha and self.head_sha:
            return forge.DiffRefs(self.base_sha, self.start_sha, self.head_sha)
        return None


class Merge(Answer):
    """A merge request. Lists of them hold no `diff_refs` and no `changes_count`."""

    iid: int
    project_id: int
    title: str
    description: str | None = None
    author: User | None = None
    state: Literal["opened", "closed", "merged", "locked"]
    draft: bool | None = None
    work_in_progress: bool | None = None
    source_branch: str
    source_project_id: int | None = None
    target_branch: str
    diff_refs: Refs | None = None
    web_url: str
    reviewers: tuple[User, ...] | None = None
    changes_count: str | int | None = None
    user_notes_count: int | None = None

    def value(self) -> forge.MergeRequest:
        """The forge's value."""
        return forge.MergeRequest(
            ref=MergeRef(self.project_id, self.iid),
            title=self.title,
            description=self.description or "",
            author=_person(self.author),
            state=self.state,
            draft=bool(self.work_in_progress if self.draft is None else self.draft),
            source_branch=self.source_branch,
            source_project=self.source_project_id or self.project_id,  # None: the fork was deleted
            target_branch=self.target_branch,
            refs=self.diff_refs.value() if self.diff_refs else None,
            web_url=self.web_url,
            reviewers=tuple(user.id for user in self.reviewers or ()),
            changes_count=str(self.changes_count or ""),
            commented=self.user_notes_count != 0,
        )


class Diff(Answer):
    """What a change does to one file; `diff` holds bare hunks, and nothing where GitLab finds it too large."""

    old_path: str
    new_path: str
    a_mode: str | None = None
    b_mode: str | None = None
    diff: str | None = None
    new_file: bool = False
    renamed_file: bool = False
    deleted_file: bool = False
    generated_file: bool | None = None
    collapsed: bool | None = None
    too_large: bool | None = None

    @property
    def withheld(self) -> bool:
        """Whether there is more to it than GitLab shows."""
        return not self.diff and bool(self.collapsed or self.too_large)


class Commit(Answer):
    """A commit."""

    id: str
    parent_ids: tuple[str, ...] | None = None


class Compare(Answer):
    """Two commits compared."""

    commits: tuple[Commit, ...] | None = None
    diffs: tuple[Diff, ...] | None = None
    compare_timeout: bool | None = None
    compare_same_ref: bool | None = None


# --- notes


class LineEnd(Answer):
    """The first or the last line of several."""

    line_code: str | None = None
    old_line: int | None = None
    new_line: int | None = None


class LineRange(Answer):
    """Several lines."""

    start: LineEnd | None = None


class Position(Refs):
    """Where a note stands. All of it may be null, which is no place at all."""

    old_path: str | None = None
    new_path: str | None = None
    old_line: int | None = None
    new_line: int | None = None
    line_range: LineRange | None = None

    def anchor(self) -> forge.Anchor | None:
        """The forge's value; None where it is no place."""
        old_path, new_path = self.old_path or self.new_path, self.new_path or self.old_path
        if not old_path or not new_path:
            return None
        start = self.line_range.start if self.line_range else None
        if start is None:
            return forge.Anchor(old_path, new_path, self.old_line, self.new_line)
        return forge.Anchor(
            old_path, new_path, self.old_line, self.new_line, start.old_line, start.new_line, "", start.line_code or ""
        )


class Suggestion(Answer):
    """A suggestion in a note."""

    applied: bool | None = None


class Note(Answer):
    """A note; `position` only where it stands in a diff."""

    id: int
    author: User | None = None
    body: str | None = None
    system: bool = False
    created_at: _Time
    resolvable: bool | None = None
    resolved: bool | None = None
    resolved_by: User | None = None
    position: Position | None = None
    suggestions: tuple[Suggestion, ...] | None = None

    def value(self) -> forge.Note:
        """The forge's value."""
        return forge.Note(
            id=self.id,
            author=_person(self.author),
            body=self.body or "",
            system=self.system,
            created_at=self.created_at,
            resolvable=bool(self.resolvable),
            resolved=bool(self.resolved),
            resolved_by=self.resolved_by.value() if self.resolved_by else None,
            anchor=self.position.anchor() if self.position else None,
            head=self.position.head_sha if self.position else None,
            suggestion_applied=any(suggestion.applied for suggestion in self.suggestions or ()),
        )


class Discussion(Answer):
    """A thread."""

    id: str
    notes: tuple[Note, ...]

    def value(self) -> forge.Discussion:
        """The forge's value."""
        return forge.Discussion(self.id, tuple(note.value() for note in self.notes))


class Draft(Answer):
    """A note that is not published yet. GitLab finds no line for it where `line_code` is null."""

    id: int
    note: str | None = None
    line_code: str | None = None


class Award(Answer):
    """An emoji."""

    id: int
    name: str
    user: User | None = None
    created_at: _Time

    def value(self) -> forge.Award:
        """The forge's value."""
        return forge.Award(self.id, self.name, _person(self.user), self.created_at)


class Member(Answer):
    """A person in a project."""

    access_level: int


# --- for operators


class Version(Answer):
    """Which GitLab it is."""

    version: str


class Token(Answer):
    """The access token itself."""

    name: str = ""
    scopes: tuple[str, ...] = ()
    expires_at: date | None = None


class Level(Answer):
    """A level in a project."""

    access_level: int


class Permissions(Answer):
    """The asking user's levels, by how they came to them."""

    project_access: Level | None = None
    group_access: Level | None = None


class Project(Answer):
    """A project."""

    id: int
    path_with_namespace: str
    web_url: str = ""
    archived: bool | None = None
    permissions: Permissions | None = None


class Group(Answer):
    """A group."""

    id: int
    full_path: str
    web_url: str = ""


class Hook(Answer):
    """A webhook. Older versions tell nothing of its tokens and its state."""

    id: int
    url: str
    merge_requests_events: bool | None = None
    note_events: bool | None = None
    emoji_events: bool | None = None
    resource_access_token_events: bool | None = None
    enable_ssl_verification: bool | None = None
    token_present: bool | None = None
    signing_token_present: bool | None = None
    alert_status: str | None = None
    disabled_until: datetime | None = None


class Delivery(Answer):
    """A delivery of a webhook; `response_status` is a text that is no number where nobody answered."""

    id: int
    trigger: str = ""
    response_status: str | int | None = None
    execution_duration: float | None = None
