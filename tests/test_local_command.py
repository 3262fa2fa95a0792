"""The command and the variables that vLLM is started with."""

import itertools
import json
from pathlib import Path

import pytest

from bot.local.command import Serving, command, environment
from bot.local.environment import Device, number_format


def serving(device: Device) -> Serving:
    return Serving(
        python=Path("/env/bin/python"),
        device=device,
        name="student",
        folder=Path("/models/student"),
        port=8100,
        context=8192,
        dtype="float32",
        lora_rank=32,
    )


def options(device: Device) -> dict[str, str]:
    words = command(serving(device))
    return dict(itertools.pairwise(words))


@pytest.mark.parametrize(
    ("device", "flags", "wanted"),
    [
        (Device.GPU, "fpu sse2 avx2", "bfloat16"),
        (Device.CPU, "flags\t\t: fpu avx2 avx512f avx512_bf16 fsrm", "bfloat16"),
        (Device.CPU, "Features\t: fp asimd bf16", "bfloat16"),
        (Device.CPU, "flags\t\t: fpu avx2 avx512f fsrm", "float32"),
        (Device.CPU, "", "float32"),
    ],
)
def test_a_cpu_without_instructions_for_bfloat16_computes_in_float32(device: Device, flags: str, wanted: str) -> None:
    assert number_format(device, flags) == wanted


@pytest.mark.parametrize("device", list(Device))
def test_flags_of_this_workload(device: Device) -> None:
    words = command(serving(device))
    assert words[:4] == ["/env/bin/python", "-P", "-m", "vllm.entrypoints.openai.api_server"]
    assert {"--enable-lora", "--enable-prefix-caching", "--enable-prompt-tokens-details"} <= set(words)
    wanted = {
        "--model": "/models/student",
        "--served-model-name": "student",
        "--host": "127.0.0.1",
        "--port": "8100",
        "--max-model-len": "8192",
        "--dtype": "float32",
        "--max-loras": "2",
        "--max-cpu-loras": "4",
        "--max-lora-rank": "32",
        "--scheduling-policy": "priority",
        "--shutdown-timeout": "30",
        "--middleware": "apprentice_guard.Guard",
        "--allowed-origins": "[]",
    }
    assert wanted.items() <= options(device).items()
    assert json.loads(options(device)["--structured-outputs-config"]) == {
        "backend": "xgrammar",
        "disable_any_whitespace": True,
    }


@pytest.mark.parametrize(
    ("device", "there", "not_there"),
    [
        (Device.CPU, "--block-size", "--gpu-memory-utilization"),
        (Device.GPU, "--gpu-memory-utilization", "--block-size"),
    ],
)
def test_flags_by_device(device: Device, there: str, not_there: str) -> None:
    assert there in options(device)
    assert not_there not in options(device)
    assert "--enforce-eager" not in options(device)


def variables(device: Device, **given: str) -> dict[str, str]:
    return environment(serving(device), key="secret", run=Path("/run"), cache_dir=Path("/cache"), given=given)


def test_the_key_is_in_the_environment_and_not_in_the_command() -> None:
    assert variables(Device.CPU)["VLLM_API_KEY"] == "secret"
    assert "secret" not in " ".join(command(serving(Device.CPU)))


def test_no_statistics_no_hub_and_runtime_adapters() -> None:
    ours = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "PYTHONPATH": "/run",
        "PYTHONSAFEPATH": "1",
    }
    assert ours.items() <= variables(Device.GPU, HF_HUB_OFFLINE="0", VLLM_API_KEY="theirs").items()


def test_only_what_vllm_needs_is_passed_on() -> None:
    got = variables(
        Device.CPU,
        PATH="/bin",
        LC_ALL="C",
        GITLAB_TOKEN="t",
        APPRENTICE_STUDENT_API_KEY="k",
        PYTHONPATH="/theirs",
        VIRTUAL_ENV="/venv",
        VLLM_DEBUG_LOG_API_SERVER_RESPONSE="1",
    )
    assert got["PATH"] == "/bin"
    assert got["LC_ALL"] == "C"
    assert got["PYTHONPATH"] == "/run"
    assert got["VLLM_DEBUG_LOG_API_SERVER_RESPONSE"] == "0"
    assert not {"GITLAB_TOKEN", "APPRENTICE_STUDENT_API_KEY", "VIRTUAL_ENV"} & got.keys()


@pytest.mark.parametrize(
    ("device", "given", "space", "compiles"),
    [
        (Device.CPU, {}, "2", "1"),
        (Device.CPU, {"VLLM_CPU_KVCACHE_SPACE": "8"}, "8", "1"),
        (Device.GPU, {}, None, None),
    ],
)
def test_variables_by_device(device: Device, given: dict[str, str], space: str | None, compiles: str | None) -> None:
    got = variables(device, **given)
    assert got.get("VLLM_CPU_KVCACHE_SPACE") == space
    assert got.get("TORCH_COMPILE_DISABLE") == compiles
