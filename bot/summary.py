"""The bot's summary note on a merge request: one note, rewritten with every review, read by its author.

Whatever stands in it that others wrote (paths, reasons, names, model text) is in code spans and blocks, or went
through `bot.comment`: nothing in it acts. Long lists are cut, and say so.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bot.command import SLASH
from bot.comment import BADGES, one_line
from bot.domain import Finding, NotRead, Review
from bot.forge import SUMMARY_MARKER
from bot.report import code_span, count_words, hidden_words, markdown_finding, place

_MAX_FILES = 10  # of one reason
_MAX_REASONS = 20
_MAX_PROBLEMS = 20
_MAX_NAME = 200  # characters of a path, reason or problem
_MAX_PROBLEM = 600
_MAX_FINDINGS = 100_000  # characters of findings in full; GitLab takes a note of 1,000,000
_MAX_PLACES = 100  # findings that are only named after that

_ASK = f"`{SLASH} review` asks for another review, `{SLASH} help` shows what else I do. Rate my comments: 👍 👎"


def reviewed(
    review: Review, *, head: str, since: str | None, unplaced: Sequence[tuple[Finding, str]] = (), still_open: int = 0
) -> str:
    """The note after a review.

    Args:
        review: what came of it.
        head: the head SHA that was reviewed.
        since: the head SHA of the review before, where only what changed since then was read; None for a full one.
        unplaced: findings that the forge took at no line, each with the forge's reason.
        still_open: how many threads of earlier reviews are open.
    """
    hidden = hidden_words(review)
    return _note(
        f"{_verdict(review)}\n\n{_scope(review, head, since, still_open)}",
        _unplaced(unplaced),
        f"Hidden: {hidden}." if hidden else "",
        _not_read(review.not_read),
        f"<sub>{_ASK}</sub>\\\n<sub>{_colophon(review)}</sub>",
    )


def waiting(reason: str, head: str) -> str:
    """The note while a review cannot be made, for example because the student is unreachable.

    Args:
        reason: half a sentence.
        head: the head SHA that is to be reviewed; empty where that is not known.
    """
    of_head = f" of {_sha(head)}" if head else ""
    return _note(f"The review{of_head} waits: {_said(reason)}. I will try again by myself.")


def policy_broken(problems: Sequence[str], branch: str) -> str:
    """The note when the policy file cannot be used.

    Args:
        problems: those of a `bot.policy.PolicyError`: each with file, line, key and the allowed values.
        branch: the target branch, from which the policy is read.
    """
    rows = [f"- {code_span(_cut(problem, _MAX_PROBLEM))}" for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        rows.append(f"- and {count_words(len(problems) - _MAX_PROBLEMS, 'more problem')}")
    return _note(
        f"I cannot review this: my policy file on {_name(branch)} has mistakes.",
        "\n".join(rows),
        f"I read it from there only, so please correct it there. Then `{SLASH} review` makes me look again.",
    )


# --- parts


def _note(first: str, *parts: str) -> str:
    return "\n\n".join(part for part in (f"**Apprentice:** {first}", *parts, SUMMARY_MARKER) if part)


def _verdict(review: Review) -> str:
    if not review.read and not review.findings:
        return (
            "**nothing to review** here" if review.complete else "⚠️ **no review**, I could read nothing of this change"
        )
    counts = Counter(finding.severity for finding in review.shown)
    worst_first = sorted(counts, reverse=True)
    words = " · ".join(f"{BADGES[severity]} **{counts[severity]} {severity}**" for severity in worst_first)
    return (words or "**no findings**") + ("" if review.complete else " · ⚠️ **incomplete**, see what was not read")


def _scope(review: Review, head: str, since: str | None, still_open: int) -> str:
    what = f"what changed since {_sha(since)}" if since else "the whole change"
    words = f"I read {count_words(len(review.read), 'file')} at {_sha(head)}: {what}."
    if still_open:
        words += (
            f" {count_words(still_open, 'earlier comment')} of mine {'is' if still_open == 1 else 'are'} still open."
        )
    return words


def _unplaced(unplaced: Sequence[tuple[Finding, str]]) -> str:
    """The findings that stand at no line: in full as long as there is room, then by name."""
    if not unplaced:
        return ""
    parts = [f"**{count_words(len(unplaced), 'finding')}** could not be put at a line:"]
    named: list[str] = []
    room = _MAX_FINDINGS
    for finding, reason in unplaced:
        short = replace(finding, file=_cut(finding.file, _MAX_NAME))
        text = f"{markdown_finding(short)}\n\n<sub>Not at its line: {_said(reason)}</sub>"
        if len(text) <= room:
            room -= len(text)
            parts.append(text)
        else:
            named.append(f"- {code_span(place(short))} {finding.severity}: {_name(finding.title)}")
    if len(named) > _MAX_PLACES:
        named[_MAX_PLACES:] = [f"- and {count_words(len(named) - _MAX_PLACES, 'more finding')}"]
    return "\n\n".join((*parts, *filter(None, ["\n".join(named)])))


def _not_read(missing: Iterable[NotRead]) -> str:
    """Files by reason, those first that should have been read, in a block that opens on a click."""
    by_reason: dict[tuple[bool, str], list[str]] = {}
    for part in missing:
        by_reason.setdefault((not part.failed, part.reason), []).append(part.file)
    if not by_reason:
        return ""
    total = len({file for files in by_reason.values() for file in files})
    ordered = sorted(by_reason, key=lambda key: (key[0], -len(by_reason[key]), key[1]))
    rows = [
        f"- {'' if on_purpose else '⚠️ '}{_said(reason)} · {_files(by_reason[on_purpose, reason])}"
        for on_purpose, reason in ordered[:_MAX_REASONS]
    ]
    left = {file for key in ordered[_MAX_REASONS:] for file in by_reason[key]}
    if left:
        rows.append(f"- and {count_words(len(left), 'more file')} for other reasons")
    summary = f"Not read, or not all of it: {count_words(total, 'file')}"
    return "\n".join((f"<details>\n<summary>{summary}</summary>\n", *rows, "\n</details>"))


def _files(files: Sequence[str]) -> str:
    names = ", ".join(_name(file) for file in files[:_MAX_FILES])
    left = len(files) - _MAX_FILES
    return f"{names} and {count_words(left, 'more file')}" if left > 0 else names


def _colophon(review: Review) -> str:
    usage = review.usage
    tokens = count_words(usage.prompt_tokens + usage.completion_tokens, "token")
    adapter = f"adapter {_name(review.adapter)} on " if review.adapter else ""
    voice = f"{adapter}model {_name(review.model)}{'' if review.adapter else ', no adapter'}"
    words = [voice, f"prompt {_name(review.prompt_id)}", f"{tokens}, {usage.seconds:,.1f} s"]
    if review.redacted:
        total = sum(count for _, count in review.redacted)
        kinds = ", ".join(f"{count} {kind}" for kind, count in review.redacted)
        words.append(f"{count_words(total, 'secret')} taken out before reading: {_name(kinds)}")
    return " · ".join(words)


def _sha(head: str) -> str:
    return code_span(head[:8])


def _said(text: str) -> str:
    """A reason, which may quote anything, as a part of a sentence."""
    return one_line(_cut(text, _MAX_NAME).encode("utf-8", "replace").decode())


def _name(text: str) -> str:
    return code_span(_cut(text, _MAX_NAME))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
