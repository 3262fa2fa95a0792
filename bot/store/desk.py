"""Deliveries and the desk: what came in, what waits for a review, and who takes it."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import and_, func, select, text, update
from sqlalchemy.orm import Session

from bot.desk import Claim, DeskRow, Due, merge_due, next_generation, pause, pick
from bot.domain import MergeRef, Severity
from bot.store.database import Database
from bot.store.rows import DeliveryRow, MergeRequestRow, storable
from bot.store.values import Arrival, Delivery

_DISPATCH_LOCK = 0x6170_7072  # PostgreSQL's number of "only one dispatcher at a time"


class Desk(Database):
    """The part of the store that is about deliveries and the desk."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        insert = self._insert(DeliveryRow).on_conflict_do_nothing(index_elements=["key"])
        self._receive = insert.returning(DeliveryRow.key)

    # --- deliveries

    def receive(self, arrival: Arrival) -> bool:
        """Keep a delivery. False: it was here before."""
        return self.receive_many([arrival])[0]

    def receive_many(self, arrivals: Sequence[Arrival]) -> list[bool]:
        """Keep several deliveries in one transaction; says of each whether it is new."""
        if not arrivals:
            return []
        # Sorted, so that two processes with the same deliveries wait for each other in one direction only.
        rows = [_delivery(arrival) for arrival in sorted(arrivals, key=lambda arrival: arrival.key)]
        with self._write_fast() as connection:
            new = set(connection.scalars(self._receive, rows))
        said: list[bool] = []
        for key in (storable(arrival.key) for arrival in arrivals):
            said.append(key in new)
            new.discard(key)  # the second of two with the same key is a duplicate
        return said

    def unhandled(self, limit: int) -> list[Delivery]:
        """Give the oldest deliveries that nobody handled yet."""
        query = (
            select(DeliveryRow)
            .where(DeliveryRow.handled_at.is_(None))
            .order_by(DeliveryRow.received_at, DeliveryRow.id)
            .limit(limit)
        )
        with self._read() as session:
            return [
                Delivery(row.id, Arrival(row.key, row.kind, row.project, row.iid, row.payload, row.received_at))
                for row in session.scalars(query)
            ]

    def waiting(self) -> int:
        """Count the deliveries that nobody handled yet."""
        with self._read() as session:
            count = session.scalar(select(func.count()).where(DeliveryRow.handled_at.is_(None)))
            return count or 0

    def handle(self, delivery: int, *, outcome: str, at: datetime, due: Due | None = None) -> bool:
        """Mark a delivery as handled and, in the same transaction, put its merge request on the desk.

        False, and nothing happens: somebody handled it already.
        """
        mark = (
            update(DeliveryRow)
            .where(DeliveryRow.id == delivery, DeliveryRow.handled_at.is_(None))
            .values(handled_at=at, outcome=outcome, payload="")
            .returning(DeliveryRow.id)
        )
        with self._write() as session:
            if session.connection().scalar(mark) is None:
                return False
            if due is not None:
                self._ask(session, due)
            return True

    # --- the desk

    def ask(self, due: Due) -> DeskRow:
        """Put a merge request on the desk without a delivery; gives its row as it is then."""
        with self._write() as session:
            return self._ask(session, due)

    def desk(self, ref: MergeRef) -> DeskRow | None:
        """Give the row of a merge request, if it has one."""
        with self._read() as session:
            row = session.get(MergeRequestRow, (ref.project, ref.iid))
            return None if row is None else _desk_row(row)

    def due(self, now: datetime) -> list[DeskRow]:
        """Give the rows whose time has come, those that are being reviewed too; longest due first."""
        query = (
            select(MergeRequestRow)
            .where(MergeRequestRow.due_at <= now)
            .order_by(MergeRequestRow.due_at, MergeRequestRow.project, MergeRequestRow.iid)
        )
        with self._read() as session:
            return [_desk_row(row) for row in session.scalars(query)]

    def running(self) -> list[Claim]:
        """Give the claims of the reviews that run, oldest first."""
        with self._read() as session:
            return _running(session)

    def claim(self, ref: MergeRef, now: datetime) -> Claim | None:
        """Take a merge request for a review. None: it is not due, or somebody else has it."""
        with self._write() as session:
            return _claim(session, ref, now)

    def claim_due(self, now: datetime, *, per_project: int, total: int) -> list[Claim]:
        """Take what `bot.desk.pick` chooses. The limits hold for all workers together."""
        with self._write() as session:
            if not self._sqlite:  # SQLite has one writer anyway
                session.execute(select(func.pg_advisory_xact_lock(_DISPATCH_LOCK)))
            running = {claim.ref for claim in _running(session)}
            due = _first_due(session, now, per_project) if len(running) < total else []
            served = _served(session, {row.ref.project for row in due})
            chosen = pick(due, running, served=served, per_project=per_project, total=total)
            claims = (_claim(session, row.ref, now) for row in chosen)
            return [claim for claim in claims if claim is not None]

    def release(self, ref: MergeRef, workflow: str) -> bool:
        """Say that a review ended. False: it did before."""
        with self._write() as session:
            row = _locked(session, ref)
            claim = None if row is None else _desk_row(row).claim
            if row is None or claim is None or claim.workflow != workflow:
                return False
            row.claimed = False
            return True

    def set_paused(self, ref: MergeRef, paused: bool) -> None:  # noqa: FBT001 -- it is the thing that is set
        """Stop the reviews of a merge request that nobody asks for by command, the one that waits too; or go on."""
        with self._write() as session:
            row = self._row(session, ref)
            if paused:
                _keep(row, pause(_desk_row(row)))
            row.paused = paused

    def set_threshold(self, ref: MergeRef, threshold: Severity | None) -> None:
        """Set the lowest severity to post on a merge request; None: what the policy says."""
        with self._write() as session:
            self._row(session, ref).threshold = None if threshold is None else threshold.value

    def set_summary_note(self, ref: MergeRef, note: int) -> None:
        """Remember the number of the summary note."""
        with self._write() as session:
            self._row(session, ref).summary_note = note

    def _ask(self, session: Session, due: Due) -> DeskRow:
        row = self._row(session, due.ref)
        merged = merge_due(_desk_row(row), due)
        _keep(row, merged)
        return merged

    def _row(self, session: Session, ref: MergeRef) -> MergeRequestRow:
        """Give the row of a merge request, locked; makes it where there is none."""
        new = self._insert(MergeRequestRow).values(project=ref.project, iid=ref.iid).on_conflict_do_nothing()
        session.execute(new)
        row = _locked(session, ref)
        assert row is not None  # noqa: S101 -- it was just made, and it is locked
        return row


