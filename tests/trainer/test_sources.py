import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.diff import Line, LineKind
from bot.domain import Category, Finding, MergeRef, Severity, Vote, VoteOrigin, VoteReason
from bot.plan import Question
from bot.prompt import Brief, Part
from bot.store import Voted
from trainer.example import Lineage, Origin, Task, dump, load
from trainer.sources.files import LabelledRow, RowError, read_examples, read_row, tasks_of
from trainer.sources.votes import task_of

DIFF = "@@ -1,2 +1,3 @@\n def pay(cents):\n+    run(f'insert {cents}')\n     send(cents)\n"
ROW: dict[str, object] = {
    "path": "shop/pay.py",
    "diff": DIFF,
    "line": 2,
    "severity": "critical",
    "category": "security",
    "title": "SQL injection",
    "explanation": "The amount is formatted into the query.",
}


def tasks(**more: object) -> tuple[Task, ...]:
    told = {name: value for name, value in (ROW | more).items() if value is not ...}
    return tasks_of(read_row(told), Origin.FILE, Lineage(source="a test"))


# --- files


def test_a_row_is_asked_about_as_the_bot_does() -> None:
    (task,) = tasks()
    assert task.answer.quote == "run(f'insert {cents}')"
    assert str(task.skill) == "critical/security/python"
    assert "    2 +     run(f'insert {cents}')" in task.messages[1]["content"]
    assert json.loads(task.completion)["severity"] == "critical"
    assert load(dump(task)) == task


def test_a_diff_with_its_head_and_code_without_a_diff() -> None:
    head = f"diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n{DIFF}"
    assert tasks(diff=head) == tasks()
    (task,) = tasks(diff=..., code="def pay(cents):\n    run(f'insert {cents}')\n")
    assert [line.kind for line in task.question.part.lines] == [LineKind.ADDED] * 2


def test_a_clean_change() -> None:
    (task,) = tasks(severity="none", line=..., category=..., title=..., explanation=...)
    assert task.clean
    assert str(task.skill) == "none/none/python"
    assert (task.answer.line, task.answer.explanation) == (2, "This is fine.")


def test_each_part_of_a_long_clean_change() -> None:
    code = "\n".join(f"x_{number} = {number}" for number in range(200))
    assert len(tasks(diff=..., code=code, severity="none")) > 1


def test_of_a_long_change_only_the_part_with_the_problem() -> None:
    code = "\n".join(f"x_{number} = {number}" for number in range(200))
    (task,) = tasks(diff=..., code=code, line=150)
    assert task.answer.quote == "x_149 = 149"


def test_secrets_are_taken_out() -> None:
    key = "AKIA" + "QYLPMN5HHHFPZAM2"
    (task,) = tasks(diff=DIFF.replace("cents}", f"cents}} key={key}"), explanation=f"It has the key {key}.")
    assert key not in dump(task)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"severity": "high"}, "severity: Input should be"),
        ({"diff": ...}, "it needs `diff` or `code`"),
        ({"code": "x"}, "it needs `diff` or `code`"),
        ({"title": ..., "line": ...}, "a problem needs line, title"),
        ({"title": "t" * 81}, "title: String should have at most 80"),
        ({"sevrity": "major"}, "sevrity: Extra inputs"),
        ({"weight": 2}, "weight: Input should be less"),
    ],
)
def test_a_row_that_is_none(more: dict[str, object], problem: str) -> None:
    with pytest.raises(RowError) as told:
        tasks(**more)
    assert str(told.value).startswith(problem)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"line": 3}, "line 3 is no line of the change that can take a comment"),
        ({"diff": "nothing"}, "diff: it has no line that begins with @@"),
        ({"diff": "@@ -1,2 +1,3 @@\n cut"}, "diff: "),
        ({"path": "package-lock.json"}, "the change holds nothing that a reviewer would be asked about"),
    ],
)
def test_a_row_of_which_no_task_can_be_made(more: dict[str, object], problem: str) -> None:
    with pytest.raises(RowError) as told:
        tasks(**more)
    assert str(told.value).startswith(problem)


