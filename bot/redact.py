"""Secrets out of any text before a model, a log or a dataset sees it.

Two layers: Kingfisher's rules (about a thousand kinds of credentials) and a few patterns of ours for what it leaves
alone: whole private keys, passwords in addresses and in assignments, tokens whose shape alone tells them. Nothing is
checked against its service: nothing leaves the machine. When the scanner fails, so does the review: no text goes on
unread by it.
"""

import bisect
import functools
import itertools
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import kingfisher_sdk


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without its secrets, with as many lines as before, and how many were taken out, by kind."""

    text: str
    found: Mapping[str, int]


@dataclass(frozen=True, slots=True, order=True)
class _Span:
    start: int
    end: int
    kind: str


# What a value looks like that is no secret: a placeholder, a variable, a call, or what stands here after redaction.
_NO_SECRET = re.compile(
    r"\[redacted|[$%]?[{<(\[]|\$\w|%\(|(?:your|my|some|the|an?|test|dummy|fake|sample|example)[-_ ]|"
    r"(?:change[-_ ]?me|example|placeholder|password|secret|redacted|todo|none|null|true|false|x{4,}|\*{3,}|\.{3,})",
    re.IGNORECASE,
)
_NAME = r"(?:pass(?:word|wd|phrase)|pwd|secret|token|api_?-?key|access_?-?key|private_?-?key|auth_?-?key|credentials?)"

# kind -> pattern; the group `secret` is what is taken out, or all of it. Every repetition is bounded.
_PATTERNS: dict[str, re.Pattern[str]] = {
    "gitlab token": re.compile(
        r"\b(?:gl(?:pat|dt|rt|ptt|cbt|ft|imt|agent|soat|oas|ffct)-[\w.-]{20,300}|GR1348941[\w-]{20,50})"
    ),
    "github token": re.compile(r"\b(?:gh[opsur]_[A-Za-z0-9]{30,255}|github_pat_\w{40,255})"),
    "aws key": re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    "slack token": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}"),
    "google key": re.compile(r"\bAIza[\w-]{35}"),
    "stripe key": re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}"),
    "npm token": re.compile(r"\bnpm_[A-Za-z0-9]{36}\b"),
    "pypi token": re.compile(r"\bpypi-[\w-]{50,250}"),
    "openai key": re.compile(r"\bsk-(?:proj-|ant-|svcacct-)?[\w-]{32,250}"),
    "jwt": re.compile(r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,2000}"),
    "webhook key": re.compile(r"\bwhsec_[A-Za-z0-9+/=]{24,100}"),
    "password in an address": re.compile(r"://[^\s/:@'\"]{0,200}:(?P<secret>[^\s/@'\"]{3,200})@"),
    "authorization header": re.compile(
        r"authorization['\"\])]{0,3}\s{0,5}[:=,]\s{0,5}[bfru]?['\"]?(?:bearer|basic|token)\s{1,5}(?P<secret>[\w.~+/=-]{8,4000})",
        re.IGNORECASE,
    ),
    "assigned secret": re.compile(
        _NAME + r"\w{0,30}['\"\])]{0,3}\s{0,20}(?::=|=>|[:=])\s{0,20}[bfru]?(?P<quote>['\"`])"
        r"(?P<secret>[^\s'\"`]{8,500})(?P=quote)",
        re.IGNORECASE,
    ),
    "configured secret": re.compile(
        r"^\s{0,40}(?:export\s{1,5})?[\w.-]{0,60}?"
        + _NAME
        + r"[\w.-]{0,30}\s{0,20}[:=]\s{0,20}(?P<secret>[^\s'\"`(){}\[\]<>;,]{16,500})\s{0,20}$",
        re.IGNORECASE | re.MULTILINE,
    ),
}
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_ENDS = "-----END "
_KEY_CHARACTERS = 20_000
_KEY_LINES = re.compile(r"(?:\s{0,40}[A-Za-z0-9+/=]{16,200}[\s\\n'\"]{0,40})*")

_GUESSED = ("assigned secret", "configured secret", "password in an address")
_LEAST_ENTROPY = 2.5
"""Bits per character; below it an assigned value reads like a word."""


def redact(text: str) -> Redacted:
    """Take the secrets out of a text; what is left is as it was, and so is the number of its lines."""
    found: Counter[str] = Counter()
    while spans := list(_merged(sorted((*_private_keys(text), *_ours(text), *_kingfishers(text))))):
        text = _without(text, spans)  # once more: a mark may have made a secret's neighbour look like one
        found.update(span.kind for span in spans)
    return Redacted(text, found)


def _without(text: str, spans: Sequence[_Span]) -> str:
    parts: list[str] = []
    at = 0
    for span in spans:
        mark = f"[redacted:{span.kind}]"
        lines = text[span.start : span.end].split("\n")
        parts += [text[at : span.start], "\n".join(mark if line.strip() else line for line in lines)]
        at = span.end
    return "".join((*parts, text[at:]))


def redact_many(texts: Sequence[str]) -> list[Redacted]:
    """As `redact`, for each text."""
    return [redact(text) for text in texts]


def _merged(spans: Sequence[_Span]) -> Iterator[_Span]:
    """Overlapping spans as one, under the first one's kind."""
    held = _Span(-1, -1, "")
    for span in spans:
        if span.start < held.end:
            held = _Span(held.start, max(held.end, span.end), held.kind)
            continue
        if held.end >= 0:
            yield held
        held = span
    if held.end >= 0:
        yield held


