"""The student's answer: its JSON schema, a tolerant reading of what came back, and how sure it was.

The student names the likeliest problem place, says what the code there does, and only then rates it; `none` is a
rating, so that it never has to choose between silence and a false alarm. The schema holds the place to lines that
are there, so that an endpoint with structured output cannot invent code. An answer that breaks the schema is an
`AnswerError`, whose message goes back to the student once. Nothing is guessed: an unknown severity is not mapped
to a known one.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bot.domain import Category, Finding, Severity

ANSWER_TOKENS = 500
"""Room for the longest answer the schema allows, in practice."""

NONE = "none"
"""The rating of a place that turned out to be fine."""

SEVERITY_LABELS = (NONE, *(severity.value for severity in Severity))


class AnswerError(ValueError):
    """The answer cannot be used; the message says in a few words what is wrong with it."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer, its natural log-probability, and the likeliest tokens in its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


def _word(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class Suspect(BaseModel):
    """One place that the student looked at, in the order in which it writes: where, why, then the verdict."""

    model_config = ConfigDict(frozen=True)

    line: int = Field(ge=1, le=9_999_999)
    quote: str = Field(max_length=200)
    explanation: str = Field(max_length=400)
    severity: Annotated[Literal["none", "trivial", "minor", "major", "critical"], BeforeValidator(_word)]
    category: Annotated[Category, BeforeValidator(_word)]
    title: str = Field(max_length=80)
    suggestion: str | None = Field(default=None, max_length=400)


class Verdict(BaseModel):
    """What the student answers to the second look at one finding."""

    model_config = ConfigDict(frozen=True)

    reason: str = Field(max_length=300)
    real: Annotated[Literal["yes", "no"], BeforeValidator(_word)]


def _string(length: int) -> dict[str, object]:
    return {"type": "string", "maxLength": length}


def _object(**properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


QUOTE_CHARACTERS = 160
"""A longer line is quoted by its beginning."""


def answer_schema(places: Mapping[int, str]) -> dict[str, object]:
    """Make the schema of an answer about these lines.

    Written by hand, not by pydantic: every string and number is bounded, because a small model that may write for
    ever does, and no keyword is used that vLLM's grammar does not know.

    Args:
        places: the lines that a finding may stand on, by number; not empty.
    """
    quotes = dict.fromkeys(text.strip()[:QUOTE_CHARACTERS] for text in places.values())
    return _object(
        line={"enum": list(places)},
        quote={"enum": list(quotes)},
        explanation=_string(400),
        severity={"enum": list(SEVERITY_LABELS)},
        category={"enum": [category.value for category in Category]},
        title=_string(80),
        suggestion={"anyOf": [_string(400), {"type": "null"}]},
    )


VERDICT_SCHEMA = _object(reason=_string(300), real={"enum": ["yes", "no"]})


def parse_answer(text: str) -> Suspect:
    """Read the answer to a review question.

    Raises:
        AnswerError: it is not JSON, or not of the schema.
    """
    return parse_as(Suspect, text)


def parse_verdict(text: str) -> Verdict:
    """Read the answer to a second look.

    Raises:
        AnswerError: it is not JSON, or not of the schema.
    """
    return parse_as(Verdict, text)


def finding(path: str, suspect: Suspect, logprobs: Sequence[TokenLogprob] | None) -> Finding | None:
    """Turn a suspect that was rated worse than `none` into a finding with the student's confidence."""
    if suspect.severity == NONE:
        return None
    return Finding(
        file=path,
        line=suspect.line,
        end_line=suspect.line,
        severity=Severity(suspect.severity),
        category=suspect.category,
        title=suspect.title.strip() or f"A problem of {suspect.category}",
        explanation=suspect.explanation.strip(),
        quote=suspect.quote,
        suggestion=suspect.suggestion,
        confidence=confidence(logprobs) if logprobs else None,
    )


# An unescaped "severity" before a colon can only be a key: inside a JSON string its quotes would be escaped.
_SEVERITY_VALUE = re.compile(r'(?<!\\)"severity"\s*:\s*"')


def confidence(logprobs: Sequence[TokenLogprob]) -> float | None:
    """How sure the student was, where it wrote the severity, that there is a problem at all: 1 - P(none).

    The probability is that of the label's first token among its rivals that begin a label. None: the tokens hold
    no severity, or more than one.
    """
    sure = problem_confidences(logprobs)
    return sure[0] if len(sure) == 1 else None


def problem_confidences(logprobs: Sequence[TokenLogprob]) -> list[float | None]:
    """As `confidence`, for each severity in the tokens."""
    starts: list[int] = []
    text = ""
    for token in logprobs:
        starts.append(len(text))
        text += token.token
    places = (match.end() for match in _SEVERITY_VALUE.finditer(text))
    return [_problem_mass(logprobs, starts, text, place) for place in places]


def _problem_mass(logprobs: Sequence[TokenLogprob], starts: Sequence[int], text: str, place: int) -> float | None:
    index = max(number for number, start in enumerate(starts) if start <= place)
    lead = text[starts[index] : place]  # the token may begin before the label, as `"none` does
    mass = dict.fromkeys(SEVERITY_LABELS, 0.0)
    for rival, logprob in logprobs[index].top:
        begun = rival.removeprefix(lead).rstrip('"') if rival.startswith(lead) else ""
        labels = [label for label in SEVERITY_LABELS if begun and label.startswith(begun)]
        for label in labels:  # "m" begins two labels: half to each
            mass[label] += math.exp(logprob) / len(labels)
    total = sum(mass.values())
    return 1 - mass[NONE] / total if total else None


_DECODER = json.JSONDecoder()
_BRACES = 20
"""Places where the JSON may begin that are tried before giving up."""


_Schema = TypeVar("_Schema", bound=BaseModel)


def parse_as(model: type[_Schema], text: str) -> _Schema:
    """Read the last JSON object in the text that is of the schema: what stands before it may be thinking aloud.

    Raises:
        AnswerError: there is none.
    """
    fault = "the JSON is broken or cut off" if "{" in text else "there is no JSON object in the answer"
    answer: _Schema | None = None
    for document in _documents(text):
        try:
            answer = model.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            fault = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    if answer is None:
        raise AnswerError(fault)
    return answer


def _documents(text: str) -> Iterator[object]:
    """All JSON that an answer holds, with prose or code fences around it."""
    with contextlib.suppress(ValueError, RecursionError):
        yield json.loads(text)
        return
    at = text.find("{")
    for _ in range(_BRACES):
        if at < 0:
            return
        end = at + 1
        with contextlib.suppress(ValueError, RecursionError):
            document, end = _DECODER.raw_decode(text, at)
            yield document
        at = text.find("{", end)
