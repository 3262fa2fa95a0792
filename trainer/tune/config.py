"""`TuneConfig`: all that an engine is told, as one JSON file. It is the only thing that the two sides share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILE = "tune.json"


@dataclass(frozen=True, slots=True)
class Pace:
    """How the rows are gone through.

    Args:
        steps: how many.
        batch: what one step learns from, over all devices: rows, or with packing packs of rows.
        micro_batch: how many of these a device holds at once.
    """

    steps: int
    batch: int
    micro_batch: int


class TuneConfig(BaseModel):
    """What is trained, on what, and how. Each default says why it is that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Annotated[
        Literal["automodel", "toolkit"],
        Field(description="automodel: NVIDIA's maintained recipe, resumes exactly; toolkit: nemo_toolkit's loop"),
    ] = "automodel"
    base: Annotated[Path, Field(description="folder of the base model in Hugging Face's form")]
    train: Annotated[Path, Field(description="JSON lines of chat rows to learn from")]
    val: Annotated[Path, Field(description="JSON lines of chat rows that only measure")]
    folder: Annotated[Path, Field(description="where checkpoints, logs and the adapter go; one folder a configuration")]
    rank: Annotated[int, Field(ge=1, description="16: enough for one task, and what vLLM's slots are made for")] = 16
    alpha: Annotated[int, Field(ge=1, description="twice the rank, as in most published LoRA recipes")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1, description="0: few epochs over checked rows, and exact resume")] = 0.0
    target_modules: Annotated[
        str, Field(description="all projections: better than attention alone, at little cost")
    ] = "*_proj"
    learning_rate: Annotated[float, Field(gt=0, lt=1, description="2e-4, the usual one of LoRA with Adam")] = 2e-4
    warmup_share: Annotated[float, Field(ge=0, lt=1, description="a twentieth of all steps")] = 0.05
    epochs: Annotated[int, Field(ge=1, description="2: what is seen more often is learnt by heart")] = 2
    max_steps: Annotated[int | None, Field(ge=1, description="none: as many as the epochs need")] = None
    batch: Annotated[int, Field(ge=1, description="rows of one step: 16 smooths a small set")] = 16
    micro_batch: Annotated[int, Field(ge=1, description="rows that a device holds at once: 2 fit a small GPU")] = 2
    sequence_tokens: Annotated[
        int, Field(ge=64, description="the student's prompts have some 600, answers up to 500")
    ] = 4096
    long_rows: Annotated[
        Literal["refuse", "drop"],
        Field(description="refuse: longer rows are an error that names them, since the engine would cut their answers"),
    ] = "refuse"
    packing: Annotated[
        bool, Field(description="several rows in a sequence, for GPUs with FlashAttention: no token is padding")
    ] = False
    validate_every: Annotated[int, Field(ge=1, description="steps between validations, and between checkpoints")] = 20
    patience: Annotated[int, Field(ge=1, description="validations without a better loss before it stops")] = 3
    seed: Annotated[int, Field(ge=0, description="where chance begins")] = 0
    precision: Annotated[Literal["bfloat16", "float32"], Field(description="bfloat16 on GPUs, float32 on CPUs")] = (
        "float32"
    )
    device: Annotated[Literal["gpu", "cpu"], Field(description="what computes")] = "cpu"
    devices: Annotated[int, Field(ge=1, description="GPUs of this machine that share each step, through torchrun")] = 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch % (self.micro_batch * self.devices):
            share = f"{self.micro_batch} x {self.devices}"
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch x devices ({share})")
        if self.engine == "toolkit" and (self.packing or self.devices > 1):
            raise ValueError("the engine toolkit has neither packing nor several devices: take automodel")
        return self

    def pace(self, lengths: Sequence[int]) -> Pace:
        """How to go through training rows of so many tokens."""
        batch, micro_batch, items = self.batch, self.micro_batch, len(lengths)
        if self.packing:
            items = max(1, math.ceil(sum(lengths) / self.sequence_tokens))
            micro_batch = 1  # it is as long as any row can be
            share = micro_batch * self.devices
            batch = max(1, round(self.batch * items / max(1, len(lengths)) / share)) * share
        steps = self.epochs * max(1, math.ceil(items / batch))
        return Pace(steps if self.max_steps is None else min(steps, self.max_steps), batch, micro_batch)
