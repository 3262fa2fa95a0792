"""Decide whether a merge request is reviewed now, and how; and what the commit status says afterwards."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bot.domain import Finding
from bot.forge import MergeRequest
from bot.policy import Policy
from bot.report import count_words, severity_words


class SkipReason(enum.StrEnum):
    """Why a merge request is not reviewed now."""

    NOT_OPEN = "not_open"
    PAUSED = "paused"
    DRAFT = "draft"
    BOT = "bot"
    SAME_HEAD = "same_head"

    @property
    def words(self) -> str:
        """The reason as a person reads it."""
        return _WORDS[self]


_WORDS = {
    SkipReason.NOT_OPEN: "it is not open",
    SkipReason.PAUSED: "reviews are paused here",
    SkipReason.DRAFT: "it is a draft",
    SkipReason.BOT: "a bot opened it",
    SkipReason.SAME_HEAD: "its newest commit is reviewed already",
}


@dataclass(frozen=True, slots=True)
class Desk:
    """What the bot knows of a merge request besides what the forge says.

    Args:
        paused: somebody asked for no reviews until they are resumed.
        reviewed: the newest head whose review was posted.
        asked: a person asked for this review, by a command or by making the bot a reviewer.
        full: all of the change shall be read, not only what is new.
    """

    paused: bool = False
    reviewed: str | None = None
    asked: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class Go:
    """Review it: what its commits changed since that head, or all of it."""

    since: str | None


@dataclass(frozen=True, slots=True)
class Skip:
    """Do not review it."""

    reason: SkipReason


@dataclass(frozen=True, slots=True)
class NotReady:
    """The forge has not prepared its diff yet: look again in a moment."""


def decide(merge: MergeRequest, policy: Policy, desk: Desk, bot: int) -> Go | Skip | NotReady:
    """Say whether to review it now.

    Who asks for a review gets one, whatever is paused, draft, opened by a bot or reviewed already; only what is not
    open is never reviewed.

    Args:
        merge: as it is now.
        policy: the target branch's.
        desk: what the bot knows of it.
        bot: the bot's own id in the forge.
    """
    if reason := _reason_to_skip(merge, policy, desk, bot):
        return Skip(reason)
    if merge.refs is None:
        return NotReady()
    same = merge.refs.head == desk.reviewed
    if same and not desk.asked:
        return Skip(SkipReason.SAME_HEAD)
    return Go(since=None if desk.full or same else desk.reviewed)


def _reason_to_skip(merge: MergeRequest, policy: Policy, desk: Desk, bot: int) -> SkipReason | None:
    if merge.state != "opened":
        return SkipReason.NOT_OPEN
    if desk.asked:
        return None
    if desk.paused:
        return SkipReason.PAUSED
    if merge.draft and not policy.drafts:
        return SkipReason.DRAFT
    by_bot = merge.author.bot or merge.author.id == bot
    return SkipReason.BOT if by_bot and not policy.bots else None


# --- the gate

PENDING = "The review is under way"
CANCELED = "There is no review of this commit"


@dataclass(frozen=True, slots=True)
class Status:
    """The commit status once a review is posted; the description is one short line of our own words."""

    state: Literal["success", "failed"]
    description: str


def status(findings: Iterable[Finding], policy: Policy, *, complete: bool) -> Status | None:
    """The commit status that the policy wants; None where it wants none.

    A part that could not be read does not fail it: a small model's broken answer would block every merge.

    Args:
        findings: all that stand: those of this review, and those of earlier ones whose threads are open.
        policy: the target branch's.
        complete: False when a part of the review is missing through a failure.
    """
    if policy.fail_on is None:
        return None
    there = list(findings)
    bad = [finding for finding in there if finding.severity >= policy.fail_on]
    words = f"{count_words(len(there), 'finding')}: {severity_words(there)}" if there else "No findings"
    if not complete:
        words += "; a part could not be read"
    return Status("failed" if bad else "success", words)
