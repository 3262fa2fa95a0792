import json
from pathlib import Path

import pytest

from trainer.tune import check as checking
from trainer.tune.check import Checked, TuneError, check
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
    (base / "config.json").write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 2}))
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
    assert check(config, words) == Checked(train=2, val=2, longest=3 + 3 + 2 * checking.TEMPLATE_TOKENS)


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
    assert few == "train.jsonl has 1 rows, and 2 are the least"
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
    assert check(config, words).train == 2


def test_a_base_that_is_not_there(config: TuneConfig) -> None:
    (said,) = told(config.model_copy(update={"base": Path("/no/such")}))
    assert said == "The base model's folder /no/such is not there: set APPRENTICE_TRAIN_BASE."


def test_no_room(config: TuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "free_space", lambda _: 1_000_000)
    (config.base / "config.json").write_text(json.dumps({"hidden_size": 100_000, "num_hidden_layers": 10_000}))
    disk, memory = told(config)
    assert disk.endswith("and 1 MB are free")
    assert memory.startswith("It needs about ")


@pytest.mark.parametrize(("rows", "most", "steps"), [(160, None, 20), (1, None, 1), (160, 5, 5), (160, 50, 20)])
def test_how_many_steps(config: TuneConfig, rows: int, most: int | None, steps: int) -> None:
    assert config.model_copy(update={"max_steps": most}).steps(rows) == steps


def test_accumulation(config: TuneConfig) -> None:
    assert config.accumulation == 8
    assert config.model_copy(update={"batch": 1}).accumulation == 1
