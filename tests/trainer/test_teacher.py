import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from pydantic import SecretStr

from tests.fakes.student import FakeStudent, Request, Said
from tests.fakes.teacher import Twist, teach
from tests.trainer.marks import a_task
from trainer import teacher as teaching
from trainer.budget import Budget, BudgetSpentError
from trainer.example import Skill, Task
from trainer.judge import Place, Preference, prefer, settle
from trainer.leak import Seen
from trainer.settings import TrainerSettings
from trainer.teacher import Teacher, TeacherError
from trainer.writer import Written, write

MAJOR, CLEAN = Skill("major", "correctness", "python"), Skill("none", "none", "python")
WANTED = {MAJOR: 6, CLEAN: 3}
T = TypeVar("T")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "RETRIES", 0)


def with_teacher(
    fake: FakeStudent, folder: Path, ask: Callable[[Teacher], Coroutine[None, None, T]], budget: Budget | None = None
) -> T:
    async def go() -> T:
        chosen = TrainerSettings(
            teacher_url=fake.url, teacher_model="large", teacher_api_key=SecretStr("sk-1"), data_dir=folder
        )
        async with Teacher(chosen, folder / "teacher", budget or Budget(10**9)) as teacher:
            return await ask(teacher)

    return asyncio.run(go())


def written(
    folder: Path,
    twist: Twist = lambda _, text: Said(text),
    *,
    wanted: Mapping[Skill, int] = WANTED,
    samples: list[Task] | None = None,
    may_see_code: bool = False,
    excluded: Seen | None = None,
    budget: Budget | None = None,
) -> tuple[Written, FakeStudent]:
    with teach(twist) as fake:
        made = with_teacher(
            fake,
            folder,
            lambda teacher: write(
                teacher,
                wanted,
                purpose="exam",
                source="round r0001",
                results=["severity major: 1 of 9 right"],
                samples=samples or [],
                may_see_code=may_see_code,
                excluded=excluded or Seen(),
            ),
            budget,
        )
    return made, fake


def skills(made: Written) -> dict[Skill, int]:
    return {skill: sum(task.skill == skill for task in made.tasks) for skill in WANTED}


def test_it_writes_what_was_asked_for(tmp_path: Path) -> None:
    made, fake = written(tmp_path)
    assert skills(made) == WANTED
    assert made.dropped == {}
    assert {request["model"] for request in fake.requests} == {"large"}
    (first, *_) = fake.prompts
    order = [
        first.index(part) for part in ("Task: write an exam", "Data source:", "Results of the last exam:", "exactly")
    ]
    assert order == sorted(order)
    assert "- severity major: 1 of 9 right\n" in first


def test_many_of_one_skill_are_asked_for_in_several_requests_none_like_the_other(tmp_path: Path) -> None:
    made, fake = written(tmp_path, wanted={MAJOR: 12})
    assert len(made.tasks) == 12
    assert made.dropped == {}
    assert len(set(fake.prompts)) == 3


def test_the_same_again_costs_nothing_and_gives_the_same(tmp_path: Path) -> None:
    made, _ = written(tmp_path)
    again, fake = written(tmp_path, budget=Budget(0))
    assert again == made
    assert fake.requests == []


# --- answers of every wrong kind


def first_time(wrong: Callable[[str], Said]) -> Twist:
    """Wrong once a question, then right."""
    asked: set[str] = set()

    def twist(request: Request, text: str) -> Said:
        question = str(request["messages"])[:4000]
        if question in asked or "cannot be used" in question:
            return Said(text)
        asked.add(question)
        return wrong(text)

    return twist


