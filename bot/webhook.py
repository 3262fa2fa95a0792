"""Read GitLab's deliveries: headers and raw body in, a typed event out, or the reason why there is none. No I/O.

**What is answered.** GitLab switches a hook off after four failures in a row, and for good after forty. So a 4xx
goes only to what is not GitLab's own. The table, from the first check to the last:

| what came | answer |
| --- | --- |
| more than `MAX_BODY` bytes, which is GitLab's own limit | 413 `too_large` |
| no X-Gitlab-Token or another one, where the token decides | 401 `token` |
| a wrong or incomplete signature; none, where it decides and no token is set | 401 `signature` |
| a signature whose time is over five minutes off | 401 `stale` |
| a media type other than application/json | 415 `content_type` |
| no JSON: bad syntax, not UTF-8, NaN, half a surrogate pair, 200 levels deep, a number of 4,300 digits | 400 `json` |
| no object, or one whose `object_kind` is not used here (a custom template may send anything) | 200 `unknown_event` |
| a kind that is used, but what is needed of it is missing, of the wrong type, or no 64-bit id | 200 `malformed` |
| a note or emoji on something else (issue, commit, snippet, the merge request itself) | 200 `not_on_merge_note` |
| a note of GitLab itself ("added 1 commit"); an edited note | 200 `system_note`; `edited_note` |
| a note or emoji of the bot: its own echo | 200 `own` |
| an emoji on somebody else's note; a token of somebody else | 200 `not_ours` |
| a merge request whose labels, title, assignees, approvals... changed | 200 `not_a_trigger` |
| anything else | 200, an event |

A key that stands twice in an object counts as it stands last, as in Ruby; numbers beyond all bounds, infinities
among them, are no ids; unknown fields may hold anything. X-Gitlab-Event is not looked at: it repeats the body.

**Who is believed.** With a signing key (GitLab 19.0 and later), `webhook-signature` decides, and one that is there but
wrong is final. Where the header is absent, as it is for hooks made without a key and for older servers, the token
decides if one is set, too. To insist on signatures, set no token. With a token alone, signatures are not looked at.
Both are compared in constant time.

**What is one event.** A project's hook and its group's hook both fire, each with its own Idempotency-Key; "Resend"
keeps the key. X-Gitlab-Event-UUID is shared by different events of one request, X-Gitlab-Webhook-UUID is fresh every
time. So none of the headers is the key, and every event has a key of its content: kind, project, number, head or note
or award, action, and for merge requests the second in which it was updated. It is the same in both hooks' deliveries
and in a repeated one. GitLab's own key stays with the event as `delivery`, for the log.
"""

import base64
import binascii
import enum
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError
from pydantic_core import from_json

from bot.domain import MergeRef
from bot.event import EmojiGiven, Event, MergeRequestChanged, NoteWritten, TokenExpiring, Trigger
from bot.forge import Award, Person
from bot.payload import EmojiPayload, MergeRequestPayload, NotePayload, TokenPayload

MAX_BODY = 25 * 1024 * 1024
"""Bytes. GitLab sends no more (REQUEST_BODY_SIZE_LIMIT)."""
REPLAY_SECONDS = 300.0
"""How far a signature's time may be off, as in the Standard Webhooks libraries."""
_MIN_KEY = 16  # bytes; GitLab makes 32


class Refusal(enum.StrEnum):
    """Why a delivery is not GitLab's own, or not for us."""

    TOO_LARGE = "too_large"
    TOKEN = "token"  # noqa: S105 -- no password
    SIGNATURE = "signature"
    STALE = "stale"
    CONTENT_TYPE = "content_type"
    JSON = "json"


class Reason(enum.StrEnum):
    """Why a delivery of GitLab leads to nothing."""

    UNKNOWN_EVENT = "unknown_event"
    MALFORMED = "malformed"
    NOT_ON_MERGE_NOTE = "not_on_merge_note"
    SYSTEM_NOTE = "system_note"
    EDITED_NOTE = "edited_note"
    OWN = "own"
    NOT_OURS = "not_ours"
    NOT_A_TRIGGER = "not_a_trigger"


