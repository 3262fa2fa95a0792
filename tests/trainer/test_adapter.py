"""An adapter is published whole, once, and only when vLLM can serve it on its base."""

import array
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.local.adapters import AdapterError
from tests.fakes.adapters import card, make_base
from tests.vllm_adapter import make_adapter, write_safetensors
from trainer.adapter import Card, NameTakenError, fingerprint, next_name, publish, read, ready, validate

NAME = "student-r0007"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    folder = make_adapter(tmp_path / "tuned", base, seed=1)
    (folder / "tokenizer.json").write_text("{}")  # what a training leaves there besides
    return folder


def put(tuned: Path, base: Path, name: str = NAME, **told: object) -> Path:
    known = card(name, base, **told)
    return publish(tuned, name, known, base.parent / "adapters", base=base, max_rank=16)


def settings(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    known = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in known.items() if value != "left out"}))


def weights(folder: Path, dtype: str, numbers: bytes) -> None:
    """One module of rank 8 on 16 inputs and outputs; A is zero but for its last number."""
    path = folder / "adapter_model.safetensors"
    size = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}[dtype]
    module = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    a, b = bytes(8 * 16 * size - size) + numbers, bytes(16 * 8 * size)
    header = {
        f"{module}A.weight": {"dtype": dtype, "shape": [8, 16], "data_offsets": [0, len(a)]},
        f"{module}B.weight": {"dtype": dtype, "shape": [16, 8], "data_offsets": [len(a), len(a) + len(b)]},
        "__metadata__": {"format": "pt"},
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + a + b)


# --- names


@pytest.mark.parametrize(
    ("existing", "name"),
    [
        ([], "student-r0001"),
        (["student-r0001", "student-r0009", "tiny", "student-r03"], "student-r0010"),
        (["student-r9999"], "student-r10000"),
        (["student-r10000"], "student-r10001"),
    ],
)
def test_the_next_name_was_never_used(existing: list[str], name: str) -> None:
    assert next_name(existing) == name


# --- the base


def test_a_fingerprint_tells_bases_apart_by_shape_settings_and_weights(tmp_path: Path) -> None:
    one = make_base(tmp_path / "one")
    others = [
        make_base(tmp_path / "wide", hidden=32),
        make_base(tmp_path / "deep", layers=3),
        make_base(tmp_path / "tuned", first=1),  # the same model, trained on
    ]
    (make_base(tmp_path / "settings") / "config.json").write_text('{"hidden_size": 16, "rope_theta": 5}')
    marks = {fingerprint(folder) for folder in (one, *others, tmp_path / "settings")}
    assert len(marks) == 5
    copy = shutil.copytree(one, tmp_path / "copy")
    told = json.loads((one / "config.json").read_text()) | {"transformers_version": "6", "_name_or_path": "/x"}
    (copy / "config.json").write_text(json.dumps(told))
    assert fingerprint(copy) == fingerprint(one)


@pytest.mark.parametrize("spoil", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_model_has_no_fingerprint(base: Path, spoil: str) -> None:
    (base / spoil).unlink()
    with pytest.raises(AdapterError, match="is no base model"):
        fingerprint(base)


# --- what vLLM can serve


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        ("F32", array.array("f", [3.0e38]).tobytes()),
        ("F16", b"\xff\x7b"),  # the largest
        ("BF16", b"\x7f\x7f"),
    ],
)
def test_numbers_of_every_type_pass_while_they_are_finite(tuned: Path, base: Path, dtype: str, numbers: bytes) -> None:
    weights(tuned, dtype, numbers)
    validate(tuned, base, max_rank=16)


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        ("F32", array.array("f", [math.nan]).tobytes()),
        ("F32", array.array("f", [-math.inf]).tobytes()),
        ("F16", b"\x00\x7c"),
        ("F16", b"\x01\xfe"),
        ("BF16", b"\x80\x7f"),
        ("BF16", b"\xc0\xff"),
    ],
)
def test_a_number_that_is_infinite_or_none_is_refused(tuned: Path, base: Path, dtype: str, numbers: bytes) -> None:
    weights(tuned, dtype, numbers)
    with pytest.raises(AdapterError, match=r"layers\.0\.self_attn\.q_proj\.lora_A\.weight holds a number that is inf"):
        validate(tuned, base, max_rank=16)


