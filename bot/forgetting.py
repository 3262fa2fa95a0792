"""Who keeps something of a project or a person beside the database, and forgets it with `apprentice forget`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `apprentice --help` loads this module
    from collections.abc import Callable, Mapping

    from bot.settings import Settings
    from bot.store import Store


class NotNowError(RuntimeError):
    """It cannot be forgotten now; the message says why. Nothing was removed."""


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose things are to be forgotten: all of a project, or what a person has said.

    Args:
        project: the forge's id.
        voter: pseudonym of the person.
    """

    project: int | None
    voter: str | None

    @property
    def words(self) -> str:
        """For a person; names nobody."""
        return "a person" if self.project is None else f"project {self.project}"


ALSO: "list[Callable[[Settings, Store, Whose], Mapping[str, int]]]" = []
"""Called before the database forgets; each says how much it has removed of what. The learning loop adds its own."""
