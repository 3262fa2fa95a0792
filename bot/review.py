"""One review: redact, plan, ask, triage. It knows neither git nor GitLab, only a change and a student.

Nothing that goes wrong with one question costs the others their answers: what was not read is listed with its
reason, and what is there is returned.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bot.answer import (
    ANSWER_TOKENS,
    VERDICT_SCHEMA,
    AnswerError,
    Suspect,
    answer_schema,
    finding,
    parse_answer,
    parse_verdict,
)
from bot.diff import FileDiff
from bot.domain import Finding, HiddenReason, Judged, NotRead, Review, Usage
from bot.endpoint import (
    ContextOverflow,
    StudentError,
    StudentRefusedKey,
    StudentUnreachable,
    UnknownModel,
    UntrustedCertificate,
)
from bot.plan import Plan, Question, Room, plan
from bot.policy import Policy
from bot.prompt import Brief, Message, prompt_id, repair_messages, verify_messages
from bot.redact import Redacted, redact
from bot.skip import reason_to_skip
from bot.student import Reply
from bot.triage import Candidate, triage

FAILURES_IN_A_ROW = 3
"""So many questions without an answer, and no more are asked: the student is as good as gone."""

_GONE = (StudentUnreachable, StudentRefusedKey, UnknownModel, UntrustedCertificate)
_VERDICT_TOKENS = 300


class Change(Protocol):
    """What is reviewed, wherever it comes from."""

    @property
    def files(self) -> tuple[FileDiff, ...]:
        """The diff."""
        ...

    @property
    def title(self) -> str:
        """The merge request's title, or the commit's subject."""
        ...

    @property
    def description(self) -> str:
        """What the author wrote about it."""
        ...

    def read_file(self, path: str) -> str | None:
        """Text of a file after the change, or None where it is not known."""
        ...


class Student(Protocol):
    """Who is asked."""

    async def ask(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int) -> Reply:
        """Answer one question by the schema."""
        ...


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who answers: the base model's name and the adapter's, if there is one."""

    model: str
    adapter: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A review.

    Args:
        review: what came of it.
        errors: the distinct errors behind what is missing in it.
        asked: the questions behind its findings, without secrets, by the findings' fingerprints.
    """

    review: Review
    errors: tuple[StudentError, ...]
    asked: Mapping[str, Question]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change without its secrets, divided into questions."""

    files: tuple[FileDiff, ...]
    plan: Plan
    redacted: tuple[tuple[str, int], ...]


Step = Callable[[int, int, str], None]
"""Called with: questions answered, questions in all, the path just read."""


def prepare(change: Change, policy: Policy, room: Room) -> Prepared:
    """Take the secrets out of a change and divide it into questions. Asks nobody."""
    wanted = [file for file in change.files if reason_to_skip(file, policy) is None]
    sources = {file.path: text for file in wanted if (text := change.read_file(file.path)) is not None}
    title, description = redact(change.title), redact(change.description)
    diffs = [redact(_text(file)) for file in change.files]
    clean = {path: redact(text) for path, text in sources.items()}
    named = [redact(file.path) for file in change.files] + [redact(text) for text in _instructions(policy, wanted)]
    found = Counter(title.found) + Counter(description.found)
    for one in named:
        found += Counter(one.found)
    for file, diff in zip(change.files, diffs, strict=True):
        around = clean.get(file.path, NOTHING_FOUND).found
        found += Counter(diff.found) | Counter(around)  # a secret of the diff stands in the file too: counted once
    files = tuple(_with_text(file, diff.text) for file, diff in zip(change.files, diffs, strict=True))
    brief = Brief(title=title.text, description=description.text)
    planned = plan(files, lambda path: clean[path].text if path in clean else None, policy, brief, room)
    return Prepared(files, planned, tuple(sorted(found.items())))


NOTHING_FOUND = Redacted("", {})


def _instructions(policy: Policy, files: Iterable[FileDiff]) -> set[str]:
    return {policy.instructions_for(file.path) for file in files}


def _text(file: FileDiff) -> str:
    return "\n".join(line.text for hunk in file.hunks for line in hunk.lines)


def _with_text(file: FileDiff, text: str) -> FileDiff:
    rows = iter(text.split("\n"))
    hunks = tuple(
        replace(hunk, lines=tuple(replace(line, text=next(rows)) for line in hunk.lines)) for hunk in file.hunks
    )
    return replace(file, hunks=hunks)


async def review(
    prepared: Prepared, policy: Policy, student: Student, speaker: Speaker, *, concurrency: int, step: Step
) -> Outcome:
    """Ask the student every planned question, check what it says, and judge what to show."""
    begun = time.monotonic()
    line = _Line(student, concurrency)
    asked = await _ask_all(prepared.plan.questions, line, step)
    candidates = [Candidate(answered.finding) for answered in asked if answered.finding]
    judged = triage(candidates, prepared.files, policy)
    if policy.verify:
        judged = await _second_look(judged, prepared, policy, line)
    not_read = (*prepared.plan.not_read, *_missing(asked))
    lacking = {missing.file for missing in not_read}
    result = Review(
        findings=judged,
        read=tuple(dict.fromkeys(file.path for file in prepared.files if file.path not in lacking)),
        not_read=not_read,
        model=speaker.model,
        adapter=speaker.adapter,
        prompt_id=prompt_id(),
        usage=replace(line.usage, seconds=time.monotonic() - begun),
        redacted=prepared.redacted,
    )
    found = ((one.finding.fingerprint, _asked_about(one.finding, prepared.plan.questions)) for one in judged)
    return Outcome(
        result,
        tuple({str(error): error for error in line.errors}.values()),
        {fingerprint: question for fingerprint, question in found if question},
    )


