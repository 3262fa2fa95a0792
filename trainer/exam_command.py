"""`apprentice exam make|sit|grade`: compare models, adapters and endpoints by the same questions."""

import asyncio
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bot.answer import SEVERITY_LABELS
from bot.endpoint import StudentError
from bot.interview import connect, find_endpoint
from bot.report import count_words
from bot.review import Speaker
from bot.settings import Settings
from trainer.dataset import lines_of
from trainer.exam import Answer, Exam, Mark, Sitting, UnfitSittingError, mark
from trainer.gate import decide
from trainer.grade import INVALID, confusion, feedback, proficiency, score
from trainer.leak import Seen
from trainer.sit import Head, OtherSittingError, kept, sit
from trainer.sources.files import read_examples

ALPHA = 0.05


class ExamError(ValueError):
    """A file cannot be used; the message names it."""


# --- make


def make(sources: Sequence[Path], out: Path) -> int:
    """Make an exam of labelled examples; gives the exit code."""
    seen, tasks, dropped = Seen(), [], Counter[str]()
    for source in sources:
        try:
            loaded = read_examples(source)
        except OSError as error:
            return _wrong(f"{source} cannot be read: {error.strerror}")
        for problem in loaded.problems:
            sys.stderr.write(f"left out: {problem}\n")
        dropped["cannot be used"] += len(loaded.problems)
        for task in loaded.tasks:
            if seen.near(task) is None:
                seen.add(task)
                tasks.append(task)
            else:
                dropped["near another one"] += 1
    if not tasks:
        return _wrong("there is no question in that")
    tasks.sort(key=lambda task: task.id)
    digest = hashlib.sha256("".join(task.id for task in tasks).encode()).hexdigest()[:12]
    exam = Exam(id=digest, tasks=tuple(tasks), dropped={why: count for why, count in dropped.items() if count})
    out.write_text(exam.model_dump_json() + "\n", encoding="utf-8")
    by_severity = Counter[str](task.answer.severity for task in tasks)
    kinds = ", ".join(f"{by_severity[label]} {label}" for label in SEVERITY_LABELS if by_severity[label])
    left = "".join(f"; {count} left out: {why}" for why, count in exam.dropped.items())
    sys.stdout.write(f"{out}: exam {exam.id}, {count_words(len(tasks), 'question')}: {kinds}{left}\n")
    return 0


# --- sit


def take(path: Path, out: Path, chosen: Settings) -> int:
    """Have the student of the settings sit an exam, or go on with it; gives the exit code."""
    try:
        exam = read_exam(path)
        sitting = asyncio.run(_take(exam, out, chosen))
    except (ExamError, OtherSittingError) as error:
        return _wrong(str(error))
    except OSError as error:
        return _wrong(f"{out} cannot be written: {error.strerror}")
    except StudentError as error:
        return _lost(error)
    except ExceptionGroup as errors:
        lost, others = errors.split(StudentError)
        if lost is None or others is not None:
            raise
        return _lost(lost.exceptions[0])
    marks = mark(exam, sitting)
    sys.stdout.write(f"{out}: {_voice(sitting)}, {_figures(marks)}\n")
    return 0


async def _take(exam: Exam, out: Path, chosen: Settings) -> Sitting:
    endpoint = find_endpoint(chosen)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with connect(endpoint, chosen, chosen.student_adapter) as student:
        speaker = Speaker((await student.base()).id, chosen.student_adapter)
        with (
            kept(out, exam, speaker) as (known, keep),
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ):
            bar = progress.add_task("sitting the exam", total=len(exam.tasks), completed=len(known))

            def kept_and_shown(answer: Answer) -> None:
                keep(answer)
                progress.advance(bar)

            return await sit(
                exam, student, speaker, known=known, concurrency=chosen.student_concurrency, keep=kept_and_shown
            )


def _lost(error: BaseException) -> int:
    sys.stderr.write(f"error: {error}\nWhat was answered is kept: the same command goes on with the rest.\n")
    return 3


# --- grade


