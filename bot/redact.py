"""Placeholder by the lead until helper 2's file replaces it."""
import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Redacted:
    text: str
    found: dict[str, int] = field(default_factory=dict)


def redact_many(texts: Sequence[str]) -> list[Redacted]:
    out = []
    for t in texts:
        new, n = re.subn(r"glpat-[\w-]{20,}", "[redacted:gitlab]", t)
        out.append(Redacted(new, {"gitlab": n} if n else {}))
    return out
