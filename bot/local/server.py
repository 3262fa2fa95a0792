"""Starts, watches and stops the student on this machine: vLLM under a supervisor, on 127.0.0.1 only.

`start` returns when the student answers; `stop` lets running requests finish. See `supervise` for what
happens in between, and `state` for what is kept on disk.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from bot.local.command import HOST, Serving, command, environment
from bot.local.files import held, write_json, write_private
from bot.local.models import Base
from bot.local.progress import Progress
from bot.local.state import (
    MARK,
    Places,
    RunningStudent,
    alive,
    api_key,
    clear_temporary,
    forget_adapter,
    leftovers,
    read_phase,
    read_state,
    remember_adapter,
    remembered,
    running,
)
from bot.local.status import Status
from bot.local.supervise import KILL_SECONDS
from bot.local.talk import adapters_of, load_adapter

POLL_SECONDS = 0.3
LOG_SIZE = 10_000_000  # bytes; a longer log is put aside at the next start
TAIL_LINES = 20

# What a line of vLLM's log means to somebody who waits, in the order in which they appear.
STAGES = (
    (r"non-default args", "reading the model's settings"),
    (r"Initializing a V1 LLM engine", "starting the engine"),
    (r"Starting to load model", "loading the weights"),
    (r"Loading weights took", "making the adapters' slots"),
    (r"KV cache size", "warming up"),
    (r"Starting vLLM server", "opening its port"),
)


class LocalStudentError(RuntimeError):
    """The student cannot be started, or another one is in the way."""


def start(
    serving: Serving,
    base: Base,
    *,
    state_dir: Path,
    cache_dir: Path,
    adapters: Mapping[str, Path],
    progress: Progress,
) -> RunningStudent:
    """Start the student and wait until it answers; the running one where it serves this model already.

    When it is interrupted, what was started is stopped.

    Raises:
        LocalStudentError: another model is running, the port is taken, or vLLM ended early three times.
        AdapterRefusedError: an adapter could not be loaded into a student that was running already.
    """
    places = Places(state_dir)
    with held(places.lock, "another start is under way: waiting for it", progress):
        if student := running(state_dir):
            refuse_another(student, base.name, base.sha256)
            wait(student, state_dir, progress, since=0)
            add_adapters(student, state_dir, adapters)
            return student
        clean(state_dir, progress)
        refuse_port(serving.port)
        update_adapters(state_dir, base, adapters, progress)
        since = prepare(places)
        student = launch(serving, base, places, cache_dir)
        try:
            wait(student, state_dir, progress, since=since)
        except KeyboardInterrupt:
            progress.stage("stopping what was started")
            stop(state_dir, progress)
            raise
        if missing := sorted(adapters.keys() - set(adapters_of(student.port, student.key))):
            raise LocalStudentError(f"{student.model} runs at {student.url}, without {', '.join(missing)}.")
    return student


def refuse_another(student: RunningStudent, name: str, sha256: str | None = None) -> None:
    """Raise LocalStudentError unless the running student serves this name (and these weights)."""
    if student.model != name or sha256 not in {None, student.base_sha256}:
        raise LocalStudentError(
            f"A student is running already: {student.model} on port {student.port}. "
            "Stop it first: apprentice student stop"
        )


def update_adapters(state_dir: Path, base: Base, adapters: Mapping[str, Path], progress: Progress) -> None:
    """Add to the list of adapters to load, and strike those whose folders are gone."""
    for name, path in remembered(state_dir, base.sha256).items():
        if not path.is_dir():
            progress.keep(f"The adapter {name} is forgotten: its folder {path} is gone.")
            forget_adapter(state_dir, name)
    for name, path in adapters.items():
        remember_adapter(state_dir, name, path, base_sha256=base.sha256)


def add_adapters(student: RunningStudent, state_dir: Path, adapters: Mapping[str, Path]) -> None:
    """Load adapters into a running student, and have them loaded again after a restart.

    A loaded name never gets another folder: vLLM would mix old and new weights.
    """
    loaded, folders = adapters_of(student.port, student.key), remembered(state_dir, student.base_sha256)
    for name, path in adapters.items():
        if name in loaded:
            if folders.get(name) != path.absolute():
                raise LocalStudentError(f"An adapter {name} is loaded already, from {folders.get(name)}.")
            continue
        load_adapter(student.port, student.key, name, path.absolute())
        remember_adapter(state_dir, name, path, base_sha256=student.base_sha256)


def clean(state_dir: Path, progress: Progress) -> None:
    """Clear up after a student that did not end in order."""
    places = Places(state_dir)
    if old := read_state(state_dir):
        progress.keep(f"The student that ran before (process {old.pid}) is gone; its state file was stale.")
        places.state.unlink()
    if processes := leftovers(state_dir):
        progress.keep(f"Ending what it left behind: {', '.join(str(one.pid) for one in processes)}")
        end(processes)
    clear_temporary(places)


def end(processes: list[psutil.Process]) -> None:
    """Kill processes and wait for their end."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def refuse_port(port: int) -> None:
    """Raise LocalStudentError when somebody listens on the port, naming them where the system tells."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalStudentError(
                f"Port {port} cannot be used ({error.strerror}{owner(port)}). Name another one: --port {port + 1}"
            ) from error


def owner(port: int) -> str:
    """Who listens on a port, as a part of a sentence; empty where the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f": {psutil.Process(connection.pid).name()}, process {connection.pid}, listens there"
    except psutil.Error:
        pass
    return ""