def half(folder: Path) -> None:
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
    write_safetensors(folder / "adapter_model.safetensors", {name: ((8, 16), bytes(4 * 8 * 16))})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: settings(folder, lora_alpha="left out"), "adapter_config.json: lora_alpha: Field required"),
        (lambda folder: settings(folder, lora_alpha=0), "lora_alpha: Input should be greater than 0"),
        (lambda folder: settings(folder, lora_alpha=math.nan), "lora_alpha: Input should be"),
        (lambda folder: settings(folder, target_modules=[]), "target_modules"),
        (lambda folder: settings(folder, r=4), "has the shape [8, 16], not [4, 16]"),
        (lambda folder: settings(folder, r=32), "has rank 32, and the student takes 16"),
        (half, "model.layers.1.self_attn.v_proj has only one of lora_A and lora_B"),
        (lambda folder: weights(folder, "F64", bytes(8)), "is of the type F64"),
    ],
)
def test_what_vllm_would_take_or_choke_on_is_refused(
    tuned: Path, base: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(tuned)
    with pytest.raises(AdapterError) as caught:
        put(tuned, base)
    assert said in str(caught.value)
    assert not (base.parent / "adapters").exists()


def test_an_adapter_of_another_base_is_refused_though_it_fits(tuned: Path, base: Path, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", first=1)
    with pytest.raises(AdapterError, match="was trained on another base"):
        publish(tuned, NAME, card(NAME, other), tmp_path / "adapters", base=base, max_rank=16)
    with pytest.raises(AdapterError, match="the card is that of another"):
        publish(tuned, NAME, card("another", base), tmp_path / "adapters", base=base, max_rank=16)


# --- publishing


def test_a_published_adapter_is_whole_readable_by_others_and_described(tuned: Path, base: Path) -> None:
    folder = put(tuned, base, parent="student-r0006", hyper_parameters={"lr": 1e-4}, scores={"val_loss": 0.5})
    assert folder == base.parent / "adapters" / NAME
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "card.json"}
    assert {oct(path.stat().st_mode)[-3:] for path in folder.iterdir()} == {"644"}
    assert oct(folder.stat().st_mode)[-3:] == "755"
    assert [path.name for path in folder.parent.iterdir()] == [NAME]
    told = read(folder)
    assert told == ready(folder, base, max_rank=16)
    assert (told.parent, told.round, told.hyper_parameters, told.scores) == (
        "student-r0006",
        "r0007",
        {"lr": 1e-4},
        {"val_loss": 0.5},
    )
    assert set(told.files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert Card.model_validate(told.model_dump(mode="json")) == told


def test_a_name_is_given_once(tuned: Path, base: Path, tmp_path: Path) -> None:
    folder = put(tuned, base)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert put(tuned, base) == folder  # the same one again: a step that runs twice
    other = make_adapter(tmp_path / "other", base, seed=2)
    with pytest.raises(NameTakenError, match="A name is given once"):
        put(other, base)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "card.json").unlink()
    with pytest.raises(NameTakenError):
        put(tuned, base)


def test_what_a_killed_process_left_is_cleared_up(tuned: Path, base: Path) -> None:
    left = base.parent / "adapters" / f".publishing-{NAME}"
    left.mkdir(parents=True)
    (left / "adapter_config.json").write_text("half")
    assert read(put(tuned, base)).name == NAME
    assert not left.exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: settings(folder, lora_alpha=99), "was changed after it was published"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is gone"),
        (lambda folder: (folder / "card.json").unlink(), "was not published whole"),
        (lambda folder: (folder / "card.json").write_text("{"), "was not published whole"),
        (shutil.rmtree, "is gone"),
    ],
)
def test_what_was_changed_since_is_noticed(tuned: Path, base: Path, spoil: Callable[[Path], object], said: str) -> None:
    folder = put(tuned, base)
    spoil(folder)
    with pytest.raises(AdapterError, match=said):
        ready(folder, base, max_rank=16)


def test_a_folder_under_another_name_and_another_base_in_its_place_are_noticed(tuned: Path, base: Path) -> None:
    folder = put(tuned, base)
    with pytest.raises(AdapterError, match=f"holds the card of {NAME}"):
        read(folder.rename(folder.with_name("student-r0008")))
    folder.with_name("student-r0008").rename(folder)
    shutil.rmtree(base)
    make_base(base, first=2)
    with pytest.raises(AdapterError, match="was trained on another base"):
        ready(folder, base, max_rank=16)
