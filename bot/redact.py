"""Secrets out of any text before a model, a log or a dataset sees it.

Two layers look at every text, and what either finds is taken out. The first is a table of our own: the tokens met
most often, private keys (also cut off by the edge of a hunk), passwords in URLs and headers, and literals assigned
to names like `password`. The second is Kingfisher's 488 rules, in this process and without the network: scanning
is offline, and its validator is never made.

No text passes unseen. If Kingfisher cannot be loaded, `redact` raises `RedactionError`. If it fails on a text, or
a text still shows secrets after `_MAX_PASSES`, the whole text is withheld: each line becomes `[redacted:withheld]`.

Known to stay: literals with blanks in them, and words (`postgres`, `changeme`) assigned to a password.
"""

import base64
import binascii
import os.path
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

_MAX_PASSES = 5  # one pass can uncover a secret that touched another
_MAX_SCAN_SECONDS = 10.0  # Kingfisher reads about 30 MB a second; 1 MB of private keys takes 0.4 s
_WITHHELD = "withheld"
_PREFIX_SIGNS = " \t+-#/*>|;%"
_MARK = re.compile(r"\[redacted:([a-z0-9-]{1,60})\]")


class RedactionError(RuntimeError):
    """The secret scanner cannot be loaded, so that no text may be passed on."""


@dataclass(frozen=True, slots=True)
class Redacted:
    r"""A text without its secrets.

    Args:
        text: `[redacted:KIND]` stands in the place of each secret (of each line of it), all else is as it was. It
            has as many `\n` as the text that was given.
        found: how many secrets were taken out, by kind.
    """

    text: str
    found: dict[str, int]


class _Span(NamedTuple):
    """Where a secret is; of two that overlap, the kind with the lower rank says more."""

    start: int
    end: int
    rank: int
    kind: str


def warm_up(cache_dir: Path) -> None:
    """Load Kingfisher in the background: 0.3 s, or 4 s where its compiled rules are not below `cache_dir` yet.

    It keeps none, and takes 4 s each time, where others may write to the folder or one above it. Without this call
    the first `redact` loads Kingfisher and waits, with the rules in Kingfisher's own cache folder.
    """

    def load() -> None:
        with suppress(RedactionError):  # the first `redact` tries again, and raises it
            _kingfisher.load(cache_dir / "kingfisher")

    threading.Thread(target=load, name="kingfisher").start()


def redact(text: str) -> Redacted:
    """The text without its secrets. To redact it again changes nothing.

    Raises:
        RedactionError: Kingfisher cannot be loaded. No text makes it raise.
    """
    found: Counter[str] = Counter()
    result = text
    for _ in range(_MAX_PASSES):
        spans = _spans(result)
        if spans is None:
            break
        if not spans:
            return Redacted(result, dict(found))
        found.update(span.kind for span in spans)
        result = _without(result, spans)
    return Redacted("\n".join([f"[redacted:{_WITHHELD}]"] * (text.count("\n") + 1)), {_WITHHELD: 1})


