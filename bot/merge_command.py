"""`apprentice review URL`: a merge request from the command line, by the code that the bot reviews it with.

It needs GitLab and a student, but no webhook and no database. What the bot's own database may know besides (findings
that were withdrawn, votes by emoji) is not asked; what stands on the merge request is.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bot import settings, summary, thread
from bot.comment import render
from bot.decide import status
from bot.domain import Finding, MergeRef
from bot.endpoint import ContextOverflow, StudentError
from bot.feedback import FOOTER, SEEDS
from bot.forge import Comment, DiffRefs, Forge, ForgeBusy, ForgeError, MergeRequest, NotFound, Publication, ReadChange
from bot.merge_review import MergeChange, read_policy
from bot.merge_url import MergeUrl, MergeUrlError, read_merge_url
from bot.parts import lacks_gitlab, open_admin, open_forge
from bot.policy import Policy, PolicyError
from bot.position import anchor
from bot.redact import RedactionError
from bot.report import count_words
from bot.review import Outcome
from bot.review_command import INCOMPLETE, WRONG_INPUT, Options, ask, complain, exit_code, say, show
from bot.tokens import TokenizerError


class NotOpenError(ValueError):
    """Nothing can be posted on a merge request that is closed or merged."""


class NotPostedError(RuntimeError):
    """The review is made, and nothing of it was posted."""


_WRONG_INPUT = (
    settings.SettingsError,
    MergeUrlError,
    NotFound,
    NotOpenError,
    PolicyError,
    RedactionError,
    TokenizerError,
)


def run(url: str, options: Options, *, post: bool) -> int:
    """Review a merge request and print what was found; with `post` also say it there. Returns the exit code."""
    try:
        chosen = settings.load(options.overrides)
        if lacking := lacks_gitlab(chosen):
            raise settings.SettingsError(lacking)
        ref = _find(read_merge_url(url, f"{chosen.gitlab_url}"), chosen)
        with contextlib.closing(open_forge(chosen)) as forge:
            merge = forge.merge_request(ref)
            if post and merge.state != "opened":
                raise NotOpenError(f"{merge.web_url} is {merge.state}: leave out --post to see what there is to say")
            reviewed = _review(forge, merge, options, chosen)
            _report(reviewed, options)
            if post:
                _post(forge, reviewed)
            else:
                say("note: nothing is posted; --post does that")
    except _WRONG_INPUT as error:
        return complain(error, WRONG_INPUT)
    except (StudentError, ForgeError, NotPostedError) as error:
        return complain(error, INCOMPLETE)
    return exit_code(reviewed.outcome, options.fail_on, earlier=reviewed.earlier)


def _find(wanted: MergeUrl, chosen: settings.Settings) -> MergeRef:
    with contextlib.closing(open_admin(chosen)) as admin:
        return MergeRef(admin.project(wanted.project).id, wanted.iid)


# --- the review


@dataclass(frozen=True, slots=True)
class _Reviewed:
    """A review, and what it was made of.

    Args:
        merge: the merge request as it was when it was read; `refs`: its commits.
        policy: the target branch's, with the command line's threshold.
        read: the whole change.
        outcome: the review; what was said before or dismissed is hidden in it.
        threads: the bot's own ones, of earlier reviews.
    """

    merge: MergeRequest
    refs: DiffRefs
    policy: Policy
    read: ReadChange
    outcome: Outcome
    threads: tuple[thread.Thread, ...]

    @property
    def outdated(self) -> tuple[thread.Thread, ...]:
        """The threads whose code is gone."""
        return thread.outdated(self.threads, self.read)

    @property
    def earlier(self) -> tuple[Finding, ...]:
        """The findings of earlier reviews that still stand there."""
        gone = {own.discussion.id for own in self.outdated}
        return tuple(own.finding for own in self.threads if own.open and own.discussion.id not in gone)


def _review(forge: Forge, merge: MergeRequest, options: Options, chosen: settings.Settings) -> _Reviewed:
    if merge.refs is None:
        raise ForgeBusy(f"GitLab has not prepared the diff of {merge.web_url} yet: try again in a moment.")
    policy = read_policy(forge, merge).with_threshold(options.threshold)
    read = forge.read_change(merge)
    outcome = ask(MergeChange(forge, merge, merge.refs.head, read.files), policy, chosen)
    threads = thread.own_threads(forge.discussions(merge.ref), forge.me().id)
    before = thread.look_back(threads, forge.me().id, posted=(), votes=())
    result = replace(
        outcome.review,
        findings=thread.withhold(outcome.review.findings, before, policy),
        not_read=(*outcome.review.not_read, *read.not_read),
    )
    return _Reviewed(merge, merge.refs, policy, read, replace(outcome, review=result), threads)


def _report(reviewed: _Reviewed, options: Options) -> None:
    for failure in reviewed.outcome.errors:
        say(f"error: {failure}")
    show(reviewed.outcome.review, options)
    if reviewed.earlier:
        open_ones = count_words(len(reviewed.earlier), "comment")
        say(f"note: of earlier reviews, {open_ones} stand open on {reviewed.merge.web_url}")


# --- the posting


def _post(forge: Forge, reviewed: _Reviewed) -> None:
    """Say it on the merge request: comments, summary, emoji, status. What stands there already is not said twice.

    Raises:
        NotPostedError: a part is missing that another try may bring, or the merge request has moved on.
    """
    _must_be_whole(reviewed.outcome)
    _must_be_current(forge, reviewed)
    result, ref = reviewed.outcome.review, reviewed.merge.ref
    publication = forge.publish(reviewed.merge, _comments(result.shown, reviewed.read), again=True)
    _resolve(forge, ref, reviewed.outdated)
    refused = {lost.fingerprint: lost.reason for lost in publication.not_posted}
    unplaced = [(found, refused[found.fingerprint]) for found in result.shown if found.fingerprint in refused]
    body = summary.reviewed(
        result, head=reviewed.refs.head, since=None, unplaced=unplaced, still_open=len(reviewed.earlier)
    )
    forge.write_summary(ref, body, None)
    if reviewed.policy.seed_votes:
        for posted in publication.posted:
            forge.seed(ref, posted.note, SEEDS)
    standing = [*result.shown, *reviewed.earlier]
    if wanted := status(standing, reviewed.policy, complete=result.complete):
        forge.set_status(reviewed.merge, wanted.state, wanted.description)
    say(f"posted: {_count(publication)} and the summary on {reviewed.merge.web_url}")


def _must_be_whole(outcome: Outcome) -> None:
    if any(not isinstance(error, ContextOverflow) for error in outcome.errors):  # that one, every try would meet
        raise NotPostedError("nothing is posted: a part of the review is missing. Run it again once the student is up.")


def _must_be_current(forge: Forge, reviewed: _Reviewed) -> None:
    now = forge.merge_request(reviewed.merge.ref)
    if now.state != "opened":
        raise NotPostedError(f"nothing is posted: {now.web_url} is {now.state}")
    if now.refs is None or now.refs.head != reviewed.refs.head:
        raise NotPostedError(f"nothing is posted: {now.web_url} has new commits. Run it again.")


def _comments(findings: Iterable[Finding], read: ReadChange) -> list[Comment]:
    files = {file.path: file for file in read.files}
    return [
        Comment(found.fingerprint, render(found, FOOTER), anchor(files[found.file], found.line, found.end_line))
        for found in findings
    ]


def _resolve(forge: Forge, ref: MergeRef, outdated: Sequence[thread.Thread]) -> None:
    for own in outdated:
        if own.discussion.notes[-1].body != thread.OUTDATED:
            forge.reply(ref, own.discussion.id, thread.OUTDATED)
        forge.resolve(ref, own.discussion.id)


def _count(publication: Publication) -> str:
    words = count_words(len(publication.posted), "comment")
    lost = len(publication.not_posted)
    return f"{words}, {count_words(lost, 'finding')} in the summary only," if lost else words
