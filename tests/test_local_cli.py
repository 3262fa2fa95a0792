"""`apprentice student …` as it is typed: what is wrong on the command line, and what is printed."""

import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
from typer.testing import CliRunner

from bot.local.cli import DEFAULT_MODEL, app, longest, models
from bot.local.models import manifest
from tests.vllm_adapter import write_safetensors


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPRENTICE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("APPRENTICE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def typed(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def test_help_loads_nothing_that_costs() -> None:
    code = "import sys, bot.local.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"huggingface_hub", "psutil", "pydantic", "rich.progress", "bot.local.server"} & set(loaded)


def test_the_default_model_is_known_and_every_known_one_is_in_the_help() -> None:
    assert DEFAULT_MODEL in manifest()
    _, said = typed("fetch", "--help")
    assert all(name in said for name in manifest())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fetch", "gpt-5"], "gpt-5 is not known. Known are: qwen2.5-coder-0.5b-instruct 491 MB the demo's student"),
        (["start", "--model", "gpt-5"], "gpt-5 is not known"),
        (["start", "--lora-rank", "17"], "vLLM takes 1, 8, 16, 32"),
        (["start", "--adapter", "mine"], "mine is not of the form NAME=FOLDER"),
        (["start", "--adapter", "-x=folder"], "not of the form"),
        (["start", "--port", "80"], "1024"),
        (["fetch", "--from", "/not/there"], "does not exist"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_way_out(words: list[str], said: str) -> None:
    code, output = typed(*words)
    assert code == 2, output
    assert said in output


def test_no_student() -> None:
    assert typed("status") == (1, "No student is running. Start one: apprentice student start")
    code, output = typed("status", "--json")
    assert code == 1
    assert '"state": "not running"' in output
    assert typed("stop") == (0, "No student is running.")


def test_a_wrong_setting_and_a_folder_without_the_file_end_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed("fetch", "--from", str(tmp_path))[0] == 2
    monkeypatch.setenv("APPRENTICE_STATE_DIRR", "x")
    code, output = typed("status")
    assert code == 2
    assert "APPRENTICE_STATE_DIR" in output


def test_the_users_own_manifest_counts() -> None:
    users = platformdirs.user_config_path("apprentice") / "models.toml"
    users.parent.mkdir(parents=True)
    entry = '[[model]]\nname = "mine"\nlicence = "MIT"\nfile = "m.gguf"\nsize = 1\nsha256 = "' + "0" * 64 + '"\n'
    users.write_text(entry)
    assert "mine" in models()
    users.write_text(entry + "nonsense = 1\n")
    code, output = typed("fetch", "mine")
    assert code == 2
    assert "nonsense" in output


def test_the_context_is_what_the_model_was_made_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048}')
    assert longest(tmp_path) == 2048
    (tmp_path / "config.json").write_text("{}")
    assert longest(tmp_path) > 10**9


def test_an_adapter_that_does_not_fit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_text("{}")
    write_safetensors(base / "model.safetensors", {})
    code, output = typed("start", "--model", str(base), "--adapter", f"mine={tmp_path}")
    assert code == 2
    assert "it has no adapter_config.json" in output
