"""Small file work that more than one module here needs: write whole or not at all, lock, hash, sizes."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bot.local.progress import Progress

BLOCK = 8 * 1024 * 1024


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; a reader sees the old content or the new, never a part."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, whole and private."""
    write_private(path, json.dumps(value, indent=2) + "\n")


def sha256(path: Path, seen: Callable[[int], None] = lambda _done: None) -> str:
    """The file's SHA-256 in hex digits; `seen` gets the bytes read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            seen(done)
    return digest.hexdigest()


def megabytes(size: float) -> str:
    """A size as a person reads it: `491 MB`, `3.4 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"  # noqa: PLR2004 -- a gigabyte


def free_space(folder: Path) -> int:
    """Bytes free where the folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextmanager
def held(path: Path, waiting: str, progress: Progress) -> Iterator[None]:
    """Hold a lock between processes; `waiting` is shown while another process has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.stage(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
