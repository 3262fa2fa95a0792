"""NeMo for real, in miniature: a small model, a few rows, a few steps, on whatever computes here."""

import json
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest
from pydantic import BaseModel, TypeAdapter

from bot.answer import Suspect
from bot.diff import Line, LineKind
from bot.local.adapters import check
from bot.local.environment import Device
from bot.local.files import sha256
from bot.local.models import Base
from bot.local.progress import Shown
from bot.local.state import RunningStudent
from bot.plan import Question
from bot.prompt import Brief, Part
from bot.settings import load
from trainer.example import Lineage, Origin, Task
from trainer.tune.check import TuneError
from trainer.tune.config import TuneConfig
from trainer.tune.environment import ensure
from trainer.tune.launch import Tuned, TunePausedError, tune
from trainer.tune.progress import Progress

pytestmark = pytest.mark.nemo

STEPS = 6


def task(number: int) -> Task:
    lines = tuple(Line(LineKind.ADDED, f"total = {row} / count_{number}", None, row) for row in (1, 2))
    return Task(
        question=Question(Part(f"shop/part_{number}.py", lines), Brief(title=f"Part {number}")),
        answer=Suspect(
            line=1,
            quote=f"total = 1 / count_{number}",
            explanation="The count may be zero." if number % 2 else "It is never zero.",
            severity="major" if number % 2 else "none",
            category="correctness",
            title="Division by zero" if number % 2 else "",
        ),
        origin=Origin.FILE,
        weight=1,
        lineage=Lineage(source="a test"),
    )


TRAIN, VAL = [task(number) for number in range(12)], [task(number) for number in range(20, 24)]


def write(path: Path, tasks: list[Task]) -> Path:
    rows = ({"messages": [*one.messages, {"role": "assistant", "content": one.completion}]} for one in tasks)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def python() -> Path:
    with Shown() as progress:
        return ensure(load({}).cache_dir, progress, Device.CPU)


@pytest.fixture(scope="module")
def configured(small_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TuneConfig]:
    def make(**more: object) -> TuneConfig:
        folder = tmp_path_factory.mktemp("tune")
        told = {
            "base": small_base.folder,
            "train": write(folder / "train.jsonl", TRAIN),
            "val": write(folder / "val.jsonl", VAL),
            "folder": folder / "tune",
            "rank": 8,
            "alpha": 16,
            "max_steps": STEPS,
            "batch": 2,
            "sequence_tokens": 1024,
            "validate_every": 2,
            "learning_rate": 1e-3,
        }
        return TuneConfig.model_validate(told | more)

    return make


def unwatched(_: Progress) -> None:
    pass


@pytest.fixture(scope="module")
def unbroken(configured: Callable[..., TuneConfig], python: Path) -> Tuned:
    seen: list[Progress] = []
    tuned = tune(configured(), python, seen.append, most_seconds=900)
    assert [each.step for each in seen] == sorted(each.step for each in seen)
    assert seen[-1].step == seen[-1].of == STEPS
    return tuned


def test_it_learns_and_makes_an_adapter_that_fits_its_base(unbroken: Tuned, small_base: Base) -> None:
    assert (unbroken.steps, unbroken.of, unbroken.rows, unbroken.stopped_early) == (STEPS, STEPS, len(TRAIN), False)
    assert [step for step, _ in unbroken.losses] == list(range(1, STEPS + 1))
    (first, *_, last) = (loss for _, loss in unbroken.val_losses)
    assert last < first
    assert unbroken.tokens_per_second > 0
    check(unbroken.adapter, small_base.folder, max_rank=8)


