"""Finding -> GitLab Markdown in which model text cannot act, with a hidden marker at its end; and back.

GitLab acts on a note in two places. It runs quick actions from the lines of the source, and it looks for
mentions, references, links and emoji in the text nodes of the *rendered* page, that is after Markdown has taken
backslashes and entities away (lib/gitlab/quick_actions/extractor.rb, lib/banzai/pipeline/gfm_pipeline.rb and
lib/banzai/filter/ of gitlab-org/gitlab). So prose gets backslashes against Markdown, and an invisible U+2060
(word joiner) inside of everything the later filters look for: it is no character of a name, number or URL.
Inside code spans and code blocks those filters do nothing.
"""

import base64
import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from bot.domain import Finding, Severity

BADGES = {Severity.CRITICAL: "🔴", Severity.MAJOR: "🟠", Severity.MINOR: "🟡", Severity.TRIVIAL: "🔵"}

_MAX_TITLE = 300  # characters, as all below; with these a note stays far below GitLab's limit of 1,000,000
_MAX_TEXT = 8_000
_MAX_SUGGESTED_LINES = 100  # above the commented line; GitLab takes no more


def render(finding: Finding, footer: str = "") -> str:
    """Write the note for a finding that is commented at its end line.

    A text that is longer than a person reads is cut, and characters that no text may hold are replaced; all
    else comes back from `parse_marker` exactly.

    Args:
        finding: what is said.
        footer: Markdown of our own that stands below it; it is not escaped, so nothing of a model or a person may be
            in it.
    """
    finding = _bounded(finding)
    parts = (
        f"{BADGES[finding.severity]} **{finding.severity}** · {finding.category}",
        _bold(finding.title),
        prose(finding.explanation),
        _suggestion(finding),
        footer,
        f"<!-- apprentice:finding:v1:{_encode(finding)} -->",
    )
    return "\n\n".join(part for part in parts if part)


# --- the marker


class _Marked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    fingerprint: str
    finding: Finding


_MARKER = re.compile(r"<!-- apprentice:finding:v1:([A-Za-z0-9+/]{1,500000}={0,2}) -->")


def parse_marker(note: str) -> Finding | None:
    """Give the finding that a note was rendered from, or None where its last line is not our marker.

    Only the last line counts, from its first column: model text stands above it, so a marker inside of that
    cannot win, and in a reply that quotes the note the line begins with `>`. Anybody can copy a marker: whether
    the note is the bot's own must be told by its author.
    """
    marker = _MARKER.fullmatch(note.rstrip().rpartition("\n")[2])
    if marker is None:
        return None
    try:
        finding = _Marked.model_validate_json(base64.b64decode(marker[1], validate=True)).finding
        return finding if _encode(finding) == marker[1] else None
    except ValueError:  # what base64 and pydantic raise
        return None


def _encode(finding: Finding) -> str:
    """Base64 of JSON: it holds no `--`, which would end the comment. Equal findings give equal text."""
    marked = _Marked(fingerprint=finding.fingerprint, finding=finding)
    return base64.b64encode(marked.model_dump_json().encode()).decode()


def _bounded(finding: Finding) -> Finding:
    suggestion = finding.suggestion
    return replace(
        finding,
        file=_cut(finding.file, _MAX_TEXT),
        title=_cut(finding.title, _MAX_TITLE),
        explanation=_cut(finding.explanation, _MAX_TEXT),
        quote=_cut(finding.quote, _MAX_TEXT),
        suggestion=None if suggestion is None or len(suggestion) > _MAX_TEXT else _cut(suggestion, _MAX_TEXT),
    )


def _cut(text: str, most: int) -> str:
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text if len(text) <= most else text[: most - 1] + "…"


# --- prose that cannot act

_JOINER = "\u2060"
_JOINERS = "\u200c\u200d\u200e\u200f"  # other invisible characters that scripts and emoji need; all else goes
_BLANK = (  # what is stripped from the start of a line: spaces, the joiners, and letters that show nothing
    " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
    f"{_JOINERS}\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    "\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f"
)

