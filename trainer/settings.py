"""What the operator wants of the learning loop, besides the bot's own settings.

They come from the same places (`bot.settings`): `APPRENTICE_TEACHER_*` and `APPRENTICE_TRAIN_*` in the environment, or
`teacher_*` and `train_*` in the file that `APPRENTICE_CONFIG` names.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bot.settings import PREFIX, Settings, check_address, load_as

RANKS = (1, 8, 16, 32, 64, 128)


def _check_url(url: str) -> str:
    where = f"the key belongs in {PREFIX}TEACHER_API_KEY"
    url = check_address(url, instead=where, example="https://models.example/v1")
    if not url.endswith("/v1"):
        raise ValueError(f"must end in /v1: write {url}/v1")
    return url


def _check_folder(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, not {str(path)!r}")
    if not path.is_dir():
        raise ValueError(f"names {path}, which is not a folder")
    return path


def _check_file(path: Path) -> Path:
    if not path.is_absolute() or not path.is_file():
        raise ValueError(f"must name a file by its absolute path, not {str(path)!r}")
    return path


def _check_rank(rank: int) -> int:
    if rank not in RANKS:
        raise ValueError(f"must be a rank that vLLM takes: {', '.join(map(str, RANKS))}")
    return rank


def _check_cron(text: str) -> str:
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 -- imported late: the bot does without

    try:
        CronTrigger.from_crontab(text)
    except ValueError as error:
        raise ValueError(f"must be five fields like those of a crontab, for example 0 2 * * 6 ({error})") from None
    return text


def _check_window(text: str) -> str:
    found = re.fullmatch(r"([01]?\d|2[0-3])-([01]?\d|2[0-3])", text)
    if not found or found[1] == found[2]:
        raise ValueError("must be two hours of the day with a - between them, for example 22-6")
    return text


class TrainerSettings(Settings):
    """The settings in force for the learning loop. Made by `load`; a field's description says what is allowed."""

    teacher_url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        default=None, description="address of the teacher's OpenAI-compatible endpoint, ends in /v1"
    )
    teacher_model: str | None = Field(default=None, description="the teacher's name at its endpoint")
    teacher_api_key: SecretStr | None = Field(default=None, description="the endpoint's key, text")
    teacher_ca_file: Annotated[Path, AfterValidator(_check_file)] | None = Field(
        default=None, description="file with the certificates (PEM) to trust instead of the system's"
    )
    teacher_timeout_seconds: float = Field(
        default=300, gt=0, le=3600, description="seconds to wait for one answer, more than 0 and at most 3600"
    )
    teacher_concurrency: int = Field(
        default=4, ge=1, le=64, description="requests in flight at once, a whole number from 1 to 64"
    )
    teacher_may_see_code: bool = Field(
        default=False,
        description="true or false: whether your code, without secrets, may be sent to the teacher's endpoint",
    )
    teacher_price_in: float = Field(
        default=0, ge=0, description="dollars for a million tokens that the teacher reads, 0 or more"
    )
    teacher_price_out: float = Field(
        default=0, ge=0, description="dollars for a million tokens that the teacher writes, 0 or more"
    )

    train_base: Annotated[Path, AfterValidator(_check_folder)] | None = Field(
        default=None,
        description="folder of the student's base model in Hugging Face's form; without it, that of the student which "
        "runs on this machine",
    )
    train_examples: Annotated[Path, AfterValidator(_check_folder)] | None = Field(
        default=None, description="folder with labelled examples of yours, files that end in .jsonl"
    )
    train_questions: int = Field(
        default=120, ge=5, le=5_000, description="questions of an exam, a whole number from 5 to 5000"
    )
    train_lessons: int = Field(
        default=200, ge=0, le=20_000, description="examples that the teacher writes a round, from 0 to 20000"
    )
    train_heldout: int = Field(
        default=200, ge=10, le=10_000, description="size of the held-out set, a whole number from 10 to 10000"
    )
    train_least_tasks: int = Field(
        default=50, ge=1, description="labelled items without which no round begins, a whole number from 1"
    )
    train_max_tokens: int = Field(
        default=5_000_000, ge=0, description="tokens that the teacher may read and write in one round, from 0"
    )
    train_max_dollars: float | None = Field(
        default=None, gt=0, description="dollars that a round may cost by the prices above, more than 0"
    )
    train_max_hours: float = Field(
        default=12, gt=0, le=168, description="hours that the fine-tuning of one round may take, up to 168"
    )
    train_engine: Literal["automodel", "toolkit"] = Field(
        default="automodel", description="automodel or toolkit: which part of NVIDIA NeMo trains"
    )
    train_rank: Annotated[int, AfterValidator(_check_rank)] = Field(
        default=16, description="rank of the adapter, one that vLLM takes: 1, 8, 16, 32, 64 or 128"
    )
    train_learning_rate: float = Field(default=2e-4, gt=0, lt=1, description="learning rate, between 0 and 1")
    train_epochs: int = Field(default=2, ge=1, le=50, description="times that all rows are seen, from 1 to 50")
    train_max_steps: int | None = Field(
        default=None, ge=1, description="most steps of a round, a whole number from 1; without it, what epochs need"
    )
    train_batch: int = Field(
        default=16, ge=1, le=4_096, description="rows that one step learns from, a whole number from 1 to 4096"
    )
    train_micro_batch: int = Field(
        default=2,
        ge=1,
        le=1_024,
        description="rows that a device holds at once, from 1 to 1024; APPRENTICE_TRAIN_BATCH must be a multiple of "
        "this times APPRENTICE_TRAIN_DEVICES",
    )
    train_devices: int = Field(
        default=1, ge=1, le=64, description="GPUs of this machine that share each step, a whole number from 1 to 64"
    )
    train_packing: bool = Field(
        default=False,
        description="true or false: several rows in a sequence, faster on GPUs with FlashAttention (automodel only)",
    )
    train_sequence_tokens: int = Field(
        default=4096, ge=256, le=131_072, description="longest example in tokens, from 256 to 131072"
    )
    train_alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="how likely the gate may take luck for skill, between 0 and 0.5"
    )
    train_seed: int = Field(default=0, ge=0, description="where chance begins, a whole number from 0")
    train_cron: Annotated[str, AfterValidator(_check_cron)] | None = Field(
        default=None, description="when rounds begin, as five fields of a crontab, for example 0 2 * * 6"
    )
    train_every_votes: int | None = Field(
        default=None, ge=1, description="a round begins when so many new votes came, a whole number from 1"
    )
    train_window: Annotated[str, AfterValidator(_check_window)] | None = Field(
        default=None, description="hours of the day in which a round may begin, for example 22-6"
    )
    train_rollback_votes: int = Field(
        default=30, ge=1, description="votes on an adapter's findings before it can be rolled back by itself, from 1"
    )

    train_shadow_reviews: int = Field(
        default=0,
        ge=0,
        description="reviews that a promoted adapter makes unseen beside the serving one before it may serve, from 0",
    )

    @model_validator(mode="after")
    def _steps_can_be_divided(self) -> Self:
        if self.train_batch % (self.train_micro_batch * self.train_devices):
            raise ValueError(
                f"{PREFIX}TRAIN_BATCH ({self.train_batch}) must be a multiple of {PREFIX}TRAIN_MICRO_BATCH x "
                f"{PREFIX}TRAIN_DEVICES ({self.train_micro_batch} x {self.train_devices})"
            )
        if self.train_engine == "toolkit" and (self.train_packing or self.train_devices > 1):
            raise ValueError("the engine toolkit has neither packing nor several devices: take automodel")
        return self

    @property
    def trainer_dir(self) -> Path:
        """Where the loop keeps its rounds, data and adapters."""
        return self.data_dir / "trainer"


def load(overrides: Mapping[str, object]) -> TrainerSettings:
    """The settings in force; `overrides` are the command line's (None: not given).

    Raises:
        SettingsError: with every problem of every source.
    """
    return load_as(TrainerSettings, overrides)
