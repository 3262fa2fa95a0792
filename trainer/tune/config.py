"""`TuneConfig`: all that an engine is told, as one JSON file. It is the only thing that the two sides share."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FILE = "tune.json"


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
    micro_batch: Annotated[int, Field(ge=1, description="rows at once: 2 fit a small GPU's memory")] = 2
    sequence_tokens: Annotated[
        int, Field(ge=64, description="the student's prompts have some 600, answers up to 500")
    ] = 4096
    packing: Annotated[bool, Field(description="fill sequences with several rows: faster, and the same loss")] = False
    validate_every: Annotated[int, Field(ge=1, description="steps between validations, and between checkpoints")] = 20
    patience: Annotated[int, Field(ge=1, description="validations without a better loss before it stops")] = 3
    seed: Annotated[int, Field(ge=0, description="where chance begins")] = 0
    precision: Annotated[Literal["bfloat16", "float32"], Field(description="bfloat16 on GPUs, float32 on CPUs")] = (
        "float32"
    )
    device: Annotated[Literal["gpu", "cpu"], Field(description="what computes")] = "cpu"

    @property
    def accumulation(self) -> int:
        """Micro-batches of one step, on one device."""
        return max(1, self.batch // self.micro_batch)

    def steps(self, rows: int) -> int:
        """How many steps it takes for so many rows, on one device; at least one."""
        wanted = max(1, rows * self.epochs // self.batch)
        return wanted if self.max_steps is None else min(wanted, self.max_steps)