_SHA = re.compile(r"[0-9a-fA-F]{6}(?=[0-9a-fA-F])")  # GitLab links seven hex digits, wherever they stand
_LIVE = re.compile(
    r"(?<=[@#!~%$^&\[])(?!\s)"  # @user #1 !1 ~label %milestone $1 ^alert#1 &1 [issue:1] [[wiki]] [TOC] [^1] ![
    r"|(?<=:)(?=//|[\w+-]+:)"  # https:// :emoji:
    r"|(?<=\])(?=[(\[:])"  # [text](url with spaces), which GitLab makes a link after Markdown is done
    r"|(?<=\{)(?=[+-])"  # {+ inline diff +}
    r"|(?<=\*)(?=iteration)"  # *iteration:1
    r"|(?<=\w-)(?=\d)"  # JIRA-1
    r"|(?<=[\w.-])(?=>)"  # group/project>
    r"|(?<=[wW]{3})(?=\.)"  # www.example.com
)
_SIGN = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])|[@#!%^](?=\u2060)")
_LINE_START = re.compile(r"\A(?:(?P<number>\d+)(?=[.)])|[-+=:#])")  # lists, headings, rules, definitions


def prose(text: str) -> str:
    """Keep lines, paragraphs and balanced code spans of a text; all else in it is shown as it is written."""
    lines = [_inline(line) for line in _lines(text)]
    paragraphs = ("\\\n".join(group) for filled, group in itertools.groupby(lines, bool) if filled)
    return "\n\n".join(paragraphs)


def one_line(text: str) -> str:
    """The same for a text that shall stay in one line, such as a title."""
    return _inline(" ".join(filter(None, _lines(text))))


def _bold(text: str) -> str:
    line = one_line(text)
    return f"**{line}**" if line else ""


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        seen = "".join(map(_visible, line))
        yield seen.lstrip(_BLANK).rstrip()


def _visible(char: str) -> str:
    match unicodedata.category(char):
        case "Cc":
            return " "
        case "Cf":
            return char if char in _JOINERS else ""
        case _:
            return char


def _inline(line: str) -> str:
    text = "".join(_code(piece) if is_code else _escaped(piece) for is_code, piece in _pieces(line))
    if text.startswith("/"):  # a quick action; the joiner also for who copies the rendered line
        return f"\\/{_JOINER}{text[1:]}"
    return _LINE_START.sub(_escape_start, text)


def _escape_start(start: re.Match[str]) -> str:
    return f"{start['number']}\\" if start["number"] else f"\\{start[0]}"


def _escaped(text: str) -> str:
    text = _SHA.sub(rf"\g<0>{_JOINER}", text)
    text = _LIVE.sub(_JOINER, text)
    return _SIGN.sub(r"\\\g<0>", text)


_TICKS = re.compile("`+")


def _pieces(line: str) -> Iterator[tuple[bool, str]]:
    """Split a line into text and the content of code spans, by CommonMark's rule: runs of equal length pair."""
    runs = list(_TICKS.finditer(line))
    at = 0
    while runs:
        opening = runs.pop(0)
        closing = next((number for number, run in enumerate(runs) if len(run[0]) == len(opening[0])), None)
        if closing is not None and (content := line[opening.end() : runs[closing].start()].strip()):
            yield False, line[at : opening.start()]
            yield True, content
            at = runs[closing].end()
            runs = runs[closing + 1 :]
    yield False, line[at:]


def _code(content: str) -> str:
    used = {len(run) for run in _TICKS.findall(content)}
    fence = "`" * next(length for length in itertools.count(1) if length not in used)
    pad = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{pad}{content}{pad}{fence}"


# --- the suggestion

# Code cannot be escaped, it would be committed so. Older GitLabs know only blocks between exactly three
# backticks when it looks for quick actions, so no line may look like one; what a reader cannot see must not be
# committed by a click.
_UNSAFE_CODE = re.compile(
    r"^/[A-Za-z]|^>>>\s*$|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]", re.MULTILINE
)


def _suggestion(finding: Finding) -> str:
    """The block behind GitLab's "apply" button; nothing where it could not be applied safely."""
    above = finding.end_line - finding.line
    code = finding.suggestion
    if code is None or not 0 <= above <= _MAX_SUGGESTED_LINES or _UNSAFE_CODE.search(code):
        return ""
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(code)), default=0))
    return "\n".join((f"{fence}suggestion:-{above}+0", code.removesuffix("\n"), fence))