@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: Said(text[: len(text) // 2], finish_reason="length"),
        lambda text: Said(text[: len(text) // 2]),
        lambda _: Said("I would rather not."),
        lambda _: Said("{}"),
    ],
    ids=["cut", "broken", "no JSON", "another schema"],
)
def test_a_broken_answer_is_sent_back_once(tmp_path: Path, wrong: Callable[[str], Said]) -> None:
    made, fake = written(tmp_path, first_time(wrong))
    assert len(made.tasks) > 0
    assert any("That answer cannot be used: " in prompt for prompt in fake.prompts)


@pytest.mark.parametrize("around", ["Sure!\n{}\nI hope that helps.", "```json\n{}\n```", "<think>{{}}</think>{}"])
def test_prose_around_the_json_is_read_over(tmp_path: Path, around: str) -> None:
    made, fake = written(tmp_path, lambda _, text: Said(around.replace("{{}}", "{ }").replace("{}", text)))
    assert skills(made) == WANTED
    assert len(fake.requests) == 3


def changed(**more: object) -> Twist:
    def twist(_: Request, text: str) -> Said:
        rows = [row | more for row in json.loads(text)["questions"]]
        return Said(json.dumps({"questions": rows}))

    return twist


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"severity": "blocker"}, "cannot be used: severity"),
        ({"line": 99}, "cannot be used: line 99 is no line of the change that can take a comment"),
        ({"path": ""}, "cannot be used: path"),
        ({"path": "x.go"}, "of another skill than was asked for"),
        ({"category": "style"}, "of another skill than was asked for"),
        ({"code": "x = 1 / y\n" * 300, "line": 1}, "too long"),
        ({"code": "total = first / count\n", "line": 1}, "near one that is there already"),
        ({"code": 7}, "cannot be used: code"),
    ],
)
def test_bad_questions_are_dropped_and_counted(tmp_path: Path, more: dict[str, object], reason: str) -> None:
    made, _ = written(tmp_path, changed(**more), wanted={MAJOR: 2} if reason != "too long" else {CLEAN: 2})
    assert made.dropped[reason] >= 1
    assert made.dropped["asked for and not written"] >= 1
    assert len(made.tasks) <= 1


def test_too_many_are_cut_and_too_few_are_asked_for_again(tmp_path: Path) -> None:
    def twice(_: Request, text: str) -> Said:
        other = json.loads(text.replace("_major_", "_MAJOR_").replace("(order", "_two(order").replace(" * ", " + "))
        return Said(json.dumps({"questions": json.loads(text)["questions"] + other["questions"]}))

    made, _ = written(tmp_path / "many", twice, wanted={MAJOR: 2})
    assert len(made.tasks) == 2
    one_each: Twist = lambda _, text: Said(json.dumps({"questions": json.loads(text)["questions"][:1]}))  # noqa: E731
    made, fake = written(tmp_path / "few", one_each, wanted={MAJOR: 3})
    assert len(made.tasks) == 3
    assert len(fake.requests) == 3


def test_a_held_out_question_is_not_let_in(tmp_path: Path) -> None:
    made, _ = written(tmp_path / "one", wanted={MAJOR: 3})
    again, _ = written(tmp_path / "two", wanted={MAJOR: 3}, excluded=Seen(made.tasks))
    assert not {task.id for task in made.tasks} & {task.id for task in again.tasks}
    assert again.dropped["near one that is there already"] >= 3


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said("slow down", status=429), "answered 429: slow down. Ask later, or less at once (APPRENTICE_TEACHER_CONC"),
        (Said("oops", status=500), "answered 500: oops"),
        (Said("no", status=401), "Is the key in APPRENTICE_TEACHER_API_KEY right?"),
        (Said("model large does not exist", status=404), "Change APPRENTICE_TEACHER_MODEL"),
        (Said("", drop=True), "cannot be reached"),
        (Said("never JSON"), "unusable twice: there is no JSON object in the answer"),
    ],
    ids=lambda case: str(getattr(case, "status", "")),
)
def test_a_teacher_that_fails_is_named(tmp_path: Path, said: Said, words: str) -> None:
    with pytest.raises(TeacherError) as told:
        written(tmp_path, lambda _, __: said)
    assert words in str(told.value)
    assert "STUDENT" not in str(told.value)


def test_an_answer_that_comes_too_late_is_named(tmp_path: Path) -> None:
    def late(_: Request, text: str) -> Said:
        time.sleep(1.5)
        return Said(text)

    async def go(url: str) -> None:
        chosen = TrainerSettings(teacher_url=url, teacher_model="large", teacher_timeout_seconds=0.2, data_dir=tmp_path)
        async with Teacher(chosen, tmp_path / "teacher", Budget(10**9)) as teacher:
            await prefer(teacher, a_task(1), "It may be zero.")

    with teach(late) as fake, pytest.raises(TeacherError, match="APPRENTICE_TEACHER_TIMEOUT_SECONDS"):
        asyncio.run(go(fake.url))


