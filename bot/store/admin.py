"""Projects, groups and workers; forgetting and retention; the version of the tables."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import ColumnElement, CursorResult, and_, delete, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from bot import migrations
from bot.store.database import Database, StoreError
from bot.store.rows import (
    Base,
    DeliveryRow,
    FindingRow,
    GroupRow,
    MergeRequestRow,
    NoteRow,
    ProjectRow,
    ReviewRow,
    VoteRow,
    WorkerRow,
)
from bot.store.values import Counts, Group, Project

_PART = 500
"""Most rows of the leading table that retention removes in one transaction."""


class Admin(Database):
    """The part of the store that is about everything around reviews."""

    # --- projects, groups, workers

    def remember_project(
        self, project: int, path: str, hook: int | None, *, url: str | None = None, verify: bool = True
    ) -> None:
        """Keep a project, or what became of it: see `bot.store.values.Project`."""
        known = {"path": path, "hook": hook, "url": url, "verify": verify}
        statement = self._insert(ProjectRow).values(id=project, **known)
        with self._write() as session:
            session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=known))

    def projects(self) -> tuple[Project, ...]:
        """Give all projects, by path."""
        with self._read() as session:
            rows = session.scalars(select(ProjectRow).order_by(ProjectRow.path, ProjectRow.id))
            return tuple(Project(row.id, row.path, row.hook, row.swept_at, row.url, row.verify) for row in rows)

    def remember_group(self, group: Group) -> None:
        """Keep a group, or what became of it."""
        known = {"path": group.path, "hook": group.hook, "url": group.url, "verify": group.verify}
        statement = self._insert(GroupRow).values(id=group.id, **known)
        with self._write() as session:
            session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=known))

    def groups(self) -> tuple[Group, ...]:
        """Give all groups, by path."""
        with self._read() as session:
            rows = session.scalars(select(GroupRow).order_by(GroupRow.path, GroupRow.id))
            return tuple(Group(row.id, row.path, row.hook, row.url, row.verify) for row in rows)

    def swept(self, project: int, at: datetime) -> None:
        """Remember that what no webhook told was looked for in a project, up to that time."""
        with self._write() as session:
            session.execute(update(ProjectRow).where(ProjectRow.id == project).values(swept_at=at))

    def beat(self, worker: str, now: datetime) -> None:
        """Say that a worker is alive."""
        statement = self._insert(WorkerRow).values(name=worker, beat_at=now)
        with self._write() as session:
            session.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"beat_at": now}))

    def silent_workers(self, before: datetime) -> list[str]:
        """Name the workers that were last heard of before that time, longest silent first."""
        query = select(WorkerRow.name).where(WorkerRow.beat_at < before).order_by(WorkerRow.beat_at, WorkerRow.name)
        with self._read() as session:
            return list(session.scalars(query))

    def drop_worker(self, worker: str) -> None:
        """Forget a worker."""
        with self._write() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.name == worker))

    # --- forgetting

    def forget_project(self, project: int) -> Counts:
        """Remove all that belongs to a project, the votes on its findings too; says how many rows of each table."""
        with self._write() as session:
            counts = {
                **_remove_reviews(session, ReviewRow.project == project),
                "votes": _remove(session, VoteRow, VoteRow.project == project),
                "merge_requests": _remove(session, MergeRequestRow, MergeRequestRow.project == project),
                "deliveries": _remove(session, DeliveryRow, DeliveryRow.project == project),
                "projects": _remove(session, ProjectRow, ProjectRow.id == project),
            }
        self._scrub()
        return counts

    def forget_person(self, voter: str) -> Counts:
        """Remove the votes of a person, by their pseudonym. Nothing else that is kept names one.

        A delivery does until it is handled; its payload is emptied then.
        """
        with self._write() as session:
            counts = {"votes": _remove(session, VoteRow, VoteRow.voter == voter)}
        self._scrub()
        return counts

    def expire(self, before: datetime) -> Counts:
        """Remove what is older than that: handled deliveries, reviews, votes, and merge requests that rest.

        What runs, what waits, and what a person set on a merge request (pause, threshold) stays.
        """
        claimed = select(MergeRequestRow.iid).where(
            MergeRequestRow.project == ReviewRow.project,
            MergeRequestRow.iid == ReviewRow.iid,
            MergeRequestRow.claimed.is_(True),
        )
        old = and_(ReviewRow.started_at < before, ~claimed.exists())
        handled = and_(DeliveryRow.handled_at.is_not(None), DeliveryRow.received_at < before)
        rests = and_(
            MergeRequestRow.due_at.is_(None),
            MergeRequestRow.claimed.is_(False),
            MergeRequestRow.paused.is_(False),
            MergeRequestRow.threshold.is_(None),
            or_(MergeRequestRow.served_at.is_(None), MergeRequestRow.served_at < before),
        )
        with self._write() as session:
            resting = _remove(session, MergeRequestRow, rests)
        return {
            **self._in_parts(ReviewRow.id, old, _remove_reviews),
            **self._in_parts(VoteRow.id, VoteRow.at < before, lambda it, part: {"votes": _remove(it, VoteRow, part)}),
            "merge_requests": resting,
            **self._in_parts(DeliveryRow.id, handled, lambda it, part: {"deliveries": _remove(it, DeliveryRow, part)}),
        }

    def _in_parts(
        self,
        key: InstrumentedAttribute[int] | InstrumentedAttribute[str],
        which: ColumnElement[bool],
        remove: Callable[[Session, ColumnElement[bool]], Counts],
    ) -> Counts:
        """Remove only so many rows in one transaction: who keeps a delivery meanwhile need not wait for all."""
        total = Counter[str]()
        while True:
            with self._write() as session:
                part = session.scalars(select(key).where(which).limit(_PART)).all()
                total.update(remove(session, key.in_(part)))
            if len(part) < _PART:
                return dict(total)

    # --- the version of the tables

    def revision(self) -> str | None:
        """Name the version of the tables; None: there are none yet."""
        with self._read() as session:
            return migrations.current(session.connection())

    def check(self) -> None:
        """Make sure that the tables are those that this program needs.

        Raises:
            StoreError: they are not; the message says what to do.
        """
        revision = self.revision()
        if revision == migrations.head():
            return
        if revision is None:
            raise StoreError(f"{self.name} has no tables yet: run `apprentice migrate`")
        if migrations.known(revision):
            raise StoreError(f"{self.name} has tables of an older version ({revision}): run `apprentice migrate`")
        raise StoreError(
            f"{self.name} has tables of a version that this program does not know ({revision}): the program is older "
            "than the database; install the newer one again, or migrate down with the newer one first"
        )

    def migrate(self, to: str = "head") -> None:
        """Bring the tables to a revision: `head` (what this program needs), `base` (no tables), or by name.

        Raises:
            StoreError: the revision is unknown, or the database cannot be used.
        """
        with self._migration() as connection:
            try:
                migrations.move(connection, to)
            except migrations.UnknownRevisionError as error:
                raise StoreError(f"{self.name}: {error}") from error


def _remove(session: Session, rows: type[Base], which: ColumnElement[bool]) -> int:
    result = session.execute(delete(rows).where(which), execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)  # noqa: S101 -- a DELETE gives one
    return result.rowcount


def _remove_reviews(session: Session, which: ColumnElement[bool]) -> Counts:
    """Remove reviews; their findings and notes first, to count them."""
    ids = select(ReviewRow.id).where(which)
    return {
        "findings": _remove(session, FindingRow, FindingRow.review.in_(ids)),
        "notes": _remove(session, NoteRow, NoteRow.review.in_(ids)),
        "reviews": _remove(session, ReviewRow, which),
    }
