"""One review of a merge request, in steps (`bot.step`). `bot.jobs` makes a durable workflow of them."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from bot import summary, thread
from bot.comment import render
from bot.decide import CANCELED, PENDING, Go, NotReady, Skip, decide, status
from bot.decide import Desk as Known
from bot.desk import Claim, Due
from bot.diff import FileDiff
from bot.domain import Judged, MergeRef, Review
from bot.endpoint import (
    ContextOverflow,
    StudentError,
    StudentRefusedKey,
    StudentUnreachable,
    UnknownModel,
    UntrustedCertificate,
)
from bot.feedback import FOOTER, SEEDS
from bot.forge import Anchor, Comment, Forge, MergeRequest, ReadChange
from bot.increment import narrow
from bot.interview import NoStudentError, find_endpoint, interview
from bot.policy import Policy, PolicyError, parse_policy
from bot.position import anchor
from bot.review import Outcome, Step
from bot.serving import put_back
from bot.settings import Settings
from bot.step import Done, End, ForgottenError, Wait, guarded, now
from bot.store import ReviewState, Store, StoredFinding, StoredReview

POLICY_FILE = ".apprentice.yml"

_GONE = (NoStudentError, StudentUnreachable, StudentRefusedKey, UnknownModel, UntrustedCertificate)
"""What an operator has to mend, or time: a review waits for as long as it takes."""
_TRIES = 3
"""How often the student is asked again about a change when it fails in another way; then what there is, is posted."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a finding (`place`: its number in the review) shall be commented."""

    place: int
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Ready:
    """The student has answered, and the findings are stored.

    Args:
        placed: where the shown findings go.
        outdated: threads (discussion ids) of earlier reviews whose code is gone.
        seed: give the notes their emoji.
        gate: set the commit status.
        since: the head of the review before, where only what changed since then was read.
        still_open: how many threads of earlier reviews stay open.
    """

    placed: tuple[Placed, ...]
    outdated: tuple[str, ...]
    seed: bool
    gate: bool
    since: str | None
    still_open: int
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class MergeChange:
    """A merge request's change as `bot.review` reads it."""

    forge: Forge
    merge: MergeRequest
    head: str
    files: tuple[FileDiff, ...]

    @property
    def title(self) -> str:
        """The merge request's title."""
        return self.merge.title

    @property
    def description(self) -> str:
        """What the author wrote about it."""
        return self.merge.description

    def read_file(self, path: str) -> str | None:
        """Text of a file at the head."""
        return self.forge.read_file(self.merge.ref.project, path, self.head)


def read_policy(forge: Forge, merge: MergeRequest) -> Policy:
    """The policy of the target branch, never of the change itself.

    Raises:
        PolicyError: the file has mistakes.
        ForgeError: it cannot be read.
    """
    return parse_policy(forge.read_file(merge.ref.project, POLICY_FILE, merge.target_branch) or "", name=POLICY_FILE)


