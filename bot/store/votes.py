"""Votes: everything that people did about findings is kept; `bot.voice` makes one vote of it per person and finding."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import delete, select

from bot.domain import MergeRef, Vote, VoteOrigin, VoteReason
from bot.store.database import Database
from bot.store.rows import VoteRow
from bot.voice import Cast, effective


class Votes(Database):
    """The part of the store that is about votes."""

    def add_vote(self, vote: Vote, *, source: str = "", name: str = "") -> None:
        """Keep one thing that a person did about a finding (`bot.voice.Cast`).

        The same one again renews what it says, but not when it was said: a sweep sees an outcome again and again.
        """
        said = {"up": vote.up, "reason": vote.reason, "weight": vote.weight, "name": name}
        row = {
            "project": vote.merge.project,
            "iid": vote.merge.iid,
            "fingerprint": vote.fingerprint,
            "voter": vote.voter,
            "origin": vote.origin,
            "source": source,
            "at": vote.at,
            **said,
        }
        unique = ["project", "iid", "fingerprint", "voter", "origin", "source"]
        statement = self._insert(VoteRow).values(row).on_conflict_do_update(index_elements=unique, set_=said)
        with self._write() as session:
            session.execute(statement)

    def remove_vote(
        self, merge: MergeRef, fingerprint: str, voter: str, origin: VoteOrigin, *, source: str = ""
    ) -> bool:
        """Take one of those back, so that the person's next strongest counts again. False: it was not there."""
        statement = (
            delete(VoteRow)
            .where(VoteRow.project == merge.project, VoteRow.iid == merge.iid, VoteRow.fingerprint == fingerprint)
            .where(VoteRow.voter == voter, VoteRow.origin == origin, VoteRow.source == source)
            .returning(VoteRow.id)
        )
        with self._write() as session:
            return session.scalar(statement) is not None

    def casts(self, merge: MergeRef, fingerprint: str | None = None) -> tuple[Cast, ...]:
        """Give all that people did about the findings of a merge request, or about one of them; oldest first."""
        query = select(VoteRow).where(VoteRow.project == merge.project, VoteRow.iid == merge.iid)
        if fingerprint is not None:
            query = query.where(VoteRow.fingerprint == fingerprint)
        with self._read() as session:
            return tuple(_cast(row) for row in session.scalars(query.order_by(VoteRow.at, VoteRow.id)))

    def votes(self, ref: MergeRef | None = None, since: datetime | None = None) -> Iterator[Vote]:
        """Yield the votes that count, one per person and finding; with `since`, those given at that time or later.

        They come project by project, each read in a transaction of its own: a slow reader holds up nobody.
        """
        with self._read() as session:
            projects = [ref.project] if ref else list(session.scalars(select(VoteRow.project).distinct()))
        for project in sorted(projects):
            query = select(VoteRow).where(VoteRow.project == project)
            if ref is not None:
                query = query.where(VoteRow.iid == ref.iid)
            with self._read() as session:
                casts = [_cast(row) for row in session.scalars(query)]
            yield from (vote for vote in effective(casts) if since is None or vote.at >= since)


def _cast(row: VoteRow) -> Cast:
    vote = Vote(
        merge=MergeRef(row.project, row.iid),
        fingerprint=row.fingerprint,
        voter=row.voter,
        up=row.up,
        origin=VoteOrigin(row.origin),
        reason=None if row.reason is None else VoteReason(row.reason),
        weight=row.weight,
        at=row.at,
    )
    return Cast(vote, source=row.source, name=row.name)
