import pytest

from bot.diff import DiffError
from bot.endpoint import ContextOverflow, StudentError, StudentUnreachable
from bot.forge import (
    ForgeBusy,
    ForgeDenied,
    ForgeError,
    ForgeRefused,
    ForgeUnreachable,
    NotFound,
    UntrustedForge,
)
from bot.interview import NoStudentError
from bot.redact import RedactionError
from bot.step import Done, End, ForgottenError, Wait, guarded, now
from bot.store import ReviewState, StoreError
from bot.tokens import TokenizerError

FAILED, SKIPPED = ReviewState.FAILED, ReviewState.SKIPPED


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ForgeBusy("429", retry_after=7), Wait("429", 7)),
        (ForgeBusy("503"), Wait("503")),
        (ForgeUnreachable("refused"), Wait("refused")),
        (StoreError("locked"), Wait("locked")),
        (NoStudentError("none runs"), Wait("none runs", said="no student is running")),
        (ForgeDenied("401"), End(FAILED, "401")),
        (NotFound("404"), End(FAILED, "404")),
        (ForgeRefused("400", status=400), End(FAILED, "400")),
        (UntrustedForge("self-signed"), Wait("self-signed")),
        (ForgeError("odd"), End(FAILED, "odd")),
        (StudentError("odd"), End(FAILED, "odd")),
        (StudentUnreachable("down"), End(FAILED, "down")),  # the client itself could not be made; see `MergeReview`
        (ContextOverflow("long"), End(FAILED, "long")),
        (RedactionError("no rules"), End(FAILED, "no rules")),
        (TokenizerError("no file"), End(FAILED, "no file")),
        (DiffError("no diff"), End(FAILED, "no diff")),
        (ForgottenError("forgotten"), End(SKIPPED, "forgotten")),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_error_becomes_a_wait_or_an_end(error: Exception, outcome: Wait | End) -> None:
    def step() -> Done:
        raise error

    assert guarded(step) == outcome


def test_what_a_step_says_is_passed_on() -> None:
    for said in (Done(), Wait("later", spent=True), End(SKIPPED, "it is a draft")):
        assert guarded(lambda said=said: said) == said  # type: ignore[misc]


def test_an_error_that_nobody_foresaw_is_not_hidden() -> None:
    """`bot.jobs` logs it, with its traceback."""

    def step() -> Done:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        guarded(step)


def test_the_time_has_its_zone() -> None:
    assert now().utcoffset() is not None