def _delivery(arrival: Arrival) -> dict[str, object]:
    return {
        "key": arrival.key,
        "kind": arrival.kind,
        "project": arrival.project,
        "iid": arrival.iid,
        "payload": arrival.payload,
        "received_at": arrival.at,
    }


def _locked(session: Session, ref: MergeRef) -> MergeRequestRow | None:
    return session.get(MergeRequestRow, (ref.project, ref.iid), with_for_update=True)


def _first_due(session: Session, now: datetime, per_project: int) -> list[DeskRow]:
    """Give the rows of each project that may be chosen: all of a long queue would hold up who else writes."""
    queue = func.row_number().over(
        partition_by=MergeRequestRow.project, order_by=(MergeRequestRow.due_at, MergeRequestRow.iid)
    )
    places = (
        select(MergeRequestRow.project, MergeRequestRow.iid, queue.label("place"))
        .where(MergeRequestRow.due_at <= now, MergeRequestRow.claimed.is_(False))
        .subquery()
    )
    first = and_(
        MergeRequestRow.project == places.c.project,
        MergeRequestRow.iid == places.c.iid,
        places.c.place <= per_project,
    )
    return [_desk_row(row) for row in session.scalars(select(MergeRequestRow).join(places, first))]


def _running(session: Session) -> list[Claim]:
    query = select(MergeRequestRow).where(text("claimed")).order_by(MergeRequestRow.served_at)
    return [claim for row in session.scalars(query) if (claim := _desk_row(row).claim) is not None]


def _served(session: Session, projects: Collection[int]) -> dict[int, datetime]:
    """Say when the newest claim of each project was."""
    query = (
        select(MergeRequestRow.project, func.max(MergeRequestRow.served_at))
        .where(MergeRequestRow.project.in_(projects))
        .group_by(MergeRequestRow.project)
    )
    return {project: at for project, at in session.execute(query) if at is not None}


def _claim(session: Session, ref: MergeRef, now: datetime) -> Claim | None:
    row = _locked(session, ref)
    if row is None or row.claimed or row.due_at is None or row.due_at > now:
        return None
    row.generation = next_generation(_desk_row(row), now)
    row.claimed, row.served_at = True, now
    row.claim_full, row.claim_asked, row.claim_reason = row.full, row.asked, row.reason
    row.due_at, row.latest, row.full, row.asked, row.reason = None, None, False, False, ""
    return _desk_row(row).claim


def _desk_row(row: MergeRequestRow) -> DeskRow:
    ref = MergeRef(row.project, row.iid)
    claim = None
    if row.claimed and row.served_at is not None:
        claim = Claim(ref, row.generation, row.claim_full, row.claim_asked, row.claim_reason, row.served_at)
    return DeskRow(
        ref=ref,
        due_at=row.due_at,
        latest=row.latest,
        full=row.full,
        asked=row.asked,
        reason=row.reason,
        claim=claim,
        generation=row.generation,
        served_at=row.served_at,
        paused=row.paused,
        threshold=None if row.threshold is None else Severity(row.threshold),
        summary_note=row.summary_note,
    )


def _keep(row: MergeRequestRow, wanted: DeskRow) -> None:
    """Write what a wish or a pause changes."""
    row.due_at, row.latest, row.paused = wanted.due_at, wanted.latest, wanted.paused
    row.full, row.asked, row.reason = wanted.full, wanted.asked, wanted.reason
