from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.decide import Desk, Go, NotReady, Skip, SkipReason, Status, decide, status
from bot.domain import Category, Finding, MergeRef, Severity
from bot.forge import DiffRefs, MergeRequest, Person
from bot.policy import Policy

BOT = 1
REFS = DiffRefs("b" * 40, "s" * 40, "h" * 40)
MERGE = MergeRequest(
    ref=MergeRef(7, 12),
    title="t",
    description="",
    author=Person(2, "ann"),
    state="opened",
    draft=False,
    source_branch="topic",
    source_project=7,
    target_branch="main",
    refs=REFS,
    web_url="https://gitlab.example/p/-/merge_requests/12",
)
DRAFT = replace(MERGE, draft=True)
BY_BOT = replace(MERGE, author=Person(3, "renovate", bot=True))
BY_US = replace(MERGE, author=Person(BOT, "apprentice"))
UNPREPARED = replace(MERGE, refs=None)
FRESH, OLD, SAME = Desk(), Desk(reviewed="a" * 40), Desk(reviewed="h" * 40)
PAUSED = Desk(paused=True)


def asked(desk: Desk, *, full: bool = False) -> Desk:
    return replace(desk, asked=True, full=full)


ALL, NEW = Go(since=None), Go(since="a" * 40)
NO = {reason: Skip(reason) for reason in SkipReason}


@pytest.mark.parametrize(
    ("merge", "desk", "policy", "decision"),
    [
        (MERGE, FRESH, Policy(), ALL),
        (MERGE, OLD, Policy(), NEW),
        (MERGE, replace(OLD, full=True), Policy(), ALL),
        (MERGE, SAME, Policy(), NO[SkipReason.SAME_HEAD]),
        (MERGE, replace(SAME, full=True), Policy(), NO[SkipReason.SAME_HEAD]),
        (MERGE, asked(FRESH), Policy(), ALL),
        (MERGE, asked(OLD), Policy(), NEW),
        (MERGE, asked(OLD, full=True), Policy(), ALL),
        (MERGE, asked(SAME), Policy(), ALL),  # what is new since then is nothing
        (MERGE, PAUSED, Policy(), NO[SkipReason.PAUSED]),
        (MERGE, asked(PAUSED), Policy(), ALL),
        (DRAFT, FRESH, Policy(), NO[SkipReason.DRAFT]),
        (DRAFT, FRESH, Policy(drafts=True), ALL),
        (DRAFT, asked(FRESH), Policy(), ALL),
        (DRAFT, PAUSED, Policy(drafts=True), NO[SkipReason.PAUSED]),
        (BY_BOT, FRESH, Policy(), NO[SkipReason.BOT]),
        (BY_BOT, FRESH, Policy(bots=True), ALL),
        (BY_BOT, asked(FRESH), Policy(), ALL),
        (BY_US, FRESH, Policy(), NO[SkipReason.BOT]),
        (BY_US, FRESH, Policy(bots=True), ALL),
        (replace(BY_BOT, draft=True), FRESH, Policy(drafts=True), NO[SkipReason.BOT]),
        (replace(MERGE, state="merged"), FRESH, Policy(), NO[SkipReason.NOT_OPEN]),
        (replace(MERGE, state="closed"), asked(FRESH), Policy(), NO[SkipReason.NOT_OPEN]),
        (replace(MERGE, state="locked"), FRESH, Policy(), NO[SkipReason.NOT_OPEN]),
        (UNPREPARED, FRESH, Policy(), NotReady()),
        (UNPREPARED, asked(SAME), Policy(), NotReady()),
        (UNPREPARED, PAUSED, Policy(), NO[SkipReason.PAUSED]),
        (replace(UNPREPARED, state="closed"), FRESH, Policy(), NO[SkipReason.NOT_OPEN]),
    ],
)
def test_whether_and_how_it_is_reviewed(
    merge: MergeRequest, desk: Desk, policy: Policy, decision: Go | Skip | NotReady
) -> None:
    assert decide(merge, policy, desk, BOT) == decision


def test_every_reason_has_words() -> None:
    assert all(reason.words for reason in SkipReason)


DESKS = st.builds(
    Desk,
    paused=st.booleans(),
    reviewed=st.sampled_from([None, "a" * 40, "h" * 40]),
    asked=st.booleans(),
    full=st.booleans(),
)


@given(st.sampled_from([MERGE, DRAFT, BY_BOT, BY_US]), DESKS, st.booleans(), st.booleans())
def test_a_review_by_itself_never_repeats_and_never_reads_nothing(
    merge: MergeRequest,
    desk: Desk,
    drafts: bool,  # noqa: FBT001 -- drawn
    bots: bool,  # noqa: FBT001 -- drawn
) -> None:
    decision = decide(merge, Policy(drafts=drafts, bots=bots), desk, BOT)
    if desk.asked:
        assert isinstance(decision, Go)
    if isinstance(decision, Go):
        assert decision.since != REFS.head
        assert decision.since in {None, desk.reviewed}
        assert desk.asked or desk.reviewed != REFS.head


def finding(severity: Severity) -> Finding:
    return Finding("a.py", 1, 1, severity, Category.STYLE, "t", "e", "q")


CRITICAL, MINOR, TRIVIAL = finding(Severity.CRITICAL), finding(Severity.MINOR), finding(Severity.TRIVIAL)


@pytest.mark.parametrize(
    ("findings", "fail_on", "complete", "expected"),
    [
        ([CRITICAL], None, True, None),
        ([], Severity.MAJOR, True, Status("success", "No findings")),
        ([], Severity.MAJOR, False, Status("success", "No findings; a part could not be read")),
        ([MINOR, MINOR], Severity.MAJOR, True, Status("success", "2 findings: 2 minor")),
        ([MINOR, CRITICAL], Severity.MAJOR, True, Status("failed", "2 findings: 1 critical, 1 minor")),
        ([MINOR], Severity.MINOR, False, Status("failed", "1 finding: 1 minor; a part could not be read")),
        ([TRIVIAL], Severity.TRIVIAL, True, Status("failed", "1 finding: 1 trivial")),
    ],
)
def test_the_commit_status_is_what_the_policy_wants(
    findings: list[Finding],
    fail_on: Severity | None,
    complete: bool,  # noqa: FBT001 -- a table's column
    expected: Status | None,
) -> None:
    assert status(iter(findings), Policy(fail_on=fail_on), complete=complete) == expected
