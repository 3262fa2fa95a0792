"""What is known of the student that runs on this machine: state file, key, log, adapters to load again.

All of it lies in the state folder, readable by its owner only. Other modules ask `running` for the student,
and `remember_adapter` and `forget_adapter` keep the list that a restarted student loads its adapters from.
"""

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from bot.local.files import write_json, write_private

ENDED = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
MARK = "APPRENTICE_STUDENT_RUN"  # names the run folder in the environment of the supervisor and all its children


@dataclass(frozen=True, slots=True)
class Places:
    """The files of a student under the state folder."""

    state_dir: Path

    @property
    def state(self) -> Path:
        """What `start` wrote about the student."""
        return self.state_dir / "student.json"

    @property
    def key(self) -> Path:
        """The API key: made at the first start, used by all later ones."""
        return self.state_dir / "student.key"

    @property
    def log(self) -> Path:
        """Output of the supervisor and of vLLM."""
        return self.state_dir / "student.log"

    @property
    def lock(self) -> Path:
        """Held by whoever starts a student."""
        return self.state_dir / "student.lock"

    @property
    def adapters(self) -> Path:
        """The adapters to load after a restart."""
        return self.state_dir / "adapters.json"

    @property
    def run(self) -> Path:
        """Where vLLM runs: the guard and the supervisor's phase."""
        return self.state_dir / "run"

    @property
    def temporary(self) -> Path:
        """A link to vLLM's temporary folder, which is elsewhere: its sockets need a short path."""
        return self.run / "temporary"

    @property
    def phase(self) -> Path:
        """How far the supervisor is."""
        return self.run / "phase.json"


class RunningStudent(BaseModel):
    """A student whose supervisor is alive; whether it answers already is for `phase` and `/health` to say."""

    model_config = ConfigDict(frozen=True)

    url: str  # with /v1
    model: str  # the name it is served under
    model_path: Path
    base_sha256: str
    tokenizer: Path
    context: int  # tokens of prompt and answer together
    pid: int  # of the supervisor
    create_time: float  # seconds since 1970
    port: int
    log: Path
    key_file: Path

    @property
    def key(self) -> str:
        """The key that vLLM asks for."""
        return self.key_file.read_text(encoding="utf-8").strip()


class Phase(BaseModel):
    """What the supervisor says of itself."""

    model_config = ConfigDict(frozen=True)

    name: Literal["starting", "ready", "restarting", "gave up", "stopped"]
    restarts: int = 0
    problems: tuple[str, ...] = ()


class Remembered(BaseModel):
    """An adapter to load after a restart, for as long as this base is served."""

    model_config = ConfigDict(frozen=True)

    path: Path
    base_sha256: str


class Adapters(BaseModel):
    """The list of them by name."""

    adapters: dict[str, Remembered] = {}


def read_state(state_dir: Path) -> RunningStudent | None:
    """The state file, whether its student still lives or not; None where there is none that can be read."""
    try:
        return RunningStudent.model_validate_json(Places(state_dir).state.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def running(state_dir: Path) -> RunningStudent | None:
    """The student that runs from this state folder, or None."""
    student = read_state(state_dir)
    return student if student is not None and alive(student) else None


def alive(student: RunningStudent) -> bool:
    """Whether its supervisor is that same process still, and no other one that got its number.

    The mark tells them apart; start times do not when the clock was set in between.
    """
    try:
        process = psutil.Process(student.pid)
        return process.status() not in ENDED and process.environ().get(MARK) == str(student.log.parent / "run")
    except (psutil.Error, OSError):
        return False


def read_phase(state_dir: Path) -> Phase:
    """What the supervisor said last."""
    try:
        return Phase.model_validate_json(Places(state_dir).phase.read_bytes())
    except (FileNotFoundError, ValidationError):
        return Phase(name="starting")


def api_key(state_dir: Path) -> str:
    """The student's key; made, and kept for the owner only, the first time."""
    path = Places(state_dir).key
    if not path.is_file():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text(encoding="utf-8").strip()


def remembered(state_dir: Path, base_sha256: str) -> dict[str, Path]:
    """Name and folder of the adapters to load onto this base."""
    return {name: one.path for name, one in read_adapters(state_dir).items() if one.base_sha256 == base_sha256}


def remember_adapter(state_dir: Path, name: str, path: Path, *, base_sha256: str | None = None) -> None:
    """Have this adapter loaded again after each restart. Its base, if not given, is the last student's."""
    student = read_state(state_dir)
    base = base_sha256 or (student.base_sha256 if student else "")
    found = read_adapters(state_dir) | {name: Remembered(path=path.absolute(), base_sha256=base)}
    write_json(Places(state_dir).adapters, Adapters(adapters=found).model_dump(mode="json"))


def forget_adapter(state_dir: Path, name: str) -> None:
    """Do not load this adapter again."""
    found = {known: one for known, one in read_adapters(state_dir).items() if known != name}
    write_json(Places(state_dir).adapters, Adapters(adapters=found).model_dump(mode="json"))


def read_adapters(state_dir: Path) -> dict[str, Remembered]:
    """The list as it stands."""
    try:
        return Adapters.model_validate_json(Places(state_dir).adapters.read_bytes()).adapters
    except (FileNotFoundError, ValidationError):
        return {}


def clear_temporary(places: Places) -> None:
    """Remove vLLM's temporary folder, if one is left."""
    if places.temporary.is_symlink():
        shutil.rmtree(places.temporary.readlink(), ignore_errors=True)
        places.temporary.unlink()


def leftovers(state_dir: Path) -> list[psutil.Process]:
    """Processes of a student that were started from this state folder, whoever their parent is now.

    The engine and its worker outlive an API server that is killed (seen with vLLM 0.32.0).
    """
    run = str(Places(state_dir).run)
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == run:
                found.append(process)
        except (psutil.Error, OSError):  # another user's, or gone meanwhile
            continue
    return found
