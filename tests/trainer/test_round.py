import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from bot.store import AdapterState
from tests.fakes.replica import DropError
from tests.trainer.round_world import RoundWorld, lazy, round_world, skilled, timid
from trainer import dataset
from trainer.budget import BudgetSpentError
from trainer.exam import Exam
from trainer.example import Origin
from trainer.leak import Seen
from trainer.round import REBUILD, CannotRunError, Graded, Round, rounds
from trainer.tune.check import TuneError
from trainer.tune.launch import tune

FIRST, SECOND = "student-r0001", "student-r0002"
pytestmark = pytest.mark.process  # seconds each

STAGES: tuple[Callable[[Round], None], ...] = (
    Round.gather,
    Round.write_exam,
    Round.sit_exam,
    Round.grade,
    Round.write_curriculum,
    Round.fine_tune,
    Round.examine,
    Round.decide,
    Round.roll_out,
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[RoundWorld]:
    with round_world(tmp_path) as made:
        yield made


def run(here: RoundWorld, number: int = 1) -> Round:
    one = here.round(number)
    for stage in STAGES:
        stage(one)
    return one


def test_a_student_that_learns_is_promoted(here: RoundWorld) -> None:
    one = run(here)
    assert one.verdict.promoted, one.verdict.words
    assert here.serving == FIRST
    assert sorted(here.replica.loaded) == [FIRST]
    before, after = one.scores()
    assert (before.accuracy < 0.5, after.accuracy) == (True, 1.0)
    assert dataset.read(here.tools.folder / "dataset") == dataset.read(one.folder / "dataset")
    adapter = here.store.adapter(FIRST)
    assert adapter
    assert adapter.card["dataset"] == dataset.read(one.folder / "dataset").hash
    assert (adapter.state, adapter.parent) == (AdapterState.SERVING, None)
    assert rounds(here.tools.folder) == [1]


def test_the_next_round_builds_on_it(here: RoundWorld) -> None:
    run(here)
    two = run(here, 2)
    assert not two.verdict.promoted  # as good as the one before, and no better
    assert "severity right, beside the base model, 100.0% against" in " ".join(words for _, words in two.verdict.checks)
    assert [two.marks(who).adapter for who in ("base", "serving", "candidate")] == [None, FIRST, SECOND]
    assert here.serving == FIRST
    adapter = here.store.adapter(SECOND)
    assert adapter
    assert (adapter.state, adapter.parent) == (AdapterState.REFUSED, FIRST)
    assert sorted(here.replica.loaded) == [FIRST]
    old, new = (dataset.read(here.round(number).folder / "dataset") for number in (1, 2))
    assert {task.id for task in old.train} & {task.id for task in new.train}
    exams = [Exam.model_validate_json((here.round(n).folder / "exam.json").read_bytes()) for n in (1, 2)]
    assert {task.id for task in exams[0].tasks} != {task.id for task in exams[1].tasks}


@pytest.mark.parametrize(
    ("learns", "why"), [(lazy, "0 questions won, 0 lost"), (timid, "clean parts left in peace 0.0% against 100.0%")]
)
def test_a_worse_one_is_refused_and_what_served_serves_on(
    tmp_path: Path, learns: Callable[[dict[str, object]], str], why: str
) -> None:
    with round_world(tmp_path) as here:
        here.learns = learns
        one = run(here)
        assert not one.verdict.promoted
        assert why in one.verdict.words
        assert here.serving is None
        assert here.replica.loaded == {}
        assert not (here.tools.folder / "dataset").exists()


def test_no_stage_does_again_what_is_done(here: RoundWorld) -> None:
    one = here.round()
    for stage in STAGES:
        stage(one)
        files = {path: path.read_bytes() for path in one.folder.rglob("*") if path.is_file()}
        taught, asked = len(here.teacher.requests), here.replica.calls.count("chat base")
        stage(here.round())
        assert {path: path.read_bytes() for path in one.folder.rglob("*") if path.is_file()} == files
        assert (len(here.teacher.requests), here.replica.calls.count("chat base")) == (taught, asked)
    assert here.trained == 1
    assert here.serving == FIRST


def test_a_student_that_fails_in_the_middle_of_a_sitting(here: RoundWorld) -> None:
    one = here.round()
    one.gather()
    one.write_exam()
    asked: list[str] = []

    def hook(call: str, _when: str) -> None:
        asked.append(call)
        if len(asked) > 10:
            raise DropError

    here.replica.hook = hook
    with pytest.raises(ExceptionGroup):
        one.sit_exam()
    here.replica.hook = lambda _call, _when: None
    here.replica.calls.clear()
    one.sit_exam()
    assert 0 < here.replica.calls.count("chat base") < 20


ENDS = [
    ("echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB'; exit 1", "it ran out of memory"),
    ("echo 'RuntimeError: DefaultCPUAllocator: can'\"'\"'t allocate memory'; exit 1", "it ran out of memory"),
    ("echo 'OSError: [Errno 28] No space left on device'; exit 1", "the disk is full"),
    ("echo 'ValueError: dim must be positive'; exit 1", "The engine failed: ValueError: dim must be positive"),
    ("kill -9 $$", "The engine was killed. Mostly it is the kernel"),
    ("exit 3", "The engine failed: it said nothing"),
]


def test_an_engine_that_fails_says_why_and_what_served_serves_on(here: RoundWorld, tmp_path: Path) -> None:
    run(here)
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(here.tools.base / "tokenizer.json"))
    python = tmp_path / "python"
    python.touch(0o755)
    broken = replace(here.tools, engine=lambda config, report: tune(config, python, report, most_seconds=60))
    here.tools, whole = broken, here.tools
    two = here.round(2)
    for stage in STAGES[:5]:
        stage(two)
    for last_words, told in ENDS:
        python.write_text(f"#!/bin/sh\n{last_words}\n")
        with pytest.raises(TuneError, match=re.escape(told)) as error:
            two.fine_tune()
        assert str(two.folder / "tune" / "engine.log") in str(error.value)
    assert here.serving == FIRST
    assert sorted(here.replica.loaded) == [FIRST]
    assert len(here.store.adapters()) == 1
    here.tools = whole  # mended: the round goes on
    for stage in STAGES[5:]:
        stage(here.round(2))
    assert here.serving == FIRST
    assert len(here.store.adapters()) == 2


