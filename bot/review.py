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
    answer_schema,
    finding,
    parse_answer,
    parse_verdict,
)
from bot.diff import FileDiff
from bot.domain import Finding, HiddenReason, Judged, NotRead, Review, Usage
from bot.endpoint import StudentError, StudentRefusedKey, StudentUnreachable, UnknownModel, UntrustedCertificate
from bot.plan import Plan, Question, Room, plan
from bot.policy import Policy
from bot.prompt import Brief, Message, prompt_id, repair_messages, verify_messages
from bot.redact import redact
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
    """A review and the distinct errors behind what is missing in it."""

    review: Review
    errors: tuple[StudentError, ...]


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
    texts = [change.title, change.description, *map(_text, change.files)]
    cleaned = [redact(text) for text in (*texts, *sources.values())]
    found: Counter[str] = Counter()
    for one in cleaned[: len(texts)]:  # a secret of the diff stands in the file too: counted once
        found.update(one.found)
    title, description, *diffs = (one.text for one in cleaned[: len(texts)])
    files = tuple(_with_text(file, text) for file, text in zip(change.files, diffs, strict=True))
    clean_sources = dict(zip(sources, (one.text for one in cleaned[len(texts) :]), strict=True))
    planned = plan(files, clean_sources.get, policy, Brief(title=title, description=description), room)
    return Prepared(files, planned, tuple(sorted(found.items())))


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
    asked = await _ask_all(prepared.plan.questions, student, concurrency, step)
    candidates = [Candidate(answered.finding) for answered in asked if answered.finding]
    judged = triage(candidates, prepared.files, policy)
    usage = sum((answered.usage for answered in asked), Usage())
    if policy.verify:
        judged, spent = await _second_look(judged, prepared, policy, student, concurrency)
        usage += spent
    not_read = (*prepared.plan.not_read, *_missing(asked))
    lacking = {missing.file for missing in not_read}
    result = Review(
        findings=judged,
        read=tuple(file.path for file in prepared.files if file.path not in lacking),
        not_read=not_read,
        model=speaker.model,
        adapter=speaker.adapter,
        prompt_id=prompt_id(),
        usage=replace(usage, seconds=time.monotonic() - begun),
        redacted=prepared.redacted,
    )
    errors = {str(answered.error): answered.error for answered in asked if answered.error}
    return Outcome(result, tuple(errors.values()))


_NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class _Answered:
    """What came of one question: a finding or none, or why it was not answered, with the error behind it if any."""

    question: Question
    finding: Finding | None = None
    usage: Usage = _NO_USAGE
    reason: str | None = None
    error: StudentError | None = None


async def _ask_all(questions: Sequence[Question], student: Student, concurrency: int, step: Step) -> list[_Answered]:
    gate = asyncio.Semaphore(concurrency)
    failures: list[StudentError] = []
    gone: list[StudentError] = []
    done = 0

    async def one(question: Question) -> _Answered:
        nonlocal done
        async with gate:
            if gone:
                return _Answered(question, reason="not asked: the student was lost before", error=gone[0])
            try:
                answered = await _ask(question, student)
                failures.clear()
            except StudentError as error:
                failures.append(error)
                if isinstance(error, _GONE) or len(failures) >= FAILURES_IN_A_ROW:
                    gone.append(error)
                answered = _Answered(question, reason=error.reason, error=error)
            done += 1
            step(done, len(questions), question.part.path)
            return answered

    return await asyncio.gather(*(one(question) for question in questions))


async def _ask(question: Question, student: Student) -> _Answered:
    """Ask one question; a broken answer is sent back once with what is wrong with it."""
    messages = question.messages
    schema = answer_schema(question.part.places)
    first = await student.ask(messages, schema=schema, max_tokens=ANSWER_TOKENS)
    try:
        return _read(question, first, first.usage)
    except AnswerError as error:
        messages = repair_messages(messages, first.text, str(error))
    second = await student.ask(messages, schema=schema, max_tokens=ANSWER_TOKENS)
    usage = first.usage + second.usage
    try:
        return _read(question, second, usage)
    except AnswerError as error:
        return _Answered(question, usage=usage, reason=f"the student's answer was unusable twice ({error})")


def _read(question: Question, reply: Reply, usage: Usage) -> _Answered:
    if reply.finish_reason == "length":
        raise AnswerError("it was cut off: keep it shorter")
    return _Answered(question, finding(question.part.path, parse_answer(reply.text), reply.logprobs), usage)


async def _second_look(
    judged: Sequence[Judged], prepared: Prepared, policy: Policy, student: Student, concurrency: int
) -> tuple[tuple[Judged, ...], Usage]:
    """Ask about every finding that could be shown whether it is real; one that is not is hidden as refuted.

    Where the second look fails, the first one stands.
    """
    gate = asyncio.Semaphore(concurrency)

    async def look(one: Judged) -> tuple[Candidate, Usage]:
        question = _asked_about(one.finding, prepared.plan.questions)
        if one.hidden not in {None, HiddenReason.OVER_CAP} or question is None:
            return Candidate(one.finding), Usage()
        messages = verify_messages(question.part, question.brief, one.finding)
        try:
            async with gate:
                reply = await student.ask(messages, schema=VERDICT_SCHEMA, max_tokens=_VERDICT_TOKENS)
            return Candidate(one.finding, refuted=parse_verdict(reply.text).real == "no"), reply.usage
        except (StudentError, AnswerError):
            return Candidate(one.finding), Usage()

    looked = await asyncio.gather(*(look(one) for one in judged))
    again = triage([candidate for candidate, _ in looked], prepared.files, policy)
    return again, sum((spent for _, spent in looked), Usage())


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
