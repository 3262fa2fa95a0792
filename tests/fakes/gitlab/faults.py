"""Faults on demand: the answers and the silences of a GitLab, or a network, in trouble."""

import random
import re
import threading
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "busy", "409", "500", "502", "503", "500_after", "timeout", "timeout_after", "reset_before", "reset_after"
]
"""What goes wrong.

busy: 429 with Retry-After. 409: somebody else writes just now. 500, 502, 503: before anything is done; 500_after:
after the write took effect. timeout, timeout_after: no answer for `seconds`, then the line is cut; reset_before,
reset_after: it is cut at once.
"""

AFTER = ("500_after", "timeout_after", "reset_after")


@dataclass
class Fault:
    """One rule. `times` counts down; None: for ever. `share` is the probability per request."""

    kind: Kind
    share: float = 1.0
    times: int | None = None
    method: str | None = None
    pattern: str = ""
    seconds: float = 1.0
    """Of silence, for time-outs; to wait, for `busy`."""
    met: int = 0


class Faults:
    """All rules in force; the first that applies wins."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self.publish_breaks_after: int | None = None
        """The next bulk publish makes so many notes, then answers 500 and leaves the drafts."""
        self._random = random.Random(0)  # noqa: S311 -- to be repeatable
        self._lock = threading.Lock()

    def add(
        self,
        kind: Kind,
        *,
        share: float = 1.0,
        times: int | None = None,
        method: str | None = None,
        pattern: str = "",
        seconds: float = 1.0,
    ) -> Fault:
        """Add a rule for requests of a method whose path (below `/api/v4`) matches a regular expression."""
        rule = Fault(kind, share, times, method, pattern, seconds)
        self.rules.append(rule)
        return rule

    def chaos(self, share: float, *, seed: int = 0, seconds: float = 0.05) -> None:
        """Let a share of all requests fail, with all kinds of faults in equal parts."""
        self._random.seed(seed)
        kinds: tuple[Kind, ...] = (
            "busy", "500", "502", "503", "500_after", "timeout", "timeout_after", "reset_before", "reset_after",
        )  # fmt: skip
        left = 1.0
        for kind in kinds:
            # the first rule that hits wins, so later rules need a larger share of what is left
            self.add(kind, share=share / len(kinds) / left, seconds=seconds)
            left -= share / len(kinds)

    def clear(self) -> None:
        self.rules.clear()
        self.publish_breaks_after = None

    def draw(self, method: str, path: str) -> Fault | None:
        """The fault that a request meets, if any."""
        with self._lock:
            for rule in self.rules:
                applies = rule.times != 0 and rule.method in (None, method) and re.search(rule.pattern, path)
                if applies and self._random.random() < rule.share:
                    rule.met += 1
                    if rule.times is not None:
                        rule.times -= 1
                    return rule
            return None
