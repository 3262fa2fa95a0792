"""Checks a LoRA adapter against its base before vLLM gets it.

vLLM 0.32.0 loads an adapter of a smaller hidden size, with more layers, or with another rank than its
configuration says, answers 200, and is silently wrong from then on. So shapes are compared here, from the headers
of the safetensors files alone.
"""

import json
import re
from pathlib import Path

from pydantic import BaseModel, ValidationError

WEIGHT = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
LONGEST_HEADER = 100_000_000  # the format's own limit, bytes

Shapes = dict[str, tuple[int, ...]]


class AdapterError(RuntimeError):
    """A folder is no adapter for this base."""


class Config(BaseModel):
    """What matters here of a PEFT `adapter_config.json`."""

    r: int
    peft_type: str = "LORA"
    use_dora: bool = False
    modules_to_save: list[str] | None = None


def check(folder: Path, base: Path, *, max_rank: int) -> None:
    """Raise AdapterError unless every tensor of the adapter fits the base model in its folder."""
    try:
        config = Config.model_validate_json((folder / "adapter_config.json").read_bytes())
        shapes = read_shapes(folder / "adapter_model.safetensors")
    except FileNotFoundError as error:
        raise AdapterError(f"{folder} is no adapter: it has no {Path(error.filename).name}.") from error
    except (ValidationError, ValueError) as error:
        raise AdapterError(f"{folder} is no adapter: {error}") from error
    if config.peft_type != "LORA" or config.use_dora or config.modules_to_save:
        raise AdapterError(f"{folder} is no plain LoRA adapter (no DoRA, no modules_to_save): vLLM cannot serve it.")
    if config.r > max_rank:
        raise AdapterError(f"{folder} has rank {config.r}, and the student takes {max_rank}. Use --lora-rank.")
    if problems := misfits(shapes, base_shapes(base), config.r):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise AdapterError(f"{folder} does not fit the model in {base}: {problems[0]}{more}")


def misfits(shapes: Shapes, base: Shapes, rank: int) -> list[str]:
    """What does not fit, in words; a base whose weights are quantised has no shapes to compare."""
    problems = [] if shapes else ["it holds no weights"]
    for name, shape in sorted(shapes.items()):
        found = WEIGHT.match(name)
        if found is None:
            problems.append(f"{name} is no LoRA weight")
            continue
        weight = base.get(f"{found['module']}.weight")
        if weight is None:
            if not any(known.startswith(f"{found['module']}.") for known in base):
                problems.append(f"the base has no {found['module']}")
            continue
        wanted = (rank, weight[1]) if found["side"] == "A" else (weight[0], rank)
        if shape != wanted:
            problems.append(f"{name} has the shape {list(shape)}, not {list(wanted)}")
    return problems


def base_shapes(base: Path) -> Shapes:
    """Shape of every weight of a model."""
    return {name: shape for path in base.glob("*.safetensors") for name, shape in read_shapes(path).items()}


def read_shapes(path: Path) -> Shapes:
    """Name and shape of every tensor, out of the file's header. Raises ValueError when the file is cut."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= min(LONGEST_HEADER, path.stat().st_size - 8):
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(file.read(size))
    end = max((one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"), default=0)
    if path.stat().st_size != 8 + size + end:
        raise ValueError(f"{path.name} is cut short")
    return {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}