def test_nothing_of_the_held_out_set_is_asked_or_learnt(here: RoundWorld) -> None:
    one = run(here)
    secret = Seen(dataset.read(here.tools.folder / "heldout").train)
    made = dataset.read(one.folder / "dataset")
    exam = Exam.model_validate_json((one.folder / "exam.json").read_bytes())
    assert not [task.id for task in (*made.train, *made.val, *exam.tasks) if secret.near(task)]
    frozen = (here.tools.folder / "heldout" / "train.jsonl").read_bytes()
    (here.folder / "examples" / "rows.jsonl").write_text(
        (here.folder / "examples" / "rows.jsonl").read_text().replace("shelf", "box")
    )
    run(here, 2)
    assert (here.tools.folder / "heldout" / "train.jsonl").read_bytes() == frozen


def test_without_the_operators_word_the_teacher_sees_no_code(here: RoundWorld) -> None:
    run(here)
    assert not [prompt for prompt in here.teacher.prompts if "shelf_" in prompt]


def test_with_it_the_teacher_does(tmp_path: Path) -> None:
    with round_world(tmp_path, teacher_may_see_code=True) as here:
        here.round().gather()
        here.round().write_exam()
        assert [prompt for prompt in here.teacher.prompts if "shelf_" in prompt]


def test_explanations_are_judged_where_the_teacher_may_see_the_change(here: RoundWorld) -> None:
    here.replica.think = skilled  # explains worse than the exam does: the teacher takes the longer one
    one = here.round()
    for stage in STAGES[:4]:
        stage(one)
    graded = Graded.model_validate_json((one.folder / "grade.json").read_bytes())
    exam = Exam.model_validate_json((one.folder / "exam.json").read_bytes())
    problems = [task for task in exam.tasks if not task.clean]
    written = [task for task in problems if task.origin is Origin.TEACHER]
    assert 0 < len(written) < len(problems)
    assert graded.explanations == {"worse": len(written)}
    assert f"weak: explanations: 0 of {len(written)} as good as they should be" in graded.words
    judged = [prompt for prompt in here.teacher.prompts if "Two reviewers explain it" in prompt]
    assert len(judged) == 2 * len(written)  # in both orders
    assert not [prompt for prompt in judged if "read_" in prompt]  # the examples' code


def test_what_the_teacher_costs_is_counted_over_all_attempts(here: RoundWorld) -> None:
    one = here.round()
    one.gather()
    one.write_exam()
    spent = json.loads((one.folder / "spent.json").read_bytes())
    assert spent["requests"] == len(here.teacher.requests) > 0
    here.tools.chosen.__dict__["train_max_tokens"] = spent["prompt_tokens"] + spent["completion_tokens"] + 500
    one.sit_exam()
    one.grade()
    with pytest.raises(BudgetSpentError, match=f"{spent['prompt_tokens'] + spent['completion_tokens']:,} tokens"):
        here.round().write_curriculum()


def test_what_has_learnt_from_something_forgotten_is_replaced_by_what_beats_the_base(here: RoundWorld) -> None:
    run(here)
    here.store.amend_card(FIRST, {REBUILD: "rows were forgotten"})
    two = run(here, 2)
    assert two.verdict.promoted
    assert here.serving == SECOND
    assert two.marks("serving").adapter is None


def test_the_grade_is_told_to_the_teacher(here: RoundWorld) -> None:
    one = run(here)
    graded = Graded.model_validate_json((one.folder / "grade.json").read_bytes())
    assert any("severity critical: 0 of 4 right" in each for each in graded.weaknesses)
    assert any("- weak: severity critical: 0 of 4 right; 4 times it says none" in p for p in here.teacher.prompts)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"teacher_url": None}, "No teacher is set: APPRENTICE_TEACHER_URL"),
        ({"train_examples": None}, "There are 0 labelled items .votes and examples., and 50 are the least"),
        ({"train_least_tasks": 151}, "There are 150 labelled items"),
    ],
)
def test_a_round_that_cannot_run_says_why_and_changes_nothing(
    tmp_path: Path, more: dict[str, object], words: str
) -> None:
    with round_world(tmp_path, **more) as here:
        with pytest.raises(CannotRunError, match=words):
            here.round().gather()
        assert not here.tools.folder.exists()
