"""How much memory the GPUs have free, by NVIDIA's own tool."""

import shutil
import subprocess

ASKED = ("--query-gpu=memory.free", "--format=csv,noheader,nounits")
MEGA = 1 << 20


def free_memory() -> list[int]:
    """Bytes that are free on each GPU, the most first; nothing where nobody can tell."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    done = subprocess.run([tool, *ASKED], check=False, capture_output=True, text=True, timeout=30)  # noqa: S603 -- found on PATH
    return parse(done.stdout) if done.returncode == 0 else []


def parse(said: str) -> list[int]:
    """Read its answer: a number of MiB a line."""
    words = (line.strip() for line in said.splitlines())
    return sorted((int(word) * MEGA for word in words if word.isdecimal()), reverse=True)
