"""The student's own Python environment: vLLM and torch, apart from the bot's, built by pip on first use.

It lies under `<cache>/envs/student-<cpu|gpu>-<hash of what it is built from>`, so that a new release of
Apprentice builds a new one and never changes one in use. A lock keeps two builders apart; a marker that is
written last tells a whole environment from one whose building was cut short, which is built again.

The CPU build was run on x86-64 Linux with Python 3.11. The GPU build is the vLLM project's own package and
follows its documentation; no GPU was at hand to run it.
"""

import enum
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bot.local.files import free_space, held, megabytes
from bot.local.progress import Progress

HERE = Path(__file__).parent
COMPLETE = ".complete"
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class EnvironmentBuildError(RuntimeError):
    """The student's environment could not be built."""


class Device(enum.StrEnum):
    """What the student computes on."""

    CPU = "cpu"
    GPU = "gpu"


def find_device() -> Device:
    """The GPU where there is an NVIDIA one whose driver works, else the CPU."""
    if Path("/dev/nvidia0").exists():
        return Device.GPU
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Device.CPU
    done = subprocess.run([tool, "-L"], check=False, capture_output=True, timeout=30)  # noqa: S603 -- found on PATH
    return Device.GPU if done.returncode == 0 and b"GPU 0" in done.stdout else Device.CPU


_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # as /proc/cpuinfo names them, on x86-64 and on ARM


def number_format(device: Device, cpuinfo: str) -> Literal["bfloat16", "float32"]:
    """What to compute in: bfloat16, but on a CPU without instructions for it (`cpuinfo`: /proc/cpuinfo) float32.

    There it is emulated: the 0.5B student took 63 s for a prompt of 730 tokens and an answer of 60 on two Zen 3
    cores, and 21 s in float32, which needs twice the memory.
    """
    return "bfloat16" if device is Device.GPU or _BFLOAT16 & set(cpuinfo.split()) else "float32"


@dataclass(frozen=True, slots=True)
class Step:
    """One part of building: the first of `ways`, each a list of arguments for `pip install`, that works."""

    title: str
    ways: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an environment is built from, and the bytes it needs on disk."""

    name: str
    steps: tuple[Step, ...]
    size: int

    @property
    def digest(self) -> str:
        """Twelve hex digits of all that decides what comes out."""
        parts = [platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}"]
        for step in self.steps:
            for way in step.ways:
                parts += [Path(arg).read_text() if arg.endswith(".txt") else arg for arg in way]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def recipe(device: Device) -> Recipe:
    """How to build the environment for a device.

    torch for the CPU is asked for by its full version, `+cpu`. A machine that has it set up (a mirror, a
    folder of wheels) gives it at once. The public registry has no such version and says so at once, before
    any download, so that PyTorch's own index is asked next: neither kind of machine waits for the other, and
    none gets the CUDA build.
    """
    if device is Device.GPU:
        everything = Step("vLLM for NVIDIA GPUs", (("-r", str(HERE / "lock-gpu.txt")),))
        return Recipe("student-gpu", (everything,), size=20_000_000_000)
    quick = ("--no-deps", "--retries", "1", "--timeout", "15", TORCH)
    torch = Step("torch", (quick, ("--index-url", TORCH_INDEX, *quick)))
    vllm = Step("vLLM", (("--no-deps", "--require-hashes", "-r", str(HERE / "lock-cpu-vllm.txt")),))
    rest = Step("vLLM's libraries", (("--no-deps", "-r", str(HERE / "lock-cpu.txt")),))
    return Recipe("student-cpu", (torch, vllm, rest), size=6_000_000_000)


def ensure(cache_dir: Path, device: Device, progress: Progress) -> Path:
    """The environment's Python; builds the environment where there is none. Raises EnvironmentBuildError."""
    if sys.platform != "linux":
        raise EnvironmentBuildError(
            "vLLM runs on Linux only. Name an OpenAI-compatible endpoint in APPRENTICE_STUDENT_URL instead."
        )
    return build(recipe(device), cache_dir / "envs", progress)


def build(plan: Recipe, envs: Path, progress: Progress) -> Path:
    """Build one environment, unless it is there and whole."""
    folder = envs / f"{plan.name}-{plan.digest}"
    python = folder / "bin" / "python"
    if (folder / COMPLETE).is_file():
        return python
    envs.mkdir(parents=True, exist_ok=True)
    with held(envs / f".{folder.name}.lock", "another process builds the student's environment: waiting", progress):
        if (folder / COMPLETE).is_file():
            return python
        shutil.rmtree(folder, ignore_errors=True)  # cut short
        if (free := free_space(envs)) < plan.size:
            raise EnvironmentBuildError(
                f"The student's environment needs {megabytes(plan.size)} in {envs}, and "
                f"{megabytes(free)} are free. Make room, or name another folder in APPRENTICE_CACHE_DIR."
            )
        progress.stage("making the student's environment")
        if said := run([sys.executable, "-P", "-m", "venv", str(folder)], lambda _line: None):
            raise EnvironmentBuildError(f"{sys.executable} could not make an environment in {folder}:\n{said}")
        for number, step in enumerate(plan.steps, start=1):
            install(python, step, f"installing {step.title} ({number} of {len(plan.steps)})", progress)
        (folder / COMPLETE).touch()
    return python


def install(python: Path, step: Step, title: str, progress: Progress) -> None:
    """Run one step; a later way is tried when an earlier one fails. Raises with the last way's last words."""
    pip = [str(python), "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]

    def show(line: str) -> None:
        if found := re.match(r" *(Collecting|Downloading|Processing|Installing collected packages)\b:? *(\S*)", line):
            progress.stage(title, f"{found[1].lower()} {found[2].rpartition('/')[2].rstrip(',')}")

    progress.stage(title)
    said = ""
    for way in step.ways:
        if not (said := run([*pip, *way], show)):
            return
    raise EnvironmentBuildError(
        f"pip could not install {step.title}. Its last lines:\n{said}\n"
        "pip reads its index, proxy and certificate settings from its own configuration and PIP_* variables; "
        "what is installed already is kept in pip's cache, so run the command again when the cause is gone."
    )


def run(command: list[str], seen: Callable[[str], None]) -> str:
    """Run a command, hand each of its lines to `seen`; its last lines where it failed, else an empty text."""
    tail: deque[str] = deque(maxlen=12)
    with subprocess.Popen(  # noqa: S603 -- our own arguments
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            seen(line)
    return "" if process.returncode == 0 else "\n".join(tail) or f"exit code {process.returncode}"
