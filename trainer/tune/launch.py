"""Run an engine in the train environment as a process, watch it, and give what it made.

An engine that was killed is started again with the same configuration, and goes on from its newest checkpoint. In the
folder of a fine-tuning lie `tune.json` (what the engine is told), `rows/` (what it learns from), `run/` (the engine's
checkpoints and logs), `engine.log`, and at the end `adapter/` and `tuned.json`.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from bot.local import adapters
from bot.local.adapters import AdapterError
from bot.local.command import PASSED, PASSED_PREFIXES
from bot.local.files import free_space, megabytes, write_json, write_private
from bot.tokens import TokenizerError, token_counter
from trainer.tune.check import Checked, TuneError, check, checkpoint_bytes
from trainer.tune.config import FILE, Pace, TuneConfig
from trainer.tune.progress import Progress, cause, curve, ended, progress

ENGINES = Path(__file__).parent / "engines"
LEAST_MEMORY = 300_000_000
"""Bytes: with less free it is stopped before the kernel kills something."""
GRACE_SECONDS = 120
"""A stop writes a checkpoint, after the step that runs."""
LOOK_SECONDS = 0.5
ADAPTER, RESULT, PROCESS = "adapter", "tuned.json", "engine.json"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EARLY = "EARLY STOP"
"""An engine's line: validation grew no better."""

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
        dropped: rows that were left out, in words.
        stopped_early: its validation grew no better.
        resumed: it began with a checkpoint of an earlier start.
        versions: of what trained it.
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
    dropped: tuple[str, ...]
    stopped_early: bool
    resumed: bool
    versions: dict[str, str]

    @property
    def val_loss(self) -> float:
        """Of the adapter."""
        return min(loss for _, loss in self.val_losses)


_RESULT: TypeAdapter[Tuned] = TypeAdapter(Tuned)