def test_a_file_gives_tasks_and_names_what_it_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "defects.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{{\n{json.dumps(ROW | {'line': 9})}\n{'[' * 100_000}\n")
    loaded = read_examples(path)
    (task,) = loaded.tasks
    assert task.lineage.source == "defects.jsonl:1"
    assert loaded.problems == (
        "defects.jsonl:3: it is not JSON",
        "defects.jsonl:4: line 9 is no line of the change that can take a comment",
        "defects.jsonl:5: it is not JSON",
    )


def test_the_schema_is_documented_with_a_row_that_is_one() -> None:
    assert set(ROW) <= set(LabelledRow.model_fields)


# --- votes

FINDING = Finding("pay.py", 1, 1, Severity.MAJOR, Category.SECURITY, "SQL", "It is formatted.", "run(x)", "run(y)")
QUESTION = Question(Part("pay.py", (Line(LineKind.ADDED, "  run(x)", None, 1),)), Brief(title="Pay"))
REF = MergeRef(7, 12)


def vote(*, up: bool, weight: float = 0.9, reason: VoteReason | None = None, voter: str = "ann") -> Vote:
    at = datetime(2026, 11, 25, tzinfo=UTC)
    return Vote(REF, FINDING.fingerprint, voter, up, VoteOrigin.EMOJI, reason, weight, at)


def voted(*votes: Vote, question: Question | None = QUESTION) -> Voted:
    return Voted(FINDING, question, votes, REF, ("review-1",))


UP, DOWN = vote(up=True), vote(up=False)


@pytest.mark.parametrize(
    ("votes", "severity"),
    [
        ([UP], "major"),
        ([DOWN], "none"),
        ([vote(up=False, reason=VoteReason.WRONG)], "none"),
        ([vote(up=False, reason=VoteReason.NOT_HERE)], "none"),
        ([vote(up=False, reason=VoteReason.NIT)], "trivial"),
        ([vote(up=False, reason=VoteReason.KNOWN)], None),
        ([vote(up=False, reason=VoteReason.NIT), vote(up=False, weight=0.5, voter="bob")], "trivial"),
        ([vote(up=False, weight=0.5, reason=VoteReason.NIT), vote(up=False, voter="bob")], "none"),
        ([UP, vote(up=False, voter="bob")], None),
        ([UP, vote(up=True, voter="cy"), vote(up=False, voter="bob")], "major"),
        ([vote(up=False, weight=0.2)], None),  # resolved at the end says little
        ([], None),
    ],
)
def test_what_votes_teach(votes: list[Vote], severity: str | None) -> None:
    task = task_of(voted(*votes))
    assert (task.answer.severity if task else None) == severity


def test_the_answer_that_votes_make() -> None:
    said, clean = task_of(voted(UP)), task_of(voted(DOWN))
    assert said
    assert clean
    assert (said.answer.title, said.answer.explanation, said.answer.suggestion) == ("SQL", "It is formatted.", "run(y)")
    assert (clean.answer.title, clean.answer.explanation, clean.answer.suggestion) == ("", "This is fine.", None)
    assert said.answer.quote == clean.answer.quote == "run(x)"
    assert said.lineage == Lineage(
        source="votes on 7!12", merge=REF, fingerprint=FINDING.fingerprint, voters=("ann",), reviews=("review-1",)
    )
    assert (said.origin, said.weight) == (Origin.VOTE, 0.9)


def test_where_the_question_was_not_kept_nothing_is_learnt() -> None:
    assert task_of(voted(UP, question=None)) is None
    elsewhere = Question(Part("pay.py", (Line(LineKind.ADDED, "x", None, 9),)), Brief())
    assert task_of(voted(UP, question=elsewhere)) is None
