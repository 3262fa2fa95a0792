from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.comment import render
from bot.diff import parse
from bot.domain import Category, Finding, HiddenReason, Judged, MergeRef, NotRead, Severity, Vote, VoteOrigin
from bot.feedback import FOOTER
from bot.forge import Discussion, Note, Person, ReadChange
from bot.policy import Policy
from bot.thread import Before, Thread, look_back, outdated, own_thread, own_threads, stands, withhold

BOT, AUTHOR, REVIEWER = Person(1, "apprentice"), Person(2, "ann"), Person(3, "rob")
OTHER_BOT = Person(4, "renovate", bot=True)
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
FINDING = Finding(
    file="src/cart.py",
    line=2,
    end_line=2,
    severity=Severity.MAJOR,
    category=Category.CORRECTNESS,
    title="Division by zero",
    explanation="An empty cart.",
    quote="    return total / len(items)",
)
FINGERPRINT = FINDING.fingerprint


def note(body: str, author: Person = REVIEWER, **changes: object) -> Note:
    return replace(Note(9, author, body, system=False, created_at=NOW), **changes)  # type: ignore[arg-type]


POSTED = note(render(FINDING, FOOTER), BOT, resolvable=True)


def discussion(*replies: Note, first: Note = POSTED) -> Discussion:
    return Discussion("d", (first, *replies))


def thread(*replies: Note, **changes: object) -> Thread:
    found = own_thread(discussion(*replies, first=replace(POSTED, **changes)), BOT.id)  # type: ignore[arg-type]
    assert found is not None
    return found


# --- whose thread it is


@pytest.mark.parametrize(
    ("first", "own"),
    [
        (POSTED, True),
        (replace(POSTED, author=REVIEWER), False),  # copied
        (replace(POSTED, author=OTHER_BOT), False),
        (note("A summary", BOT), False),
        (note("LGTM"), False),
    ],
)
def test_a_thread_is_the_bots_by_author_and_marker(first: Note, own: bool) -> None:  # noqa: FBT001 -- a table's column
    found = own_threads([discussion(first=first), discussion(note("x"), first=note("y"))], BOT.id)
    assert [(thread.finding, thread.note) for thread in found] == ([(FINDING, first)] if own else [])


def test_only_people_reply() -> None:
    replies = (
        note("x", BOT),
        note("changed this line", AUTHOR, system=True),
        note("a", OTHER_BOT),
        note("b", AUTHOR),
        note("c"),
    )
    assert [reply.body for reply in thread(*replies).replies] == ["b", "c"]


# --- what was said


def vote(*, up: bool, fingerprint: str = FINGERPRINT) -> Vote:
    return Vote(MergeRef(1, 2), fingerprint, "p", up, VoteOrigin.EMOJI, None, 0.9, NOW)


RESOLVED = {"resolved": True, "resolved_by": REVIEWER}
SAID, DISMISSED = HiddenReason.ALREADY_SAID, HiddenReason.DISMISSED


