"""An adapter as a folder that never changes: checked against its base, described by a card, published whole or not.

vLLM 0.32.0 loads adapters that do not fit and is silently wrong from then on, mixes the weights of two that had one
name, and dies when it looks for a folder that is gone. So a name is given once, to a folder that was checked before,
and is checked again each time before vLLM is told of it.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from bot.local.adapters import WEIGHT, AdapterError, base_shapes, check, read_shapes
from bot.local.files import sha256
from bot.serving import changed

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "card.json"

_NAME = re.compile(r"student-r(\d{4,})")
_SAMPLE = 256
"""Bytes of each of the base's weights that go into its fingerprint: a base that was tuned differs in most of them."""
_VOLATILE = frozenset({"_name_or_path", "transformers_version"})

# Of a number that is infinite or none, all bits of the exponent are set.
_EXPONENT: Mapping[str, tuple[str, int]] = {
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


class NameTakenError(AdapterError):
    """There is another adapter of that name."""


class Card(BaseModel):
    """What is known of an adapter, beside its weights.

    Args:
        name: of the adapter.
        base: name of the model that it adapts, and its `fingerprint`.
        parent: the adapter that it was trained on; None: the base alone.
        round: the round that made it.
        dataset: hash of what it was trained on.
        prompt_id: of the prompts in that.
        hyper_parameters: what the training was told.
        scores: what it reached.
        versions: of what trained it.
        created_at: when.
        files: hash of each file, put in when it is published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    base: str
    fingerprint: str
    parent: str | None = None
    round: str
    dataset: str
    prompt_id: str
    hyper_parameters: dict[str, JsonValue] = {}
    scores: dict[str, JsonValue] = {}
    versions: dict[str, str] = {}
    created_at: AwareDatetime
    files: dict[str, str] = {}


class _Config(BaseModel):
    """What matters besides `bot.local.adapters.Config`."""

    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    target_modules: list[str] | str = Field(min_length=1)


def next_name(existing: Iterable[str]) -> str:
    """The next free name; one that was used is never used again, so `existing` must hold those of old adapters too."""
    numbers = [int(found[1]) for name in existing if (found := _NAME.fullmatch(name))]
    return f"student-r{max(numbers, default=0) + 1:04d}"


def fingerprint(base: Path) -> str:
    """Sixteen hex digits of a base model's settings, the shapes of its weights and a sample of each.

    Raises:
        AdapterError: the folder holds no model.
    """
    try:
        told = json.loads((base / "config.json").read_bytes())
        settings = {name: value for name, value in told.items() if name not in _VOLATILE}
        shapes = sorted((name, list(shape)) for name, shape in base_shapes(base).items())
        digest = hashlib.sha256(json.dumps([settings, shapes], sort_keys=True).encode())
        for path in sorted(base.glob("*.safetensors")):
            digest.update(_sample(path))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{base} is no base model: {error}") from error
    if not shapes:
        raise AdapterError(f"{base} is no base model: it holds no weights")
    return digest.hexdigest()[:16]


def _sample(path: Path) -> bytes:
    header, start = _header(path)
    parts = []
    with path.open("rb") as file:
        for _, one in sorted(header.items()):
            begin, end = one["data_offsets"]
            file.seek(start + begin)
            parts.append(file.read(min(end - begin, _SAMPLE)))
    return b"".join(parts)


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """What a safetensors file says of its tensors, and where their numbers begin; `read_shapes` has checked it."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header, 8 + size


def validate(folder: Path, base: Path, *, max_rank: int) -> None:
    """Make sure that vLLM can serve the adapter in a folder on this base, and answers with nothing but its weights.

    Raises:
        AdapterError: what is wrong with it.
    """
    check(folder, base, max_rank=max_rank)
    try:
        _Config.model_validate_json((folder / CONFIG).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AdapterError(f"{folder} is no adapter: {CONFIG}: {where}: {first['msg']}") from None
    halves: dict[str, set[str]] = {}
    for name in read_shapes(folder / WEIGHTS):
        if found := WEIGHT.match(name):
            halves.setdefault(found["module"], set()).add(found["side"])
    if lame := sorted(module for module, sides in halves.items() if len(sides) == 1):
        raise AdapterError(f"{folder} is no whole adapter: {lame[0]} has only one of lora_A and lora_B")
    if wrong := _not_finite(folder / WEIGHTS):
        raise AdapterError(f"{folder} cannot be used: {wrong} holds a number that is infinite or none")


def _not_finite(path: Path) -> str | None:
    """The first tensor with such a number."""
    header, start = _header(path)
    for name, one in header.items():
        kind, exponent = _EXPONENT.get(one["dtype"], ("", 0))
        if not kind:
            raise AdapterError(f"{path.parent} cannot be used: {name} is of the type {one['dtype']}")
        begin, end = one["data_offsets"]
        bits = np.fromfile(path, dtype=kind, count=(end - begin) // np.dtype(kind).itemsize, offset=start + begin)
        if np.any(bits & exponent == exponent):
            return name
    return None


def publish(tuned: Path, name: str, card: Card, adapters: Path, *, base: Path, max_rank: int) -> Path:
    """Check what the training made, and put it into a folder of its own for good.

    A process may be killed at any point of it, and it may be run again: there is either the whole folder or none.

    Args:
        tuned: where the training left it.
        name: of the new folder and adapter.
        card: what is known of it.
        adapters: the folder of all adapters.
        base: the folder of the model that it was trained on.
        max_rank: the largest rank that vLLM was started for.

    Raises:
        AdapterError: it cannot be served, or was trained on another base.
        NameTakenError: another one has that name.
    """
    if card.name != name:
        raise AdapterError(f"the card is that of {card.name}, not of {name}")
    _fitting(tuned, card, base, max_rank)
    whole = card.model_copy(update={"files": {file: sha256(tuned / file) for file in (CONFIG, WEIGHTS)}})
    target = adapters / name
    if target.exists():
        if _same(target, whole):
            return target
        raise NameTakenError(f"there is an adapter {name} already: {target}. A name is given once")
    adapters.mkdir(mode=0o755, parents=True, exist_ok=True)
    making = adapters / f".publishing-{name}"
    shutil.rmtree(making, ignore_errors=True)  # what a killed process left
    making.mkdir()
    for file in (CONFIG, WEIGHTS):
        shutil.copyfile(tuned / file, making / file)
    (making / CARD).write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for file in (CONFIG, WEIGHTS, CARD):
        (making / file).chmod(0o644)  # the student may be another user's
        _sync(making / file)
    making.chmod(0o755)
    _sync(making)
    making.rename(target)
    _sync(adapters)
    return target


def _same(folder: Path, card: Card) -> bool:
    """Whether a folder holds this very adapter."""
    try:
        return read(folder).files == card.files
    except AdapterError:
        return False


def _sync(path: Path) -> None:
    """See to it that it is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(folder: Path) -> Card:
    """The card of a published adapter, whose files must be those that were published.

    Raises:
        AdapterError: they are not, or are gone.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder} is gone")
    try:
        card = Card.model_validate_json((folder / CARD).read_bytes())
    except (OSError, ValidationError) as error:
        raise AdapterError(f"{folder} was not published whole: {CARD}: {error}") from error
    if card.name != folder.name:
        raise AdapterError(f"{folder} holds the card of {card.name}")
    if problem := changed(folder, {"files": card.files}):
        raise AdapterError(problem)
    return card


def ready(folder: Path, base: Path, *, max_rank: int) -> Card:
    """The same, for one that vLLM is about to be told of: checked against the base as it is now.

    Raises:
        AdapterError: it cannot be served.
    """
    card = read(folder)
    _fitting(folder, card, base, max_rank)
    return card


def _fitting(folder: Path, card: Card, base: Path, max_rank: int) -> None:
    validate(folder, base, max_rank=max_rank)
    if (found := fingerprint(base)) != card.fingerprint:
        raise AdapterError(
            f"{folder} was trained on another base ({card.fingerprint}) than the one in {base} ({found}): "
            "its answers would be wrong"
        )
