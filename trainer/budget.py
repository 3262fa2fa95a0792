"""What a round may cost: tokens and dollars, counted before and after each question to the teacher."""

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
    """

    tokens: int
    dollars: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    spent: Usage = field(default_factory=Usage)

    @property
    def cost(self) -> float:
        """Dollars so far."""
        return self._cost(self.spent.prompt_tokens, self.spent.completion_tokens)

    def _cost(self, read: int, written: int) -> float:
        return (read * self.price_in + written * self.price_out) / 1e6

    def check(self, letters: int, max_tokens: int) -> None:
        """Make sure that a question can be paid.

        Args:
            letters: characters of the prompt.
            max_tokens: of the answer.

        Raises:
            BudgetSpentError: it may cost too much.
        """
        read = letters // LETTERS + 1
        used = self.spent.prompt_tokens + self.spent.completion_tokens
        if used + read + max_tokens > self.tokens:
            raise BudgetSpentError(
                f"{used:,} tokens of the teacher's are used, and {self.tokens:,} are the most of a round "
                "(APPRENTICE_TRAIN_MAX_TOKENS)"
            )
        if self.dollars is not None and self.cost + self._cost(read, max_tokens) > self.dollars:
            raise BudgetSpentError(
                f"${self.cost:.2f} are spent, and ${self.dollars:.2f} are the most of a round "
                "(APPRENTICE_TRAIN_MAX_DOLLARS)"
            )

    def pay(self, usage: Usage) -> None:
        """Count what a question has cost."""
        self.spent += usage