@pytest.mark.parametrize(
    ("threads", "posted", "votes", "reason"),
    [
        ([], [], [], None),
        ([], ["0" * 16], [vote(up=False)], None),  # somebody else's finding; a vote on what is not there
        ([thread()], [], [], SAID),
        ([thread()], [FINGERPRINT], [vote(up=True)], SAID),
        ([thread(note("good catch"))], [], [], SAID),
        ([thread(note("hm, let me think"))], [], [], SAID),
        # dismissed
        ([], [FINGERPRINT], [], DISMISSED),  # the note was withdrawn
        ([thread()], [], [vote(up=False)], DISMISSED),
        ([thread()], [], [vote(up=False, fingerprint="0" * 16)], SAID),
        ([thread(note("false positive"))], [], [], DISMISSED),
        ([thread(note("won't fix", AUTHOR))], [], [], DISMISSED),
        ([thread(note("wrong", OTHER_BOT))], [], [], SAID),
        ([thread(note("wrong"), note("sorry, good catch"))], [], [], SAID),
        ([thread(note("good catch"), note("wrong", AUTHOR))], [], [], DISMISSED),
        ([thread(resolved=True, resolved_by=REVIEWER)], [], [], DISMISSED),
        ([thread(resolved=True, resolved_by=AUTHOR)], [], [], DISMISSED),
        ([thread(resolved=True)], [], [], DISMISSED),  # by somebody whose account is gone
        # resolved by the bot, as its code was gone: it may come back
        ([thread(resolved=True, resolved_by=BOT)], [FINGERPRINT], [], None),
        ([thread(resolved=True, resolved_by=BOT)], [], [vote(up=False)], DISMISSED),
        ([thread(resolved=True, resolved_by=BOT), thread()], [], [], SAID),
        ([thread(resolved=True, resolved_by=OTHER_BOT)], [], [], SAID),
    ],
)
def test_what_was_said_or_dismissed_is_not_said_again(
    threads: list[Thread], posted: list[str], votes: list[Vote], reason: HiddenReason | None
) -> None:
    before = look_back(threads, BOT.id, posted=posted, votes=votes)
    assert (
        before.reason_to_hide(replace(FINDING, line=80, end_line=80, title="Again", severity=Severity.MINOR)) is reason
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quote": "return total/len(items)"}, SAID),  # the same fingerprint
        ({"quote": "    total = sum(items)\n    return total / len(items)"}, SAID),  # a line more
        ({"quote": "total / len(items)"}, SAID),  # a part of it
        ({"quote": "total"}, None),  # too little to tell
        ({"quote": "return total / len(orders)"}, None),
        ({"file": "src/order.py"}, None),
        ({"category": Category.STYLE}, None),
    ],
)
def test_the_same_finding_is_known_when_it_is_quoted_differently(
    changes: dict[str, object], reason: HiddenReason | None
) -> None:
    finding = replace(FINDING, **changes)  # type: ignore[arg-type]
    assert Before(said=(FINDING,)).reason_to_hide(finding) is reason
    assert Before(dismissed=(FINDING,)).reason_to_hide(finding) is (DISMISSED if reason else None)


def numbered(number: int) -> Finding:
    return replace(FINDING, quote=f"finding number {number}")


def test_what_is_hidden_now_makes_room_below_the_cap() -> None:
    over, low = HiddenReason.OVER_CAP, HiddenReason.BELOW_THRESHOLD
    judged = [
        Judged(numbered(1)),
        Judged(numbered(2)),
        Judged(numbered(3), over),
        Judged(numbered(4), low),
        Judged(numbered(5), over),
        Judged(numbered(6), over),
    ]
    before = Before(said=(numbered(1), numbered(4)), dismissed=(numbered(5),))
    after = withhold(judged, before, Policy(max_findings=2))
    assert [each.finding for each in after] == [each.finding for each in judged]
    assert [each.hidden for each in after] == [SAID, None, None, low, DISMISSED, over]


JUDGED = st.lists(st.builds(Judged, st.integers(0, 6).map(numbered), st.none() | st.sampled_from(HiddenReason)))
NUMBERS = st.lists(st.integers(0, 6).map(numbered), max_size=3).map(tuple)


@given(JUDGED, NUMBERS, NUMBERS, st.integers(1, 4))
def test_nothing_is_lost_and_nothing_said_twice(
    judged: Sequence[Judged], said: tuple[Finding, ...], dismissed: tuple[Finding, ...], cap: int
) -> None:
    before, policy = Before(said, dismissed), Policy(max_findings=cap)
    after = withhold(judged, before, policy)
    assert [each.finding for each in after] == [each.finding for each in judged]
    shown = [each.finding for each in after if each.shown]
    assert len(shown) <= cap
    assert not set(shown) & {*said, *dismissed}
    assert withhold(after, before, policy) == after


# --- what is no longer true

BEFORE = """\
--- a/src/cart.py
+++ b/src/cart.py
@@ -1,2 +1,3 @@
 def mean(items):
+    return total / len(items)
 # end
"""
FIXED = BEFORE.replace("return total / len(items)", "return total / len(items) if items else 0")


def change(patch: str, *not_read: str) -> ReadChange:
    return ReadChange(parse(patch), tuple(NotRead(path, "collapsed") for path in not_read))


OTHER = BEFORE.replace("cart", "order")
RENAMED = "diff --git a/src/cart.py b/src/basket.py\nrename from src/cart.py\nrename to src/basket.py\n"