_STATUS = {Refusal.TOO_LARGE: 413, Refusal.CONTENT_TYPE: 415, Refusal.JSON: 400}


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not believed, or not understood: answered with a 4xx."""

    reason: Refusal

    @property
    def status(self) -> int:
        """The HTTP status to answer with."""
        return _STATUS.get(self.reason, 401)


@dataclass(frozen=True, slots=True)
class Ignored:
    """GitLab's own, and of no use: answered with 200. `kind`: one of the events' kinds, or `other`."""

    reason: Reason
    kind: str


@dataclass(frozen=True, slots=True)
class Secrets:
    """What GitLab proves itself with. At least one of the two is set.

    Args:
        token: what GitLab sends as X-Gitlab-Token.
        signing_key: what it signs with: `whsec_` and Base64.

    Raises:
        ValueError: none is set, or the key cannot be one. The message holds neither.
    """

    token: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.token and not self.signing_key:
            raise ValueError("a webhook needs a secret token or a signing key: anybody could send to it without")
        if self.signing_key and len(_decoded(self.signing_key)) < _MIN_KEY:
            raise ValueError("the webhook's signing key must be whsec_ and Base64, as GitLab shows it once")


def check_headers(headers: Mapping[str, str], secrets: Secrets, now: float) -> Rejected | None:
    """What can be refused before the body is read: most of what strangers send.

    Args:
        headers: with names in any case.
        secrets: what GitLab proves itself with.
        now: seconds since 1970.
    """
    return _check_headers(_lowered(headers), secrets, now)


def read(
    headers: Mapping[str, str], body: bytes, secrets: Secrets, now: float, bot: int | None = None
) -> Event | Ignored | Rejected:
    """Read one delivery by the table above. It raises nothing, whatever comes.

    Args:
        headers: with names in any case.
        body: as it came, byte for byte.
        secrets: what GitLab proves itself with.
        now: seconds since 1970.
        bot: the bot's own user id; None while it is not known, which lets a few events through that are not for
            the bot (`bot.event` says which).
    """
    if len(body) > MAX_BODY:
        return Rejected(Refusal.TOO_LARGE)
    headers = _lowered(headers)
    if refused := _check_headers(headers, secrets, now):
        return refused
    if _by_signature(headers, secrets) and not _is_signed(headers, body, secrets):
        return Rejected(Refusal.SIGNATURE)
    try:
        payload = from_json(body, allow_inf_nan=False)
    except ValueError:
        return Rejected(Refusal.JSON)
    kind = payload.get("object_kind") if isinstance(payload, dict) else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        return Ignored(Reason.UNKNOWN_EVENT, "other")
    delivery = _bytes(headers.get("idempotency-key") or headers.get("webhook-id") or "")[:_MAX_NAME]
    envelope = _Envelope(payload, hashlib.sha256(body).hexdigest(), delivery.decode(errors="replace"), now, bot)
    try:
        result = reader(envelope)
    except ValidationError:
        result = Reason.MALFORMED
    return Ignored(result, str(kind)) if isinstance(result, Reason) else result


# --- who is believed

_TIME = re.compile(r"[0-9]{1,12}")
_JSON_TYPE = re.compile(r"application/json[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _by_signature(headers: Mapping[str, str], secrets: Secrets) -> bool:
    """Whether the signature decides, not the token."""
    return bool(secrets.signing_key) and ("webhook-signature" in headers or not secrets.token)


def _check_headers(headers: Mapping[str, str], secrets: Secrets, now: float) -> Rejected | None:
    if not _by_signature(headers, secrets):
        if not hmac.compare_digest(_bytes(headers.get("x-gitlab-token", "")), _bytes(secrets.token or "")):
            return Rejected(Refusal.TOKEN)
    elif not all(headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature")):
        return Rejected(Refusal.SIGNATURE)
    elif not _TIME.fullmatch(stamp := headers["webhook-timestamp"]) or abs(now - int(stamp)) > REPLAY_SECONDS:
        return Rejected(Refusal.STALE)
    if not _JSON_TYPE.fullmatch(headers.get("content-type", "").strip()):
        return Rejected(Refusal.CONTENT_TYPE)
    return None


def _is_signed(headers: Mapping[str, str], body: bytes, secrets: Secrets) -> bool:
    """Whether one of the signatures is the right one. There are several while a key is being changed."""
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}."
    digest = hmac.digest(_decoded(secrets.signing_key or ""), _bytes(said) + body, hashlib.sha256)
    right = b"v1," + base64.b64encode(digest)
    return any(hmac.compare_digest(_bytes(one), right) for one in headers["webhook-signature"].split())


def _decoded(key: str) -> bytes:
    """The bytes of a signing key; none where it is no Base64."""
    try:
        return base64.b64decode(key.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _bytes(text: str) -> bytes:
    """The text in bytes; no header can make this fail."""
    return text.encode("utf-8", "backslashreplace")


# --- what it is

_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class _Envelope:
    """A believed delivery: its JSON object, the hash of its body, its name, when it came, who the bot is."""

    payload: Mapping[str, object]
    digest: str
    delivery: str
    now: float
    bot: int | None

    def time(self, stamp: str | None) -> datetime:
        """A time as GitLab writes it (three ways), or when the delivery came."""
        try:
            at = datetime.fromisoformat((stamp or "").replace(" UTC", "+00:00"))
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            return datetime.fromtimestamp(self.now, UTC)


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _read_merge_request(envelope: _Envelope) -> Event | Reason:
    payload = MergeRequestPayload.model_validate(envelope.payload)
    merge, bot = payload.object_attributes, envelope.bot
    trigger, asked = _ENDS.get(merge.action), payload.asked
    if trigger is None and merge.action == "update":
        trigger = _trigger_of_update(payload, bot)
    if trigger is None:
        return Reason.NOT_A_TRIGGER
    project, head = merge.target_project_id, merge.head
    updated = merge.updated_at or envelope.digest  # very old servers leave it out
    return MergeRequestChanged(
        key=_key("merge_request", project, merge.iid, head, updated, merge.action, trigger),
        delivery=envelope.delivery,
        ref=MergeRef(project, merge.iid),
        trigger=trigger,
        head=head,
        old_head=merge.oldrev if trigger is Trigger.PUSHED else None,
        draft=merge.is_draft,
        author=merge.author_id,
        actor=payload.user.id,
        asked=asked,
        at=envelope.time(merge.updated_at),
    )


_ENDS = {
    "open": Trigger.OPENED,
    "reopen": Trigger.REOPENED,
    "close": Trigger.CLOSED,
    "merge": Trigger.MERGED,
}


def _trigger_of_update(payload: MergeRequestPayload, bot: int | None) -> Trigger | None:
    merge, asked = payload.object_attributes, payload.asked
    happened = {
        Trigger.REVIEWER: bot in asked,
        Trigger.READY: payload.became_ready,
        Trigger.PUSHED: merge.oldrev is not None and merge.oldrev != merge.head,
        Trigger.RETARGETED: payload.was_retargeted,
    }
    if bot is None and asked and not any(happened.values()):
        return Trigger.REVIEWER
    return next((trigger for trigger, is_so in happened.items() if is_so), None)


def _read_note(envelope: _Envelope) -> Event | Reason:
    payload = NotePayload.model_validate(envelope.payload)
    note, merge = payload.object_attributes, payload.merge_request
    if note.noteable_type != "MergeRequest":
        return Reason.NOT_ON_MERGE_NOTE
    if note.system:
        return Reason.SYSTEM_NOTE
    if note.action != "create":
        return Reason.EDITED_NOTE
    author = payload.user.id or note.author_id
    if author is None or merge is None:
        return Reason.MALFORMED
    if author == envelope.bot:
        return Reason.OWN
    return NoteWritten(
        key=_key("note", merge.target_project_id, merge.iid, note.id, note.action),
        delivery=envelope.delivery,
        ref=MergeRef(merge.target_project_id, merge.iid),
        note=note.id,
        discussion=note.discussion_id,
        author=Person(author, payload.user.username),
        body=note.note,
        internal=note.internal or payload.event_type == "confidential_note",
        at=envelope.time(note.created_at),
    )


def _read_emoji(envelope: _Envelope) -> Event | Reason:
    payload = EmojiPayload.model_validate(envelope.payload)
    award, note, merge = payload.object_attributes, payload.note, payload.merge_request
    if award.awardable_type != "Note" or note is None or note.noteable_type != "MergeRequest":
        return Reason.NOT_ON_MERGE_NOTE
    action = award.action or payload.event_type
    if merge is None or action not in {"award", "revoke"}:
        return Reason.MALFORMED
    if award.user_id == envelope.bot:
        return Reason.OWN
    if envelope.bot is not None and note.author_id not in {None, envelope.bot}:
        return Reason.NOT_OURS
    return EmojiGiven(
        key=_key("emoji", merge.target_project_id, merge.iid, award.id, action),
        delivery=envelope.delivery,
        ref=MergeRef(merge.target_project_id, merge.iid),
        note=award.awardable_id,
        discussion=note.discussion_id,
        body=note.note,
        award=Award(
            award.id, award.name, Person(award.user_id, payload.user.username), envelope.time(award.created_at)
        ),
        given=action == "award",
    )


def _read_token(envelope: _Envelope) -> Event | Reason:
    payload = TokenPayload.model_validate(envelope.payload)
    token = payload.object_attributes
    if payload.event_name != "expiring_access_token":
        return Reason.NOT_A_TRIGGER
    if envelope.bot is not None and token.user_id != envelope.bot:
        return Reason.NOT_OURS
    # GitLab warns on several days with the same words: each day is an event of its own.
    today = datetime.fromtimestamp(envelope.now, UTC).date().isoformat()
    return TokenExpiring(
        key=_key("access_token", token.id, token.expires_at.isoformat(), today),
        delivery=envelope.delivery,
        project=payload.project.id if payload.project else None,
        group=payload.group.group_id if payload.group else None,
        token=token.id,
        name=token.name,
        user=token.user_id,
        expires_on=token.expires_at,
    )


_READERS = {
    "merge_request": _read_merge_request,
    "note": _read_note,
    "emoji": _read_emoji,
    "access_token": _read_token,
}