def prepare(places: Places) -> int:
    """Make the run folder with the guard in it, put a long log aside; where in the log this start begins."""
    places.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    places.phase.unlink(missing_ok=True)
    shutil.copyfile(Path(__file__).with_name("guard.py"), places.run / "apprentice_guard.py")
    if not places.log.exists():
        write_private(places.log, "")
    if places.log.stat().st_size > LOG_SIZE:
        places.log.replace(places.log.with_name("student.log.1"))
        write_private(places.log, "")
    return places.log.stat().st_size


def launch(serving: Serving, base: Base, places: Places, cache_dir: Path) -> RunningStudent:
    """Start the supervisor, and write the state file."""
    key = api_key(places.state_dir)
    arguments = [
        str(places.state_dir),
        "--port",
        str(serving.port),
        "--base",
        base.sha256,
        "--",
        *command(serving),
    ]
    done = subprocess.run(  # noqa: S603 -- our own module with our own arguments
        [sys.executable, "-m", "bot.local.supervise", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],  # never the user's folder: Python would import what lies there
        start_new_session=True,
        env=environment(serving, key=key, run=places.run, cache_dir=cache_dir, given=os.environ)
        | {MARK: str(places.run)},
    )
    pid = int(done.stdout)
    student = RunningStudent(
        url=f"http://{HOST}:{serving.port}/v1",
        model=serving.name,
        model_path=serving.folder,
        base_sha256=base.sha256,
        tokenizer=serving.folder / "tokenizer.json",
        context=serving.context,
        pid=pid,
        create_time=psutil.Process(pid).create_time(),
        port=serving.port,
        log=places.log,
        key_file=places.key,
    )
    write_json(places.state, student.model_dump(mode="json"))
    return student


def wait(student: RunningStudent, state_dir: Path, progress: Progress, *, since: int) -> None:
    """Wait until the student is ready, showing what it does. Raises LocalStudentError if there is no hope."""
    restarts = 0
    while (phase := read_phase(state_dir)).name != "ready":
        if not alive(student):
            raise LocalStudentError(failure(student, phase.name))
        if phase.restarts > restarts:
            restarts = phase.restarts
            progress.keep(f"vLLM ended early; trying again ({restarts + 1} of 3). Its log: {student.log}")
        progress.stage(f"starting the student: {stage(read_from(student.log, since))}")
        time.sleep(POLL_SECONDS)
    for problem in phase.problems:
        progress.keep(problem)


def failure(student: RunningStudent, phase: str) -> str:
    """Why the student is not there, with the end of its log."""
    if phase == "stopped":
        return "The student was stopped while it started."
    said = "\n".join(read_from(student.log, 0).splitlines()[-TAIL_LINES:])
    return f"The student could not be started. The end of its log ({student.log}):\n{said}"


def read_from(log: Path, since: int) -> str:
    """The log from a byte on, at most its last megabyte."""
    with log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - 1_000_000))
        return file.read().decode("utf-8", "replace")


def stage(text: str) -> str:
    """What the last telling line of the log means."""
    last = text.rpartition("apprentice: ")[2]  # what came before belongs to an earlier try
    reached = [words for pattern, words in STAGES if re.search(pattern, last)]
    return reached[-1] if reached else "loading vLLM"


def stop(state_dir: Path, progress: Progress) -> bool:
    """Stop the student; running requests may finish. False when none was running."""
    places = Places(state_dir)
    student = running(state_dir)
    if student is not None:
        progress.stage("stopping the student: running requests may finish")
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(student.pid).terminate()
        limit = time.monotonic() + KILL_SECONDS + 15
        while alive(student) and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
        if alive(student):
            end([psutil.Process(student.pid)])
    end(leftovers(state_dir))
    clear_temporary(places)
    places.state.unlink(missing_ok=True)
    return student is not None


def status(state_dir: Path) -> Status:
    """What runs from this state folder."""
    student = running(state_dir)
    if student is None:
        return Status("not running")
    phase = read_phase(state_dir)
    ready = phase.name == "ready"
    processes = [psutil.Process(student.pid), *psutil.Process(student.pid).children(recursive=True)]
    memory = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            memory += process.memory_info().rss
    return Status(
        state=phase.name,
        student=student,
        adapters=adapters_of(student.port, student.key) if ready else (),
        problems=phase.problems,
        restarts=phase.restarts,
        seconds=time.time() - student.create_time,
        memory=memory,
    )
