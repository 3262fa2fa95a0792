"""`prompts/review/*.jinja` -> the messages that the student reads.

The trainer renders its examples with the functions here, so what the student learned on is what it is asked
with. The same input gives the same messages, byte for byte. Everything that comes from a merge request is data
written by strangers: it stands between fences that hold a hash of what they enclose, so that no text can close
its own fence.
"""

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypedDict

import jinja2

from bot.diff import Line, LineKind
from bot.domain import Finding
from bot.redact import redact


class Message(TypedDict):
    """One message of a chat, as OpenAI-compatible endpoints take it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Brief:
    """What the student is told about the change as a whole.

    Args:
        title: the merge request's title; untrusted.
        description: its description; untrusted, shortened to `DESCRIPTION_CHARACTERS`.
        language: the language findings are written in, for example `en`.
        instructions: the policy's own words for this path; trusted (they come from the target branch).
    """

    title: str = ""
    description: str = ""
    language: str = "en"
    instructions: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What one request is about: consecutive lines of one hunk, with the code around them.

    Args:
        path: the file after the change.
        lines: lines of the diff, old side and new.
        before: unchanged lines of the enclosing function or class in front of them; `ELIDED` stands for lines
            left out. They are not part of the diff and cannot take a comment.
        after: the same behind them.
    """

    path: str
    lines: tuple[Line, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def places(self) -> dict[int, str]:
        """The lines that a finding about this part may stand on: the added ones, or the others where none is added.

        Lines without a letter or digit say nothing and stand in only where there is no other.
        """
        for wanted in (LineKind.ADDED, LineKind.CONTEXT):
            lines = {line.new: line.text for line in self.lines if line.kind is wanted and line.new is not None}
            if telling := {number: text for number, text in lines.items() if any(map(str.isalnum, text))}:
                return telling
        return {line.new: line.text for line in self.lines if line.new is not None}

    @property
    def first(self) -> int:
        """First commentable line."""
        return next((line.new for line in self.lines if line.new is not None), 0)

    @property
    def last(self) -> int:
        """Last commentable line."""
        return next((line.new for line in reversed(self.lines) if line.new is not None), 0)


DESCRIPTION_CHARACTERS = 600
"""A longer description costs more of a small context than it tells."""

ELIDED = "..."
"""Stands in `Part.before` and `Part.after` for lines that are left out."""

FOLDER = "review"
_GUTTER = 5
_TURN_MARK = re.compile(r"<(?=[|\uff5c]|/?s>|(?:start|end)_of_turn>)")


def annotate(part: Part) -> str:
    """Render the part; only lines that can take a comment carry their number.

    A line reads `   12 + code` when it was added, `   12   code` when it is context of the diff, and `      -
    code` when it was removed. Lines around the diff read `        code`.
    """
    around = f"{'':>{_GUTTER}}   "
    rows = [around + text for text in part.before]
    rows += [f"{'' if line.new is None else line.new:>{_GUTTER}} {line.kind} {line.text}" for line in part.lines]
    rows += [around + text for text in part.after]
    return "\n".join(row.rstrip() for row in rows)


def fence(name: str, text: str) -> str:
    """Enclose untrusted text; the marks hold a hash of the text, so the text cannot hold its own end mark.

    What a chat template marks its turns with (`<|im_end|>` and the like) gets a blank, which makes it plain text:
    a tokenizer would read it as the end of the message.
    """
    text = _TURN_MARK.sub("< ", text)
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"<{name} {mark}>\n{text}\n</{name} {mark}>"


@functools.cache
def sources(folder: str) -> dict[str, str]:
    """The templates of a folder below `prompts/`, by name."""
    entries = (resources.files("prompts") / folder).iterdir()
    return {entry.name: entry.read_text("utf-8") for entry in entries if entry.name.endswith(".jinja")}


@functools.cache
def environment(folder: str) -> jinja2.Environment:
    """What renders the templates of a folder below `prompts/`; `fence` is a filter there."""
    made = jinja2.Environment(
        loader=jinja2.DictLoader(sources(folder)),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 -- the output is a prompt, not a page
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["fence"] = lambda text, name: fence(name, text)
    return made


def _render(template: str, **values: object) -> str:
    return environment(FOLDER).get_template(template).render(**values).strip()


@functools.cache
def prompt_id() -> str:
    """Twelve hex digits over all review templates: another prompt, another id."""
    digest = hashlib.sha256()
    for name, source in sorted(sources(FOLDER).items()):
        digest.update(f"{name}\0{source}\0".encode())
    return digest.hexdigest()[:12]


def system_message() -> Message:
    """The constant first message: vLLM's prefix cache holds it."""
    return {"role": "system", "content": _render("system.jinja")}


def review_messages(part: Part, brief: Brief) -> list[Message]:
    """Ask the student about one part of the change."""
    description = brief.description.strip()
    if len(description) > DESCRIPTION_CHARACTERS:
        description = description[:DESCRIPTION_CHARACTERS].rstrip() + " [...]"
    user = _render(
        "change.jinja",
        about=f"{brief.title.strip()}\n{description}".strip(),
        language=brief.language,
        instructions=brief.instructions.strip(),
        path=redact(part.path).text,
        change=annotate(part),
    )
    return [system_message(), {"role": "user", "content": user}]


def repair_messages(asked: Sequence[Message], answer: str, fault: str) -> list[Message]:
    """Ask again, once, after an answer that could not be used; `fault` says in a few words what was wrong."""
    return [
        *asked,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": _render("repair.jinja", fault=fault)},
    ]


def verify_messages(part: Part, brief: Brief, finding: Finding) -> list[Message]:
    """Ask for a second, independent look at one finding."""
    user = _render(
        "verify.jinja",
        question=review_messages(part, brief)[-1]["content"],
        finding=f"line {finding.line}: {finding.quote.strip()}\n{finding.title}\n{finding.explanation}",
    )
    return [system_message(), {"role": "user", "content": user}]
