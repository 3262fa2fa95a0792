"""GitLab's webhook bodies, as far as they are used: field by field as GitLab names them. Pure.

What is not named here may hold anything. What is named is strict: an id is a whole number of 64 bits, no text and no
boolean. `null` is the same as left out, since servers differ in which of the two they do. What changed in a merge
request is read with patience: a shape that a future server may invent costs that one trigger, not the event.
"""

import re
from datetime import date
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

Id = Annotated[int, Field(ge=1, lt=2**63)]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: object) -> object:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data


def _or_absent(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        return None


_Patiently = WrapValidator(_or_absent)


class Actor(_Payload):
    """Who did it. Old servers give no id."""

    id: Id | None = None
    username: str = ""


class Merge(_Payload):
    """Which merge request it is: all that the events about its notes need."""

    iid: Id
    target_project_id: Id


# --- merge request


class Commit(_Payload):
    """The newest commit."""

    id: Sha


class Attributes(Merge):
    """The merge request after what happened. `oldrev` stands there only after a push."""

    action: str = ""
    author_id: Id | None = None
    draft: bool | None = None
    work_in_progress: bool | None = None
    last_commit: Commit | None = None
    oldrev: Sha | None = None
    updated_at: str | None = None

    @property
    def head(self) -> str | None:
        """SHA of the newest commit."""
        return self.last_commit.id if self.last_commit else None

    @property
    def is_draft(self) -> bool:
        """Whether it is a draft, by the new field or by the old one."""
        return bool(self.work_in_progress if self.draft is None else self.draft)


class Flipped(_Payload):
    """A boolean before and after."""

    previous: bool
    current: bool


class Reworded(_Payload):
    """A text before and after."""

    previous: str
    current: str


class Reviewer(_Payload):
    """Somebody who is to review. Old servers give no id."""

    id: Id | None = None
    re_requested: bool = False


class Reviewers(_Payload):
    """Who was to review before, and who is now."""

    previous: list[Reviewer] = []
    current: list[Reviewer] = []


def _named(change: object) -> object:
    """GitLab writes a change of reviewers as {previous, current}, and a repeated request as [[before], [after]]."""
    if isinstance(change, list) and len(change) == 2:  # noqa: PLR2004 -- a pair
        return {"previous": change[0], "current": change[1]}
    return change


class Changes(_Payload):
    """What changed, as far as it can be a trigger."""

    draft: Annotated[Flipped | None, _Patiently] = None
    title: Annotated[Reworded | None, _Patiently] = None
    target_branch: Annotated[Reworded | None, _Patiently] = None
    reviewers: Annotated[Reviewers | None, BeforeValidator(_named), _Patiently] = None


_DRAFT_TITLE = re.compile(r"\s*(?:\[(?:draft|wip)\]|\(draft\)|(?:draft|wip):|draft - )", re.IGNORECASE)


class MergeRequestPayload(_Payload):
    """A body with `object_kind: merge_request`."""

    user: Actor = Actor()
    object_attributes: Attributes
    changes: Annotated[Changes | None, _Patiently] = None

    @property
    def became_ready(self) -> bool:
        """Whether it was a draft until now. Servers that know no `draft` tell it by the title alone."""
        if self.changes is None:
            return False
        draft, title = self.changes.draft, self.changes.title
        if draft is not None or self.object_attributes.draft is not None:
            return draft is not None and draft.previous and not draft.current
        return title is not None and bool(_DRAFT_TITLE.match(title.previous) and not _DRAFT_TITLE.match(title.current))

    @property
    def was_retargeted(self) -> bool:
        """Whether it goes to another branch now."""
        branch = self.changes.target_branch if self.changes else None
        return branch is not None and branch.previous != branch.current

    @property
    def asked(self) -> tuple[int, ...]:
        """Ids of those who were asked for a review now, for the first time or again."""
        change = self.changes.reviewers if self.changes else None
        if change is None:
            return ()
        before = {one.id: one.re_requested for one in change.previous}
        return tuple(
            one.id
            for one in change.current
            if one.id is not None and (one.id not in before or (one.re_requested and not before[one.id]))
        )


# --- note and emoji


class NoteAttributes(_Payload):
    """A note. Servers before 16.11 say no action, and nothing of edits."""

    id: Id
    note: str
    noteable_type: str = ""
    action: str = "create"
    author_id: Id | None = None
    created_at: str | None = None
    discussion_id: str | None = None
    internal: bool = False
    system: bool = False


class NotePayload(_Payload):
    """A body with `object_kind: note`. `merge_request` is there where the note stands on one."""

    event_type: str = ""
    user: Actor = Actor()
    object_attributes: NoteAttributes
    merge_request: Merge | None = None


class AwardAttributes(_Payload):
    """An emoji that somebody gave, or took back."""

    id: Id
    name: str
    user_id: Id
    awardable_type: str = ""
    awardable_id: Id
    action: str = ""
    created_at: str | None = None


class AwardedNote(_Payload):
    """The note that got it."""

    note: str | None = None
    noteable_type: str = ""
    author_id: Id | None = None
    discussion_id: str | None = None


class EmojiPayload(_Payload):
    """A body with `object_kind: emoji`. `note` and `merge_request` are there where it was given to such a note."""

    event_type: str = ""
    user: Actor = Actor()
    object_attributes: AwardAttributes
    note: AwardedNote | None = None
    merge_request: Merge | None = None


# --- access token


class Project(_Payload):
    """The project that a token belongs to."""

    id: Id


class Group(_Payload):
    """The group that a token belongs to."""

    group_id: Id


class TokenAttributes(_Payload):
    """A project's or group's access token."""

    id: Id
    user_id: Id
    name: str
    expires_at: Annotated[date, Field(strict=False)]


class TokenPayload(_Payload):
    """A body with `object_kind: access_token`."""

    event_name: str = ""
    object_attributes: TokenAttributes
    project: Project | None = None
    group: Group | None = None
