"""What the store gives back: frozen values, never rows."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bot.domain import Finding, HiddenReason, Judged, MergeRef, NotRead, Usage, Vote
from bot.forge import DiffRefs
from bot.plan import Question


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery as it comes in.

    Args:
        key: two deliveries with the same key are one.
        kind: of event.
        project: the forge's id of the project, and `iid` the merge request's number in it, if it is about one.
        payload: JSON.
        at: when it came.
    """

    key: str
    kind: str
    project: int | None
    iid: int | None
    payload: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that waits to be handled."""

    id: int
    arrival: Arrival


class ReviewState(enum.StrEnum):
    """How far a review is."""

    ASKING = "asking"
    POSTING = "posting"
    POSTED = "posted"
    SUPERSEDED = "superseded"  # the head moved meanwhile
    SKIPPED = "skipped"  # there was nothing to do, by policy for example
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoredReview:
    """A review as it was recorded. Until findings were saved, model, prompt and what was read are empty.

    Args:
        id: the name of its workflow.
        ref: of which merge request.
        refs: the commits that were reviewed; None where it ended before they were known.
        full: of the whole change, or only of what was new.
        trigger: why it was wanted.
        state: how far it got; `detail`: why it ended so, for skipped, superseded and failed ones.
    """

    id: str
    ref: MergeRef
    refs: DiffRefs | None
    full: bool
    trigger: str
    state: ReviewState
    detail: str
    model: str
    adapter: str | None
    prompt_id: str
    usage: Usage
    read: tuple[str, ...]
    not_read: tuple[NotRead, ...]
    redacted: tuple[tuple[str, int], ...]
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """A finding as it was recorded.

    Args:
        review: id of the review that found it; `ref`: of which merge request.
        place: its number in the review, from 0.
        fingerprint: as it was when it was stored.
        judged: the finding, and why it is hidden if it is.
        note: the forge's number of the note that says it, if one does; `discussion`: of its thread.
        refused: why the forge took it nowhere, if it did not.
    """

    review: str
    ref: MergeRef
    place: int
    fingerprint: str
    judged: Judged
    note: int | None
    discussion: str | None
    refused: str | None

    @property
    def finding(self) -> Finding:
        """What was found."""
        return self.judged.finding

    @property
    def hidden(self) -> HiddenReason | None:
        """Why nobody was shown it."""
        return self.judged.hidden


@dataclass(frozen=True, slots=True)
class Voted:
    """A posted finding that people voted on.

    Args:
        finding: as it was first posted.
        question: what the student was asked, without secrets; None where that was not kept.
        votes: those that count, one per person.
        merge: where it stands.
        reviews: ids of the reviews that said it, the first one first.
    """

    finding: Finding
    question: Question | None
    votes: tuple[Vote, ...]
    merge: MergeRef
    reviews: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Project:
    """A project that the bot serves.

    Args:
        id: its number.
        path: its full path.
        hook: the webhook that the bot made there, if it has.
        swept_at: see `Store.swept`.
        url: where its webhook shall go; None where it needs none of its own.
        verify: whether GitLab shall verify the certificate there.
    """

    id: int
    path: str
    hook: int | None
    swept_at: datetime | None
    url: str | None
    verify: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A group whose projects the bot serves, new ones too.

    Args:
        id: its number.
        path: its full path.
        hook: the webhook that the bot made there; None where each of its projects has one.
        url: where webhooks go.
        verify: whether GitLab verifies the certificate there.
    """

    id: int
    path: str
    hook: int | None
    url: str
    verify: bool


class AdapterState(enum.StrEnum):
    """What became of an adapter."""

    CANDIDATE = "candidate"  # trained, and not judged yet
    SHADOW = "shadow"  # answers beside the serving one, unseen
    SERVING = "serving"
    RETIRED = "retired"  # served once
    REFUSED = "refused"  # by the gate, or by the student


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter of the student.

    Args:
        name: of the adapter; `base`: of the model that it adapts.
        parent: the adapter that it was trained on.
        card: all else that is known of it (`trainer.adapter.Card`).
        state: what became of it.
        created_at: when it was first kept.
        predecessor: the adapter that served when this one first did; None: the base model, or it never served.
        served_at: when it last began to serve; `retired_at`: when it last ceased to.
    """

    name: str
    base: str
    parent: str | None
    card: Mapping[str, object]
    state: AdapterState
    created_at: datetime
    predecessor: str | None = None
    served_at: datetime | None = None
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """A review that was also made by an adapter in the shadow.

    Args:
        review: its id.
        serving: fingerprints of what was shown; `shadow`: of what the shadow would have shown.
    """

    review: str
    serving: frozenset[str]
    shadow: frozenset[str]


Counts = dict[str, int]
"""How many rows were removed, by table."""
