"""Read what people think of a posted finding, from emoji, replies and what they did, as votes.

Everything here gives raw votes: that a person has one voice for a finding, the strongest, is the store's business.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bot.domain import MergeRef, Vote, VoteOrigin, VoteReason
from bot.forge import Award, Discussion, Note, Person

WEIGHTS = {
    VoteOrigin.APPLIED: 1.0,  # the suggestion is in the code now: nothing says yes louder
    VoteOrigin.EMOJI: 0.9,  # said on purpose, and cannot be misread
    VoteOrigin.REPLY: 0.8,  # said on purpose, read by a list of words
    VoteOrigin.CHANGED: 0.3,  # the line may have changed for another reason
    VoteOrigin.RESOLVED: 0.2,  # a reject as often as tidying up before the merge
}
"""How much a vote counts by its origin; the strongest first."""

OUTCOMES = frozenset({VoteOrigin.APPLIED, VoteOrigin.CHANGED, VoteOrigin.RESOLVED})
"""What nobody said, but what became of a finding (`votes_by_outcome`)."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Whether it was right to say a finding and, where it was not and somebody said so, why not."""

    up: bool
    reason: VoteReason | None = None


@dataclass(frozen=True, slots=True)
class Ballot:
    """A posted finding, and who its voters are.

    Args:
        merge: where it is posted; `fingerprint`: which it is.
        author: who opened the merge request.
        bot: the bot's own id in the forge.
        author_weight: by what the author's votes against it are multiplied (the policy's).
        salt: the secret behind `pseudonym`.
    """

    merge: MergeRef
    fingerprint: str
    author: Person
    bot: int
    author_weight: float
    salt: str = field(repr=False)


def pseudonym(person: int, salt: str) -> str:
    """Sixteen hex digits for a person's id in the forge: the same for the same salt, and no way back without it."""
    return hmac.new(salt.encode(), str(person).encode(), hashlib.sha256).hexdigest()[:16]


# --- emoji

EMOJI = {
    "thumbsup": Opinion(up=True),
    "+1": Opinion(up=True),
    "thumbsdown": Opinion(up=False),
    "-1": Opinion(up=False),
    "x": Opinion(up=False, reason=VoteReason.WRONG),
    "mag": Opinion(up=False, reason=VoteReason.NIT),
    "repeat": Opinion(up=False, reason=VoteReason.KNOWN),
    "no_entry_sign": Opinion(up=False, reason=VoteReason.NOT_HERE),
}
"""What an emoji says, by GitLab's name for it. All of them are in every GitLab that has award emoji."""

SEEDS = ("thumbsup", "thumbsdown")
"""The emoji that the bot gives its own notes, so that a vote is one click."""

FOOTER = "<sub>Rate this: 👍 👎 · or say why not: ❌ wrong · 🔍 nit · 🔁 known · 🚫 not here</sub>"
"""What stands below each finding: every emoji here is one of `EMOJI`."""

_SIGNS = {"👍": "thumbsup", "👎": "thumbsdown", "❌": "x", "🔍": "mag", "🔁": "repeat", "🚫": "no_entry_sign"}
_TONE = re.compile(r"_tone[1-5]\Z")


def read_emoji(name: str) -> Opinion | None:
    """What an emoji of this name says, whatever its skin tone; None where it says nothing."""
    return EMOJI.get(_TONE.sub("", name))


# --- replies. A phrase of one word must be all that a clause says; one of several may also be how it begins. What
# is between neither up nor down, or both, is no vote: a lost one costs less than a wrong one.

