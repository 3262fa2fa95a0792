"""What a round came to, for people and for scripts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from bot.answer import SEVERITY_LABELS
from trainer.dataset import Dataset
from trainer.exam import Exam
from trainer.grade import INVALID, confusion, proficiency, score
from trainer.round import Decided, Examined, Graded

SCHEMA = 1

_FIGURES = {
    "accuracy": "severity right",
    "adjacent": "one step beside at most",
    "macro_f1": "macro-F1",
    "located": "right line",
    "severe_recall": "major and critical seen as such",
    "false_alarms": "false alarms on clean parts",
    "validity": "usable answers",
    "constant": "always the commonest severity",
}


def document(
    *,
    name: str,
    exam: Exam,
    graded: Graded,
    made: Dataset,
    before: Examined,
    after: Examined,
    base: Examined,
    verdict: Decided,
    tokens_per_second: float,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """All of it, for scripts: keys are only ever added, under the same `schema`."""
    return {
        "schema": SCHEMA,
        "round": name,
        "exam": {"questions": len(exam.tasks), "dropped": exam.dropped},
        "strengths": graded.strengths,
        "weaknesses": graded.weaknesses,
        "explanations": graded.explanations,
        "dataset": {"hash": made.hash, "train": len(made.train), "val": len(made.val)},
        "heldout": {
            who: {
                "adapter": examined.adapter,
                "scores": asdict(score(examined.marks)),
                "confusion": confusion(examined.marks),
                "proficiency": {
                    str(skill): {"right": known.right, "asked": known.asked}
                    for skill, known in proficiency(examined.marks).items()
                },
            }
            for who, examined in (("base", base), ("before", before), ("after", after))
        },
        "promoted": verdict.promoted,
        "checks": [{"holds": holds, "words": words} for holds, words in verdict.checks],
        "tokens_per_second": tokens_per_second,
        "seconds": {stage: round(took, 1) for stage, took in seconds.items()},
    }


def text(told: Mapping[str, Any]) -> str:
    """The same as a person reads it."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    base, before, after = (told["heldout"][who] for who in ("base", "before", "after"))
    yield f"Round {told['round']}: {after['adapter']} against {before['adapter'] or 'the base model'}"
    exam = told["exam"]
    dropped = "".join(f"; {count} dropped: {why}" for why, count in exam["dropped"].items())
    yield f"  exam: {exam['questions']} questions{dropped}"
    for title, rows in (("good at", told["strengths"]), ("weak at", told["weaknesses"])):
        yield from (f"  {title}: {row}" for row in rows)
    if told["explanations"]:
        words = ", ".join(f"{count} {how}" for how, count in told["explanations"].items())
        yield f"  its explanations against the exam's: {words}"
    data = told["dataset"]
    yield f"  learnt from {data['train']} examples, measured by {data['val']} (dataset {data['hash']})"
    yield ""
    yield f"  {'held-out set, ' + str(before['scores']['questions']) + ' questions':<36}{'before':>9}{'after':>9}"
    for key, words in _FIGURES.items():
        yield f"  {words:<36}{before['scores'][key]:>9.1%}{after['scores'][key]:>9.1%}"
    if before["adapter"] is not None:
        yield f"  {'severity right by the base model':<36}{base['scores']['accuracy']:>9.1%}"
    yield ""
    yield f"  {'after: wanted / given':<24}" + "".join(f"{label:>10}" for label in (*SEVERITY_LABELS, INVALID))
    for label, row in after["confusion"].items():
        yield f"  {label:<24}" + "".join(f"{row[given]:>10}" for given in (*SEVERITY_LABELS, INVALID))
    yield ""
    yield f"  {'Promoted' if told['promoted'] else 'Refused'}:"
    yield from (f"  {'✓' if check['holds'] else '✗'} {check['words']}" for check in told["checks"])
    yield ""
    yield "  seconds: " + ", ".join(f"{stage} {took:,.0f}" for stage, took in told["seconds"].items())
    yield f"  tokens a second in the fine-tuning: {told['tokens_per_second']:,.0f}"