def test_one_failed_request_costs_only_its_questions(tmp_path: Path) -> None:
    def twist(request: Request, text: str) -> Said:
        return Said("no", status=500) if "severity none" in str(request["messages"]) else Said(text)

    made, _ = written(tmp_path, twist)
    assert skills(made) == {MAJOR: 6, CLEAN: 0}
    assert made.dropped["asked for and not written"] == 3


def test_without_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="No teacher is set: APPRENTICE_TEACHER_URL and"):
        Teacher(TrainerSettings(), tmp_path, Budget(1))
    missing = TrainerSettings.model_construct(
        **(TrainerSettings().model_dump() | {"teacher_url": "https://x/v1", "teacher_model": "m"}),
    )
    broken = missing.model_copy(update={"teacher_ca_file": Path("/no/such.pem")})
    with pytest.raises(TeacherError, match="cannot be used as certificates"):
        Teacher(broken, tmp_path, Budget(1))


# --- what may leave


SECRET_WORDS = ("total_7", "count_7", "secret/part", "Division by zero", "It may be zero")


def test_no_byte_of_the_teams_code_leaves_without_the_operators_word(tmp_path: Path) -> None:
    samples = [a_task(7, "major", path="secret/part.py"), a_task(7, "none", path="secret/part.py")]
    _, fake = written(tmp_path, samples=samples)
    sent = "\n".join(fake.prompts)
    assert not [word for word in SECRET_WORDS if word in sent]
    assert "There is none that you may see." in sent


def test_with_it_the_teacher_sees_changes_in_fences(tmp_path: Path) -> None:
    _, fake = written(tmp_path, samples=[a_task(7, "major", path="secret/part.py")], may_see_code=True)
    sent = "\n".join(fake.prompts)
    assert "1 + total_7 = 1 / count_7\n</change " in sent
    assert "secret/part" not in sent


# --- budget


def test_a_budget_ends_it_before_it_is_overdrawn(tmp_path: Path) -> None:
    budget, wanted = Budget(tokens=3_000), {MAJOR: 1, CLEAN: 4}
    with pytest.raises(BudgetSpentError, match=r"are the most of a round \(APPRENTICE_TRAIN_MAX_TOKENS\)"):
        written(tmp_path, wanted=wanted, budget=budget)
    assert budget.spent.requests == 1
    made, fake = written(tmp_path, wanted=wanted)
    assert len(fake.requests) == 1  # what was paid is not paid again
    assert skills(made) == wanted


def test_dollars(tmp_path: Path) -> None:
    budget = Budget(tokens=10**9, dollars=0.001, price_in=1.0, price_out=5.0)
    with pytest.raises(BudgetSpentError, match=r"\$0\.00 are spent, and \$0\.00 are the most"):
        written(tmp_path, budget=budget)
    rich = Budget(tokens=10**9, dollars=10, price_in=1.0, price_out=5.0)
    written(tmp_path, budget=rich)
    assert rich.cost == pytest.approx(3 * (100 * 1 + 10 * 5) / 1e6)


# --- the judge


@pytest.mark.parametrize(
    ("answer_first", "reference_first", "preference"),
    [
        ("first", "second", Preference.ANSWER),
        ("second", "first", Preference.REFERENCE),
        ("first", "first", Preference.TIE),
        ("second", "second", Preference.TIE),
        ("tie", "tie", Preference.TIE),
        ("first", "tie", Preference.TIE),
        ("tie", "first", Preference.TIE),
    ],
)
def test_who_wins_only_in_one_order_does_not_win(
    answer_first: Place, reference_first: Place, preference: Preference
) -> None:
    assert settle(answer_first, reference_first) is preference


@pytest.mark.parametrize(
    ("explanation", "preference"),
    [
        ("It may be zero, and then the whole order fails.", Preference.ANSWER),
        ("Zero.", Preference.REFERENCE),
        ("It may be zero.", Preference.TIE),
    ],
)
def test_the_judge_is_asked_in_both_orders(tmp_path: Path, explanation: str, preference: Preference) -> None:
    with teach() as fake:
        said = with_teacher(fake, tmp_path, lambda teacher: prefer(teacher, a_task(1), explanation))
    assert said is preference
    assert len(fake.requests) == len(set(fake.prompts)) == (1 if preference is Preference.TIE else 2)