_UP = """
agree, agreed, correct, right, true, valid, indeed, exactly, yes, yep, yup, fixed, fixing, done, addressed, oops,
good catch, nice catch, great catch, good find, nice find, great find, good point, fair point, valid point, good spot,
well spotted, good eye, good call, good idea, good suggestion, makes sense, make sense, fair enough, my bad, will fix,
will change, will address, fixed in, fixed by, fixed with, done in, addressed in, real bug, real issue,
real problem
"""
_DOWN = {
    None: """
disagree, no, nope, nah, reject, rejected, dismiss, dismissed, ignore, useless, wontfix, wont fix, not agree,
can not agree, will not fix, not fix, not fixing, not useful, not helpful
""",
    VoteReason.WRONG: """
wrong, incorrect, invalid, false, untrue, nonsense, bogus, fp, hallucination, hallucinated, intended, intentional,
expected, false positive, false positives, false alarm, not issue, not bug, not problem, not error, no issue, no bug,
non issue, not true, not correct, not valid, not case, not apply, not applicable, not happen, can not happen,
never happens, never happen, not possible, makes no sense, not make sense, by design, on purpose, works as intended,
works as designed, as intended, as designed, intended behavior, intended behaviour, expected behavior,
expected behaviour
""",
    VoteReason.NIT: """
nit, nits, nitpick, nitpicking, nitpicky, pedantic, noise, irrelevant, unimportant, minor nit, style nit, too picky,
too pedantic, not important, not relevant, not matter, not worth, not needed, not necessary
""",
    VoteReason.KNOWN: """
known, duplicate, dupe, aware, known issue, known problem, known bug, known limitation, already known, already tracked,
already reported, already discussed, aware of, know about
""",
    VoteReason.NOT_HERE: """
unrelated, preexisting, not here, not in mr, not part, not my change, out of scope, different mr, separate mr,
another mr, other mr, in different mr, in separate mr, in another mr, in other mr, follow up, in follow up, pre existing
""",
}


def _table(phrases: str, opinion: Opinion) -> Iterator[tuple[tuple[str, ...], Opinion]]:
    for phrase in phrases.split(","):
        yield tuple(phrase.split()), opinion


PHRASES: dict[tuple[str, ...], Opinion] = dict(
    [
        *_table(_UP, Opinion(up=True)),
        *(each for reason, phrases in _DOWN.items() for each in _table(phrases, Opinion(up=False, reason=reason))),
        *(((f":{name}:",), opinion) for name, opinion in EMOJI.items()),
    ]
)
_LONGEST = max(map(len, PHRASES))

# Words that change nothing about what a clause says, and those that do not at its end.
_FILLERS = frozenset(
    """a an the this that it its is are was be i we you me us let to s re m think guess believe do does did really
    actually just quite very totally completely absolutely simply clearly definitely obviously probably also still
    rather please thanks thank thx oh ah hmm hm ok okay yeah sorry hi hey imo imho tbh comment finding apprentice
    """.split()
)
_AT_THE_END = frozenset({"here", "already", "again", "though", "anyway", "then"})

_MAX_REPLY = 1_000  # characters of a reply that are looked at: an opinion stands at its beginning
_QUOTED = re.compile(
    r"^(?P<fence>`{3,}|~{3,}|>>>).*?(?:^(?P=fence)|\Z)|^[ \t]*>.*?$|<!--.*?(?:-->|\Z)", re.DOTALL | re.MULTILINE
)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_MENTION = re.compile(r"(?<![\w.])@[\w][\w.-]*")
_SIGN = re.compile(f"({'|'.join(_SIGNS)})[\U0001f3fb-\U0001f3ff\ufe0f]*")
_NAMED_SIGN = re.compile(r":([a-z0-9_+-]+?)(?:_tone[1-5])?:")
_NOT = re.compile(r"\b(is|are|was|were|do|does|did|has|have|should|would|could)n'?t\b")
_SPELLINGS = (
    ("\u2019", "'"),
    ("cannot", "can not"),
    ("can't", "can not"),
    ("won't", "will not"),
    ("'ll", " will"),
    ("let's", "let us"),
    ("will do", "will fix"),
    ("looks like", " "),
    ("seems like", " "),
    ("-", " "),
    ("merge request", "mr"),
)
_SENTENCE = re.compile(r"[^.!?\n]*(?:\.(?!\s|\Z)[^.!?\n]*)*[.!?\n]*")
_QUESTION = re.compile(
    r"\?\s*\Z"
    r"|\A\W*(?:is|are|was|were|do|does|did|can|could|should|would|will)(?: not)? (?:this|that|it|there|we|you|i)\b"
)
_BETWEEN_CLAUSES = re.compile(
    r"[,;:!()\[\]/\u2014\u2013\u2026\n]+|\.(?!\S)|\b(?:but|because|since|and|so|however|although)\b"
)
_WORD = re.compile(r":[a-z0-9_+-]+:|\w+")


def read_reply(text: str) -> Opinion | None:
    """What a reply says of the finding that it answers; None where it says neither yes nor no, or both.

    Quotes, code and questions say nothing. It knows English only.
    """
    said = list(filter(None, map(_read_clause, _clauses(text[:_MAX_REPLY]))))
    if len({opinion.up for opinion in said}) != 1:
        return None
    return Opinion(said[0].up, next(filter(None, (opinion.reason for opinion in said)), None))