class _LostError(StudentError):
    """Nobody was asked: the student was lost before."""

    reason = "not asked: the student was lost before"


class _Line:
    """The line to the student: so many requests at once, and none once it is as good as gone."""

    def __init__(self, student: Student, concurrency: int) -> None:
        self._student = student
        self._gate = asyncio.Semaphore(concurrency)
        self._failures = 0  # in a row
        self._lost = False
        self.usage = Usage()
        self.errors: list[StudentError] = []

    async def ask(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int) -> Reply:
        async with self._gate:
            if self._lost:
                raise _LostError
            try:
                reply = await self._student.ask(messages, schema=schema, max_tokens=max_tokens)
            except StudentError as error:
                self.errors.append(error)
                self._failures += not isinstance(error, ContextOverflow)  # that one is about its question alone
                if isinstance(error, _GONE) or self._failures >= FAILURES_IN_A_ROW:
                    self._lost = True
                raise
            self._failures = 0
            self.usage += reply.usage
            return reply


@dataclass(frozen=True, slots=True)
class _Answered:
    """What came of one question: a finding or none, or the reason why it was not answered."""

    question: Question
    finding: Finding | None = None
    reason: str | None = None


async def _ask_all(questions: Sequence[Question], line: _Line, step: Step) -> list[_Answered]:
    done = 0

    async def one(question: Question) -> _Answered:
        nonlocal done
        try:
            answered = await _ask(question, line)
        except StudentError as error:
            answered = _Answered(question, reason=error.reason)
        done += 1
        step(done, len(questions), question.part.path)
        return answered

    return await asyncio.gather(*(one(question) for question in questions))


async def _ask(question: Question, line: _Line) -> _Answered:
    try:
        suspect, reply = await answer(question, line)
    except AnswerError as error:
        return _Answered(question, reason=f"the student's answer was unusable twice ({error})")
    return _Answered(question, finding(question.part.path, suspect, reply.logprobs))


async def answer(question: Question, student: Student) -> tuple[Suspect, Reply]:
    """Ask one question; a broken answer is sent back once with what is wrong with it.

    Raises:
        AnswerError: both answers were broken; the message is about the second one.
        StudentError: there was none.
    """
    messages = question.messages
    schema = answer_schema(question.part.places)
    first = await student.ask(messages, schema=schema, max_tokens=ANSWER_TOKENS)
    try:
        return _read(first), first
    except AnswerError as error:
        messages = repair_messages(messages, first.text, str(error))
    second = await student.ask(messages, schema=schema, max_tokens=ANSWER_TOKENS)
    return _read(second), second


def _read(reply: Reply) -> Suspect:
    if reply.finish_reason == "length":
        raise AnswerError("it was cut off: keep it shorter")
    return parse_answer(reply.text)


_COULD_BE_SHOWN = {None, HiddenReason.OVER_CAP, HiddenReason.DUPLICATE}
"""As things stand, or once others are refuted."""


async def _second_look(judged: Sequence[Judged], prepared: Prepared, policy: Policy, line: _Line) -> tuple[Judged, ...]:
    """Ask about every finding that could be shown whether it is real; one that is not is hidden as refuted.

    Where the second look fails, the first one stands.
    """

    async def look(one: Judged) -> Candidate:
        question = _asked_about(one.finding, prepared.plan.questions)
        if one.hidden not in _COULD_BE_SHOWN or question is None:
            return Candidate(one.finding)
        messages = verify_messages(question.part, question.brief, one.finding)
        try:
            reply = await line.ask(messages, schema=VERDICT_SCHEMA, max_tokens=_VERDICT_TOKENS)
            return Candidate(one.finding, refuted=parse_verdict(reply.text).real == "no")
        except (StudentError, AnswerError):
            return Candidate(one.finding)

    return triage(await asyncio.gather(*(look(one) for one in judged)), prepared.files, policy)


def _asked_about(finding: Finding, questions: Sequence[Question]) -> Question | None:
    return next(
        (
            question
            for question in questions
            if question.part.path == finding.file and question.part.first <= finding.line <= question.part.last
        ),
        None,
    )


def _missing(asked: Iterable[_Answered]) -> list[NotRead]:
    """Say per file which lines were not read and why; the lines are left out where it is all of them."""
    by_file: defaultdict[str, list[_Answered]] = defaultdict(list)
    for answered in asked:
        by_file[answered.question.part.path].append(answered)
    missing: list[NotRead] = []
    for path, answers in by_file.items():
        by_reason: defaultdict[str, list[str]] = defaultdict(list)
        for answered in answers:
            if answered.reason is not None:
                part = answered.question.part
                by_reason[answered.reason].append(f"{part.first} to {part.last}")
        for reason, spans in by_reason.items():
            where = "" if len(spans) == len(answers) else f"lines {', '.join(spans)}: "
            missing.append(NotRead(path, where + reason, failed=True))
    return missing
