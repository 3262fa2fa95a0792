"""What a round may cost: tokens and dollars, counted before and after each question to the teacher."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bot.domain import Usage

LETTERS = 3
"""Characters of a token, at least: an estimate that is too high stops a round too early, and never too late."""


class BudgetSpentError(RuntimeError):
    """The next question could cost more than is left."""


@dataclass(slots=True)
class Budget:
    """What is left.

    Args:
        tokens: that the teacher may read and write.
        dollars: that it may cost; None: any.
        price_in: dollars for a million tokens that it reads; `price_out`: that it writes.
        spent: what was used so far.
        keep: told what was used, after each question.
        reserved: tokens that the questions in flight may read, and write.
    """

    tokens: int
    dollars: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    spent: Usage = field(default_factory=Usage)
    keep: Callable[[Usage], None] = lambda _: None
    reserved: tuple[int, int] = (0, 0)

    @property
    def cost(self) -> float:
        """Dollars so far."""
        return self._cost(self.spent.prompt_tokens, self.spent.completion_tokens)

    def _cost(self, read: int, written: int) -> float:
        return (read * self.price_in + written * self.price_out) / 1e6

    @contextmanager
    def reserve(self, letters: int, max_tokens: int) -> Iterator[None]:
        """Make sure that a question can be paid, and keep what it may cost aside until it is answered.

        Args:
            letters: characters of the prompt.
            max_tokens: of the answer.

        Raises:
            BudgetSpentError: it may cost too much.
        """
        read, written = self.reserved[0] + letters // LETTERS + 1, self.reserved[1] + max_tokens
        used = self.spent.prompt_tokens + self.spent.completion_tokens
        if used + read + written > self.tokens:
            raise BudgetSpentError(
                f"{used:,} tokens of the teacher's are used, and {self.tokens:,} are the most of a round "
                "(APPRENTICE_TRAIN_MAX_TOKENS)"
            )
        if self.dollars is not None and self.cost + self._cost(read, written) > self.dollars:
            raise BudgetSpentError(
                f"${self.cost:.2f} are spent, and ${self.dollars:.2f} are the most of a round "
                "(APPRENTICE_TRAIN_MAX_DOLLARS)"
            )
        self.reserved = (read, written)
        try:
            yield
        finally:
            self.reserved = (self.reserved[0] - letters // LETTERS - 1, self.reserved[1] - max_tokens)

    def pay(self, usage: Usage) -> None:
        """Count what a question has cost."""
        self.spent += usage
        self.keep(self.spent)