def _private_keys(text: str) -> Iterator[_Span]:
    """What stands between a private key's first line and its last; where that is missing, all that looks like it."""
    at = 0
    while begins := _KEY_BEGINS.search(text, at):
        start = begins.end()
        at = text.find(_KEY_ENDS, start, start + _KEY_CHARACTERS)
        if at < 0:
            lines = _KEY_LINES.match(text, start, start + _KEY_CHARACTERS)
            at = lines.end() if lines else start
        if not _NO_SECRET.match(text[start:at].strip() or "none"):
            yield _Span(start, at, "private key")


def _ours(text: str) -> Iterator[_Span]:
    for kind, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            group = "secret" if "secret" in pattern.groupindex else 0
            value = match[group]
            if _NO_SECRET.match(value.strip()) or (kind in _GUESSED and not _looks_random(value, kind)):
                continue
            yield _Span(match.start(group), match.end(group), kind)


def _looks_random(value: str, kind: str) -> bool:
    if kind == "password in an address":
        return True
    counts = Counter(value)
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    return mixed and entropy >= _LEAST_ENTROPY and not _CODE.search(value)


_CODE = re.compile(r"[\w\])]\(|::|->|\.\w+\.|^/|^https?:")
"""A call, a path or an address: code, not a value."""


# --- Kingfisher


_LOADING = threading.Lock()


def scanner() -> "kingfisher_sdk.Scanner":
    """Load the rules: about half a second, and once per version some ten seconds to compile them into a cache.

    Call it early in a thread of its own where that matters; others wait for it.
    """
    with _LOADING:
        return _scanner()


@functools.cache
def _scanner() -> "kingfisher_sdk.Scanner":
    import kingfisher_sdk  # noqa: PLC0415 -- imported late: it takes long, see above

    return kingfisher_sdk.Scanner(kingfisher_sdk.Rules())


def _kingfishers(text: str) -> Iterator[_Span]:
    # NUL could make the scanner take the text for UTF-16, and its offsets would be others.
    raw = text.replace("\0", " ").encode("utf-8", "replace")
    found = [
        (finding.location["start_offset"], finding.location["end_offset"], finding.rule_id)
        for finding in scanner().scan(raw)
        if finding.visible
    ]
    if not found:
        return
    ends = list(itertools.accumulate(len(char.encode("utf-8", "replace")) for char in text))
    for start, end, rule in found:
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, end) + 1
        if not _NO_SECRET.match(text[first:last].strip()):
            yield _Span(first, last, rule.rpartition(".")[2].replace("-", " "))
