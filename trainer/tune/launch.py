"""Run an engine in the train environment as a process, watch it, and give what it made.

An engine that was killed is started again with the same configuration, and goes on from its newest checkpoint.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.local.command import PASSED, PASSED_PREFIXES
from bot.local.files import free_space, megabytes, write_json
from bot.tokens import token_counter
from trainer.tune.check import TuneError, check
from trainer.tune.config import FILE, TuneConfig
from trainer.tune.progress import Progress, cause, curve, ended, progress

ENGINES = Path(__file__).parent / "engines"
LEAST_DISK = 200_000_000
"""Bytes: with less free it is stopped before the file system does it."""
GRACE_SECONDS = 120
"""A stop writes a checkpoint, after the step that runs."""
LOOK_SECONDS = 0.5

Report = Callable[[Progress], None]


class TunePausedError(TuneError):
    """It was stopped before its end; started again, it goes on."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it.

    Args:
        adapter: folder with `adapter_config.json` and `adapter_model.safetensors`, the best by its validation.
        steps: that were made, of `of`.
        losses: (step, loss) over the training rows; `val_losses`: over the validation rows.
        seconds: of this start.
        tokens_per_second: median over the steps.
        rows: training rows; `longest`: tokens of the longest one.
        stopped_early: its validation grew no better.
    """

    adapter: Path
    steps: int
    of: int
    losses: tuple[tuple[int, float], ...]
    val_losses: tuple[tuple[int, float], ...]
    seconds: float
    tokens_per_second: float
    rows: int
    longest: int
    stopped_early: bool


def tune(
    config: TuneConfig, python: Path, report: Report, *, most_seconds: float, stop: threading.Event | None = None
) -> Tuned:
    """Fine-tune, or go on where it was.

    Args:
        config: what is to be done; another one needs another folder.
        python: the train environment's Python.
        report: told how far it is, about twice a second.
        most_seconds: longer, and it is stopped (and can go on).
        stop: set by whoever wants it to stop.

    Raises:
        TunePausedError: it was stopped; started again, it goes on.
        TuneError: it cannot be done.
    """
    checked = check(config, token_counter(config.base / "tokenizer.json"))
    of = config.steps(checked.train)
    _same_as_before(config)
    write_json(config.folder / FILE, config.model_dump(mode="json") | {"steps": of})
    begun = time.monotonic()
    output: deque[str] = deque(maxlen=400)
    with _engine(config, python, output) as process:
        why = _watch(process, config, lambda: report(progress(*_logs(config.folder), of)), begun + most_seconds, stop)
        seconds = time.monotonic() - begun
    end = ended(output)
    if why and not (end and end[0] == "finished"):
        raise TunePausedError(f"The fine-tuning was stopped: {why}. Started again, it goes on where it was.")
    if process.returncode or end is None:
        raise _failure(process.returncode, output, config)
    training, validation = _logs(config.folder)
    speeds = sorted(speed for _, speed in curve(training, "tps"))
    return Tuned(
        adapter=_best(config.folder),
        steps=end[1],
        of=of,
        losses=tuple(curve(training, "loss")),
        val_losses=tuple(curve(validation, "val_loss")),
        seconds=seconds,
        tokens_per_second=speeds[len(speeds) // 2] if speeds else 0.0,
        rows=checked.train,
        longest=checked.longest,
        stopped_early=any(line.strip() == "EARLY STOP" for line in output),
    )


def _same_as_before(config: TuneConfig) -> None:
    config.folder.mkdir(parents=True, exist_ok=True)
    known = config.folder / FILE
    if known.is_file():
        before = json.loads(known.read_text(encoding="utf-8"))
        before.pop("steps", None)
        if before != config.model_dump(mode="json"):
            raise TuneError(f"{config.folder} holds a fine-tuning with other settings: take another folder for these.")


@contextmanager
def _engine(config: TuneConfig, python: Path, output: deque[str]) -> Iterator[subprocess.Popen[str]]:
    """Run the engine; its output goes to `engine.log` and, its end, to `output`."""
    passed = {name: text for name, text in os.environ.items() if name in PASSED or name.startswith(PASSED_PREFIXES)}
    ours = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(config.folder / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "disabled",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }
    command = [str(python), "-P", str(ENGINES / f"{config.engine}.py"), str(config.folder / FILE)]
    with (
        (config.folder / "engine.log").open("a", encoding="utf-8") as log,
        subprocess.Popen(  # noqa: S603 -- our own arguments
            command,
            env=passed | ours,
            cwd=config.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us; the engine is told to stop
        ) as process,
    ):

        def read() -> None:
            for line in process.stdout or ():
                output.append(line.rstrip("\n"))
                log.write(line)
                log.flush()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield process
        finally:
            _stop(process)
            reader.join(timeout=10)


def _watch(
    process: subprocess.Popen[str],
    config: TuneConfig,
    report: Callable[[], None],
    deadline: float,
    stop: threading.Event | None,
) -> str:
    """Report until it ends or must be stopped; says why it was stopped, nothing where it ended by itself."""
    while process.poll() is None:
        why = ""
        if stop is not None and stop.is_set():
            why = "somebody asked for it"
        elif time.monotonic() > deadline:
            why = "its time is up (APPRENTICE_TRAIN_MAX_HOURS)"
        elif (free := free_space(config.folder)) < LEAST_DISK:
            why = f"only {megabytes(free)} of disk are free at {config.folder}"
        if why:
            _stop(process)
            return why
        report()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
    report()
    return ""


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _logs(folder: Path) -> tuple[list[str], list[str]]:
    def lines(name: str) -> list[str]:
        path = folder / "run" / name
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    return lines("training.jsonl"), lines("validation.jsonl")


def _failure(code: int, output: deque[str], config: TuneConfig) -> TuneError:
    log = config.folder / "engine.log"
    if code in {-signal.SIGKILL, -signal.SIGTERM}:
        memory = " Mostly it is the kernel that does so, for want of memory." if code == -signal.SIGKILL else ""
        return TunePausedError(f"The engine was killed.{memory} Started again, it goes on where it was; its log: {log}")
    return TuneError(f"The engine failed: {cause(list(output))}. Its log: {log}")


def _best(folder: Path) -> Path:
    """The adapter of the best validation, or the newest one."""
    for link in ("LOWEST_VAL", "LATEST"):
        found = folder / "run" / link / "model"
        if (found / "adapter_config.json").is_file():
            return found.resolve()
    raise TuneError(f"The engine ended, but wrote no adapter below {folder / 'run'}.")
