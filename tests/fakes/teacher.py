"""A teacher that reads what it is asked and answers by rules: it shows that the machinery is right, no more."""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.fakes.student import FakeStudent, Request, Said, serve

WANTED = re.compile(r"^- (\d+) of severity (\w+)(?:, category (\w+))?, language (\w+)$", re.MULTILINE)
_SUFFIX = {"python": "py", "go": "go", "javascript": "js"}
Row = dict[str, object]
Twist = Callable[[Request, str], Said]
"""Makes an answer other than it would be."""


def rows(prompt: str, salt: str) -> list[Row]:
    """Questions as they are asked for, each one different from all others."""
    made: list[Row] = []
    for count, severity, category, language in WANTED.findall(prompt):
        for number in range(int(count)):
            name = f"{severity}_{category or 'none'}_{language}_{salt}_{number}"
            bad = severity != "none"
            lines = [
                f"def {name}(order, stock):",
                *(f"    {name}_{row} = order.part_{row} * {row}" for row in range(5)),
            ]
            lines.append(f"    return {name}_1 / stock.{severity}" if bad else f"    return {name}_1")
            made.append(
                {
                    "path": f"shop/{name}.{_SUFFIX.get(language, 'txt')}",
                    "code": "\n".join(lines) + "\n",
                    "line": len(lines) if bad else 1,
                    "severity": severity,
                    "category": category or "correctness",
                    "title": "Division" if bad else "",
                    "explanation": f"It divides by {severity}." if bad else "This is fine.",
                }
            )
    return made


def answer(request: Request) -> str:
    """What it says: questions, or a judgement (the longer explanation is the better one)."""
    prompt = str(request["messages"][1]["content"])  # type: ignore[index]
    if "Two reviewers explain it" in prompt:
        first, second = (len(text) for text in re.findall(r"<(?:first|second) \w+>\n(.*?)\n</", prompt, re.DOTALL))
        better = "tie" if first == second else "first" if first > second else "second"
        return json.dumps({"reason": "It is longer.", "better": better})
    return json.dumps({"questions": rows(prompt, f"{zlib.crc32(prompt.encode()):x}")})


@contextmanager
def teach(twist: Twist = lambda _, text: Said(text)) -> Iterator[FakeStudent]:
    """Run it; `twist` gets each request and what would be answered."""
    with serve(lambda request: twist(request, answer(request))) as fake:
        yield fake