class MergeReview:
    """The steps, and what they need.

    Args:
        forge: where merge requests are.
        store: what the bot remembers.
        chosen: the settings in force.
    """

    def __init__(self, forge: Forge, store: Store, chosen: Settings) -> None:
        self.forge = forge
        self.store = store
        self.chosen = chosen

    def _stored(self, claim: Claim) -> StoredReview:
        review = self.store.review(claim.workflow)
        if review is None:
            raise ForgottenError("its project was forgotten during the review")
        return review

    def _write_summary(self, ref: MergeRef, body: str) -> None:
        row = self.store.desk(ref)
        note = row.summary_note if row else None
        self.store.set_summary_note(ref, self.forge.write_summary(ref, body, note))

    # --- look and ask

    def ask(self, claim: Claim, tries: int) -> Ready | Wait | End:
        """Look at the merge request, put its change to the student, and store what it finds.

        Args:
            claim: what is to be reviewed, and why.
            tries: how often it was put to the student before and the student failed.
        """
        return guarded(lambda: self._ask(claim, tries))

    def _ask(self, claim: Claim, tries: int) -> Ready | Wait | End:
        merge = self.forge.merge_request(claim.ref)
        policy, mistakes = self._policy_or_mistakes(merge)
        last = self.store.last_posted(claim.ref)
        decided = decide(merge, policy, self._known(claim, last), self.forge.me().id)
        if isinstance(decided, Skip):
            return End(ReviewState.SKIPPED, decided.reason.words)
        if mistakes:
            return self._refuse_policy(merge, mistakes)
        if isinstance(decided, NotReady) or merge.refs is None:
            return Wait("GitLab has not prepared the diff yet")
        self.store.begin_review(
            claim.workflow, claim.ref, merge.refs, full=decided.since is None, trigger=claim.reason, at=now()
        )
        begun = self.store.review(claim.workflow)
        if begun is None or begun.refs is None or begun.refs.head != merge.refs.head:
            return self._superseded(claim.ref)
        if policy.fail_on is not None:
            self.forge.set_status(merge, "pending", PENDING)
        read = self.forge.read_change(merge)
        files, since = self._files(merge, read, decided)
        change = MergeChange(self.forge, merge, merge.refs.head, files)
        endpoint = find_endpoint(self.chosen)
        adapter = self.store.take_adapter(claim.workflow, self.chosen.student_adapter)
        heard = asyncio.run(interview(change, policy, self.chosen, endpoint, _silently, adapter=adapter))
        if (lost := _lost(heard.outcome)) and (isinstance(lost, _GONE) or tries < _TRIES):
            # A student that was started anew has lost its adapters.
            problems = put_back(self.chosen, self.store).problems if isinstance(lost, UnknownModel) else ()
            self.store.leave_adapter(claim.workflow)
            return Wait(" ".join((str(lost), *problems)), spent=not isinstance(lost, _GONE), said=lost.reason)
        result = heard.outcome.review
        result = replace(result, not_read=(*result.not_read, *read.not_read))
        threads: tuple[thread.Thread, ...] = ()
        if merge.commented:
            threads = thread.own_threads(self.forge.discussions(merge.ref), self.forge.me().id)
            result = replace(result, findings=self._withheld(merge.ref, result, threads, policy))
        outdated = thread.outdated(threads, read)
        self.store.save_findings(claim.workflow, result, heard.outcome.asked)
        return Ready(
            placed=tuple(_placed(result, read.files)),
            outdated=tuple(old.discussion.id for old in outdated),
            seed=policy.seed_votes,
            gate=policy.fail_on is not None,
            since=since,
            still_open=sum(own.open for own in threads) - len(outdated),
        )

    def _policy(self, merge: MergeRequest) -> Policy:
        """The policy, with the threshold that a person set for this merge request."""
        policy = read_policy(self.forge, merge)
        row = self.store.desk(merge.ref)
        return policy.with_threshold(row.threshold) if row and row.threshold else policy

    def _policy_or_mistakes(self, merge: MergeRequest) -> tuple[Policy, Sequence[str]]:
        """The policy, or the usual one and what is wrong with the file: what is not reviewed hears nothing of that."""
        try:
            return self._policy(merge), ()
        except PolicyError as error:
            return Policy(), error.problems

    def _known(self, claim: Claim, last: StoredReview | None) -> Known:
        row = self.store.desk(claim.ref)
        return Known(
            paused=row is not None and row.paused,
            reviewed=last.refs.head if last and last.refs else None,
            asked=claim.asked,
            full=claim.full,
        )

    def _files(self, merge: MergeRequest, read: ReadChange, go: Go) -> tuple[tuple[FileDiff, ...], str | None]:
        """What of the change is put to the student; since which head, where that is only what is new."""
        newer = None if go.since is None else self.forge.changed_since(merge, go.since)
        return (read.files, None) if newer is None else (narrow(read.files, newer), go.since)

    def _withheld(
        self, ref: MergeRef, result: Review, threads: Sequence[thread.Thread], policy: Policy
    ) -> tuple[Judged, ...]:
        """The findings, with those hidden that were said before or dismissed."""
        posted = (stored.fingerprint for stored in self.store.posted_in(ref))
        votes = self.store.votes(ref)
        before = thread.look_back(threads, self.forge.me().id, posted=posted, votes=votes)
        return thread.withhold(result.findings, before, policy)

    def _refuse_policy(self, merge: MergeRequest, mistakes: Sequence[str]) -> End:
        """Say on the merge request what is wrong with the policy file; kind words, once."""
        self._write_summary(merge.ref, summary.policy_broken(mistakes, merge.target_branch))
        return End(ReviewState.FAILED, "the policy file has mistakes")

    def _superseded(self, ref: MergeRef) -> End:
        """Leave this head, and see to it that the new one is reviewed, whether its webhook came or not."""
        wait = timedelta(seconds=self.chosen.debounce_seconds)
        self.store.ask(Due(ref, now(), "its head moved during a review", wait=wait))
        return End(ReviewState.SUPERSEDED, "its head moved during the review")

    def tell_waiting(self, claim: Claim, wait: Wait) -> Done | Wait | End:
        """Say on the merge request that its review waits, and for what: somebody waits for it, too."""
        return guarded(lambda: self._tell_waiting(claim, wait))

    def _tell_waiting(self, claim: Claim, wait: Wait) -> Done:
        refs = self._stored(claim).refs
        self._write_summary(claim.ref, summary.waiting(wait.said, refs.head if refs else ""))
        return Done()

    # --- the shadow

    def shadow(self, claim: Claim, ready: Ready) -> Done | Wait | End:
        """Have the adapter that is in the shadow, if there is one, make the same review; nobody is shown it."""
        return guarded(lambda: self._shadow(claim, ready))

    def _shadow(self, claim: Claim, ready: Ready) -> Done:
        adapter = self.store.shadow_adapter()
        if adapter is None:
            return Done()
        merge = self.forge.merge_request(claim.ref)
        if merge.refs is None or merge.refs != self._stored(claim).refs:
            return Done()  # it has moved on: it would be another review
        files, _ = self._files(merge, self.forge.read_change(merge), Go(ready.since))
        change = MergeChange(self.forge, merge, merge.refs.head, files)
        endpoint = find_endpoint(self.chosen)
        heard = asyncio.run(
            interview(change, self._policy(merge), self.chosen, endpoint, _silently, adapter=adapter.name)
        )
        if _lost(heard.outcome) is None:
            self.store.save_shadow(claim.workflow, adapter.name, heard.outcome.review.findings, now())
        return Done()

    # --- post

    def post(self, claim: Claim, ready: Ready) -> Done | Wait | End:
        """Post the findings, unless the merge request has moved on."""
        return guarded(lambda: self._post(claim, ready))

    def _post(self, claim: Claim, ready: Ready) -> Done | Wait | End:
        review = self._stored(claim)
        merge = self.forge.merge_request(claim.ref)
        if merge.state != "opened":
            return End(ReviewState.SKIPPED, f"it was {merge.state} during the review")
        if merge.refs is None:
            return Wait("GitLab has not prepared the diff yet")
        if review.refs is None or merge.refs.head != review.refs.head:
            return self._superseded(claim.ref)
        again = self.store.begin_posting(claim.workflow)
        anchors = {placed.place: placed.anchor for placed in ready.placed}
        comments = [
            Comment(stored.fingerprint, render(stored.finding, FOOTER), anchors[stored.place])
            for stored in self.store.findings_of(claim.workflow)
            if stored.hidden is None
        ]
        if comments:
            publication = self.forge.publish(replace(merge, refs=review.refs), comments, again=again)
            self.store.record_posted(claim.workflow, publication, at=now())
        return Done()

    def resolve_outdated(self, claim: Claim, ready: Ready) -> Done | Wait | End:
        """Resolve the threads whose code is gone, with a word, unless somebody answered meanwhile."""
        return guarded(lambda: self._resolve_outdated(claim.ref, set(ready.outdated)))

    def _resolve_outdated(self, ref: MergeRef, outdated: set[str]) -> Done:
        if not outdated:
            return Done()
        bot = self.forge.me().id
        for own in thread.own_threads(self.forge.discussions(ref), bot):
            if own.discussion.id in outdated and own.open and not own.replies:
                if own.discussion.notes[-1].body != thread.OUTDATED:
                    self.forge.reply(ref, own.discussion.id, thread.OUTDATED)
                self.forge.resolve(ref, own.discussion.id)
        return Done()

    # --- what comes after

    def summarise(self, claim: Claim, ready: Ready) -> Done | Wait | End:
        """Write the summary note, in place where there is one."""
        return guarded(lambda: self._summarise(claim, ready))

    def _summarise(self, claim: Claim, ready: Ready) -> Done:
        stored = self._stored(claim)
        findings = self.store.findings_of(claim.workflow)
        body = summary.reviewed(
            _review(stored, findings),
            head=stored.refs.head if stored.refs else "",
            since=ready.since,
            unplaced=[(each.finding, each.refused) for each in findings if each.refused],
            still_open=ready.still_open,
        )
        self._write_summary(claim.ref, body)
        return Done()

    def seed(self, claim: Claim, ready: Ready) -> Done | Wait | End:
        """Give the posted notes the emoji to vote with."""
        return guarded(lambda: self._seed(claim, ready))

    def _seed(self, claim: Claim, ready: Ready) -> Done:
        if ready.seed:
            for stored in self.store.findings_of(claim.workflow):
                if stored.note is not None and stored.hidden is None:
                    self.forge.seed(claim.ref, stored.note, SEEDS)
        return Done()

    def gate(self, claim: Claim, ready: Ready) -> Done | Wait | End:
        """Set the commit status where the policy wants one, by all findings that stand on the merge request."""
        return guarded(lambda: self._gate(claim) if ready.gate else Done())

    def _gate(self, claim: Claim) -> Done:
        review = self._stored(claim)
        merge = self.forge.merge_request(claim.ref)
        threads = thread.own_threads(self.forge.discussions(claim.ref), self.forge.me().id)
        refused = [stored.finding for stored in self.store.findings_of(claim.workflow) if stored.refused]
        standing = [own.finding for own in threads if own.open] + refused
        complete = not any(missing.failed for missing in review.not_read)
        try:
            wanted = status(standing, self._policy(merge), complete=complete)
        except PolicyError:  # somebody broke it meanwhile; the next review says so
            return Done()
        if wanted and review.refs:
            self.forge.set_status(replace(merge, refs=review.refs), wanted.state, wanted.description)
        return Done()

    # --- the end

    def ungate(self, claim: Claim) -> Done | Wait | End:
        """Take back the commit status "pending" of a review that came to nothing."""
        return guarded(lambda: self._ungate(claim))

    def _ungate(self, claim: Claim) -> Done:
        review = self.store.review(claim.workflow)
        if review is None or review.refs is None:  # it had not begun
            return Done()
        merge = self.forge.merge_request(claim.ref)
        policy, _ = self._policy_or_mistakes(merge)
        if policy.fail_on is not None:
            self.forge.set_status(replace(merge, refs=review.refs), "canceled", CANCELED)
        return Done()

    def close(self, claim: Claim, state: ReviewState, why: str) -> None:
        """Record how it ended, and let the merge request go."""
        self.store.finish_review(claim.workflow, state, at=now(), detail=why)
        self.store.release(claim.ref, claim.workflow)


@contextlib.contextmanager
def _silently(_total: int) -> Iterator[Step]:
    """Show no progress: nobody watches."""
    yield lambda _done, _total, _path: None


def _lost(outcome: Outcome) -> StudentError | None:
    """The error that cost a part of the review, the one first that an operator has to mend; None where none did."""
    errors = sorted(outcome.errors, key=lambda error: not isinstance(error, _GONE))
    return next((error for error in errors if not isinstance(error, ContextOverflow)), None)


def _placed(result: Review, files: Sequence[FileDiff]) -> Iterator[Placed]:
    """Where each shown finding goes; triage has seen to it that its lines stand in the diff."""
    by_path = {file.path: file for file in files}
    for place, judged in enumerate(result.findings):
        if judged.shown:
            finding = judged.finding
            yield Placed(place, anchor(by_path[finding.file], finding.line, finding.end_line))


def _review(stored: StoredReview, findings: Sequence[StoredFinding]) -> Review:
    return Review(
        findings=tuple(each.judged for each in findings),
        read=stored.read,
        not_read=stored.not_read,
        model=stored.model,
        adapter=stored.adapter,
        prompt_id=stored.prompt_id,
        usage=stored.usage,
        redacted=stored.redacted,
    )
