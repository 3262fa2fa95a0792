"""The student's adapters: what became of each, which one serves, which reviews use one, what people thought of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from bot.domain import Judged
from bot.store.database import StoreError
from bot.store.rows import AdapterRow, FindingRow, NoteRow, ReviewRow, ShadowRow, storable
from bot.store.values import AdapterState, Beside, ReviewState, StoredAdapter
from bot.store.votes import Votes


class Adapters(Votes):
    """The part of the store that is about adapters. At most one serves; where none does, the base model answers."""

    def register_adapter(
        self,
        name: str,
        *,
        base: str,
        parent: str | None,
        card: Mapping[str, object],
        state: AdapterState,
        at: datetime,
    ) -> None:
        """Keep an adapter, or what became of it; when it was first kept stays, and so does the state of a serving one.

        Args:
            name: of the adapter.
            base: the model that it adapts.
            parent: the adapter that it was trained on.
            card: all else that is known of it; JSON.
            state: what became of it; only `serve_adapter` makes one serve.
            at: when.
        """
        if state is AdapterState.SERVING:
            raise ValueError("only serve_adapter makes an adapter serve")
        known = {"base": base, "parent": parent, "card": dict(card)}
        statement = self._insert(AdapterRow).values(name=name, created_at=at, state=state, **known)
        with self._write() as session:
            session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=known))
            _mark(session, name, state)

    def mark_adapter(self, name: str, state: AdapterState) -> None:
        """Say what became of an adapter. One that serves goes on serving: only `serve_adapter` ends that."""
        if state is AdapterState.SERVING:
            raise ValueError("only serve_adapter makes an adapter serve")
        with self._write() as session:
            _mark(session, name, state)

    def amend_card(self, name: str, told: Mapping[str, object]) -> None:
        """Add to what is known of an adapter, whatever its state."""
        with self._write() as session:
            if (row := session.get(AdapterRow, name)) is not None:
                row.card = {**row.card, **told}

    def adapters(self) -> tuple[StoredAdapter, ...]:
        """Give all adapters, oldest first."""
        with self._read() as session:
            rows = session.scalars(select(AdapterRow).order_by(AdapterRow.created_at, AdapterRow.name))
            return tuple(_adapter(row) for row in rows)

    def adapter(self, name: str) -> StoredAdapter | None:
        """Give an adapter by its name."""
        with self._read() as session:
            row = session.get(AdapterRow, name)
            return None if row is None else _adapter(row)

    # --- the serving pointer

    def serving_adapter(self) -> StoredAdapter | None:
        """Give the adapter that reviews from now on; None: the base model does."""
        with self._read() as session:
            row = session.scalar(select(AdapterRow).where(AdapterRow.state == AdapterState.SERVING))
            return None if row is None else _adapter(row)

    def serve_adapter(self, name: str | None, at: datetime) -> None:
        """Let an adapter (None: the base model) make all reviews that begin from now on; who did so far is retired.

        An adapter's predecessor is who served when it began to serve for the first time; so going back, and back again,
        never comes round to where it began.

        Raises:
            StoreError: it is not known, or was refused. Nothing is changed then.
        """
        with self._write() as session:
            self._lock_adapters(session, "EXCLUSIVE")
            old = session.scalar(select(AdapterRow).where(AdapterRow.state == AdapterState.SERVING))
            if old is not None and old.name == name:
                return
            new = None if name is None else session.get(AdapterRow, name)
            if name is not None and (new is None or new.state == AdapterState.REFUSED):
                raise StoreError(f"the adapter {name} {'is not known' if new is None else 'was refused'}")
            if old is not None:
                old.state, old.retired_at = AdapterState.RETIRED, at
                session.flush()  # first: never do two serve
            if new is not None:
                if new.served_at is None:
                    new.predecessor = old.name if old is not None else None
                new.state, new.served_at, new.retired_at = AdapterState.SERVING, at, None

    # --- the shadow

    def shadow_adapter(self) -> StoredAdapter | None:
        """Give the adapter that answers beside the serving one, unseen: the newest, where there are several."""
        newest = (
            select(AdapterRow).where(AdapterRow.state == AdapterState.SHADOW).order_by(AdapterRow.created_at.desc())
        )
        with self._read() as session:
            row = session.scalar(newest.limit(1))
            return None if row is None else _adapter(row)

    def save_shadow(self, review: str, adapter: str, findings: Iterable[Judged], at: datetime) -> None:
        """Record what the shadow found, in place of what an earlier attempt has recorded. Nobody is shown it."""
        told: list[dict[str, object]] = [
            {
                "fingerprint": judged.finding.fingerprint,
                "file": storable(judged.finding.file),
                "line": judged.finding.line,
                "severity": judged.finding.severity.value,
                "title": storable(judged.finding.title),
                "hidden": judged.hidden.value if judged.hidden else None,
            }
            for judged in findings
        ]
        with self._write() as session:
            if session.get(ReviewRow, review) is not None:
                session.merge(ShadowRow(review=review, adapter=adapter, findings=told, at=at))

    def besides(self, adapter: str) -> tuple[Beside, ...]:
        """Give the reviews that this adapter made in the shadow."""
        with self._read() as session:
            shadows = list(
                session.scalars(select(ShadowRow).where(ShadowRow.adapter == adapter).order_by(ShadowRow.at))
            )
            shown: defaultdict[str, set[str]] = defaultdict(set)
            query = (
                select(FindingRow.review, FindingRow.fingerprint)
                .join(ShadowRow, ShadowRow.review == FindingRow.review)
                .where(ShadowRow.adapter == adapter, FindingRow.hidden.is_(None))
            )
            for review, mark in session.execute(query):
                shown[review].add(mark)
            return tuple(
                Beside(
                    row.review,
                    frozenset(shown[row.review]),
                    frozenset(str(told["fingerprint"]) for told in row.findings if told["hidden"] is None),
                )
                for row in shadows
            )

    # --- who uses it

    def take_adapter(self, review: str, pinned: str | None = None) -> str | None:
        """Say which adapter a review shall ask, and record that it does: that one stays loaded meanwhile.

        Args:
            review: the review's id.
            pinned: the adapter that the settings name; without it, it is the serving one.
        """
        with self._write() as session:
            # Whoever moves the pointer looks afterwards who still uses the old one: it must find this review there.
            self._lock_adapters(session, "SHARE")
            name = pinned or session.scalar(select(AdapterRow.name).where(AdapterRow.state == AdapterState.SERVING))
            session.execute(update(ReviewRow).where(ReviewRow.id == review).values(adapter=name))
            return name

    def leave_adapter(self, review: str) -> None:
        """Record that a review does not ask at present: it waits, and takes an adapter anew when it goes on."""
        with self._write() as session:
            session.execute(update(ReviewRow).where(ReviewRow.id == review).values(adapter=None))

    def adapters_in_use(self) -> Mapping[str, int]:
        """Count the reviews that ask at present, by adapter."""
        query = (
            select(ReviewRow.adapter, func.count())
            .where(ReviewRow.finished_at.is_(None), ReviewRow.state == ReviewState.ASKING)
            .where(ReviewRow.adapter.is_not(None))
            .group_by(ReviewRow.adapter)
        )
        with self._read() as session:
            return {str(name): count for name, count in session.execute(query)}

    def _lock_adapters(self, session: Session, mode: str) -> None:
        """Keep others from moving the pointer until the transaction ends. SQLite has one writer at a time anyway."""
        if not self._sqlite:
            session.execute(text(f"LOCK TABLE adapters IN {mode} MODE"))

    # --- what people thought of it

    def votes_by_adapter(self) -> Mapping[str | None, tuple[int, int]]:
        """Count votes up and down, by the adapter that first said the finding; None: the base model did."""
        query = (
            select(NoteRow.project, NoteRow.iid, NoteRow.fingerprint, ReviewRow.adapter)
            .join(ReviewRow, ReviewRow.id == NoteRow.review)
            .order_by(NoteRow.posted_at.desc(), NoteRow.note.desc())
        )
        with self._read() as session:
            said = {(project, iid, mark): adapter for project, iid, mark, adapter in session.execute(query)}
        counts: defaultdict[str | None, list[int]] = defaultdict(lambda: [0, 0])
        for vote in self.votes():
            finding = (vote.merge.project, vote.merge.iid, vote.fingerprint)
            if finding in said:  # else its review is kept no longer
                counts[said[finding]][not vote.up] += 1
        return {adapter: (up, down) for adapter, (up, down) in counts.items()}


def _mark(session: Session, name: str, state: AdapterState) -> None:
    others = (AdapterRow.name == name, AdapterRow.state != AdapterState.SERVING)
    session.execute(update(AdapterRow).where(*others).values(state=state))


def _adapter(row: AdapterRow) -> StoredAdapter:
    return StoredAdapter(
        name=row.name,
        base=row.base,
        parent=row.parent,
        card=row.card,
        state=AdapterState(row.state),
        created_at=row.created_at,
        predecessor=row.predecessor,
        served_at=row.served_at,
        retired_at=row.retired_at,
    )
