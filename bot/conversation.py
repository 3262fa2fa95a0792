"""What people say and do on a merge request: commands, votes, its end, in steps (`bot.step`)."""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from bot import command, thread
from bot.desk import Due
from bot.domain import MergeRef, Vote, VoteOrigin
from bot.event import EmojiGiven, Event, MergeRequestChanged, NoteWritten, TokenExpiring, Trigger
from bot.feedback import (
    OUTCOMES,
    Ballot,
    Opinion,
    pseudonym,
    read_emoji,
    vote,
    vote_by_award,
    vote_by_reply,
    votes_by_outcome,
)
from bot.forge import Discussion, Forge, MergeRequest, Note
from bot.merge_review import read_policy
from bot.policy import Policy, PolicyError
from bot.step import Done, End, Wait, guarded, now
from bot.store import Store, StoredFinding
from bot.telemetry import Metrics

log = structlog.get_logger()

_ENDS = {Trigger.CLOSED, Trigger.MERGED}


class Conversation:
    """The steps, and what they need.

    Args:
        forge: where merge requests are.
        store: what the bot remembers.
        salt: the secret behind voters' pseudonyms.
        metrics: where votes are counted that were cast while the bot listened.
    """

    def __init__(self, forge: Forge, store: Store, salt: str, metrics: Metrics) -> None:
        self.forge = forge
        self.store = store
        self.salt = salt
        self.metrics = metrics

    def due(self, told: Event, debounce: timedelta) -> Due | None:
        """The review that an event makes due by itself; None where it must be attended to."""
        if not isinstance(told, MergeRequestChanged) or told.trigger in {*_ENDS, Trigger.REVIEWER}:
            return None
        pushed = told.trigger is Trigger.PUSHED
        return Due(
            told.ref,
            now(),
            told.trigger.value,
            wait=debounce if pushed else timedelta(0),
            full=told.trigger is Trigger.RETARGETED,
        )

    def attend(self, told: Event) -> Done | Wait | End:
        """Do what an event asks for."""
        return guarded(lambda: self._attend(told))

    def sweep(self, ref: MergeRef) -> Done | Wait | End:
        """Look at the votes on a merge request as they stand there, for what no webhook told."""
        return guarded(lambda: self._sweep(ref))

    def _attend(self, told: Event) -> Done:
        match told:
            case NoteWritten():
                self._hear(told)
            case EmojiGiven():
                self._count(told)
            case MergeRequestChanged(trigger=Trigger.REVIEWER):
                if self.forge.me().id in told.asked:
                    self.store.ask(Due(told.ref, now(), told.trigger.value, asked=True))
            case MergeRequestChanged():
                self._sweep(told.ref)
            case TokenExpiring():
                log.warning("token expires", token=told.name, expires_on=told.expires_on.isoformat())
        return Done()

    # --- notes

    def _hear(self, told: NoteWritten) -> None:
        bot = self.forge.me()
        if told.author.id == bot.id:
            return
        wanted = command.parse(told.body, bot.username)
        if wanted is None:
            self._count_reply(told)
            return
        where = self._thread_of(told)
        if where is None:
            return  # the note is gone already
        if any(note.author.id == bot.id and note.body.endswith(_marker(told)) for note in where.notes):
            return  # answered already, by an attempt that did not live to tell
        if not command.may_command(self.forge.access_level(told.ref.project, told.author.id)):
            self._answer(told, where, command.NOT_ALLOWED)
            return
        self._obey(wanted, told, where)

    def _thread_of(self, told: NoteWritten) -> Discussion | None:
        threads = self.forge.discussions(told.ref)
        return next((each for each in threads if any(note.id == told.note for note in each.notes)), None)

    def _obey(self, wanted: command.Command, told: NoteWritten, where: Discussion) -> None:
        ref, bot = told.ref, self.forge.me()
        match wanted:
            case command.Review(full=full):
                if self.forge.merge_request(ref).state != "opened":
                    self._answer(told, where, command.NOT_OPEN)
                    return
                self.store.ask(Due(ref, now(), "command", full=full, asked=True))
                self.forge.seed(ref, told.note, command.SEEN)
            case command.Pause():
                self.store.set_paused(ref, True)  # noqa: FBT003 -- it is the thing that is set
                self._answer(told, where, command.PAUSED)
            case command.Resume():
                self.store.set_paused(ref, False)  # noqa: FBT003 -- the same
                self.store.ask(Due(ref, now(), "command"))
                self._answer(told, where, command.RESUMED)
            case command.Threshold(level=level):
                self.store.set_threshold(ref, level)
                self._answer(told, where, command.threshold_set(level))
            case command.Why():
                self._explain(told, where)
            case command.Forget():
                self._forget(told, where)
            case command.Help():
                self._answer(told, where, command.help_text(bot.username))
            case command.Unknown(words=words):
                self._answer(told, where, command.unknown(words, bot.username))

    def _explain(self, told: NoteWritten, where: Discussion) -> None:
        stored = self._finding_in(told.ref, where.id)
        review = self.store.review(stored.review) if stored else None
        if stored is None or review is None:
            self._answer(told, where, command.NOT_IN_THREAD)
            return
        words = command.why(
            stored.finding,
            model=review.model,
            adapter=review.adapter,
            prompt_id=review.prompt_id,
            head=review.refs.head if review.refs else "",
            verified=self._policy(self.forge.merge_request(told.ref)).verify,
        )
        self._answer(told, where, words)

    def _forget(self, told: NoteWritten, where: Discussion) -> None:
        stored = self._finding_in(told.ref, where.id)
        if stored is None or stored.note is None:
            self._answer(told, where, command.NOT_IN_THREAD)
            return
        ballot = self._ballot(self.forge.merge_request(told.ref), stored.fingerprint)
        self._cast(vote(told.author, Opinion(up=False), VoteOrigin.REPLY, told.at, ballot), f"note {told.note}")
        self.forge.delete_note(told.ref, where.id, stored.note)
        self._answer(told, where, command.FORGOTTEN)

    def _answer(self, told: NoteWritten, where: Discussion, words: str) -> None:
        self.forge.reply(told.ref, where.id, f"{words}\n\n{_marker(told)}")

    def _finding_in(self, ref: MergeRef, discussion: str) -> StoredFinding | None:
        return next((each for each in self.store.posted_in(ref) if each.discussion == discussion), None)

    # --- votes

    def _count_reply(self, told: NoteWritten) -> None:
        stored = self._finding_in(told.ref, told.discussion) if told.discussion else None
        if stored is None:
            return
        note = Note(told.note, told.author, told.body, system=False, created_at=told.at)
        ballot = self._ballot(self.forge.merge_request(told.ref), stored.fingerprint)
        self._cast(vote_by_reply(note, ballot), f"note {told.note}")

    def _cast(self, said: Vote | None, source: str, name: str = "") -> None:
        """Keep a vote of which a webhook told, where it is one."""
        if said is not None:
            self.store.add_vote(said, source=source, name=name)
            self.metrics.votes.labels(said.origin.value, "up" if said.up else "down").inc()

    def _count(self, told: EmojiGiven) -> None:
        fingerprint = self._fingerprint(told)
        if fingerprint is None or read_emoji(told.award.name) is None:
            return
        source = f"award {told.award.id}"
        if not told.given:
            voter = pseudonym(told.award.person.id, self.salt)
            self.store.remove_vote(told.ref, fingerprint, voter, VoteOrigin.EMOJI, source=source)
            return
        ballot = self._ballot(self.forge.merge_request(told.ref), fingerprint)
        self._cast(vote_by_award(told.award, ballot), source, told.award.name)

    def _fingerprint(self, told: EmojiGiven) -> str | None:
        """The finding that an emoji is about, by our own book alone: anybody can write a note with a marker."""
        stored = self.store.finding_by_note(told.ref.project, told.note)
        return stored.fingerprint if stored else None

    def _sweep(self, ref: MergeRef) -> Done:
        """Make the book of votes agree with the merge request: emoji, replies and outcomes."""
        posted = self.store.posted_in(ref)
        if not posted:
            return Done()
        merge = self.forge.merge_request(ref)
        threads = thread.own_threads(self.forge.discussions(ref), self.forge.me().id)
        by_id = {own.discussion.id: own for own in threads}
        read = self.forge.read_change(merge)
        author_weight = self._policy(merge).author_weight
        for stored in posted:
            own = by_id.get(stored.discussion or "")
            if own is None or stored.note is None:
                continue
            ballot = self._ballot(merge, stored.fingerprint, author_weight)
            self._sweep_awards(ref, stored.note, ballot)
            for reply in own.replies:
                if said := vote_by_reply(reply, ballot):
                    self.store.add_vote(said, source=f"note {reply.id}")
            if (stands := thread.stands(stored.finding, read)) is not None:
                merged = merge.state == "merged"
                outcomes = votes_by_outcome(own.discussion, ballot, stands=stands, merged=merged, at=now())
                self._sweep_outcomes(ballot, outcomes)
        return Done()

    def _sweep_awards(self, ref: MergeRef, note: int, ballot: Ballot) -> None:
        there: set[str] = set()
        for award in self.forge.awards(ref, note):
            if said := vote_by_award(award, ballot):
                there.add(source := f"award {award.id}")
                self.store.add_vote(said, source=source, name=award.name)
        for cast in self.store.casts(ref, ballot.fingerprint):
            if cast.vote.origin is VoteOrigin.EMOJI and cast.source not in there:
                self.store.remove_vote(ref, ballot.fingerprint, cast.vote.voter, VoteOrigin.EMOJI, source=cast.source)

    def _sweep_outcomes(self, ballot: Ballot, outcomes: Sequence[Vote]) -> None:
        """Keep what became of a finding, and drop what was seen earlier and holds no more."""
        for outcome in outcomes:
            self.store.add_vote(outcome)
        there = {(outcome.voter, outcome.origin) for outcome in outcomes}
        for old in (cast.vote for cast in self.store.casts(ballot.merge, ballot.fingerprint)):
            if old.origin in OUTCOMES and (old.voter, old.origin) not in there:
                self.store.remove_vote(ballot.merge, ballot.fingerprint, old.voter, old.origin)

    def _ballot(self, merge: MergeRequest, fingerprint: str, author_weight: float | None = None) -> Ballot:
        """Who votes on a finding; the policy is read where the author's weight is not known yet."""
        return Ballot(
            merge=merge.ref,
            fingerprint=fingerprint,
            author=merge.author,
            bot=self.forge.me().id,
            author_weight=self._policy(merge).author_weight if author_weight is None else author_weight,
            salt=self.salt,
        )

    def _policy(self, merge: MergeRequest) -> Policy:
        try:
            return read_policy(self.forge, merge)
        except PolicyError:  # the review says so; a vote is counted all the same
            return Policy()


def _marker(told: NoteWritten) -> str:
    """Ends the answer to a note, so that it is not answered twice."""
    return f"<!-- apprentice:answer:v1:{told.note} -->"