class _Kingfisher:
    """Kingfisher's scanner, loaded once a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: tuple[Scanner, frozenset[str]] | None = None

    def load(self, cache_dir: Path | None = None) -> "tuple[Scanner, frozenset[str]]":
        """The scanner and the kinds of secret that it knows."""
        with self._lock:
            if self._loaded is None:
                try:
                    from kingfisher_sdk import Rules, Scanner  # noqa: PLC0415 -- imported late: 36 MB

                    rules = Rules(cache_dir=cache_dir)
                    kinds = frozenset(_kind(rule["id"]) for rule in rules.metadata())
                    self._loaded = Scanner(rules), kinds
                except Exception as error:
                    raise RedactionError(
                        f"The secret scanner does not start ({error}), and nothing is sent without it. "
                        "Install kingfisher-secret-scanner again, for this platform."
                    ) from error
            return self._loaded

    def kinds(self) -> frozenset[str]:
        return self.load()[1]

    def spans(self, data: bytes) -> list[_Span] | None:
        """What Kingfisher finds, or None if it fails."""
        scanner, _ = self.load()
        try:
            findings = scanner.scan(data, timeout=_MAX_SCAN_SECONDS)
        except Exception:  # noqa: BLE001 -- whatever it is, the text was not scanned
            return None
        return [
            _Span(finding.location["start_offset"], finding.location["end_offset"], 1, _kind(finding.rule_id))
            for finding in findings
            # The invisible ones are user names, hosts and the like. Its rule for private keys takes all that stands
            # between the two words BEGIN and END, be it code; ours looks closer.
            if finding.visible and finding.rule_id != "betterleaks.private-key"
        ]


_kingfisher = _Kingfisher()


def _kind(rule_id: str) -> str:
    """`betterleaks.auth0-client-id.1` is of the kind auth0-client-id."""
    return re.sub(r"\A.*/|\A[a-z]+\.|\.\d+\Z", "", rule_id)


def _spans(text: str) -> list[_Span] | None:
    """The secrets in order, none touching another's characters; None if the text could not be scanned."""
    kinds = _kingfisher.kinds() | _OWN_KINDS
    # Marks become line ends: there is no secret in them, and none reaches over them.
    bare = _MARK.sub(lambda mark: "\n" * len(mark[0]) if mark[1] in kinds else mark[0], text)
    # One byte a character, so that offsets in bytes are offsets in the text. Two more traps of Kingfisher: it takes
    # a text with many NULs for UTF-16 and gives offsets of what it decoded; and behind a UTF-16 mark it finds nothing.
    data = bare.encode("ascii", "replace").replace(b"\0", b" ")
    found = _kingfisher.spans(data)
    if found is None:
        return None
    merged: list[_Span] = []
    for span in sorted([*found, *_own_spans(data.decode("ascii"))]):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            _, kind = min((last.rank, last.kind), (span.rank, span.kind))
            merged[-1] = _Span(last.start, max(last.end, span.end), min(last.rank, span.rank), kind)
        else:
            merged.append(span)
    return merged


def _without(text: str, spans: list[_Span]) -> str:
    parts: list[str] = []
    done = 0
    for span in spans:
        parts += [text[done : span.start], _marks(text, span)]
        done = span.end
    return "".join([*parts, text[done:]])


def _marks(text: str, span: _Span) -> str:
    """A mark for each line of a secret; indentation, and a prefix like `+` or `# ` on every line, stay."""
    mark = f"[redacted:{span.kind}]"
    first, *others = text[span.start : span.end].split("\n")
    if not others:
        return mark
    before = text[text.rfind("\n", 0, span.start) + 1 : span.start]
    prefix = before[: len(before) - len(before.lstrip(_PREFIX_SIGNS))]
    marked = [mark + _line_ending(first)]
    for line in others:
        common = os.path.commonprefix([prefix, line])  # noqa: RUF071 -- not a path: by characters is right
        code = line[len(common) :].lstrip(" \t")
        marked.append(line[: len(line) - len(code)] + mark + _line_ending(line))
    return "\n".join(marked)


def _line_ending(line: str) -> str:
    return "\r" if line.endswith("\r") else ""


