"""What the stand-in knows: people, tokens, merge requests, notes, hooks. Plain values; the rules are elsewhere."""

from dataclasses import dataclass, field
from datetime import date, datetime

from tests.fakes.gitlab.positions import Position, Refs

JSON = dict[str, object]

GUEST, REPORTER, DEVELOPER, MAINTAINER, OWNER = 10, 20, 30, 40, 50


@dataclass(eq=False)
class User:
    id: int
    username: str
    name: str
    bot: bool = False
    admin: bool = False
    state: str = "active"

    @property
    def email(self) -> str:
        return f"{self.username}@example.com"


@dataclass(eq=False)
class Token:
    """A personal, project or group access token. `value` is what the client sends."""

    id: int
    value: str
    user: User
    name: str
    created_at: datetime
    scopes: tuple[str, ...] = ("api",)
    expires_on: date | None = None
    revoked: bool = False


@dataclass(eq=False)
class Group:
    id: int
    path: str
    members: dict[int, int] = field(default_factory=dict)
    hooks: list["Hook"] = field(default_factory=list)

    @property
    def parents(self) -> list[str]:
        """Its own path and those of the groups around it, from the inside out."""
        parts = self.path.split("/")
        return ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]


@dataclass(eq=False)
class Award:
    id: int
    name: str
    user: User
    created_at: datetime


@dataclass(eq=False)
class Suggestion:
    """A suggested change of the lines around that of its note, which may move."""

    id: int
    note: "Note"
    above: int
    below: int
    from_content: str
    to_content: str
    applied: bool = False

    @property
    def line(self) -> int:
        position = self.note.position
        return (position.new_line if position else None) or 1

    @property
    def from_line(self) -> int:
        return self.line - self.above

    @property
    def to_line(self) -> int:
        return self.line + self.below


@dataclass(eq=False)
class Note:
    id: int
    kind: str | None
    """`DiffNote`, `DiscussionNote`, or None for a note that stands alone."""
    author: User
    body: str
    created_at: datetime
    updated_at: datetime
    system: bool = False
    internal: bool = False
    position: Position | None = None
    original_position: Position | None = None
    change_position: Position | None = None
    line_code: str | None = None
    resolved_by: User | None = None
    resolved_at: datetime | None = None
    updated_by: User | None = None
    awards: list[Award] = field(default_factory=list)
    suggestions: list[Suggestion] = field(default_factory=list)

    @property
    def resolvable(self) -> bool:
        return self.kind is not None and not self.system


@dataclass(eq=False)
class Discussion:
    id: str
    notes: list[Note] = field(default_factory=list)

    @property
    def individual(self) -> bool:
        return self.notes[0].kind is None

    @property
    def resolved(self) -> bool:
        resolvable = [note for note in self.notes if note.resolvable]
        return bool(resolvable) and all(note.resolved_by for note in resolvable)


@dataclass(eq=False)
class Draft:
    id: int
    author: User
    body: str
    position: Position | None = None
    line_code: str | None = None
    discussion: str | None = None
    resolve: bool = False
    commit_id: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One pushed state of a merge request's diff."""

    id: int
    refs: Refs
    created_at: datetime


@dataclass(eq=False)
class Status:
    id: int
    sha: str
    ref: str
    name: str
    state: str
    author: User
    created_at: datetime
    target_url: str | None = None
    description: str | None = None
    coverage: float | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """A quick action that GitLab ran on behalf of a note's author."""

    name: str
    argument: str
    user: User
    project: int
    merge: int


@dataclass(eq=False)
class Delivery:
    """One attempt to deliver a hook, with what came back. `status` is None where nobody answered in time."""

    id: int
    trigger: str
    url: str
    headers: dict[str, str]
    body: bytes
    at: datetime
    seconds: float = 0.0
    status: int | None = None
    answer: str = ""
    answer_headers: dict[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(eq=False)
class Hook:
    id: int
    url: str
    created_at: datetime
    project: int | None = None
    group: int | None = None
    events: dict[str, bool] = field(default_factory=dict)
    name: str | None = None
    description: str | None = None
    token: str | None = None
    signing_token: str | None = None
    ssl: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    failures: int = 0
    backoffs: int = 0
    disabled_until: datetime | None = None
    deliveries: list[Delivery] = field(default_factory=list)
    dropped: int = 0
    """How many events it did not get because it was switched off."""


@dataclass(frozen=True, slots=True)
class Request:
    """A line of the request log. `status` is None where the connection was cut."""

    method: str
    path: str
    """Below `/api/v4`, without the query."""
    query: str
    user: str | None
    status: int | None
    at: float


@dataclass
class Limits:
    """GitLab's limits on diffs, and on requests. Bytes are those of one file's patch."""

    files: int = 1000
    collapsed_bytes: int = 20 * 1024
    too_large_bytes: int = 200 * 1024
    collapsed_lines: int = 5_000
    too_large_lines: int = 50_000
    requests_per_minute: int | None = None
    notes_per_minute: int | None = None
    page: int = 100


@dataclass
class Settings:
    """What a test may change of the server, also while it runs.

    Args:
        version: what `/version` says.
        unprepared_gets: how often a new merge request is fetched before its diff is ready.
        group_hooks: False is the Free edition, which answers `free_says` (404 or 403) where they are asked for.
        signing_tokens: GitLab 19.0 and later; without, `signing_token` is ignored in silence.
        idempotency_keys: GitLab 17.4 and later.
        emoji_hooks: GitLab 16.4 and later.
        file_positions: GitLab 16.4 and later.
        raw_diffs: GitLab 17.9 and later.
        hook_events: the deliveries of hooks can be read, in GitLab 17.3 and later; `hook_tests`: 16.11 and later.
        own_tokens: a token can be read by itself, in GitLab 15.5 and later.
        hook_timeout: seconds that a receiver may take.
        hook_failures: so many failures in a row switch a hook off for a while; None: never.
        external_url: what GitLab believes its own address is (in links and hooks); None: where it listens.
        silent: deliver no hooks at all.
    """

    version: str = "19.1.0"
    unprepared_gets: int = 0
    group_hooks: bool = True
    free_says: int = 404
    signing_tokens: bool = True
    idempotency_keys: bool = True
    emoji_hooks: bool = True
    file_positions: bool = True
    raw_diffs: bool = True
    hook_events: bool = True
    hook_tests: bool = True
    own_tokens: bool = True
    hook_timeout: float = 10.0
    hook_failures: int | None = 4
    external_url: str | None = None
    silent: bool = False
    limits: Limits = field(default_factory=Limits)