def grade(path: Path, first: Path, second: Path | None, *, as_json: bool) -> int:
    """Print what a sitting is worth, and whether it is better than another one; gives the exit code."""
    try:
        exam = read_exam(path)
        sittings = [read_sitting(each) for each in (first, second) if each]
        marks = [mark(exam, each) for each in sittings]
    except (ExamError, UnfitSittingError) as error:
        return _wrong(str(error))
    document = {
        "schema": 1,
        "exam": exam.id,
        "sittings": [_document(each, its) for each, its in zip(sittings, marks, strict=True)],
    }
    verdict = decide(marks[0], marks[1], alpha=ALPHA) if second else None
    if verdict:
        document["better"] = verdict.promoted
        document["checks"] = [asdict(check) for check in verdict.checks]
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    for sitting, its in zip(sittings, marks, strict=True):
        sys.stdout.write("\n".join((*_report(sitting, its), "", "")))
    if verdict:
        better = "The first one is better" if verdict.promoted else "The first one is not shown to be better"
        rows = (f"  {'✓' if check.holds else '✗'} {check.words}" for check in verdict.checks)
        sys.stdout.write("\n".join((f"{better}:", *rows, "")))
    return 0


def _document(sitting: Sitting, marks: Sequence[Mark]) -> Mapping[str, object]:
    return {
        "model": sitting.model,
        "adapter": sitting.adapter,
        "prompt_id": sitting.prompt_id,
        "scores": asdict(score(marks)),
        "confusion": confusion(marks),
        "proficiency": {
            str(skill): {"right": known.right, "asked": known.asked} for skill, known in proficiency(marks).items()
        },
        "feedback": asdict(feedback(marks)),
    }


def _report(sitting: Sitting, marks: Sequence[Mark]) -> Iterable[str]:
    scores, told = score(marks), feedback(marks)
    yield _voice(sitting)
    yield f"  {_figures(marks)}"
    yield (
        f"  one step beside at most {scores.adjacent:.1%} · macro-F1 {scores.macro_f1:.2f} · always giving the "
        f"commonest severity {scores.constant:.1%}"
    )
    yield (
        f"  right line {scores.located:.1%} · major and critical seen as such {scores.severe_recall:.1%} · false "
        f"alarms on clean parts {scores.false_alarms:.1%} · usable answers {scores.validity:.1%}"
    )
    yield ""
    yield f"  {'wanted / given':<16}" + "".join(f"{label:>10}" for label in (*SEVERITY_LABELS, INVALID))
    for label, row in confusion(marks).items():
        yield f"  {label:<16}" + "".join(f"{row[given]:>10}" for given in (*SEVERITY_LABELS, INVALID))
    for title, words in (("good at", told.strengths), ("weak at", told.weaknesses)):
        yield from (f"  {title}: {each}" for each in words)


def _voice(sitting: Sitting) -> str:
    return f"{sitting.adapter or 'no adapter'} on {sitting.model}"


def _figures(marks: Sequence[Mark]) -> str:
    scores = score(marks)
    return f"severity right {scores.accuracy:.1%} of {count_words(scores.questions, 'question')}"


# --- files


def read_exam(path: Path) -> Exam:
    """Read an exam.

    Raises:
        ExamError: it is none.
    """
    try:
        return Exam.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ExamError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError:
        raise ExamError(f"{path} is no exam: make one with `apprentice exam make`") from None


def read_sitting(path: Path) -> Sitting:
    """Read what `take` has written.

    Raises:
        ExamError: it is none.
    """
    try:
        first, *rest = lines_of(path.read_text(encoding="utf-8"))
        head = Head.model_validate_json(first)
        answers = tuple(map(Answer.model_validate_json, rest))
    except OSError as error:
        raise ExamError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:  # a ValidationError is one
        raise ExamError(f"{path} holds no sitting: `apprentice exam sit` makes one, and goes on with it") from None
    return Sitting(exam=head.exam, model=head.model, adapter=head.adapter, prompt_id=head.prompt_id, answers=answers)


def _wrong(words: str) -> int:
    sys.stderr.write(f"error: {words}\n")
    return 2
