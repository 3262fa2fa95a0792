"""The words of the house as frozen values: severity, finding, review. It imports nothing of ours.

Every value here can be compared, hashed and stored; none does I/O.
"""

import enum
import functools
import hashlib
from dataclasses import dataclass
from datetime import datetime


@functools.total_ordering
class Severity(enum.Enum):
    """How bad a finding is: `trivial < minor < major < critical`.

    critical is a security hole, a crash or lost data; major a wrong result; minor an undesired behaviour
    that does not disrupt; trivial style, docs and the like. GitLab's Code Quality calls trivial `info`.
    """

    TRIVIAL = "trivial"
    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for trivial up to 3 for critical."""
        return list(Severity).index(self)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Severity):
            return NotImplemented
        return self.rank < other.rank

    def __str__(self) -> str:
        return self.value


class Category(enum.StrEnum):
    """What kind of problem a finding is about."""

    SECURITY = "security"
    CORRECTNESS = "correctness"
    RELIABILITY = "reliability"
    PERFORMANCE = "performance"
    MAINTAINABILITY = "maintainability"
    STYLE = "style"


@dataclass(frozen=True, slots=True)
class Finding:
    """One issue in one changed place.

    Args:
        file: path of the file after the change (before it, for a deleted file), with `/`.
        line: first line of the place, counted from 1 in the file after the change.
        end_line: last line of the place; the same as `line` for a single line.
        severity: how bad it is.
        category: what kind of problem it is.
        title: a few words, one line, plain text.
        explanation: why it is a problem, in plain text.
        quote: the code it speaks of, as the student quoted it (after triage: as it stands in the diff).
        suggestion: the code that would replace lines `line` to `end_line`, or None.
        confidence: 0 to 1, how sure the student was that there is a problem at all; None where the endpoint gives
            no log-probabilities.
    """

    file: str
    line: int
    end_line: int
    severity: Severity
    category: Category
    title: str
    explanation: str
    quote: str
    suggestion: str | None = None
    confidence: float | None = None

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of path, white-space-free quote and category: it survives a rebase."""
        code = "".join(self.quote.split())
        identity = f"{self.file}\0{code}\0{self.category}"
        return hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()[:16]


class HiddenReason(enum.StrEnum):
    """Why a finding is not shown. It is kept all the same: trainer and dashboard still see it."""

    UNVERIFIED = "unverified"
    REFUTED = "refuted"
    BELOW_THRESHOLD = "below_threshold"
    LOW_CONFIDENCE = "low_confidence"
    DUPLICATE = "duplicate"
    OVER_CAP = "over_cap"
    ALREADY_SAID = "already_said"
    DISMISSED = "dismissed"

    @property
    def words(self) -> str:
        """The reason as a person reads it."""
        return _HIDDEN_WORDS[self]


_HIDDEN_WORDS = {
    HiddenReason.UNVERIFIED: "not verified: the quoted code is not in the change",
    HiddenReason.REFUTED: "refuted by the second look",
    HiddenReason.BELOW_THRESHOLD: "below the severity threshold",
    HiddenReason.LOW_CONFIDENCE: "below the confidence floor",
    HiddenReason.DUPLICATE: "said already in this review",
    HiddenReason.OVER_CAP: "over the cap of findings for one review",
    HiddenReason.ALREADY_SAID: "said before on this merge request",
    HiddenReason.DISMISSED: "dismissed on this merge request: a person rejected or resolved it",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding after triage: shown, or hidden with a reason."""

    finding: Finding
    hidden: HiddenReason | None = None

    @property
    def shown(self) -> bool:
        """Whether a person gets to see it."""
        return self.hidden is None


@dataclass(frozen=True, slots=True)
class NotRead:
    """A file, or lines of one, that the student did not read, and why.

    `failed` tells a review that is missing a part (endpoint down, answer broken twice) from a file that was
    skipped on purpose (generated, ignored by policy, binary).
    """

    file: str
    reason: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What a review cost: requests, tokens and wall-clock seconds."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Review:
    """One pass over one change, by one model or adapter, with one prompt.

    Every file of the change stands either in `read` (all of it was read) or in `not_read`.

    Args:
        findings: shown and hidden ones, worst first.
        read: paths that the student read whole.
        not_read: what it did not, with the reason.
        model: the base model's name as the endpoint serves it.
        adapter: the LoRA adapter that answered, or None for the base model.
        prompt_id: hash of the prompt templates (`bot.prompt`).
        usage: tokens and seconds.
        redacted: how many secrets were taken out before the student saw the change, by kind.
    """

    findings: tuple[Judged, ...]
    read: tuple[str, ...]
    not_read: tuple[NotRead, ...]
    model: str
    adapter: str | None
    prompt_id: str
    usage: Usage
    redacted: tuple[tuple[str, int], ...] = ()

    @property
    def shown(self) -> tuple[Finding, ...]:
        """The findings a person gets to see, worst first."""
        return tuple(judged.finding for judged in self.findings if judged.shown)

    @property
    def complete(self) -> bool:
        """False when a part of the review is missing through a failure."""
        return not any(missing.failed for missing in self.not_read)


@dataclass(frozen=True, slots=True, order=True)
class MergeRef:
    """Which merge request: the forge's id of the target project, and the number within it."""

    project: int
    iid: int

    def __str__(self) -> str:
        return f"{self.project}!{self.iid}"


class VoteOrigin(enum.StrEnum):
    """How a human said what they think of a posted finding."""

    EMOJI = "emoji"
    REPLY = "reply"
    RESOLVED = "resolved"  # resolved by a human, with the line as it was
    CHANGED = "changed"  # the line was changed before the merge
    APPLIED = "applied"  # the suggestion was applied


class VoteReason(enum.StrEnum):
    """Why a finding was voted down, where the voter said so."""

    WRONG = "wrong"
    NIT = "nit"
    KNOWN = "known"
    NOT_HERE = "not_here"


@dataclass(frozen=True, slots=True)
class Vote:
    """What one human thought of one posted finding. A person has one voice per finding: the strongest origin counts.

    Args:
        merge: where the finding was posted.
        fingerprint: the finding's.
        voter: pseudonym of the person (`bot.feedback.pseudonym`), never a name or an id.
        up: whether it was right to say it.
        origin: how it was said.
        reason: why not, where the voter said so.
        weight: 0 to 1, how much it counts.
        at: when.
    """

    merge: MergeRef
    fingerprint: str
    voter: str
    up: bool
    origin: VoteOrigin
    reason: VoteReason | None
    weight: float
    at: datetime
