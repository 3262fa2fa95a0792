"""Makes a small LoRA adapter without torch: random weights from a fixed seed, strong enough to change answers."""

import array
import json
import random
from pathlib import Path

from bot.local.adapters import base_shapes

RANK = 8
TARGETS = ("self_attn.q_proj", "self_attn.v_proj")

Tensor = tuple[tuple[int, int], bytes]  # shape, and 32-bit floats


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """The format: the header's length in eight bytes, the header as JSON, the numbers one after the other."""
    header, offset = {}, 0
    for name, (shape, numbers) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(numbers)]}
        offset += len(numbers)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, numbers in tensors.values():
            file.write(numbers)


def make_adapter(folder: Path, base: Path, *, seed: int, rank: int = RANK, scale: float = 0.1) -> Path:
    """An adapter for the query and value projections of every layer of the base; by `scale` it still speaks like it."""
    numbers = random.Random(seed)  # noqa: S311 -- not a secret
    tensors = {}
    for name, shape in sorted(base_shapes(base).items()):
        module = name.removesuffix(".weight")
        if module.endswith(TARGETS):
            outputs, inputs = shape
            sides: dict[str, tuple[int, int]] = {"A": (rank, inputs), "B": (outputs, rank)}
            for side, (rows, columns) in sides.items():
                values = array.array("f", (numbers.gauss(0, scale) for _ in range(rows * columns)))
                tensors[f"base_model.model.{module}.lora_{side}.weight"] = (sides[side], values.tobytes())
    folder.mkdir(parents=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [target.rpartition(".")[2] for target in TARGETS],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
