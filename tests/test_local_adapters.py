"""An adapter that does not fit its base is refused before vLLM takes it and is silently wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.local.adapters import AdapterError, check
from tests.vllm_adapter import Tensor, make_adapter, write_safetensors

Tensors = dict[str, Tensor]


def zeros(rows: int, columns: int) -> Tensor:
    return (rows, columns), bytes(4 * rows * columns)


def base_tensors(*, layers: int = 2, hidden: int = 16) -> Tensors:
    return {
        f"model.layers.{layer}.self_attn.{name}.weight": zeros(rows, hidden)
        for layer in range(layers)
        for name, rows in (("q_proj", hidden), ("v_proj", 4))
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", base_tensors())
    return folder


def other_base(tmp_path: Path, tensors: Tensors) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def test_an_adapter_of_this_base_passes(base: Path, tmp_path: Path) -> None:
    check(make_adapter(tmp_path / "a", base, seed=1), base, max_rank=16)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (base_tensors(hidden=8), "not [8, 16]"),  # vLLM: 200 and wrong answers
        (base_tensors(hidden=32), "not [8, 16]"),
        (base_tensors(layers=3), "the base has no model.layers.2.self_attn.q_proj"),  # vLLM: the same
    ],
)
def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path, other: Tensors, said: str) -> None:
    adapter = make_adapter(tmp_path / "a", other_base(tmp_path, other), seed=1)
    with pytest.raises(AdapterError, match="does not fit") as caught:
        check(adapter, base, max_rank=16)
    assert said in str(caught.value)


def test_a_quantised_base_has_no_shapes_to_compare(base: Path, tmp_path: Path) -> None:
    quantised = {name.replace(".weight", ".qweight"): tensor for name, tensor in base_tensors().items()}
    check(make_adapter(tmp_path / "a", base, seed=1), other_base(tmp_path, quantised), max_rank=16)


def config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: config(folder, r=4), "has the shape [8, 16], not [4, 16]"),
        (lambda folder: config(folder, r=64), "has rank 64, and the student takes 16"),
        (lambda folder: config(folder, use_dora=True), "no plain LoRA"),
        (lambda folder: config(folder, modules_to_save=["lm_head"]), "no plain LoRA"),
        (lambda folder: config(folder, peft_type="IA3"), "no plain LoRA"),
        (lambda folder: config(folder, r="many"), "is no adapter"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "is no adapter"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "it has no adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "it has no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"PK"), "no safetensors file"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 100), "no safetensors file"),
        (cut, "is cut short"),
        (lambda folder: write_safetensors(folder / "adapter_model.safetensors", {}), "it holds no weights"),
        (
            lambda folder: write_safetensors(folder / "adapter_model.safetensors", {"lm_head.weight": zeros(2, 2)}),
            "lm_head.weight is no LoRA weight",
        ),
    ],
)
def test_a_spoilt_adapter_is_refused(base: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    adapter = make_adapter(tmp_path / "a", base, seed=1)
    spoil(adapter)
    with pytest.raises(AdapterError) as caught:
        check(adapter, base, max_rank=16)
    assert said in str(caught.value)
    assert str(adapter) in str(caught.value)
