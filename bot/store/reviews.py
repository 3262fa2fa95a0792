"""Reviews, their findings and the notes that say them."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.orm import Session

from bot.domain import Category, Finding, HiddenReason, Judged, MergeRef, NotRead, Review, Severity, Usage, Vote
from bot.forge import DiffRefs, Publication
from bot.plan import Question
from bot.store.rows import FindingRow, NoteRow, ReviewRow, VoteRow, storable
from bot.store.values import ReviewState, StoredFinding, StoredReview, Voted
from bot.store.votes import Votes


class Reviews(Votes):
    """The part of the store that is about reviews. Every method may be called twice: a durable step may run twice.

    A review that is gone (its project was forgotten while it ran) is passed over in silence.
    """

    def begin_review(
        self, review: str, ref: MergeRef, refs: DiffRefs | None, *, full: bool, trigger: str, at: datetime
    ) -> None:
        """Record that a review begins; one that is known stays as it is.

        Args:
            review: its id, the name of its workflow (`bot.desk.Claim.workflow`).
            ref: of which merge request.
            refs: of which commits; None where they are not known.
            full: of the whole change.
            trigger: why.
            at: when.
        """
        row = {
            "id": review,
            "project": ref.project,
            "iid": ref.iid,
            "head": refs.head if refs else None,
            "base": refs.base if refs else None,
            "start": refs.start if refs else None,
            "full": full,
            "trigger": trigger,
            "state": ReviewState.ASKING,
            "started_at": at,
        }
        with self._write() as session:
            session.execute(self._insert(ReviewRow).values(row).on_conflict_do_nothing())

    def save_findings(self, review: str, result: Review, asked: Mapping[str, Question] = {}) -> None:
        """Record what a review found. Findings of an earlier attempt are replaced.

        Args:
            review: its id.
            result: what came of it.
            asked: what the student was asked, without secrets, by the findings' fingerprints. It is kept beside those
                that are shown: who votes on one teaches the student how to answer that question.
        """
        usage = result.usage
        with self._write() as session:
            row = session.get(ReviewRow, review, with_for_update=True)
            if row is None:
                return
            row.model, row.adapter, row.prompt_id = result.model, result.adapter, result.prompt_id
            row.requests, row.seconds = usage.requests, usage.seconds
            row.prompt_tokens, row.cached_tokens = usage.prompt_tokens, usage.cached_tokens
            row.completion_tokens = usage.completion_tokens
            row.read = [storable(path) for path in result.read]
            row.not_read = [(storable(it.file), storable(it.reason), it.failed) for it in result.not_read]
            row.redacted = list(result.redacted)
            session.execute(delete(FindingRow).where(FindingRow.review == review))
            session.add_all(
                _finding_row(review, place, it, asked.get(it.finding.fingerprint) if asked and it.shown else None)
                for place, it in enumerate(result.findings)
            )

    def begin_posting(self, review: str) -> bool:
        """Record that a review begins to post. True: something of it, or of one that was given up, may stand there."""
        with self._write() as session:
            row = session.get(ReviewRow, review, with_for_update=True)
            if row is None or row.state != ReviewState.ASKING:
                return row is not None
            row.state = ReviewState.POSTING
            given_up = select(ReviewRow.id).where(
                ReviewRow.project == row.project,
                ReviewRow.iid == row.iid,
                ReviewRow.id != review,
                ReviewRow.state.in_([ReviewState.POSTING, ReviewState.SUPERSEDED, ReviewState.FAILED]),
            )
            return session.scalar(given_up.limit(1)) is not None

    def record_posted(self, review: str, publication: Publication, *, at: datetime) -> None:
        """Record what became of each comment of a review."""
        with self._write() as session:
            row = session.get(ReviewRow, review)
            if row is None:
                return
            notes = [
                {
                    "project": row.project,
                    "note": posted.note,
                    "iid": row.iid,
                    "discussion": posted.discussion,
                    "fingerprint": posted.fingerprint,
                    "where": posted.where,
                    "review": review,
                    "posted_at": at,
                }
                for posted in publication.posted
            ]
            if notes:
                session.execute(self._insert(NoteRow).values(notes).on_conflict_do_nothing())
            for lost in publication.not_posted:
                session.execute(
                    update(FindingRow)
                    .where(FindingRow.review == review, FindingRow.fingerprint == lost.fingerprint)
                    .where(FindingRow.hidden.is_(None))
                    .values(refused=lost.reason)
                )

    def finish_review(self, review: str, state: ReviewState, *, at: datetime, detail: str = "") -> None:
        """Record how a review ended. A review that has ended keeps its end."""
        with self._write() as session:
            row = session.get(ReviewRow, review, with_for_update=True)
            if row is not None and row.finished_at is None:
                row.state, row.detail, row.finished_at = state, detail, at

    def review(self, review: str) -> StoredReview | None:
        """Give a review by its id."""
        with self._read() as session:
            row = session.get(ReviewRow, review)
            return None if row is None else _review(row)

    def last_posted(self, ref: MergeRef, head: str | None = None) -> StoredReview | None:
        """Give the newest review that was posted on a merge request; with `head`: of that commit."""
        query = select(ReviewRow).where(
            ReviewRow.project == ref.project, ReviewRow.iid == ref.iid, ReviewRow.state == ReviewState.POSTED
        )
        if head is not None:
            query = query.where(ReviewRow.head == head)
        with self._read() as session:
            row = session.scalar(query.order_by(ReviewRow.started_at.desc(), ReviewRow.id.desc()).limit(1))
            return None if row is None else _review(row)

    def findings_of(self, review: str) -> tuple[StoredFinding, ...]:
        """Give the findings of a review, hidden ones too, worst first.

        The note is the one that says the finding on the merge request, an earlier review's too.
        """
        query = (
            select(FindingRow, ReviewRow, NoteRow)
            .join(ReviewRow, ReviewRow.id == FindingRow.review)
            .outerjoin(
                NoteRow,
                and_(
                    NoteRow.project == ReviewRow.project,
                    NoteRow.iid == ReviewRow.iid,
                    NoteRow.fingerprint == FindingRow.fingerprint,
                ),
            )
            .where(FindingRow.review == review)
            .order_by(FindingRow.place, NoteRow.note)
        )
        with self._read() as session:
            rows = session.execute(query)
            found = {row.place: _stored(row, its_review, note) for row, its_review, note in rows}
        return tuple(found.values())  # of several notes that say it, the newest

    def finding_by_note(self, project: int, note: int) -> StoredFinding | None:
        """Give the finding that a note says."""
        with self._read() as session:
            found = _findings(session, NoteRow.project == project, NoteRow.note == note)
            return found[0] if found else None

    def posted_in(self, ref: MergeRef) -> tuple[StoredFinding, ...]:
        """Give the findings that were posted on a merge request, oldest first, each as it was first posted."""
        with self._read() as session:
            return _findings(session, NoteRow.project == ref.project, NoteRow.iid == ref.iid)

    def voted(self) -> Iterator[Voted]:
        """Yield the findings that people voted on, each with the votes that count and what the student was asked.

        They come merge request by merge request, each read in transactions of its own: a slow reader holds up nobody.
        """
        with self._read() as session:
            pairs = session.execute(select(VoteRow.project, VoteRow.iid).distinct()).all()
        for ref in sorted(MergeRef(project, iid) for project, iid in pairs):
            votes: defaultdict[str, list[Vote]] = defaultdict(list)
            for vote in self.votes(ref):
                votes[vote.fingerprint].append(vote)
            with self._read() as session:
                said = _findings(session, NoteRow.project == ref.project, NoteRow.iid == ref.iid)
                questions = _questions(session, ref)
            for fingerprint, cast in sorted(votes.items()):
                same = [stored for stored in said if stored.fingerprint == fingerprint]
                if same:  # else its review is kept no longer
                    question = questions.get(same[0].review, {}).get(fingerprint)
                    reviews = tuple(dict.fromkeys(stored.review for stored in same))
                    yield Voted(same[0].finding, question, tuple(cast), ref, reviews)


_QUESTION: TypeAdapter[Question] = TypeAdapter(Question)


def _as_json(question: Question) -> str:
    return json.dumps(_QUESTION.dump_python(question, mode="json"), ensure_ascii=False)  # half surrogate pairs as such


def _findings(session: Session, *which: ColumnElement[bool]) -> tuple[StoredFinding, ...]:
    """Read findings beside the notes that first said them."""
    query = (
        select(FindingRow, ReviewRow, NoteRow)
        .join(ReviewRow, ReviewRow.id == FindingRow.review)
        .join(NoteRow, and_(NoteRow.review == FindingRow.review, NoteRow.fingerprint == FindingRow.fingerprint))
        .where(FindingRow.hidden.is_(None), *which)
        .order_by(NoteRow.posted_at, FindingRow.place, NoteRow.note)
    )
    return tuple(_stored(finding, review, note) for finding, review, note in session.execute(query))


def _questions(session: Session, ref: MergeRef) -> dict[str, dict[str, Question]]:
    """Read what was asked in the reviews of a merge request, by review and fingerprint."""
    query = (
        select(FindingRow.review, FindingRow.fingerprint, FindingRow.question)
        .join(ReviewRow, ReviewRow.id == FindingRow.review)
        .where(ReviewRow.project == ref.project, ReviewRow.iid == ref.iid, FindingRow.question.is_not(None))
    )
    found: defaultdict[str, dict[str, Question]] = defaultdict(dict)
    for review, fingerprint, question in session.execute(query):
        found[review][fingerprint] = _QUESTION.validate_json(str(question))
    return found


def _finding_row(review: str, place: int, judged: Judged, question: Question | None) -> FindingRow:
    finding = judged.finding
    return FindingRow(
        review=review,
        place=place,
        fingerprint=finding.fingerprint,
        file=finding.file,
        line=finding.line,
        end_line=finding.end_line,
        severity=finding.severity.value,
        category=finding.category,
        title=finding.title,
        explanation=finding.explanation,
        quote=finding.quote,
        suggestion=finding.suggestion,
        confidence=finding.confidence,
        hidden=judged.hidden,
        question=_as_json(question) if question else None,
    )


def _stored(row: FindingRow, review: ReviewRow, note: NoteRow | None) -> StoredFinding:
    finding = Finding(
        file=row.file,
        line=row.line,
        end_line=row.end_line,
        severity=Severity(row.severity),
        category=Category(row.category),
        title=row.title,
        explanation=row.explanation,
        quote=row.quote,
        suggestion=row.suggestion,
        confidence=row.confidence,
    )
    return StoredFinding(
        review=row.review,
        ref=MergeRef(review.project, review.iid),
        place=row.place,
        fingerprint=row.fingerprint,
        judged=Judged(finding, None if row.hidden is None else HiddenReason(row.hidden)),
        note=None if note is None else note.note,
        discussion=None if note is None else note.discussion,
        refused=row.refused,
    )


def _review(row: ReviewRow) -> StoredReview:
    refs = None
    if row.head is not None and row.base is not None and row.start is not None:
        refs = DiffRefs(base=row.base, start=row.start, head=row.head)
    return StoredReview(
        id=row.id,
        ref=MergeRef(row.project, row.iid),
        refs=refs,
        full=row.full,
        trigger=row.trigger,
        state=ReviewState(row.state),
        detail=row.detail,
        model=row.model,
        adapter=row.adapter,
        prompt_id=row.prompt_id,
        usage=Usage(row.requests, row.prompt_tokens, row.cached_tokens, row.completion_tokens, row.seconds),
        read=tuple(row.read),
        not_read=tuple(NotRead(file, reason, failed) for file, reason, failed in row.not_read),
        redacted=tuple((kind, count) for kind, count in row.redacted),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
