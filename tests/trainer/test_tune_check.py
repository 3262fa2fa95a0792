import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from trainer.tune import check as checking
from trainer.tune.check import TuneError, check
from trainer.tune.config import TuneConfig


def row(answer: str = "yes", **more: object) -> str:
    turns = [{"role": "user", "content": "one two three"}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns} | more)


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture
def config(tmp_path: Path) -> TuneConfig:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}))
    (base / "tokenizer.json").write_text("{}")
    (base / "tokenizer_config.json").write_text('{"chat_template": "..."}')
    (base / "model.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "train.jsonl").write_text(f"{row()}\n{row('a b c')}\n")
    (tmp_path / "val.jsonl").write_text(f"{row()}\n{row()}\n")
    return TuneConfig(
        base=base,
        train=tmp_path / "train.jsonl",
        val=tmp_path / "val.jsonl",
        folder=tmp_path / "tune",
        sequence_tokens=64,
    )


def told(config: TuneConfig) -> list[str]:
    with pytest.raises(TuneError) as error:
        check(config, words)
    return str(error.value).splitlines()


def test_all_is_well(config: TuneConfig) -> None:
    checked = check(config, words)
    assert [len(rows.lines) for rows in (checked.train, checked.val)] == [2, 2]
    assert checked.longest == 3 + 3 + 2 * checking.TEMPLATE_TOKENS
    assert checked.dropped == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "train.jsonl:2: row: Invalid JSON"),
        ("{}", "train.jsonl:2: messages: Field required"),
        (row(extra=1), "train.jsonl:2: extra: Extra inputs are not permitted"),
        ('{"messages": [{"role": "boss", "content": "x"}]}', "train.jsonl:2: messages.0.role: Input should be"),
        ('{"messages": []}', "train.jsonl:2: it ends with no answer of the assistant"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "train.jsonl:2: it ends with no answer"),
        (row(" "), "train.jsonl:2: it ends with no answer"),
        (row("x " * 90), "train.jsonl:2: 125 tokens, and 64 are the most"),
    ],
)
def test_a_bad_row_is_named(config: TuneConfig, line: str, problem: str) -> None:
    config.train.write_text(f"{row()}\n{line}\n{row()}\n")
    (said,) = told(config)
    assert said.startswith(problem)


def test_too_few_rows_and_no_file(config: TuneConfig) -> None:
    config.train.write_text(f"{row()}\n")
    config.val.unlink()
    few, none = told(config)
    assert few == "train.jsonl has 1 rows that fit, and 2 are the least"
    assert none.startswith(f"{config.val} cannot be read: ")


@pytest.mark.parametrize(
    ("lacks", "problem"),
    [
        ("config.json", "it has no config.json"),
        ("tokenizer.json", "it has no tokenizer.json"),
        ("model.safetensors", "it has no weights (*.safetensors)"),
        ("tokenizer_config.json", "has no chat template: take an instruct model"),
    ],
)
def test_a_folder_that_is_no_base(config: TuneConfig, lacks: str, problem: str) -> None:
    (config.base / lacks).unlink()
    (said,) = told(config)
    assert problem in said


def test_a_chat_template_in_a_file_of_its_own(config: TuneConfig) -> None:
    (config.base / "tokenizer_config.json").write_text("{}")
    (config.base / "chat_template.jinja").write_text("...")
    assert len(check(config, words).train.lines) == 2


def test_a_base_that_is_not_there(config: TuneConfig) -> None:
    (said,) = told(config.model_copy(update={"base": Path("/no/such")}))
    assert said == "The base model's folder /no/such is not there: set APPRENTICE_TRAIN_BASE."


def test_no_room(config: TuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "free_space", lambda _: 1_000_000)
    (config.base / "config.json").write_text(
        json.dumps({"hidden_size": 100_000, "num_hidden_layers": 10_000, "vocab_size": 100})
    )
    disk, memory = told(config)
    assert disk.endswith("and 1 MB are free")
    assert memory.startswith("It needs about ")


def test_a_gpu_that_others_use(config: TuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 70000\necho 3\necho '[N/A]'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    (config.base / "model.safetensors").write_bytes(b"x" * 5_000_000)
    gpu = config.model_copy(update={"device": "gpu"})
    assert check(gpu, words).longest
    (problem,) = told(gpu.model_copy(update={"devices": 2}))
    assert problem.startswith("Each GPU needs about ")
    assert "and 3 MB are free on one" in problem
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert check(gpu, words).longest  # nobody can tell


def test_rows_that_are_too_long_may_be_left_out(config: TuneConfig) -> None:
    config.train.write_text(f"{row()}\n{row('x ' * 90)}\n{row()}\n")
    checked = check(config.model_copy(update={"long_rows": "drop"}), words)
    assert len(checked.train.lines) == 2
    assert [each[:14] for each in checked.dropped] == ["train.jsonl:2:"]


@pytest.mark.parametrize(
    ("rows", "most", "steps"), [(160, None, 20), (1, None, 2), (161, None, 22), (160, 5, 5), (160, 50, 20)]
)
def test_how_many_steps(config: TuneConfig, rows: int, most: int | None, steps: int) -> None:
    pace = config.model_copy(update={"max_steps": most}).pace([10] * rows)
    assert (pace.steps, pace.batch, pace.micro_batch) == (steps, 16, 2)


def test_the_pace_of_packs(config: TuneConfig) -> None:
    pace = config.model_copy(update={"packing": True}).pace([16] * 160)  # four rows a pack of 64 tokens
    assert (pace.steps, pace.batch, pace.micro_batch) == (20, 4, 1)


@pytest.mark.parametrize(
    "more", [{"batch": 3}, {"engine": "toolkit", "devices": 2}, {"engine": "toolkit", "packing": True}]
)
def test_what_does_not_go_together(config: TuneConfig, more: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TuneConfig.model_validate(config.model_dump() | more)
