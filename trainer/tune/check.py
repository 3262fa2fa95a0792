"""What is checked before an engine starts: its own errors name neither row nor file, and come after minutes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from bot.local.files import free_space, megabytes
from trainer.tune.config import TuneConfig

TEMPLATE_TOKENS = 16
"""What a chat template adds to a message, rounded up."""
LEAST_ROWS = 2
CHECKPOINTS = 4
"""So many checkpoints are on the disk at once, at most: two recent ones, the best one, and the one that is written."""


class TuneError(RuntimeError):
    """It cannot be trained; the message says why, and the way out."""


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRow(BaseModel):
    """One line of a file to learn from: prompt and answer."""

    model_config = ConfigDict(extra="forbid")

    messages: list[_Turn]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in the files.

    Args:
        train: rows to learn from; `val`: rows that measure.
        longest: tokens of the longest row.
    """

    train: int
    val: int
    longest: int


def check(config: TuneConfig, count: Callable[[str], int]) -> Checked:
    """Make sure that a fine-tuning can begin.

    Args:
        config: what is to be done.
        count: tokens of a text, by the base model's tokenizer.

    Raises:
        TuneError: with all that is wrong.
    """
    problems = base_problems(config.base)
    lengths: dict[str, list[int]] = {"train": [], "val": []}
    for name, path in (("train", config.train), ("val", config.val)):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path} cannot be read: {error}")
            continue
        lengths[name], wrong = row_lengths(path.name, lines, count, config.sequence_tokens)
        problems += wrong
        if not wrong and len(lines) < LEAST_ROWS:
            problems.append(f"{path.name} has {len(lines)} rows, and {LEAST_ROWS} are the least")
    if not problems:
        problems = space_problems(config)
    if problems:
        raise TuneError("\n".join(problems))
    return Checked(len(lengths["train"]), len(lengths["val"]), max(*lengths["train"], *lengths["val"]))


def base_problems(base: Path) -> list[str]:
    """What a folder lacks to be a base model."""
    if not base.is_dir():
        return [f"The base model's folder {base} is not there: set APPRENTICE_TRAIN_BASE."]
    wanted = {
        "config.json": "config.json",
        "tokenizer.json": "tokenizer.json",
        "*.safetensors": "weights (*.safetensors)",
    }
    problems = [f"{base} is no model: it has no {words}" for glob, words in wanted.items() if not any(base.glob(glob))]
    if problems:
        return problems
    settings = base / "tokenizer_config.json"
    template = (base / "chat_template.jinja").is_file() or (
        settings.is_file() and "chat_template" in settings.read_text()
    )
    return [] if template else [f"{base} has no chat template: take an instruct model, not a bare one"]


def row_lengths(name: str, lines: Sequence[str], count: Callable[[str], int], most: int) -> tuple[list[int], list[str]]:
    """Tokens of each row, and what is wrong with which. A row that is too long would lose its answer, silently."""
    lengths: list[int] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = ChatRow.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            problems.append(f"{name}:{number}: {'.'.join(map(str, first['loc'])) or 'row'}: {first['msg']}")
            continue
        if not row.messages or row.messages[-1].role != "assistant" or not row.messages[-1].content.strip():
            problems.append(f"{name}:{number}: it ends with no answer of the assistant")
            continue
        tokens = sum(count(message.content) + TEMPLATE_TOKENS for message in row.messages)
        lengths.append(tokens)
        if tokens > most:
            problems.append(
                f"{name}:{number}: {tokens} tokens, and {most} are the most (APPRENTICE_TRAIN_SEQUENCE_TOKENS)"
            )
    return lengths, problems


def space_problems(config: TuneConfig) -> list[str]:
    """Whether disk and memory are enough, by the size of the base and of the adapter."""
    weights = sum(path.stat().st_size for path in config.base.glob("*.safetensors"))
    hidden = int(json.loads((config.base / "config.json").read_text())["hidden_size"])
    layers = int(json.loads((config.base / "config.json").read_text())["num_hidden_layers"])
    adapter = layers * 7 * 2 * config.rank * hidden * 3 * 4  # seven projections; float32; some are three times as wide
    disk = CHECKPOINTS * 3 * adapter + 100_000_000  # weights and two moments of Adam
    problems = []
    if (free := free_space(config.folder)) < disk:
        problems.append(f"{config.folder} needs {megabytes(disk)}, and {megabytes(free)} are free")
    memory = weights * (1 if config.device == "gpu" else 2) + 3 * adapter + 1_500_000_000
    if (there := psutil.virtual_memory().available) < memory:
        problems.append(f"It needs about {megabytes(memory)} of memory, and {megabytes(there)} are free")
    return problems