def _clauses(text: str) -> Iterator[list[str]]:
    plain = _QUOTED.sub("\n", text.replace("\r\n", "\n"))
    plain = _MENTION.sub(" ", _CODE.sub(" code ", plain)).lower()
    plain = _SIGN.sub(lambda sign: f":{_SIGNS[sign[1]]}:", plain)
    signs = [name for name in _NAMED_SIGN.findall(plain) if name in EMOJI]
    yield from ([f":{name}:"] for name in signs)
    plain = _NAMED_SIGN.sub(" ", plain)
    for spelling, usual in _SPELLINGS:
        plain = plain.replace(spelling, usual)
    plain = _NOT.sub(r"\1 not", plain)
    for sentence in _SENTENCE.findall(plain):
        if not _QUESTION.search(sentence):
            yield from (_WORD.findall(clause) for clause in _BETWEEN_CLAUSES.split(sentence))


def _read_clause(words: list[str]) -> Opinion | None:
    said = [word for word in words if word not in _FILLERS]
    short = said[:-1] if said and said[-1] in _AT_THE_END else said
    beginnings = (PHRASES.get(tuple(said[:length])) for length in range(_LONGEST, 1, -1))
    return PHRASES.get(tuple(said)) or PHRASES.get(tuple(short)) or next(filter(None, beginnings), None)


# --- votes


def vote(person: Person, opinion: Opinion, origin: VoteOrigin, at: datetime, ballot: Ballot) -> Vote | None:
    """A person's vote; None for a bot's, ours too. The author's word against a finding counts less."""
    if person.bot or person.id == ballot.bot:
        return None
    weight = WEIGHTS[origin]
    if person.id == ballot.author.id and not opinion.up:
        weight *= ballot.author_weight
    voter = pseudonym(person.id, ballot.salt)
    return Vote(ballot.merge, ballot.fingerprint, voter, opinion.up, origin, opinion.reason, weight, at)


def vote_by_award(award: Award, ballot: Ballot) -> Vote | None:
    """The vote that an emoji on the finding's note is, or was before it was revoked; None where it is none."""
    opinion = read_emoji(award.name)
    return vote(award.person, opinion, VoteOrigin.EMOJI, award.at, ballot) if opinion else None


def vote_by_reply(note: Note, ballot: Ballot) -> Vote | None:
    """The vote that a reply in the finding's thread is; None where it is none."""
    opinion = None if note.system else read_reply(note.body)
    return vote(note.author, opinion, VoteOrigin.REPLY, note.created_at, ballot) if opinion else None


def votes_by_outcome(
    discussion: Discussion, ballot: Ballot, *, stands: bool | None, merged: bool, at: datetime
) -> tuple[Vote, ...]:
    """What became of the finding, as votes.

    The forge does not tell who applied a suggestion or changed a line: both are taken as the author's.

    Args:
        discussion: the finding's thread.
        ballot: the finding.
        stands: whether its quoted code stands in the newest version (`bot.thread.stands`); None: cannot be told.
        merged: whether the merge request is merged, so that nothing will change any more.
        at: when this was seen.
    """
    note = discussion.notes[0]
    author = ballot.author
    votes: list[Vote | None] = []
    if note.suggestion_applied:
        votes.append(vote(author, Opinion(up=True), VoteOrigin.APPLIED, at, ballot))
    elif merged and stands is False:
        votes.append(vote(author, Opinion(up=True), VoteOrigin.CHANGED, at, ballot))
    if discussion.resolved and note.resolved_by and stands and not note.suggestion_applied:
        votes.append(vote(note.resolved_by, Opinion(up=False), VoteOrigin.RESOLVED, at, ballot))
    return tuple(filter(None, votes))


# --- export


def as_json_line(vote: Vote) -> str:
    """A vote as `apprentice votes export` writes it: one line of JSON, without a name or an id of a person.

    Keys: `project`, `iid` (the merge request), `fingerprint` (the finding), `voter` (pseudonym), `up`, `origin`
    (emoji, reply, resolved, changed, applied), `reason` (wrong, nit, known, not_here or null), `weight` (0 to 1), `at`
    (ISO 8601, UTC). No key is renamed, taken away or given another meaning.
    """
    return json.dumps(
        {
            "project": vote.merge.project,
            "iid": vote.merge.iid,
            "fingerprint": vote.fingerprint,
            "voter": vote.voter,
            "up": vote.up,
            "origin": vote.origin.value,
            "reason": vote.reason.value if vote.reason else None,
            "weight": round(vote.weight, 4),
            "at": vote.at.astimezone(UTC).isoformat(),
        }
    )
