import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import MergeRef, Vote, VoteOrigin, VoteReason
from bot.feedback import (
    EMOJI,
    FOOTER,
    PHRASES,
    SEEDS,
    WEIGHTS,
    Ballot,
    Opinion,
    as_json_line,
    pseudonym,
    read_emoji,
    read_reply,
    vote_by_award,
    vote_by_reply,
    votes_by_outcome,
)
from bot.forge import Award, Discussion, Note, Person

BOT, AUTHOR, REVIEWER = Person(1, "apprentice"), Person(2, "ann"), Person(3, "rob")
OTHER_BOT = Person(4, "renovate", bot=True)
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
BALLOT = Ballot(MergeRef(7, 12), "f" * 16, author=AUTHOR, bot=BOT.id, author_weight=0.5, salt="s")
UP, DOWN = Opinion(up=True), Opinion(up=False)
WRONG, NIT = Opinion(up=False, reason=VoteReason.WRONG), Opinion(up=False, reason=VoteReason.NIT)
KNOWN, NOT_HERE = Opinion(up=False, reason=VoteReason.KNOWN), Opinion(up=False, reason=VoteReason.NOT_HERE)


# --- who


def test_a_pseudonym_is_the_same_for_the_same_salt_only() -> None:
    assert pseudonym(2, "s") == "d2cadb7f5030ef69"
    assert len({pseudonym(person, salt) for person in range(500) for salt in ("s", "t")}) == 1000
    assert re.fullmatch("[0-9a-f]{16}", pseudonym(10**30, "ü"))


def test_the_salt_is_not_shown() -> None:
    assert "salt" not in repr(BALLOT)


# --- emoji


@pytest.mark.parametrize(
    ("name", "opinion"),
    [
        ("thumbsup", UP),
        ("+1", UP),
        *[(f"thumbsup_tone{tone}", UP) for tone in range(1, 6)],
        ("thumbsdown", DOWN),
        ("-1", DOWN),
        *[(f"thumbsdown_tone{tone}", DOWN) for tone in range(1, 6)],
        ("x", WRONG),
        ("mag", NIT),
        ("repeat", KNOWN),
        ("no_entry_sign", NOT_HERE),
        ("tada", None),
        ("eyes", None),
        ("thumbsup_tone6", None),
        ("thumbsup_tone1_tone1", None),
        ("_tone1", None),
        ("", None),
    ],
)
def test_what_an_emoji_says(name: str, opinion: Opinion | None) -> None:
    assert read_emoji(name) == opinion


def test_the_footer_names_every_reason() -> None:
    said = {opinion.reason for sign in FOOTER if (opinion := read_reply(sign))}
    assert said == {None, *VoteReason}
    assert all(reason.value.replace("_", " ") in FOOTER for reason in VoteReason)
    assert {read_emoji(name) for name in SEEDS} == {UP, DOWN}


# --- replies


@pytest.mark.parametrize(
    ("text", "opinion"),
    [
        # yes
        ("good catch", UP),
        ("Good catch!", UP),
        ("Thanks, fixed", UP),
        ("Thanks, good catch. I will fix it.", UP),
        ("Good catch, the wrong index was used", UP),
        ("Fixed in abc1234.", UP),
        ("done", UP),
        ("Yes, you are right", UP),
        ("you're right", UP),
        ("You\u2019re absolutely right", UP),
        ("I agree", UP),
        ("It's a real bug", UP),
        ("No problem, fixed", UP),
        ("makes sense", UP),
        ("I'll fix that", UP),
        ("Will do!", UP),
        ("will fix", UP),
        ("👍", UP),
        (":+1:", UP),
        ("@apprentice :thumbsup_tone3:", UP),
        # no
        ("wrong", WRONG),
        ("This is wrong.", WRONG),
        ("I think this is just wrong here", WRONG),
        ("@apprentice false positive", WRONG),
        ("This looks like a false-positive, the list is never empty", WRONG),
        ("Not an issue", WRONG),
        ("not an issue here, because the list is never empty", WRONG),
        ("I don't think this is an issue", WRONG),
        ("It isnt a bug", WRONG),
        ("that cannot happen", WRONG),
        ("that can't happen", WRONG),
        ("doesn't make sense", WRONG),
        ("that's by design", WRONG),
        ("Works as intended", WRONG),
        ("nit", NIT),
        ("Nitpicking, really", NIT),
        ("does not matter", NIT),
        ("Known issue, see !12", KNOWN),
        ("we are aware of that", KNOWN),
        ("known already", KNOWN),
        ("not in this merge request", NOT_HERE),
        ("Let's do this in a separate MR", NOT_HERE),
        ("out of scope", NOT_HERE),
        ("pre-existing", NOT_HERE),
        ("won't fix", DOWN),
        ("I won\u2019t fix this", DOWN),
        ("No.", DOWN),
        ("disagree", DOWN),
        ("I can't agree", DOWN),
        ("no, this is wrong", WRONG),
        ("No, known issue, and a nit", KNOWN),
        ("👎🏽", DOWN),
        ("❌ never null", WRONG),
        (":mag:", NIT),
        # neither, or both
        ("", None),
        ("\n\n", None),
        ("not wrong", None),
        ("It's not wrong", None),
        ("this isn't wrong", None),
        ("not a false positive", None),
        ("not a nit", None),
        ("not a good catch", None),
        ("not fixed yet", None),
        ("thanks!", None),
        ("Thank you", None),
        ("Isn't this wrong?", None),
        ("is this a false positive or not", None),
        ("Wrong? I am not sure.", None),
        ("good catch, but not an issue here", None),
        ("wrong... no wait, good catch", None),
        ("👍 or 👎", None),
        ("The value is not correct when the list is empty", None),
        ("the wrong index was used", None),
        ("It does look wrong", None),
        ("that would be wrong", None),
        ("`x` is wrong", None),
        ("right now", None),
        ("no one reads this", None),
        ("I doubt it", None),
        (":tada:", None),
        ("/apprentice forget", None),
        ("config.valid", None),
        # what others said, and code
        ("> wrong", None),
        ("  > false positive\n\ngood catch", UP),
        (">>>\nwrong\n>>>\ngood catch", UP),
        (">>>\nwrong", None),
        ("```\nwrong\n```", None),
        ("```py\nwrong\n```\r\ngood catch", UP),
        ("~~~\nwrong", None),
        ("`wrong`", None),
        ("``wrong`` good catch", None),
        ("<!-- wrong -->good catch", UP),
        ("<!-- wrong", None),
        # only its beginning counts
        ("x " * 500 + "\ngood catch", None),
    ],
)
def test_what_a_reply_says(text: str, opinion: Opinion | None) -> None:
    assert read_reply(text) == opinion


