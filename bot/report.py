"""A review as a file, for machines and for pasting: JSON, SARIF, GitLab Code Quality, Markdown.

Each `as_...` function takes a `Review` and gives back the whole file as text that ends with one newline.
None does I/O. The three JSON formats are pure ASCII, so that they survive any pipe and encoding. What people
read in the terminal is made in `bot.terminal`.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import quote as percent_encode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from bot import __version__
from bot.comment import render
from bot.domain import Category, Finding, HiddenReason, Judged, NotRead, Review, Severity

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_SARIF_LEVEL = {
    Severity.CRITICAL: "error",
    Severity.MAJOR: "error",
    Severity.MINOR: "warning",
    Severity.TRIVIAL: "note",
}
_SARIF_RULES = {
    Category.SECURITY: "A hole through which an attacker could get in.",
    Category.CORRECTNESS: "The code does something else than it should.",
    Category.RELIABILITY: "The code fails when its surroundings do: errors, limits, concurrency.",
    Category.PERFORMANCE: "The code needs more time, memory or requests than it has to.",
    Category.MAINTAINABILITY: "The code is hard to understand or to change.",
    Category.STYLE: "The code breaks a convention.",
}


_JOINERS = "\u200c\u200d"  # Python calls them not printable, but Persian, Indic scripts and emoji need them


def _well_formed(text: str) -> str:
    """The text with each lone surrogate (a byte of a name or file that was no UTF-8) as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_Text = Annotated[str, BeforeValidator(_well_formed)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JsonFinding(_Model):
    """A finding as scripts read it; `hidden_reason` is None when it is shown."""

    file: _Text
    line: int
    end_line: int
    severity: Severity
    category: Category
    title: _Text
    explanation: _Text
    quote: _Text
    suggestion: _Text | None
    confidence: float | None
    fingerprint: str
    shown: bool
    hidden_reason: HiddenReason | None


class JsonNotRead(_Model):
    """A file, or lines of one, that the student did not read, and why."""

    file: _Text
    reason: _Text


class JsonUsage(_Model):
    """What the review cost; `seconds` is wall-clock time."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float


class JsonReview(_Model):
    """The contract for scripts; `JsonReview.model_json_schema()` is its JSON Schema.

    No key is renamed, taken away or given another meaning without a new number in `schema`.
    """

    version: Literal[1] = Field(alias="schema")
    findings: list[JsonFinding]
    read: list[_Text]
    not_read: list[JsonNotRead]
    model: _Text
    adapter: _Text | None
    prompt_id: str
    usage: JsonUsage


def as_json(review: Review) -> str:
    """The review as `JsonReview`. It holds the hidden findings too, whatever the user wants to see."""
    usage = review.usage
    contract = JsonReview(
        schema=1,
        findings=[_json_finding(judged) for judged in review.findings],
        read=list(review.read),
        not_read=[JsonNotRead(file=missing.file, reason=missing.reason) for missing in review.not_read],
        model=review.model,
        adapter=review.adapter,
        prompt_id=review.prompt_id,
        usage=JsonUsage(
            requests=usage.requests,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=round(usage.seconds, 3),
        ),
    )
    return contract.model_dump_json(by_alias=True, indent=2, ensure_ascii=True) + "\n"


def _json_finding(judged: Judged) -> JsonFinding:
    finding = judged.finding
    return JsonFinding(
        file=finding.file,
        line=finding.line,
        end_line=finding.end_line,
        severity=finding.severity,
        category=finding.category,
        title=finding.title,
        explanation=finding.explanation,
        quote=finding.quote,
        suggestion=finding.suggestion,
        confidence=finding.confidence,
        fingerprint=finding.fingerprint,
        shown=judged.shown,
        hidden_reason=judged.hidden,
    )


def as_sarif(review: Review, *, show_hidden: bool = False) -> str:
    """The review as SARIF 2.1.0; with `show_hidden`, hidden findings are in it as suppressed results."""
    judged = [each for each in review.findings if each.shown or show_hidden]
    usage = review.usage
    run: dict[str, JsonValue] = {
        "tool": {
            "driver": {
                "name": "apprentice",
                "version": __version__,
                "rules": [
                    {"id": category.value, "shortDescription": {"text": text}}
                    for category, text in _SARIF_RULES.items()
                ],
                "notifications": [
                    {
                        "id": "not-read",
                        "shortDescription": {"text": "The student did not read a part of the change."},
                    }
                ],
            }
        },
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "The root of the repository."}}},
        "invocations": [
            {
                "executionSuccessful": review.complete,
                "toolExecutionNotifications": [_sarif_notification(missing) for missing in review.not_read],
            }
        ],
        "results": [_sarif_result(each, suppressible=show_hidden) for each in judged],
        "properties": {
            "model": review.model,
            "adapter": review.adapter,
            "promptId": review.prompt_id,
            "requests": usage.requests,
            "promptTokens": usage.prompt_tokens,
            "cachedTokens": usage.cached_tokens,
            "completionTokens": usage.completion_tokens,
            "seconds": round(usage.seconds, 3),
        },
    }
    return _dump({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def _sarif_result(judged: Judged, *, suppressible: bool) -> JsonValue:
    finding = judged.finding
    place = {"startLine": finding.line, "endLine": finding.end_line}
    result: dict[str, JsonValue] = {
        "ruleId": finding.category.value,
        "ruleIndex": list(_SARIF_RULES).index(finding.category),
        "level": _SARIF_LEVEL[finding.severity],
        "message": {"text": _sarif_text(f"{finding.title}\n\n{finding.explanation}")},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _sarif_file(finding.file),
                    "region": {**place, "snippet": {"text": finding.quote}},
                }
            }
        ],
        "partialFingerprints": {"apprentice/v1": finding.fingerprint},
        "properties": {"severity": finding.severity.value, "confidence": finding.confidence},
    }
    if finding.suggestion is not None:
        # A region without columns ends before its last line's newline, so the new text has none there either.
        replacement: JsonValue = {
            "deletedRegion": dict(place),
            "insertedContent": {"text": finding.suggestion.removesuffix("\n")},
        }
        change: JsonValue = {"artifactLocation": _sarif_file(finding.file), "replacements": [replacement]}
        result["fixes"] = [{"description": {"text": "Suggested code"}, "artifactChanges": [change]}]
    if suppressible:  # as soon as one result of a run has this property, all of them must (SARIF 3.27.23)
        result["suppressions"] = (
            [{"kind": "external", "status": "accepted", "justification": judged.hidden.words}] if judged.hidden else []
        )
    return result


def _sarif_notification(missing: NotRead) -> JsonValue:
    return {
        "descriptor": {"id": "not-read", "index": 0},
        "level": "error" if missing.failed else "note",
        "message": {"text": _sarif_text(f"{missing.file} was not read: {missing.reason}")},
        "locations": [{"physicalLocation": {"artifactLocation": _sarif_file(missing.file)}}],
    }


def _sarif_file(path: str) -> JsonValue:
    return {"uri": percent_encode(_well_formed(path)), "uriBaseId": "%SRCROOT%"}


def _sarif_text(text: str) -> str:
    """Plain text with SARIF's placeholders escaped (3.11.5) and its embedded links broken up (3.11.6)."""
    return text.replace("{", "{{").replace("}", "}}").replace("](", "] (")


def as_codequality(review: Review) -> str:
    """The shown findings as GitLab's Code Quality report (https://docs.gitlab.com/ci/testing/code_quality/)."""
    seen: Counter[str] = Counter()
    entries: list[JsonValue] = []
    for finding in review.shown:
        seen[finding.fingerprint] += 1
        entries.append(_codequality_entry(finding, repetition=seen[finding.fingerprint]))
    return _dump(entries)


def _codequality_entry(finding: Finding, *, repetition: int) -> JsonValue:
    # GitLab keeps only the last entry of a fingerprint, so the same code in two places must not share one.
    suffix = f"-{repetition}" if repetition > 1 else ""
    lines: dict[str, JsonValue] = {"begin": finding.line}
    if finding.end_line > finding.line:
        lines["end"] = finding.end_line
    return {
        "description": " ".join(f"{finding.title}: {finding.explanation}".split()),
        "check_name": f"apprentice/{finding.category}",
        "fingerprint": finding.fingerprint + suffix,
        "severity": "info" if finding.severity is Severity.TRIVIAL else finding.severity.value,
        "location": {"path": finding.file.removeprefix("./"), "lines": lines},
    }


def _dump(document: JsonValue) -> str:
    # Lone surrogates must go before `json` would write them as escapes that no strict reader takes.
    clean = json.loads(_well_formed(json.dumps(document, ensure_ascii=False)))
    return json.dumps(clean, indent=2) + "\n"


def as_markdown(review: Review, *, show_hidden: bool = False) -> str:
    """The review as Markdown for a comment, a chat or an issue; nothing of the model's text acts in GitLab.

    Prose is escaped by `bot.comment`. Names and reasons stand in code spans, code stands in fenced blocks in
    which no line begins with a character of its own: it can neither end the block nor be a quick action.
    """
    shown = review.shown
    hidden = [judged for judged in review.findings if not judged.shown]
    parts = [f"**{count_words(len(shown), 'finding')}:** {severity_words(shown)}" if shown else "**No findings**"]
    if not review.complete:
        parts.append("**This review is incomplete:** a part of the change could not be read.")
    parts += [markdown_finding(finding) for finding in shown]
    if hidden:
        parts.append(f"**{len(hidden):,} hidden:** {hidden_words(review)}")
    if hidden and show_hidden:
        parts.append("\n".join(_markdown_hidden(each.finding, each.hidden) for each in hidden if each.hidden))
    if review.not_read:
        parts += ["**Not read**", "\n".join(_markdown_not_read(review.not_read))]
    footer = [f"{count_words(len(review.read), 'file')} read", cost_words(review), source_words(review)]
    parts.append(_block("text", [*footer, *filter(None, [redacted_words(review)])]))
    return "\n\n".join(parts) + "\n"


def markdown_finding(finding: Finding) -> str:
    """A finding away from its line: place, what is said, the quoted code, the suggestion as a diff."""
    prose = render(replace(finding, suggestion=None)).rpartition("\n\n<!--")[0]  # without the hidden marker
    sure = "" if finding.confidence is None else f" ({finding.confidence:.0%} sure)"
    parts = [f"#### {code_span(place(finding))}{sure}", prose, quoted_code(finding)]
    if finding.suggestion is not None:
        parts += ["Suggestion:", _block("diff", [f"+{line}" for line in text_lines(finding.suggestion)])]
    return "\n\n".join(parts)


def quoted_code(finding: Finding) -> str:
    """The code that a finding speaks of, each line with its number, as a block."""
    lines = text_lines(finding.quote)
    return _block("text", [f"{number} | {line}" for number, line in enumerate(lines, finding.line)])


def _markdown_hidden(finding: Finding, reason: HiddenReason) -> str:
    what = f"{finding.severity}, {finding.category}, {reason.words}"
    return f"- {code_span(place(finding))} {what}: {code_span(finding.title)}"


def _markdown_not_read(missing: Iterable[NotRead]) -> list[str]:
    """A bullet for each failed part, then one for each reason to skip."""
    failed = [f"- ⚠️ {code_span(part.file)}: {code_span(part.reason)}" for part in missing if part.failed]
    skipped = skipped_by_reason(missing)
    return failed + [f"- {code_span(reason)}: {', '.join(map(code_span, files))}" for reason, files in skipped.items()]


def code_span(text: str) -> str:
    """Any text as one code span in which nothing acts; what could reorder or hide text is spelled out."""
    content = printable(text) or " "
    ticks = "`" * (1 + max(map(len, re.findall("`+", content)), default=0))
    pad = " " if content.strip(" `") != content and content.strip(" ") else ""
    return f"{ticks}{pad}{content}{pad}{ticks}"


def _block(language: str, lines: Iterable[str]) -> str:
    return "\n".join((f"```{language}", *("\t".join(map(printable, line.split("\t"))) for line in lines), "```"))


def printable(text: str) -> str:
    r"""One line of text in which whatever could steer a terminal or reorder text is spelled out.

    ESC becomes `\x1b`, a line break `\n`, a bidirectional override `\u202e`; tabs become spaces.
    """
    return "".join(char if _harmless(char) else char.encode("unicode_escape").decode() for char in text.expandtabs(4))


def _harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def place(finding: Finding) -> str:
    """`src/app.py:42`, `src/app.py:42-44`."""
    last = f"-{finding.end_line}" if finding.end_line > finding.line else ""
    return f"{finding.file}:{finding.line}{last}"


def text_lines(text: str) -> list[str]:
    """The lines of a text from outside; only line feeds end one, so that lines are counted as git does."""
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def count_words(number: int, noun: str) -> str:
    """`1 finding`, `1,200 findings`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def severity_words(findings: Iterable[Finding]) -> str:
    """`1 critical, 2 minor`, worst first; empty without findings."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(f"{counts[severity]} {severity}" for severity in sorted(counts, reverse=True))


def hidden_words(review: Review) -> str:
    """`3 below the severity threshold, 2 not verified`, most first; empty when nothing is hidden."""
    counts = Counter(judged.hidden for judged in review.findings if judged.hidden)
    return ", ".join(f"{count} {why.words.partition(':')[0]}" for why, count in counts.most_common())


def redacted_words(review: Review) -> str:
    """`2 secrets were taken out before the student read the change: 1 aws, 1 jwt`; empty when none was."""
    if not review.redacted:
        return ""
    total = sum(count for _, count in review.redacted)
    kinds = ", ".join(f"{count} {kind}" for kind, count in review.redacted)
    was = "was" if total == 1 else "were"
    return f"{count_words(total, 'secret')} {was} taken out before the student read the change: {kinds}"


def cost_words(review: Review) -> str:
    """Requests, tokens and seconds in one line."""
    usage = review.usage
    prompt = f"{count_words(usage.prompt_tokens, 'prompt token')} ({usage.cached_tokens:,} from the cache)"
    completion = count_words(usage.completion_tokens, "completion token")
    return f"{count_words(usage.requests, 'request')}, {prompt}, {completion}, {usage.seconds:,.1f} s"


def source_words(review: Review) -> str:
    """Which model, adapter and prompt the review came from, in one line."""
    adapter = f"adapter {review.adapter}" if review.adapter else "no adapter"
    return f"model {review.model}, {adapter}, prompt {review.prompt_id}"


def skipped_by_reason(missing: Iterable[NotRead]) -> dict[str, list[str]]:
    """The files that were skipped on purpose, by reason."""
    skipped: dict[str, list[str]] = {}
    for part in missing:
        if not part.failed:
            skipped.setdefault(part.reason, []).append(part.file)
    return skipped
