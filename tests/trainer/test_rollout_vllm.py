"""The rollout with a real vLLM: no restart, no lost request, and none of what kills it or makes it silently wrong."""

import asyncio
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from bot.endpoint import UnknownModel
from bot.local import server
from bot.local.adapters import AdapterError, base_shapes
from bot.local.models import Base
from bot.local.state import RunningStudent, running
from bot.prompt import Message
from bot.settings import Settings
from bot.store import AdapterState, Store
from bot.student import Reply, Student
from tests.fakes.adapters import NOON, World, card
from tests.trainer.test_adapter import settings, weights
from tests.vllm_adapter import Tensor, make_adapter, write_safetensors
from trainer.adapter import publish
from trainer.rollout import RolloutError

pytestmark = pytest.mark.vllm

ONE, TWO = "student-r0001", "student-r0002"
MILD = 0.05
"""With such numbers the base still makes sense, so that a canary's answer comes to an end, and says other things."""


@pytest.fixture(scope="module")
def here(vllm_student: RunningStudent, small_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two adapters are published; the first one serves."""
    folder = tmp_path_factory.mktemp("bot")
    chosen = Settings(state_dir=vllm_student.log.parent, data_dir=folder)
    store = Store(chosen.database)
    store.migrate()
    made = World(store, chosen, (), small_base.folder)
    made.publish(ONE, seed=5, scale=MILD)
    made.publish(TWO, parent=ONE, seed=6, scale=MILD)
    yield made
    store.close()


async def ask(student: RunningStudent, adapter: str | None, tokens: int) -> Reply:
    story = {"type": "string", "minLength": 2000, "maxLength": 4000}  # longer than any answer here: all are cut
    schema = {"type": "object", "properties": {"story": story}, "required": ["story"]}
    messages: list[Message] = [{"role": "user", "content": "Tell me a long story about payments."}]
    async with Student(student.url, key=student.key, model=student.model, adapter=adapter) as client:
        return await client.ask(messages, schema=schema, max_tokens=tokens)


def answer(student: RunningStudent, adapter: str | None) -> str:
    return asyncio.run(ask(student, adapter, 24)).text


def listed(student: RunningStudent) -> set[str]:
    async def models() -> set[str]:
        async with Student(student.url, key=student.key) as client:
            return {model.id for model in await client.models()}

    return asyncio.run(models())


def loads(student: RunningStudent) -> int:
    return len(re.findall(r"POST /v1/load_lora_adapter", student.log.read_text()))


def processes(student: RunningStudent) -> set[int]:
    now = running(student.log.parent)
    assert now
    return {child.pid for child in psutil.Process(now.pid).children(recursive=True)}


def test_a_swap_under_load_restarts_nothing_and_loses_no_request(here: World, vllm_student: RunningStudent) -> None:
    before, base = processes(vllm_student), answer(vllm_student, None)
    here.rollout.try_out(ONE)
    here.store.serve_adapter(ONE, NOON)
    first = answer(vllm_student, ONE)
    assert first != base

    async def both() -> list[Reply]:
        return await asyncio.gather(*(ask(vllm_student, adapter, 300) for adapter in (ONE, None)))

    replies: list[Reply] = []
    asking = threading.Thread(target=lambda: replies.extend(asyncio.run(both())))
    asking.start()
    time.sleep(2)
    said = here.rollout.roll_out(TWO)  # no review of the bot's asks the first one: it is unloaded at once
    assert asking.is_alive()
    assert (said.serving, said.before, said.problems) == (TWO, ONE, ())
    assert said.unloaded == (f"{ONE} at {vllm_student.url}",)
    assert listed(vllm_student) >= {vllm_student.model, TWO}
    assert ONE not in listed(vllm_student)
    with pytest.raises(UnknownModel):
        answer(vllm_student, ONE)
    asking.join()
    assert len(replies) == 2
    for reply in replies:
        assert (reply.finish_reason, reply.usage.completion_tokens) == ("length", 300)
        assert reply.text.startswith('{"story":')
    assert len({base, first, answer(vllm_student, TWO)}) == 3
    assert answer(vllm_student, None) == base
    assert processes(vllm_student) == before


def poison(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\xc0\x7f")


def layers(folder: Path, base: Path) -> None:
    """One layer more than the base has: vLLM takes it and is silently wrong."""
    path = folder / "adapter_model.safetensors"
    count = 1 + max(int(found[1]) for name in base_shapes(base) if (found := re.search(r"layers\.(\d+)\.", name)))
    tensors: dict[str, Tensor] = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": (shape, bytes(4 * 8 * 576))
        for layer in range(count + 1)
        for side, shape in (("A", (8, 576)), ("B", (576, 8)))
    }
    write_safetensors(path, tensors)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder, _: weights(folder, "F32", b"\x00\x00\xc0\x7f"), "has the shape"),  # a smaller hidden size
        (layers, "the base has no model.layers.30"),
        (lambda folder, _: settings(folder, r=4), "not [4, 576]"),  # another rank than its weights have
        (lambda folder, _: settings(folder, r=32), "has rank 32, and the student takes 16"),
        (lambda folder, _: poison(folder), "holds a number that is infinite or none"),
    ],
)
def test_what_vllm_would_take_and_be_wrong_with_never_reaches_it(
    here: World, vllm_student: RunningStudent, spoil: Callable[[Path, Path], None], said: str, tmp_path: Path
) -> None:
    before = loads(vllm_student)
    tuned = make_adapter(tmp_path / "tuned", here.base, seed=3)
    spoil(tuned, here.base)
    name = "student-r0003"
    with pytest.raises(AdapterError) as caught:
        publish(tuned, name, card(name, here.base), here.folder, base=here.base, max_rank=16)
    assert said in str(caught.value)
    # Past the publishing, too: what lies there is checked again.
    known = card(name, here.base)
    here.store.register_adapter(
        name, base="base", parent=None, card=json.loads(known.model_dump_json()), state=AdapterState.CANDIDATE, at=NOON
    )
    shutil.copytree(tuned, here.folder / name)
    (here.folder / name / "card.json").write_text(known.model_dump_json())
    with pytest.raises(RolloutError):
        here.rollout.roll_out(name)
    shutil.rmtree(here.folder / name)
    assert loads(vllm_student) == before


def test_new_weights_under_an_old_name_never_reach_it(
    here: World, vllm_student: RunningStudent, tmp_path: Path
) -> None:
    before = loads(vllm_student)
    tuned = make_adapter(tmp_path / "tuned", here.base, seed=4)
    with pytest.raises(AdapterError, match="A name is given once"):
        publish(tuned, ONE, card(ONE, here.base), here.folder, base=here.base, max_rank=16)
    path = here.folder / ONE / "adapter_model.safetensors"
    kept = path.read_bytes()
    path.write_bytes((tuned / path.name).read_bytes())
    with pytest.raises(RolloutError, match="was changed after it was published"):
        here.rollout.rollback()
    path.write_bytes(kept)
    assert loads(vllm_student) == before
    assert here.serving == TWO


def test_a_restart_is_mended_and_a_folder_is_removed_only_when_nobody_lists_it(
    here: World, vllm_student: RunningStudent
) -> None:
    later = NOON + timedelta(days=9999)
    text = answer(vllm_student, TWO)
    here.publish("student-r0004", parent=TWO, seed=4)
    here.rollout.try_out("student-r0004")
    assert "student-r0004" in listed(vllm_student)
    assert here.rollout.prune(later) == ()  # it may be promoted yet, and a rollback would go back to the first one
    here.store.mark_adapter("student-r0004", AdapterState.REFUSED)
    assert here.rollout.prune(later) == ("student-r0004",)  # unloaded first
    assert "student-r0004" not in listed(vllm_student)
    assert answer(vllm_student, TWO) == text
    state_dir = vllm_student.log.parent
    for pid in processes(vllm_student):
        psutil.Process(pid).kill()
    deadline = time.monotonic() + 300
    while server.status(state_dir).state != "restarting":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert here.rollout.restore().problems
    while server.status(state_dir).state != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert TWO not in listed(vllm_student)
    assert here.rollout.restore().adapters == (f"{TWO} at {vllm_student.url}",)
    assert answer(vllm_student, TWO) == text
    assert here.rollout.rollback().serving == ONE  # loaded first
    assert answer(vllm_student, ONE) != text
    assert here.rollout.rollback().serving is None
    assert not listed(vllm_student) & {ONE, TWO}