def test_killed_in_the_middle_it_goes_on_to_the_same_adapter(
    configured: Callable[..., TuneConfig], python: Path, unbroken: Tuned
) -> None:
    config = configured()

    def kill(seen: Progress) -> None:
        if seen.step >= 3:
            for child in psutil.Process().children(recursive=True):
                if "automodel.py" in " ".join(child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(TunePausedError, match="The engine was killed"):
        tune(config, python, kill, most_seconds=900)
    again = tune(config, python, unwatched, most_seconds=900)
    assert again.losses == unbroken.losses
    weights = "adapter_model.safetensors"
    assert sha256(again.adapter / weights) == sha256(unbroken.adapter / weights)


def test_it_stops_when_asked_and_when_validation_grows_no_better(
    configured: Callable[..., TuneConfig], python: Path
) -> None:
    config = configured(learning_rate=0.3, patience=1, max_steps=40, warmup_share=0)
    stop = threading.Event()

    def ask(seen: Progress) -> None:
        if seen.step >= 1:
            stop.set()

    with pytest.raises(TunePausedError, match="somebody asked for it"):
        tune(config, python, ask, most_seconds=900, stop=stop)
    tuned = tune(config, python, unwatched, most_seconds=900)
    assert tuned.stopped_early
    assert tuned.steps < 40


def test_what_the_engine_does_not_take_is_named(configured: Callable[..., TuneConfig], python: Path) -> None:
    config = configured(target_modules="*_nothing")
    with pytest.raises(TuneError, match=r"The engine failed: .+ Its log: "):
        tune(config, python, unwatched, most_seconds=900)


def test_other_settings_need_another_folder(configured: Callable[..., TuneConfig], python: Path) -> None:
    config = configured()
    config.folder.mkdir()
    (config.folder / "tune.json").write_text(config.model_copy(update={"rank": 16}).model_dump_json())
    with pytest.raises(TuneError, match="other settings"):
        tune(config, python, unwatched, most_seconds=900)


def test_both_engines_see_the_same_loss_and_learn_the_same(
    configured: Callable[..., TuneConfig], python: Path, tmp_path: Path, small_base: Base
) -> None:
    rows = write(tmp_path / "train.jsonl", TRAIN[:4])  # all of them in one step: their order is of no importance
    whole = {"train": rows, "batch": 4, "max_steps": 1, "validate_every": 1, "warmup_share": 0}
    one, other = (
        tune(configured(engine=engine, **whole), python, unwatched, most_seconds=900)
        for engine in ("automodel", "toolkit")
    )
    ((_, first),), ((_, same),) = one.losses, other.losses
    assert math.isclose(first, same, rel_tol=1e-5)
    assert math.isclose(one.val_loss, other.val_loss, rel_tol=0.05)  # LoRA's first weights are drawn by chance
    check(other.adapter, small_base.folder, max_rank=8)
    assert other.versions["nemo_toolkit"]


# --- what is trained is what is served


def post(student: RunningStudent, path: str, body: dict[str, object]) -> dict[str, object]:
    answer = httpx2.post(
        f"{student.url}{path}", json=body, headers={"authorization": f"Bearer {student.key}"}, timeout=900
    )
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json() if answer.text.startswith("{") else {}
    return told


@pytest.mark.vllm
def test_the_loss_through_vllm_is_the_trainers_own(unbroken: Tuned, vllm_student: RunningStudent) -> None:
    """Same tokens, same mask, same weights: else training and serving have drifted apart."""
    post(vllm_student, "/load_lora_adapter", {"lora_name": "nemo", "lora_path": str(unbroken.adapter)})
    losses = {model: loss_through(vllm_student, model) for model in (vllm_student.model, "nemo")}
    assert losses["nemo"] < losses[vllm_student.model]
    (*_, (_, trainers)) = unbroken.val_losses
    assert math.isclose(losses["nemo"], trainers, rel_tol=0.01)


def loss_through(student: RunningStudent, model: str) -> float:
    """Mean negative log-likelihood of the answers' tokens, with the prompt that vLLM itself makes of the messages."""
    logprobs: list[float] = []
    for one in VAL:
        turns: list[object] = [dict(turn) for turn in one.messages]
        ahead = tokens(student, model, turns, prompt=True)
        whole = tokens(student, model, [*turns, {"role": "assistant", "content": one.completion}], prompt=False)
        assert whole[: len(ahead)] == ahead
        asked = {"model": model, "prompt": whole, "max_tokens": 1, "prompt_logprobs": 0, "temperature": 0}
        said = Echo.model_validate(post(student, "/completions", asked)).choices[0].prompt_logprobs
        for position in range(len(ahead), len(whole)):
            found = said[position]
            assert found is not None
            logprobs.append(found[whole[position]].logprob)
    return -sum(logprobs) / len(logprobs)


class Logprob(BaseModel):
    logprob: float


class Echoed(BaseModel):
    prompt_logprobs: list[dict[int, Logprob] | None]


class Echo(BaseModel):
    """What vLLM says of a prompt's own tokens."""

    choices: list[Echoed]


def tokens(student: RunningStudent, model: str, messages: list[object], *, prompt: bool) -> list[int]:
    """What vLLM makes of a chat, by its own word."""
    asked = {"model": model, "messages": messages, "max_tokens": 1, "return_token_ids": True}
    said = post(student, "/chat/completions", asked | {"add_generation_prompt": prompt})
    return TypeAdapter(list[int]).validate_python(said["prompt_token_ids"])
