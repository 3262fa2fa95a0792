"""What a forge's webhook can tell the bot, as frozen values, and as compact JSON for the inbox. Pure.

`bot.webhook` makes them of GitLab's deliveries; the worker reads them back out of the inbox.
"""

import enum
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from bot.domain import MergeRef
from bot.forge import Award, Person


class Trigger(enum.StrEnum):
    """What happened to a merge request. The last two end its reviews, all others may begin one."""

    OPENED = "opened"
    REOPENED = "reopened"
    PUSHED = "pushed"  # its head moved: new commits, or a suggestion was applied
    READY = "ready"  # it was a draft, and is none any more
    REVIEWER = "reviewer"  # the bot was asked for a review, or asked again
    RETARGETED = "retargeted"  # it goes to another branch now, so that its diff is another one
    CLOSED = "closed"
    MERGED = "merged"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRequestChanged:
    """Something happened to a merge request.

    Args:
        key: two events with the same key are one (`bot.webhook` says why).
        delivery: the forge's own name of the delivery, for the log; empty where it gave none.
        ref: which merge request.
        trigger: what happened. Of several things at once the one that says most: reviewer, ready, pushed.
        head: full SHA of its newest commit; None while it has no commits.
        old_head: the head before a push, None for other triggers.
        draft: it is a draft now.
        author: id of who opened it; `actor`: of who did this, None where an old GitLab does not say.
        asked: ids of those who were newly asked for a review. Only where the bot's own id was not known when the
            webhook came (GitLab was down) can the trigger be `reviewer` without the bot among them: look again.
        at: when, as the forge says; when the delivery came where it does not.
    """

    key: str
    delivery: str
    ref: MergeRef
    trigger: Trigger
    head: str | None
    old_head: str | None
    draft: bool
    author: int | None
    actor: int | None
    asked: tuple[int, ...]
    at: datetime
    kind: Literal["merge_request"] = "merge_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteWritten:
    """Somebody other than the bot wrote a note on a merge request. Edits and the forge's own notes are no events.

    Args:
        key: as in `MergeRequestChanged`; so are `delivery`, `ref` and `at`.
        note: the forge's number of it.
        discussion: id of its thread; None where an old GitLab does not say.
        author: who wrote it (`bot` is not known here).
        body: Markdown.
        internal: only members may see it, so nothing of it may be said in public.
    """

    key: str
    delivery: str
    ref: MergeRef
    note: int
    discussion: str | None
    author: Person
    body: str
    internal: bool
    at: datetime
    kind: Literal["note"] = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmojiGiven:
    """Somebody other than the bot gave an emoji to a note on a merge request, or took it back.

    Where the bot's own id was known when the webhook came, the note is one of the bot's.

    Args:
        key: as in `MergeRequestChanged`; so are `delivery` and `ref`.
        note: the forge's number of the note.
        discussion: id of its thread; None where it is not said.
        body: the note's Markdown with its marker; None where it is not said.
        award: the emoji, whose it is, and when it was given.
        given: False: it was taken back.
    """

    key: str
    delivery: str
    ref: MergeRef
    note: int
    discussion: str | None
    body: str | None
    award: Award
    given: bool
    kind: Literal["emoji"] = "emoji"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExpiring:
    """A project's or group's access token will expire soon. GitLab says so more than once, on different days.

    Args:
        key: as in `MergeRequestChanged`; so is `delivery`.
        project: id of the project that it belongs to, None for a group's; `group` the other way round.
        token: its id; `name`: what it is called.
        user: id of the user that it speaks for: the bot's, where that was known when the webhook came.
        expires_on: its last day.
    """

    key: str
    delivery: str
    project: int | None
    group: int | None
    token: int
    name: str
    user: int
    expires_on: date
    kind: Literal["access_token"] = "access_token"


Event = MergeRequestChanged | NoteWritten | EmojiGiven | TokenExpiring

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def dump(event: Event) -> str:
    """The event as compact JSON."""
    return _EVENT.dump_json(event).decode()


def load(text: str) -> Event:
    """The event that `dump` wrote.

    Raises:
        ValueError: it did not write this.
    """
    return _EVENT.validate_json(text)