def tune(
    config: TuneConfig, python: Path, report: Report, *, most_seconds: float, stop: threading.Event | None = None
) -> Tuned:
    """Fine-tune, go on where it was, or say what came of it where it is done.

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
    config.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(config.folder / ".lock", timeout=0):
            _end_orphan(config)
            return _done(config) or _tune(config, python, report, most_seconds, stop)
    except Timeout:
        raise TuneError(f"Another process fine-tunes in {config.folder} already.") from None


def _tune(config: TuneConfig, python: Path, report: Report, most_seconds: float, stop: threading.Event | None) -> Tuned:
    try:
        checked = check(config, token_counter(config.base / "tokenizer.json"))
    except TokenizerError as error:
        raise TuneError(str(error)) from None
    pace = config.pace(checked.train.lengths)
    _prepare(config, checked, pace)
    resumed = any((config.folder / "run" / name).exists() for name in ("LATEST", "checkpoints"))
    begun = time.monotonic()
    output: deque[str] = deque(maxlen=400)
    with _engine(config, python, output) as process:
        seen = _reported(config, pace, report)
        why = _watch(process, config, seen, begun + most_seconds, stop)
    seconds = time.monotonic() - begun
    end = ended(output)
    early = any(line.strip() == EARLY for line in output)
    complete = end is not None and (end[0] == "finished" or early)
    if not complete and (why or end is not None):
        why = why or "somebody ended its engine"
        raise TunePausedError(f"The fine-tuning was stopped: {why}. Started again, it goes on where it was.")
    if process.returncode or end is None:
        raise _failure(process.returncode, output, config)
    training, validation = _logs(config.folder)
    speeds = sorted(speed for _, speed in curve(training, "tps"))
    tuned = Tuned(
        adapter=_publish(config),
        steps=end[1],
        of=pace.steps,
        losses=tuple(curve(training, "loss")),
        val_losses=tuple(curve(validation, "val_loss")),
        seconds=seconds,
        tokens_per_second=speeds[len(speeds) // 2] if speeds else 0.0,
        rows=len(checked.train.lines),
        longest=checked.longest,
        dropped=checked.dropped,
        stopped_early=early,
        resumed=resumed,
        versions=json.loads((config.folder / "run" / "versions.json").read_bytes()),
    )
    write_private(config.folder / RESULT, _RESULT.dump_json(tuned, indent=2).decode())
    return tuned


def _done(config: TuneConfig) -> Tuned | None:
    """What an earlier start has finished: an engine that stopped early would go on if it were started again."""
    try:
        tuned = _RESULT.validate_json((config.folder / RESULT).read_bytes())
        _check_same(config)
    except (OSError, ValidationError):
        return None
    return replace(tuned, adapter=config.folder / ADAPTER)


def _told(config: TuneConfig) -> dict[str, object]:
    return config.model_dump(mode="json", exclude={"folder", "train", "val", "long_rows"})


def _check_same(config: TuneConfig) -> None:
    """Raise TuneError where the folder holds a fine-tuning with other settings: its checkpoints would not fit."""
    known = config.folder / FILE
    if known.is_file() and json.loads(known.read_bytes()).get("settings") != _told(config):
        raise TuneError(f"{config.folder} holds a fine-tuning with other settings: take another folder for these.")


def _prepare(config: TuneConfig, checked: Checked, pace: Pace) -> None:
    """Write what the engine reads, or make sure that it is what an earlier start wrote."""
    _check_same(config)
    rows = config.folder / "rows"
    for name, found in (("train", checked.train), ("val", checked.val)):
        text = "".join(f"{line}\n" for line in found.lines)
        path = rows / f"{name}.jsonl"
        if path.is_file() and _hash(path.read_text(encoding="utf-8")) != _hash(text):
            raise TuneError(f"{config.folder} holds a fine-tuning on other rows: take another folder for these.")
        write_private(path, text)
    told = config.model_dump(mode="json") | {
        "train": str(rows / "train.jsonl"),
        "val": str(rows / "val.jsonl"),
        "steps": pace.steps,
        "batch": pace.batch,
        "micro_batch": pace.micro_batch,
        "settings": _told(config),
    }
    write_json(config.folder / FILE, told)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _command(config: TuneConfig, python: Path) -> list[str]:
    engine = [str(ENGINES / f"{config.engine}.py"), str(config.folder / FILE)]
    if config.devices == 1:
        return [str(python), "-P", *engine]
    run = ["-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(config.devices)]
    return [str(python), *run, *engine]


@contextmanager
def _engine(config: TuneConfig, python: Path, output: deque[str]) -> Iterator[psutil.Popen]:
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
    with (
        (config.folder / "engine.log").open("a", encoding="utf-8") as log,
        psutil.Popen(  # our own arguments
            _command(config, python),
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
            write_json(config.folder / PROCESS, {"pid": process.pid, "create_time": process.create_time()})
            yield process
        finally:
            _stop(process, config)
            reader.join(timeout=10)


def _watch(
    process: psutil.Popen,
    config: TuneConfig,
    report: Callable[[], None],
    deadline: float,
    stop: threading.Event | None,
) -> str:
    """Report until it ends or must be stopped; says why it was stopped, nothing where it ended by itself."""
    least_disk = 2 * checkpoint_bytes(config)
    while process.poll() is None:
        why = ""
        if stop is not None and stop.is_set():
            why = "somebody asked for it"
        elif time.monotonic() > deadline:
            why = "its time is up (APPRENTICE_TRAIN_MAX_HOURS)"
        elif (free := free_space(config.folder)) < least_disk:
            why = f"only {megabytes(free)} of disk are free at {config.folder}"
        elif (free := psutil.virtual_memory().available) < LEAST_MEMORY:
            why = f"only {megabytes(free)} of memory are free"
        if why:
            _stop(process, config)
            return why
        report()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(LOOK_SECONDS)
    report()
    return ""


def _reported(config: TuneConfig, pace: Pace, report: Report) -> Callable[[], None]:
    return lambda: report(progress(*_logs(config.folder), pace.steps))


def _stop(process: psutil.Process, config: TuneConfig) -> None:
    """Have the engine write a checkpoint and end; kill what does not."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if process.status() == psutil.STATUS_ZOMBIE:
            return
        # torchrun would give its processes 30 seconds: they are told themselves, and it ends with them.
        for one in process.children() if config.devices > 1 else [process]:
            one.terminate()
        _, alive = psutil.wait_procs([process], GRACE_SECONDS)
        if alive:
            os.killpg(process.pid, signal.SIGKILL)


def _end_orphan(config: TuneConfig) -> None:
    """End the engine of a launcher that was killed: two in one folder would spoil its checkpoints."""
    with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
        known = json.loads((config.folder / PROCESS).read_bytes())
        process = psutil.Process(known["pid"])
        if process.create_time() == known["create_time"]:
            _stop(process, config)


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


def _publish(config: TuneConfig) -> Path:
    """Put the adapter of the best validation, or the newest one, where it can be served from."""
    found = next(
        (path for link in ("LOWEST_VAL", "LATEST") if (path := config.folder / "run" / link / "model").is_dir()), None
    )
    if found is None:
        raise TuneError(f"The engine ended, but wrote no adapter below {config.folder / 'run'}.")
    making, adapter = config.folder / f".{ADAPTER}", config.folder / ADAPTER
    for old in (making, adapter):
        shutil.rmtree(old, ignore_errors=True)
    making.mkdir()
    try:
        told = json.loads((found / CONFIG).read_bytes())
        told["base_model_name_or_path"] = config.base.name  # not where it lay on this machine
        (making / CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(found / WEIGHTS, making / WEIGHTS)
        for path in making.iterdir():
            path.chmod(0o644)  # the engine leaves the weights readable by their owner only
        adapters.check(making, config.base, max_rank=config.rank)
    except (OSError, ValueError, AdapterError) as error:
        raise TuneError(f"The engine ended, but its adapter in {found} cannot be used: {error}") from error
    making.rename(adapter)
    return adapter