# The table of our own. Each pattern takes time linear in the text: what repeats without a limit is never gone over
# again from a place inside it.
_CHAR = r"[A-Za-z0-9_-]"
_TOKENS = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "gitlab-token": rf"(?:gl(?:pat|dt|rt|rtr|ptt|cbt|oas|ft|soat|imt|agent|ffct|wt)-|GR1348941){_CHAR}{{20,}}"
        r"(?:\.[0-9a-z]{2}\.[0-9a-z]{7,9})?",
        "github-token": r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}",
        "aws-key-id": r"AKIA[A-Z2-7]{16}|ASIA(?=[A-Z]{0,15}[2-7])[A-Z2-7]{16}",
        "azure-key": r"(?:AccountKey|SharedAccessKey)=(?P<secret>[A-Za-z0-9+/]{43,86}={1,2})",
        "google-key": rf"AIza{_CHAR}{{35}}|GOCSPX-{_CHAR}{{28}}",
        "slack-token": r"xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{20,}",
        "slack-webhook": r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}",
        "stripe-key": r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}",
        "npm-token": r"npm_[A-Za-z0-9]{36,}",
        "pypi-token": rf"pypi-AgE{_CHAR}{{40,}}",
        "openai-key": rf"sk-(?:proj|svcacct|admin|ant)-{_CHAR}{{20,}}|sk-[A-Za-z0-9]{{32,}}",
        "huggingface-token": r"hf_[A-Za-z0-9]{30,}",
        "jwt": rf"(?<!{_CHAR})(?:(?!eyJ){_CHAR})*+"
        rf"(?P<secret>eyJ{_CHAR}{{8,}}+\.eyJ{_CHAR}{{8,}}+(?:\.{_CHAR}*+)?)",
    }.items()
}
_URL = re.compile(r"://[^\s:/@?#\"'<>\\]{0,100}:(?P<secret>[^\s/\"'<>\\]{1,200})@")
_BEARER = re.compile(r"(?i:bearer)[ \t]+(?P<secret>[A-Za-z0-9._~+/=-]{16,})")
_BASIC = re.compile(r"(?i:basic)[ \t]+(?P<secret>[A-Za-z0-9+/]{8,}={0,2})")
_NAME = re.compile(
    r"(?:(?:api|access|auth|account|private|secret|encryption|signing|master)[_-]?key"
    r"|passw(?:or)?d|passwd|pwd|passphrase|secret|token|credentials?)(?:_base|_?\d)?"
    r"[\\\"'\])]{0,4}"
)
_QUOTED = re.compile(
    r"(?:(?:[ \t]*:|[ \t])[ \t]*[\w.\[\]|&*'<>? ]{1,40}(?==))?"  # a type
    r"(?:[ \t]*(?:=>|:=|[=!]={0,2}|[:,(])[ \t]*[A-Za-z@$]{0,2}|[ \t]+)\\{0,2}"
    r"(?:\"(?P<double>[^\s\"]{6,}+)\"|'(?P<single>[^\s']{6,}+)'|`(?P<back>[^\s`]{6,}+)`)"
)
_PLAIN = re.compile(r"(?:[ \t]*(?:=|:(?=[ \t]))|>)[ \t]*(?P<secret>[^\s\"'`;,&<>(){}\[\]|\\]{8,}+)(?P<call>[(\[{]?)")
_PRIVATE_KEY_EDGE = re.compile(r"-----(?P<edge>BEGIN|END) (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_LONG_RUN = 32  # characters of Base64; PEM has 64 a line, other formats up to 76
_OWN_KINDS = frozenset({*_TOKENS, "private-key", "url-password", "authorization", "password", "secret", _WITHHELD})


def _own_spans(text: str) -> Iterator[_Span]:
    yield from (_Span(start, end, 0, "private-key") for start, end in _private_keys(text))
    for kind, pattern in _TOKENS.items():
        group = "secret" if "secret" in pattern.groupindex else 0
        yield from (_Span(*match.span(group), 0, kind) for match in pattern.finditer(text))
    for kind, rank, pattern, is_secret in (
        ("url-password", 0, _URL, _is_no_placeholder),
        ("authorization", 2, _BEARER, _is_random),
        ("authorization", 2, _BASIC, _is_basic),
    ):
        for match in pattern.finditer(text):
            if is_secret(match["secret"]):
                yield _Span(*match.span("secret"), rank, kind)
    yield from _assigned(text)


def _assigned(text: str) -> Iterator[_Span]:
    """Literals given to names like `password` and `api_key`."""
    done = 0
    for name in _NAME.finditer(text.lower()):
        if name.start() < done:  # inside the last value
            continue
        kind = _kind_of_name(name[0])
        if quoted := _QUOTED.match(text, name.end()):
            start, done = quoted.span(str(quoted.lastgroup))
            value = text[start:done].rstrip("\\")  # of the closing quote, in a string inside a string
            if _is_random(value) or (kind == "password" and _is_weak_password(value)):
                yield _Span(start, start + len(value), 2, kind)
        elif plain := _PLAIN.match(text, name.end()):
            done = plain.end()
            if not plain["call"] and _is_random(plain["secret"]):
                yield _Span(*plain.span("secret"), 2, kind)


def _kind_of_name(name: str) -> str:
    return "password" if name.startswith(("pass", "pwd")) else "secret"


_PLACEHOLDER = re.compile(
    r"\$[{(]|#\{|\{\{|\{\w*\}|%[sd(]|\*{3}|\.{3}"  # filled in at run time, or starred out
    r"|\A\$\w+\Z|\A<.*>\Z|\A(.)\1*\Z"
    r"|\[\^?\w-\w|\\[wdsSb]|\(\?|\.\*"  # a regular expression
    r"|\A(?:pass(?:word)?|pw|pwd|secret|token|user)\Z",
    re.IGNORECASE | re.DOTALL,
)
_DUMMY = re.compile(
    r"(?:change|your|some|test|dummy|fake|mock|example|sample|placeholder|todo|foo|bar|xxx|insert|enter)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z]*[0-9]{0,6}|[0-9]+")
_HUMP = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_MIN_RANDOM = 8
_MIN_RANDOM_LETTERS = 16
_MIN_VARIETY = 6
_MIN_HUMP = 3


def _is_no_placeholder(value: str) -> bool:
    return _PLACEHOLDER.search(value) is None


def _is_random(value: str) -> bool:
    """Whether a value looks drawn by dice: not a name, a path, a version or a placeholder."""
    if len(value) < _MIN_RANDOM or len(set(value)) < _MIN_VARIETY or not _is_no_placeholder(value):
        return False
    humps = _HUMP.findall(value)
    has_digit = any(character.isdigit() for character in value)
    if not humps or not (has_digit or len(value) >= _MIN_RANDOM_LETTERS):
        return False
    in_words = all(_WORD.fullmatch(part) for part in re.split(r"[^A-Za-z0-9]+", value))
    return not in_words or sum(map(len, humps)) < _MIN_HUMP * len(humps)


def _is_weak_password(value: str) -> bool:
    """`Summer2024!`, but not `user_password_1`, `/run/secrets/db1`, `changeme1` or a plain word."""
    return (
        re.search(r"[0-9!@#$%^&*?+=]", value) is not None
        and re.search(r"[_./:-]", value) is None
        and _DUMMY.match(value) is None
        and _is_no_placeholder(value)
    )


def _is_basic(value: str) -> bool:
    """Whether it is `user:password` in Base64."""
    try:
        decoded = base64.b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), validate=True)
    except binascii.Error:
        return False
    return b":" in decoded and decoded.isascii() and decoded.decode().isprintable()


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    """PEM blocks, also those of which a hunk shows only the beginning or the end."""
    edges = list(_PRIVATE_KEY_EDGE.finditer(text))
    for edge, before, after in zip(edges, [None, *edges], [*edges[1:], None], strict=False):
        if edge["edge"] == "END":
            body = text[before.end() if before else 0 : edge.start()]
            if length := _key_length(body.split("\n")[::-1]):
                yield edge.start() - length, edge.end()
            continue
        body = text[edge.end() : after.start() if after else len(text)]
        if after and after["edge"] == "END" and sum(map(len, _key_runs(body))) >= len(body) / 2:
            yield edge.start(), after.end()
        elif length := _key_length(body.split("\n")):
            yield edge.start(), edge.end() + length


def _key_runs(text: str) -> list[str]:
    """Long runs of Base64 that are no words."""
    return [run for run in re.findall(rf"[A-Za-z0-9+/]{{{_LONG_RUN},}}", text) if re.search(r"[0-9]", run)]


def _key_length(lines: list[str]) -> int:
    """How many characters of the lines can be key: lines of Base64, with headers, quotes and comment signs."""
    count = 0
    for number, line in enumerate(lines, 1):
        words = re.findall(r"[A-Za-z0-9+/=]+", re.sub(r"\\[nrt]", " ", line))
        is_header = re.match(r"[^A-Za-z]*+[A-Za-z][A-Za-z-]*+: ", line)
        if sum(len(word) < _LONG_RUN for word in words) > 1 and not is_header:
            break
        if _key_runs(line):
            count = number
    return len("\n".join(lines[:count]))