@pytest.mark.parametrize("phrase", PHRASES, ids=" ".join)
def test_every_phrase_is_found_and_not_turned_round(phrase: tuple[str, ...]) -> None:
    text, opinion = " ".join(phrase), PHRASES[phrase]
    for said in (text, text.upper(), f"{text}.", f"Sorry, {text}!", f"{text}\n\nThe list is never empty."):
        assert read_reply(said) == opinion
    if not text.startswith(":"):
        for turned in (f"not {text}", f"this is not {text}", f"never {text}"):
            found = read_reply(turned)
            assert found is None or found.up is not opinion.up
        assert read_reply(f"{text}?") is None
        assert read_reply(f"> {text}") is None


WORDS = st.sampled_from(
    [word for phrase in PHRASES for word in phrase]
    + ["not", "n't", "I", "this", "is", "but", "?", ".", ",", "\n", "> ", "```", "`", "👍", "👎", ":x:", "<!--", "@a"]
)


@given(st.one_of(st.text(), st.lists(WORDS, max_size=12).map(" ".join)))
def test_any_reply_can_be_read_and_a_quote_of_it_says_nothing(text: str) -> None:
    opinion = read_reply(text)
    assert opinion is None or opinion.reason is None or not opinion.up
    quoted = "".join(f"> {line}\n" for line in re.split("[\r\n]", text))
    assert read_reply(quoted) is None


# --- votes


def award(name: str, person: Person) -> Award:
    return Award(5, name, person, NOW)


def note(body: str = "", author: Person = REVIEWER, **changes: object) -> Note:
    return replace(Note(9, author, body, system=False, created_at=NOW), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "person", "expected"),
    [
        ("thumbsup", REVIEWER, (True, None, 0.9)),
        ("thumbsdown", REVIEWER, (False, None, 0.9)),
        ("x", REVIEWER, (False, VoteReason.WRONG, 0.9)),
        ("thumbsup_tone2", AUTHOR, (True, None, 0.9)),
        ("thumbsdown", AUTHOR, (False, None, 0.45)),
        ("thumbsup", BOT, None),
        ("thumbsdown", OTHER_BOT, None),
        ("tada", REVIEWER, None),
    ],
)
def test_an_emoji_is_a_vote(name: str, person: Person, expected: tuple[bool, VoteReason | None, float] | None) -> None:
    vote = vote_by_award(award(name, person), BALLOT)
    if expected is None:
        assert vote is None
    else:
        up, reason, weight = expected
        voter = pseudonym(person.id, "s")
        assert vote == Vote(BALLOT.merge, "f" * 16, voter, up, VoteOrigin.EMOJI, reason, weight, NOW)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (note("good catch"), (True, None, 0.8)),
        (note("false positive"), (False, VoteReason.WRONG, 0.8)),
        (note("won't fix", AUTHOR), (False, None, 0.4)),
        (note("hm"), None),
        (note("good catch", BOT), None),
        (note("good catch", OTHER_BOT), None),
        (note("fixed", system=True), None),
    ],
)
def test_a_reply_is_a_vote(reply: Note, expected: tuple[bool, VoteReason | None, float] | None) -> None:
    vote = vote_by_reply(reply, BALLOT)
    assert (vote and (vote.up, vote.reason, vote.weight)) == expected
    assert vote is None or (vote.origin, vote.at) == (VoteOrigin.REPLY, NOW)


