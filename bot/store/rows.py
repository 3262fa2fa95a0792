"""The tables. Times are aware and in UTC; enums are stored by their value; ids of the forge have 64 bits."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite counts rows by itself only in a column of the type INTEGER.
_Counter = BigInteger().with_variant(Integer(), "sqlite")


class Utc(TypeDecorator[datetime]):
    """An aware time. SQLite keeps no zones: what goes in is turned into UTC, and comes out as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a time without a zone: nobody could say when it was."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Words(TypeDecorator[str]):
    """Text from outside. PostgreSQL takes no NUL and neither database takes half a surrogate pair: both become �."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Replace what cannot be stored."""
        return value if value is None else storable(value)


def storable(words: str) -> str:
    """Replace the characters that a database cannot keep."""
    return words.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Words, datetime: Utc, int: BigInteger}  # noqa: RUF012 -- SQLAlchemy's own way


class DeliveryRow(Base):
    """What a webhook brought. The payload is emptied once it was handled: it names people, and nobody needs it."""

    __tablename__ = "deliveries"

    id: Mapped[int] = mapped_column(_Counter, primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    project: Mapped[int | None]
    iid: Mapped[int | None]
    payload: Mapped[str]
    received_at: Mapped[datetime]
    handled_at: Mapped[datetime | None]
    outcome: Mapped[str | None]

    __table_args__ = (
        Index(
            "ix_deliveries_unhandled",
            "received_at",
            sqlite_where=text("handled_at IS NULL"),
            postgresql_where=text("handled_at IS NULL"),
        ),
        Index("ix_deliveries_received_at", "received_at"),
    )


class MergeRequestRow(Base):
    """The desk: `bot.desk.DeskRow`. The columns `claim_…` are those of the review that runs."""

    __tablename__ = "merge_requests"

    project: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    iid: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    due_at: Mapped[datetime | None]
    latest: Mapped[datetime | None]
    full: Mapped[bool] = mapped_column(default=False)
    asked: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(default="")
    generation: Mapped[int] = mapped_column(default=0)
    claimed: Mapped[bool] = mapped_column(default=False)
    claim_full: Mapped[bool] = mapped_column(default=False)
    claim_asked: Mapped[bool] = mapped_column(default=False)
    claim_reason: Mapped[str] = mapped_column(default="")
    served_at: Mapped[datetime | None]
    paused: Mapped[bool] = mapped_column(default=False)
    threshold: Mapped[str | None]
    summary_note: Mapped[int | None]

    __table_args__ = (
        Index(
            "ix_merge_requests_due",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index(
            "ix_merge_requests_claimed",
            "served_at",
            sqlite_where=text("claimed"),
            postgresql_where=text("claimed"),
        ),
    )


class ReviewRow(Base):
    """One review. Its id is the name of its workflow (`bot.desk.Claim.workflow`)."""

    __tablename__ = "reviews"

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[int]
    iid: Mapped[int]
    head: Mapped[str | None]
    base: Mapped[str | None]
    start: Mapped[str | None]
    full: Mapped[bool]
    trigger: Mapped[str]
    state: Mapped[str]
    detail: Mapped[str] = mapped_column(default="")
    model: Mapped[str] = mapped_column(default="")
    adapter: Mapped[str | None]
    prompt_id: Mapped[str] = mapped_column(default="")
    requests: Mapped[int] = mapped_column(default=0)
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    cached_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    read: Mapped[list[str]] = mapped_column(JSON, default=list)
    not_read: Mapped[list[tuple[str, str, bool]]] = mapped_column(JSON, default=list)
    redacted: Mapped[list[tuple[str, int]]] = mapped_column(JSON, default=list)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_reviews_merge", "project", "iid", "started_at"),
        Index("ix_reviews_started_at", "started_at"),
        Index(
            "ix_reviews_running",
            "adapter",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )


class FindingRow(Base):
    """One finding of a review, shown or hidden; `place` counts them from 0, worst first."""

    __tablename__ = "findings"

    review: Mapped[str] = mapped_column(ForeignKey("reviews.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fingerprint: Mapped[str]
    file: Mapped[str]
    line: Mapped[int]
    end_line: Mapped[int]
    severity: Mapped[str]
    category: Mapped[str]
    title: Mapped[str]
    explanation: Mapped[str]
    quote: Mapped[str]
    suggestion: Mapped[str | None]
    confidence: Mapped[float | None]
    hidden: Mapped[str | None]
    refused: Mapped[str | None]
    question: Mapped[str | None]

    __table_args__ = (Index("ix_findings_fingerprint", "fingerprint"),)


class ShadowRow(Base):
    """What an adapter in the shadow found in a review that another one made."""

    __tablename__ = "shadows"

    review: Mapped[str] = mapped_column(ForeignKey("reviews.id", ondelete="CASCADE"), primary_key=True)
    adapter: Mapped[str]
    findings: Mapped[list[dict[str, object]]] = mapped_column(JSON)
    at: Mapped[datetime]

    __table_args__ = (Index("ix_shadows_adapter", "adapter"),)


class NoteRow(Base):
    """A finding that stands on a merge request."""

    __tablename__ = "notes"

    project: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    note: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    iid: Mapped[int]
    discussion: Mapped[str]
    fingerprint: Mapped[str]
    where: Mapped[str]
    review: Mapped[str] = mapped_column(ForeignKey("reviews.id", ondelete="CASCADE"))
    posted_at: Mapped[datetime]

    __table_args__ = (Index("ix_notes_merge", "project", "iid", "fingerprint"), Index("ix_notes_review", "review"))


class VoteRow(Base):
    """`bot.voice.Cast`: everything that somebody did about a finding, until it is taken back."""

    __tablename__ = "votes"

    id: Mapped[int] = mapped_column(_Counter, primary_key=True)
    project: Mapped[int]
    iid: Mapped[int]
    fingerprint: Mapped[str]
    voter: Mapped[str]
    origin: Mapped[str]
    source: Mapped[str]
    name: Mapped[str]
    up: Mapped[bool]
    reason: Mapped[str | None]
    weight: Mapped[float]
    at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("project", "iid", "fingerprint", "voter", "origin", "source", name="uq_votes_cast"),
        Index("ix_votes_voter", "voter"),
        Index("ix_votes_at", "at"),
    )


class ProjectRow(Base):
    """A project that the bot serves: `bot.store.values.Project`."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    path: Mapped[str]
    hook: Mapped[int | None]
    url: Mapped[str | None]
    verify: Mapped[bool] = mapped_column(server_default=true())
    swept_at: Mapped[datetime | None]


class GroupRow(Base):
    """A group whose projects the bot serves, new ones too: `bot.store.values.Group`."""

    __tablename__ = "groups"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    path: Mapped[str]
    hook: Mapped[int | None]
    url: Mapped[str]
    verify: Mapped[bool]


class WorkerRow(Base):
    """A process that runs reviews, and when it was last heard of."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    beat_at: Mapped[datetime]


class AdapterRow(Base):
    """An adapter of the student and its card."""

    __tablename__ = "adapters"

    name: Mapped[str] = mapped_column(primary_key=True)
    base: Mapped[str]
    parent: Mapped[str | None]
    card: Mapped[dict[str, object]] = mapped_column(JSON)
    state: Mapped[str]
    created_at: Mapped[datetime]
    predecessor: Mapped[str | None]
    served_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_adapters_serving",  # two can never serve
            "state",
            unique=True,
            sqlite_where=text("state = 'serving'"),
            postgresql_where=text("state = 'serving'"),
        ),
    )
