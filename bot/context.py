"""Placeholder by the lead until helper 2's file replaces it."""
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Enclosing:
    name: str
    kind: str
    start: int
    end: int
    text: str


def enclosing(source: str, path: str, first: int, last: int) -> "Enclosing | None":
    lines = source.split("\n")
    start = next((n for n in range(min(first, len(lines)), 0, -1) if lines[n - 1].startswith("def ")), None)
    if start is None:
        return None
    end = len(lines) - (not lines[-1])
    return Enclosing("f", "function", start, max(end, last), "\n".join(lines[start - 1 : max(end, last)]))
