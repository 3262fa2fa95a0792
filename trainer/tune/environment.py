"""NeMo's own Python environment, apart from the bot's and from vLLM's; built by pip on first use (`make train-env`).

It is built as the student's is (`bot.local.environment`), and named by a hash of what it is built from.
The CPU build was run on x86-64 Linux with Python 3.11. On a GPU machine pip resolves the same versions beside the CUDA
build of torch; no GPU was at hand to run that.
"""

import sys
from pathlib import Path

from bot.local.environment import (
    TORCH,
    TORCH_INDEX,
    Device,
    EnvironmentBuildError,
    Recipe,
    Step,
    build,
    find_device,
)
from bot.local.progress import Progress, Shown
from bot.settings import load

HERE = Path(__file__).parent
NEMO = ("nemo_toolkit[core]==3.0.0", "nemo_automodel==0.7.0")


def recipe(device: Device) -> Recipe:
    """How to build the environment for a device."""
    if device is Device.GPU:  # torch's CUDA wheels pin the triton that fits them
        everything = Step("NeMo for NVIDIA GPUs", (("torch==2.13.0", *NEMO),))
        return Recipe("train-gpu", (everything,), size=20_000_000_000)
    quick = ("--no-deps", "--retries", "1", "--timeout", "15", TORCH)
    torch = Step("torch", (quick, ("--index-url", TORCH_INDEX, *quick)))
    nemo = Step("NeMo", (("--no-deps", "-r", str(HERE / "lock-cpu.txt")),))
    return Recipe("train-cpu", (torch, nemo), size=5_000_000_000)


def ensure(cache_dir: Path, progress: Progress, device: Device | None = None) -> Path:
    """The train environment's Python; builds the environment where there is none.

    Raises:
        EnvironmentBuildError: it cannot be built.
    """
    if sys.platform != "linux":
        raise EnvironmentBuildError("NVIDIA NeMo runs on Linux only: run the trainer there.")
    return build(recipe(device or find_device()), cache_dir / "envs", progress)


if __name__ == "__main__":
    with Shown() as shown:
        print(ensure(load({}).cache_dir, shown))  # noqa: T201 -- it is what the command tells