OPEN = note(author=BOT, resolvable=True)
APPLIED = replace(OPEN, suggestion_applied=True)
BY_REVIEWER = replace(OPEN, resolved=True, resolved_by=REVIEWER)
BY_AUTHOR = replace(OPEN, resolved=True, resolved_by=AUTHOR)


@pytest.mark.parametrize(
    ("first", "stands", "merged", "expected"),
    [
        (OPEN, True, False, []),
        (OPEN, True, True, []),
        (OPEN, None, True, []),
        (OPEN, False, False, []),  # it may come back before the merge
        (OPEN, False, True, [(AUTHOR, True, VoteOrigin.CHANGED, 0.3)]),
        (APPLIED, False, False, [(AUTHOR, True, VoteOrigin.APPLIED, 1.0)]),
        (APPLIED, False, True, [(AUTHOR, True, VoteOrigin.APPLIED, 1.0)]),
        (
            replace(BY_REVIEWER, suggestion_applied=True),
            True,
            True,
            [(AUTHOR, True, VoteOrigin.APPLIED, 1.0)],
        ),
        (BY_REVIEWER, True, False, [(REVIEWER, False, VoteOrigin.RESOLVED, 0.2)]),
        (BY_REVIEWER, True, True, [(REVIEWER, False, VoteOrigin.RESOLVED, 0.2)]),
        (BY_AUTHOR, True, False, [(AUTHOR, False, VoteOrigin.RESOLVED, 0.1)]),
        (BY_REVIEWER, None, False, []),
        (BY_REVIEWER, False, False, []),
        (BY_REVIEWER, False, True, [(AUTHOR, True, VoteOrigin.CHANGED, 0.3)]),
        (replace(BY_REVIEWER, resolved_by=BOT), True, False, []),
        (replace(BY_REVIEWER, resolved_by=OTHER_BOT), True, False, []),
        (replace(BY_REVIEWER, resolved_by=None), True, False, []),
    ],
)
def test_what_became_of_a_finding_is_a_vote(
    first: Note,
    stands: bool | None,  # noqa: FBT001 -- a table's column
    merged: bool,  # noqa: FBT001 -- the same
    expected: list[tuple[Person, bool, VoteOrigin, float]],
) -> None:
    votes = votes_by_outcome(Discussion("d", (first,)), BALLOT, stands=stands, merged=merged, at=NOW)
    assert [(vote.voter, vote.up, vote.origin, vote.weight) for vote in votes] == [
        (pseudonym(person.id, "s"), *rest) for person, *rest in expected
    ]
    assert {vote.at for vote in votes} <= {NOW}


def test_a_bot_that_opened_the_merge_request_has_no_vote() -> None:
    ballot = replace(BALLOT, author=OTHER_BOT)
    assert not votes_by_outcome(Discussion("d", (APPLIED,)), ballot, stands=False, merged=True, at=NOW)


def test_weights_go_down_from_what_is_surest() -> None:
    assert list(WEIGHTS.values()) == sorted(WEIGHTS.values(), reverse=True)
    assert set(WEIGHTS) == set(VoteOrigin)
    assert all(0 < weight <= 1 for weight in WEIGHTS.values())


@given(st.sampled_from(sorted(EMOJI)), st.floats(0, 1))
def test_a_vote_against_weighs_less_from_the_author_and_one_for_it_does_not(name: str, weight: float) -> None:
    ballot = replace(BALLOT, author_weight=weight)
    own, other = (vote_by_award(award(name, person), ballot) for person in (AUTHOR, REVIEWER))
    assert own is not None
    assert other is not None
    assert 0 <= own.weight <= other.weight
    assert own.weight == other.weight or not own.up


# --- export


def test_a_vote_is_one_line_of_json_without_names() -> None:
    vote = vote_by_award(Award(5, "x", AUTHOR, NOW.astimezone(timezone(timedelta(hours=2)))), BALLOT)
    assert vote is not None
    line = as_json_line(vote)
    assert "\n" not in line
    assert json.loads(line) == {
        "project": 7,
        "iid": 12,
        "fingerprint": "f" * 16,
        "voter": pseudonym(2, "s"),
        "up": False,
        "origin": "emoji",
        "reason": "wrong",
        "weight": 0.45,
        "at": "2026-11-23T10:00:00+00:00",
    }
    assert json.loads(as_json_line(replace(vote, reason=None)))["reason"] is None