@pytest.mark.parametrize(
    ("quote", "now", "expected"),
    [
        ("return total / len(items)", change(BEFORE), True),
        ("return total/len( items )", change(BEFORE), True),
        ("def mean(items):\n    return total / len(items)", change(BEFORE), True),
        ("return total / len(items)", change(BEFORE.replace("@@ -1,2 +1,3", "@@ -71,2 +81,3")), True),
        ("return total / len(items)", change(FIXED), True),  # it still stands there
        ("return total / len(items)\n", change(BEFORE.replace("len(items)", "(len(items) or 1)")), False),
        ("return total / len(item)", change(BEFORE), False),  # whole words only
        (
            "return total / len(items)",
            change(BEFORE.replace("+    return", "-    return").replace("2 +1,3", "3 +1,2")),
            False,
        ),
        ("return total / len(items)", change(OTHER), False),
        ("return total / len(items)", change(""), False),
        # lines that do not follow each other
        ("return total / len(items)\n# end", change(BEFORE), True),
        ("return total / len(items)\nx = 1", change(f"{BEFORE}@@ -9 +10 @@\n-y\n+x = 1\n"), False),
        ("x = 1", change(f"{BEFORE}@@ -9 +10 @@\n-y\n+x = 1\n"), True),
        # it cannot be told
        ("return total / len(items)", change("", "src/cart.py"), None),
        ("return total / len(items)", change(OTHER, "src/more.py"), None),
        ("return total / len(items)", change(FIXED.replace("len", "sum"), "src/cart.py"), None),
        ("return total / len(items)", change(RENAMED), None),
        ("return total / len(items)", change("Binary files a/src/cart.py and b/src/cart.py differ\n"), None),
        ("return total / len(items)", change(BEFORE, "src/more.py"), True),
        ("", change(BEFORE), None),
        # a renamed file that is changed too
        (
            "return total / len(items)",
            change(f"{RENAMED}{BEFORE}".replace("+++ b/src/cart.py", "+++ b/src/basket.py")),
            True,
        ),
        # secrets
        ("[redacted:aws]", change(BEFORE), None),
        ("return [redacted:token] / len(items)", change(BEFORE), True),
        ("return to[redacted:token](items)", change(BEFORE), True),
        ("return key([redacted:token])", change(BEFORE), False),
        ("return [redacted:token] / len(items)", change(BEFORE.replace("total", "[redacted:token]")), True),
    ],
)
def test_whether_the_quoted_code_still_stands(quote: str, now: ReadChange, expected: bool | None) -> None:  # noqa: FBT001
    assert stands(replace(FINDING, quote=quote), now) is expected


@pytest.mark.parametrize(
    ("own", "now", "resolved"),
    [
        (thread(), change(OTHER), True),
        (thread(note("x", BOT)), change(OTHER), True),
        (thread(note("x", OTHER_BOT), note("y", AUTHOR, system=True)), change(OTHER), True),
        (thread(), change(BEFORE), False),
        (thread(), change("", "src/cart.py"), False),
        (thread(note("I think you are wrong")), change(OTHER), False),
        (thread(note("will do", AUTHOR)), change(OTHER), False),
        (thread(resolved=True, resolved_by=AUTHOR), change(OTHER), False),
        (thread(resolvable=False), change(OTHER), False),
    ],
)
def test_only_the_bots_open_threads_without_an_answer_are_resolved(
    own: Thread,
    now: ReadChange,
    resolved: bool,  # noqa: FBT001 -- a table's column
) -> None:
    assert outdated([own], now) == ((own,) if resolved else ())


@given(st.text(alphabet="ab =+()\n", max_size=20), st.text(alphabet="ab =+()", max_size=12))
def test_code_that_stands_survives_indentation_and_what_is_around_it(code: str, around: str) -> None:
    lines = [around, *(f"  {line}" for line in code.split("\n")), around]
    patch = f"--- a/src/cart.py\n+++ b/src/cart.py\n@@ -0,0 +1,{len(lines)} @@\n" + "".join(
        f"+{line}\n" for line in lines
    )
    assert stands(replace(FINDING, quote=code), change(patch)) is (True if code.strip() else None)
