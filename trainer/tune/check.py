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
from trainer.tune.gpu import free_memory

TEMPLATE_TOKENS = 16
"""What a chat template adds to a message, rounded up."""
LEAST_ROWS = 2
CHECKPOINTS = 4
"""So many checkpoints are on the disk at once, at most: two recent ones, the best one, and the one that is written."""
PROJECTIONS = 7
"""Of a layer, four of attention and three of the MLP."""
FLOAT = 4
"""Bytes."""
LOGS = 100_000_000
"""Bytes on the disk, beside checkpoints."""
LIBRARIES = 1_000_000_000
"""Bytes of memory of an engine without a model."""
ACTIVATIONS = 20
"""Numbers that a layer keeps of each token for the way back, in hidden sizes."""


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
class Rows:
    """One file of rows, as it was read.

    Args:
        lines: the rows that are learnt from, or measured by, in ASCII: the engine takes U+2028 and its like for the
            end of a line.
        lengths: their tokens.
        long: what is too long, in words.
        problems: what is no row, in words.
    """

    lines: tuple[str, ...]
    lengths: tuple[int, ...]
    long: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in the files.

    Args:
        train: rows to learn from.
        val: rows that measure.
    """

    train: Rows
    val: Rows

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.train.lengths + self.val.lengths)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The rows that were left out, since they are too long."""
        return self.train.long + self.val.long


def check(config: TuneConfig, count: Callable[[str], int]) -> Checked:
    """Make sure that a fine-tuning can begin.

    Args:
        config: what is to be done.
        count: tokens of a text, by the base model's tokenizer.

    Raises:
        TuneError: with all that is wrong.
    """
    problems = base_problems(config.base)
    if problems:
        raise TuneError("\n".join(problems))  # without a tokenizer no row can be measured
    found: list[Rows] = []
    for path in (config.train, config.val):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path} cannot be read: {error}")
            continue
        rows = read_rows(path.name, text.split("\n"), count, config.sequence_tokens)
        problems += rows.problems + (rows.long if config.long_rows == "refuse" else ())
        if not rows.problems and len(rows.lines) < LEAST_ROWS:
            problems.append(f"{path.name} has {len(rows.lines)} rows that fit, and {LEAST_ROWS} are the least")
        found.append(rows)
    if problems:
        raise TuneError("\n".join(problems))
    checked = Checked(*found)
    if problems := space_problems(config, checked.longest):
        raise TuneError("\n".join(problems))
    return checked


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
        settings.is_file() and "chat_template" in settings.read_text(encoding="utf-8")
    )
    if not template:
        return [f"{base} has no chat template: take an instruct model, not a bare one"]
    try:
        _shape(base)
    except ValidationError as error:
        return [f"{base} is no language model that can be tuned: config.json: {error.errors()[0]['loc'][0]} is missing"]
    return []


def read_rows(name: str, lines: Sequence[str], count: Callable[[str], int], most: int) -> Rows:
    """Check the lines of one file. Of a row that is too long the engine would cut off the answer, in silence."""
    kept: list[tuple[str, int]] = []
    long: list[str] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
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
        if tokens > most:
            long.append(f"{name}:{number}: {tokens} tokens, and {most} are the most (APPRENTICE_TRAIN_SEQUENCE_TOKENS)")
        else:
            kept.append((json.dumps(json.loads(line)), tokens))
    return Rows(tuple(line for line, _ in kept), tuple(tokens for _, tokens in kept), tuple(long), tuple(problems))


class _Shape(BaseModel):
    """What of a base's `config.json` its needs depend on."""

    hidden_size: int
    num_hidden_layers: int
    vocab_size: int


def adapter_bytes(config: TuneConfig) -> int:
    """How large the adapter's weights are, rounded up."""
    shape = _shape(config.base)
    wide = 3 * shape.hidden_size  # the projections of an MLP are about so wide at one end
    return shape.num_hidden_layers * PROJECTIONS * 2 * config.rank * wide * FLOAT


def checkpoint_bytes(config: TuneConfig) -> int:
    """What one checkpoint takes: the weights, and the two moments that Adam keeps of each."""
    return 3 * adapter_bytes(config)


def space_problems(config: TuneConfig, longest: int) -> list[str]:
    """Whether disk and memory are enough for rows of at most so many tokens."""
    problems = []
    disk = CHECKPOINTS * checkpoint_bytes(config) + LOGS
    if (free := free_space(config.folder)) < disk:
        problems.append(f"{config.folder} needs {megabytes(disk)}, and {megabytes(free)} are free")
    weights = sum(path.stat().st_size for path in config.base.glob("*.safetensors"))
    memory = LIBRARIES + weights
    if config.device == "cpu":  # in float32, twice as large as on the disk, with all that a step holds
        memory += weights + 2 * checkpoint_bytes(config) + _step_bytes(config, longest)
    if (there := psutil.virtual_memory().available) < memory:
        problems.append(f"It needs about {megabytes(memory)} of memory, and {megabytes(there)} are free")
    if config.device == "gpu" and (frees := free_memory()):
        wanted = weights + 2 * checkpoint_bytes(config) + _step_bytes(config, longest) // 2  # in bfloat16
        if (least := min(frees[: config.devices])) < wanted:
            problems.append(
                f"Each GPU needs about {megabytes(wanted)} of free memory, and {megabytes(least)} are free on one: "
                "something else has the rest. Leave room beside a student on the same GPU (`apprentice student start "
                "--gpu-share 0.5`), or name another GPU (CUDA_VISIBLE_DEVICES)"
            )
    return problems


def _step_bytes(config: TuneConfig, longest: int) -> int:
    """What a device holds of the rows of a step on the way there and back, in float32."""
    shape = _shape(config.base)
    each = 3 * shape.vocab_size + ACTIVATIONS * shape.num_hidden_layers * shape.hidden_size
    return config.micro_batch * longest * FLOAT * each


def _shape(base: Path) -> _Shape:
    told = json.loads((base / "config.json").read_bytes())
    return _Shape.model_validate(told.get("text_config", told))  # beside a model's other senses
