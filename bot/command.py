"""What people tell the bot in a comment, and what it answers.

The first line that is not blank decides: `/apprentice review` or `@BOT review`. GitLab swallows neither. Its quick
actions are lines of a slash and a name that it knows (lib/gitlab/quick_actions/extractor.rb builds its pattern from
the known names, each followed by a blank or the line's end); `apprentice` is none of them, so the line stays text.
A quote, a code block or a mention in mid-sentence begins otherwise, and is no command.
"""

import re
from dataclasses import dataclass

from bot.domain import Finding, Severity
from bot.feedback import read_reply
from bot.report import code_span, place, quoted_code

SLASH = "/apprentice"


@dataclass(frozen=True, slots=True)
class Review:
    """Review what is new now, or all of the change."""

    full: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Review this merge request no more by yourself."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Do so again."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Show findings from this severity up on this merge request, whatever the policy says."""

    level: Severity


@dataclass(frozen=True, slots=True)
class Why:
    """Tell what led to the finding of this thread."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Withdraw the finding of this thread."""


@dataclass(frozen=True, slots=True)
class Help:
    """Tell what can be told."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that there is not; `words` are what stood there, for the answer."""

    words: str


Command = Review | Pause | Resume | Threshold | Why | Forget | Help | Unknown

_ALONE: dict[str, Command] = {
    "pause": Pause(),
    "resume": Resume(),
    "forget": Forget(),
    "help": Help(),
    "review": Review(full=False),
    "review full": Review(full=True),
    **{f"threshold {level}": Threshold(level) for level in Severity},
}
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)*")
_POLITE = frozenset("please pls now again this it the mr to hi hello hey thanks thank thx you ok okay".split())
_SIGNS = "`'\"*.,;:!?()"
_WORDLIKE = re.compile(r"[^\W\d_][\w-]*")
_FEW = 2  # words after a mention that are still a command, if an unknown one; more are a sentence
_MAX_LINE = 300  # characters; a longer line is no command
_MAX_WORDS = 60  # characters of an unknown command in the answer


def parse(body: str, bot: str) -> Command | None:
    """Read a note's text; None where it is no command.

    Args:
        body: the note, as a person wrote it.
        bot: the bot's username.
    """
    first, _, others = _BLANK_LINES.sub("", body, count=1).partition("\n")
    begins = re.compile(rf" {{0,3}}(?:(?P<slash>{SLASH})(?!\S)|@{re.escape(bot)}(?![\w-]|\.\w))", re.IGNORECASE)
    start = begins.match(first) if len(first) <= _MAX_LINE else None
    if start is None:
        return None
    said = first[start.end() :].strip(f"{_SIGNS} \t\r")
    words = [word for raw in said.split() if (word := raw.strip(_SIGNS).lower()) not in {*_POLITE, ""}]
    if command := Why() if words[:1] == ["why"] else _ALONE.get(" ".join(words)):
        return command
    if start["slash"]:
        return Unknown(" ".join(words)[:_MAX_WORDS]) if words else Help()
    if not said:
        return None if others.strip() else Help()
    is_command = 0 < len(words) <= _FEW and all(map(_WORDLIKE.fullmatch, words)) and read_reply(body) is None
    return Unknown(" ".join(words)[:_MAX_WORDS]) if is_command else None


DEVELOPER = 30


def may_command(level: int) -> bool:
    """Whether a person with this access level in the project may tell the bot something."""
    return level >= DEVELOPER


# --- what it answers: Markdown in which nothing of what others wrote acts

SEEN = ("eyes",)
"""Emoji for a note whose command needs no answer in words: the review, or the summary, is the answer."""

NOT_ALLOWED = "Only people with at least the Developer role in this project can tell me that."
NOT_OPEN = "This merge request is not open, so there is nothing for me to review."
NOT_IN_THREAD = "I can only do that in the thread of one of my findings: reply there."
PAUSED = f"I will not review this merge request until somebody writes `{SLASH} resume` or asks for a review."
RESUMED = "I review this merge request again: now, and whenever there are new commits."
FORGOTTEN = "I have withdrawn this finding, and will not say it again on this merge request."


def threshold_set(level: Severity) -> str:
    """The answer to a new threshold."""
    return f"From my next review on I show findings on this merge request that are at least **{level}**."


def help_text(bot: str) -> str:
    """All commands; `bot` is the bot's username."""
    rows = (
        ("review", "review what is new since my last review; if nothing is, the whole change"),
        ("review full", "review the whole change"),
        ("pause", "review this merge request no more by myself; `resume` ends that"),
        (
            "threshold LEVEL",
            "show findings here from this severity up: `trivial`, `minor`, `major` or `critical`",
        ),
        ("why", "as a reply to a finding: tell what led to it"),
        ("forget", "as a reply to a finding: withdraw it, and do not say it again here"),
        ("help", "show this"),
    )
    table = "\n".join(f"| `{SLASH} {words}` | {what} |" for words, what in rows)
    return (
        "People with at least the Developer role can tell me what to do, in the first line of a comment:\n\n"
        f"| write | and I |\n| --- | --- |\n{table}\n\n"
        f"{code_span(f'@{bot}')} instead of `{SLASH}` does as well. Anybody can rate a finding: with 👍 or 👎, with a "
        "reason (❌ wrong, 🔍 nit, 🔁 known, 🚫 not here), or in the words of a reply. I learn from it."
    )


def unknown(words: str, bot: str) -> str:
    """The answer to a command that there is not."""
    return f"I do not know {code_span(words)}.\n\n{help_text(bot)}"


def why(finding: Finding, *, model: str, adapter: str | None, prompt_id: str, head: str, verified: bool) -> str:
    """What led to a finding.

    Args:
        finding: as it was posted.
        model: the base model's name.
        adapter: the LoRA adapter that answered, or None.
        prompt_id: hash of the prompt templates.
        head: the head SHA that was reviewed.
        verified: whether the student took a second look and still held it real.
    """
    sure = "how sure I was is not known: the model's server does not tell"
    if finding.confidence is not None:
        sure = f"I was {finding.confidence:.0%} sure that there is a problem at all"
    look = (
        "I took a second look, and still held it real" if verified else "no second look (the policy's `verify` is off)"
    )
    voice = (
        f"adapter {code_span(adapter)} on model {code_span(model)}"
        if adapter
        else f"model {code_span(model)}, no adapter"
    )
    return "\n".join(
        (
            f"- **{finding.severity}**, {finding.category}; {sure}",
            f"- {look}",
            f"- said by {voice}, prompt {code_span(prompt_id)}, in the review of {code_span(head[:8])}",
            f"- about this code, {code_span(place(finding))}:",
            "",
            quoted_code(finding),
        )
    )
