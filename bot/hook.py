"""What a webhook of the bot's shall be, what it is, and what that leaves to do. Pure."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from urllib.parse import urlsplit

_OFF = {"disabled", "temporarily_disabled"}


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook. What an older GitLab does not tell is None.

    Args:
        id: its number.
        url: where it goes.
        merge_requests, notes, emoji, token_expiry: which events it sends.
        verifies: it verifies the receiver's certificate.
        has_token: it sends a secret token; `signs`: it signs.
        alert_status: executable, disabled or temporarily_disabled.
        disabled_until: when it is tried again.
    """

    id: int
    url: str
    merge_requests: bool
    notes: bool
    emoji: bool | None
    token_expiry: bool | None
    verifies: bool
    has_token: bool | None
    signs: bool | None
    alert_status: str | None
    disabled_until: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a webhook of the bot's shall be.

    Args:
        url: where it goes.
        token: the secret that it sends, or None.
        signing_token: `whsec_…`, for GitLab 19.0 and later; or None.
        verify: verify the receiver's certificate.
    """

    url: str
    token: str | None = field(repr=False)
    signing_token: str | None = field(repr=False)
    verify: bool = True

    def body(self) -> dict[str, object]:
        """What GitLab takes."""
        events = ("merge_requests_events", "note_events", "emoji_events", "resource_access_token_events")
        secrets = {"token": self.token, "signing_token": self.signing_token}
        return {
            "url": self.url,
            "enable_ssl_verification": self.verify,
            "push_events": False,
            **dict.fromkeys(events, True),
            **{name: value for name, value in secrets.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery of a webhook: the receiver's status, None where it did not answer, and how long it took."""

    id: int
    trigger: str
    status: int | None
    seconds: float | None


class Fault(enum.StrEnum):
    """What is not as it shall be."""

    ADDRESS = "address"
    EVENTS = "events"
    CERTIFICATE = "certificate check"
    SECRET = "no secret"  # noqa: S105 -- says that there is none
    SIGNING = "no signing key"
    REFUSED = "the bot refuses its secret"
    OFF = "switched off by GitLab"


@dataclass(frozen=True, slots=True)
class Keep:
    """The webhook is right."""

    hook: Hook


@dataclass(frozen=True, slots=True)
class Change:
    """The webhook is to be made right."""

    hook: Hook
    faults: tuple[Fault, ...]

    @property
    def test(self) -> bool:
        """Whether a delivery shall show that it works now; that also switches it on."""
        return bool({Fault.REFUSED, Fault.OFF} & {*self.faults})


@dataclass(frozen=True, slots=True)
class Add:
    """There is none."""


Decision = Keep | Change | Add


def find(hooks: Sequence[Hook], url: str, known: int | None) -> Hook | None:
    """The bot's webhook among those of a place: the one that goes to its address, or else the one that it made.

    Args:
        hooks: all there are.
        url: where it shall go.
        known: the number of the one that the bot made, if it did.
    """
    there = [hook for hook in hooks if _same(hook.url) == _same(url)]
    made = [hook for hook in hooks if hook.id == known]
    return next(iter(there + made), None)


def decide(hook: Hook | None, wanted: Wanted, last: int | None = None) -> Decision:
    """What is to be done about a webhook.

    GitLab never tells a secret. That it is the wrong one shows in what the bot answers.

    Args:
        hook: as it is; None where there is none.
        wanted: as it shall be.
        last: the status of its last delivery, None where that is not known.
    """
    if hook is None:
        return Add()
    faults = {
        Fault.ADDRESS: hook.url != wanted.url,
        Fault.EVENTS: False in {hook.merge_requests, hook.notes, hook.emoji, hook.token_expiry},
        Fault.CERTIFICATE: hook.verifies != wanted.verify,
        Fault.SECRET: wanted.token is not None and hook.has_token is False,
        Fault.SIGNING: wanted.signing_token is not None and hook.signs is False,
        Fault.REFUSED: last == HTTPStatus.UNAUTHORIZED,
        Fault.OFF: hook.alert_status in _OFF,
    }
    found = tuple(fault for fault, true in faults.items() if true)
    return Change(hook, found) if found else Keep(hook)


def not_taken(hook: Hook, wanted: Wanted) -> str | None:
    """What GitLab did not take of what was wanted, and so the bot will take nothing from it; None: all is well.

    Args:
        hook: as it is after it was made or changed.
        wanted: as it shall be.
    """
    if wanted.token is None and wanted.signing_token is not None and hook.signs is None:
        return "this GitLab signs nothing (19.0 and later do): set APPRENTICE_WEBHOOK_SECRET"
    decision = decide(hook, wanted)
    if isinstance(decision, Change) and (left := [fault for fault in decision.faults if fault is not Fault.OFF]):
        return f"GitLab did not take what was set ({', '.join(left)})"
    return None


def _same(url: str) -> str:
    """What two addresses of the same place have in common."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
