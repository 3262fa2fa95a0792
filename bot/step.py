"""What a step of durable work says of itself when it returns, and how its errors become such words.

A step may run twice, because a process may die between doing a thing and recording that it was done: each looks at
what stands there already. No step waits: one that cannot go on now says `Wait`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from bot.diff import DiffError
from bot.endpoint import StudentError
from bot.forge import ForgeBusy, ForgeError, ForgeUnreachable, UntrustedForge
from bot.interview import NoStudentError
from bot.redact import RedactionError
from bot.store import ReviewState, StoreError
from bot.tokens import TokenizerError

_T = TypeVar("_T")


class ForgottenError(RuntimeError):
    """What the bot knew of the matter was removed while the step ran (`apprentice forget`)."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Come again.

    Args:
        why: in words for the log.
        seconds: when; None: when you think right.
        spent: the student was asked, and failed: that is tried so often only.
        said: the same in words for who waits for the review; empty where it can be told to nobody.
    """

    why: str
    seconds: float | None = None
    spent: bool = False
    said: str = ""
    kind: Literal["wait"] = "wait"


@dataclass(frozen=True, slots=True)
class End:
    """There is nothing more to do for this review; `why` is for the log."""

    state: ReviewState
    why: str
    kind: Literal["end"] = "end"


@dataclass(frozen=True, slots=True)
class Done:
    """The step is done."""

    kind: Literal["done"] = "done"


def guarded(step: Callable[[], _T]) -> _T | Wait | End:
    """Run a step; a failure that may pass becomes `Wait`, a final one `End`."""
    try:
        return step()
    except ForgeBusy as error:
        return Wait(str(error), error.retry_after)
    except NoStudentError as error:
        return Wait(str(error), said=error.reason)
    except (ForgeUnreachable, UntrustedForge, StoreError) as error:
        return Wait(str(error))
    except (ForgeError, StudentError, RedactionError, TokenizerError, DiffError) as error:
        return End(ReviewState.FAILED, str(error))
    except ForgottenError as error:
        return End(ReviewState.SKIPPED, str(error))


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)
