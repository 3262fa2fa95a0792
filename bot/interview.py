"""Put a change to the student that the settings name: the same way from the command line and from the bot."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bot import settings
from bot.answer import ANSWER_TOKENS
from bot.endpoint import StudentError
from bot.local.state import running
from bot.plan import Room
from bot.policy import Policy
from bot.review import Change, Outcome, Speaker, Step, prepare, review
from bot.student import Student
from bot.tokens import DEFAULT_CONTEXT_TOKENS, token_counter

REPAIR_TOKENS = 128
"""Room for what a repair says beside the broken answer."""
ENDPOINT_SECONDS, LOCAL_SECONDS = 120, 900
"""How long to wait for one answer: the student on this machine may have no GPU, and nobody else waits for it."""

Progress = Callable[[int], AbstractContextManager[Step]]
"""Called with the number of questions; gives what is called after each answer."""


class NoStudentError(StudentError):
    """Neither do the settings name a student nor does one run here."""

    reason = "no student is running"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the student is, as the settings or the student that runs on this machine tell."""

    url: str
    key: str | None
    model: str | None
    tokenizer: Path | None
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of it, and what a person should know about the endpoint."""

    outcome: Outcome
    warnings: tuple[str, ...]


def find_endpoint(chosen: settings.Settings) -> Endpoint:
    """Where the student is.

    Raises:
        NoStudentError: nowhere.
    """
    if chosen.student_url is not None:
        key = chosen.student_api_key.get_secret_value() if chosen.student_api_key else None
        seconds = chosen.student_timeout_seconds or ENDPOINT_SECONDS
        return Endpoint(chosen.student_url, key, chosen.student_model, chosen.student_tokenizer, seconds)
    local = running(chosen.state_dir)
    if local is None:
        raise NoStudentError(
            "no student is running on this machine. Start one with `apprentice student start`, or name an "
            "OpenAI-compatible endpoint: APPRENTICE_STUDENT_URL=http://host:8000/v1"
        )
    seconds = chosen.student_timeout_seconds or LOCAL_SECONDS
    return Endpoint(local.url, local.key, chosen.student_model or local.model, local.tokenizer, seconds)


def connect(endpoint: Endpoint, chosen: settings.Settings, adapter: str | None) -> Student:
    """A client for it that asks an adapter; None: the base model."""
    return Student(
        endpoint.url,
        key=endpoint.key,
        model=endpoint.model,
        adapter=adapter,
        ca_file=chosen.student_ca_file,
        timeout_seconds=endpoint.timeout_seconds,
        retries=chosen.student_retries,
    )


async def interview(
    change: Change,
    policy: Policy,
    chosen: settings.Settings,
    endpoint: Endpoint,
    progress: Progress,
    *,
    adapter: str | None,
) -> Heard:
    """Review a change by an adapter; None: by the base model.

    Raises:
        StudentError: the client cannot be made. What goes wrong later is in the outcome.
        RedactionError: the secret scanner cannot be loaded.
        TokenizerError: the tokenizer's file cannot be used.
    """
    async with connect(endpoint, chosen, adapter) as student:
        model, context = endpoint.model or "unknown", chosen.student_context_tokens
        with contextlib.suppress(StudentError):  # the first question meets the same error, and is reported with it
            base = await student.base()
            model, context = base.id, context or base.max_model_len
        room = Room(
            # twice: a repair holds the first answer, and some words about it
            tokens=(context or DEFAULT_CONTEXT_TOKENS) - 2 * ANSWER_TOKENS - REPAIR_TOKENS,
            count=token_counter(endpoint.tokenizer),
            requests=chosen.max_requests,
        )
        prepared = prepare(change, policy, room)
        with progress(len(prepared.plan.questions)) as step:
            outcome = await review(
                prepared,
                policy,
                student,
                Speaker(model, adapter),
                concurrency=chosen.student_concurrency,
                step=step,
            )
        return Heard(outcome, student.warnings)
