"""The command line and the environment that vLLM is started with: pure functions, no I/O.

The flags are those of this workload: many requests with one long common beginning (prefix cache; small blocks
on the CPU, since only whole blocks are cached), several adapters over one base (LoRA slots), answers by a
JSON schema.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bot.local.environment import Device

HOST = "127.0.0.1"  # nothing else: who may read the code is who may log in to this machine
DRAIN_SECONDS = 30  # how long vLLM lets running requests finish
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM accepts as the largest rank
ADAPTERS_IN_BATCH = 2
ADAPTERS_LOADED = 4

PASSED = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"}
PASSED_PREFIXES = ("LC_", "XDG_", "VLLM_", "CUDA_", "NVIDIA_", "NCCL_", "OMP_", "KMP_", "MKL_", "TORCH")


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, and how.

    Args:
        python: the student environment's Python.
        device: what it computes on.
        name: the name that requests call the base model by.
        folder: the model.
        port: TCP port on 127.0.0.1.
        context: tokens of prompt and answer together.
        dtype: what it computes in (`environment.number_format`).
        lora_rank: the largest rank of an adapter; larger than needed wastes memory.
        gpu_share: the share of a GPU's memory that it takes; what is left is for others.
    """

    python: Path
    device: Device
    name: str
    folder: Path
    port: int
    context: int
    dtype: Literal["bfloat16", "float32"]
    lora_rank: int = 16
    gpu_share: float = 0.9


def command(serving: Serving) -> list[str]:
    """The command that starts vLLM. No secret stands in it: every user of the machine can read it."""
    shared = {
        "--model": str(serving.folder),
        "--served-model-name": serving.name,
        "--host": HOST,
        "--port": str(serving.port),
        "--dtype": serving.dtype,
        "--max-model-len": str(serving.context),
        "--seed": "0",
        "--max-loras": str(ADAPTERS_IN_BATCH),
        "--max-cpu-loras": str(ADAPTERS_LOADED),
        "--max-lora-rank": str(serving.lora_rank),
        "--scheduling-policy": "priority",
        "--shutdown-timeout": str(DRAIN_SECONDS),
        "--structured-outputs-config": json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
        "--disable-access-log-for-endpoints": "/health,/metrics",
        "--middleware": "apprentice_guard.Guard",
        "--allowed-origins": "[]",  # no page in a browser may read what this server says
    }
    by_device = {
        Device.CPU: {"--block-size": "32", "--max-num-seqs": "8"},
        Device.GPU: {"--gpu-memory-utilization": f"{serving.gpu_share:.2f}", "--max-num-queued-reqs": "64"},
    }
    flags = [
        "--enable-lora",
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--disable-fastapi-docs",
    ]
    options = [part for option in (shared | by_device[serving.device]).items() for part in option]
    # By module, not by the `vllm` command: that one does not work in the CPU build (the distribution's other
    # name).
    return [str(serving.python), "-P", "-m", "vllm.entrypoints.openai.api_server", *options, *flags]


def environment(serving: Serving, *, key: str, run: Path, cache_dir: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The variables that vLLM gets: of ours only what it needs, so that no token of the bot reaches it."""
    passed = {name: text for name, text in given.items() if name in PASSED or name.startswith(PASSED_PREFIXES)}
    ours = {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "0",  # answers quote the code under review
        "VLLM_CACHE_ROOT": str(cache_dir / "vllm"),
        "HF_HUB_OFFLINE": "1",  # the model is a folder here, always
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(run),  # the guard
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if serving.device is Device.CPU:
        # With LoRA nothing large is compiled on a CPU; what is left is one small function, which costs the
        # first request with log-probabilities ten seconds and needs a C++ compiler.
        ours |= {"TORCH_COMPILE_DISABLE": "1"}
        passed.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
    return passed | ours
