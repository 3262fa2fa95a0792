"""The student's supervisor: a process of its own that starts vLLM, starts it again when it dies, stops it.

`server.start` runs it as `python -m bot.local.supervise STATE_DIR --port N --base HASH -- COMMAND…`. It
leaves the terminal, prints its process number, and writes what it does to the log and to `run/phase.json`.

No process stays behind. vLLM asks the kernel for a SIGTERM when its supervisor dies, however that happens.
When vLLM's API server dies, the supervisor kills its process group, because engine and worker outlive it.
Should both be killed at once, the next `start` or `stop` finds what is left by a mark in its environment.
"""

import argparse
import ctypes
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from bot.local.command import DRAIN_SECONDS
from bot.local.files import write_json
from bot.local.state import Phase, Places, clear_temporary, remembered
from bot.local.talk import AdapterRefusedError, healthy, load_adapter

KILL_SECONDS = DRAIN_SECONDS + 5
EARLY_DEATHS = 3  # so many deaths before it was ever ready: it cannot start, and the cause is in the log
DEATHS = 6  # so many in a row later
STEADY_SECONDS = 120.0  # alive for so long, earlier deaths no longer count
LONGEST_PAUSE = 60.0
POLL_SECONDS = 0.25
PR_SET_PDEATHSIG = 1


class Stop(BaseException):
    """SIGTERM came."""


class Supervisor:
    """Keeps one vLLM alive.

    Args:
        places: the state folder's files.
        port: where vLLM listens.
        base_sha256: which adapters of the list belong to this base.
        command: vLLM's command line.
    """

    def __init__(self, places: Places, *, port: int, base_sha256: str, command: list[str]) -> None:
        self.places = places
        self.port = port
        self.base_sha256 = base_sha256
        self.command = command
        self.vllm: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.was_ready = False

    def run(self) -> int:
        """Supervise until stopped or hopeless; the exit code."""
        signal.signal(signal.SIGTERM, raise_stop)
        temporary = tempfile.mkdtemp(prefix="apprentice-student-")  # vLLM leaves files in it
        self.places.temporary.symlink_to(temporary)
        try:
            self.keep_alive(temporary)
        except Stop:
            self.phase("stopped")
            say("stopping; running requests may finish")
            self.end()
            say("stopped")
            return 0
        finally:
            clear_temporary(self.places)
        self.phase("gave up")
        say(f"gave up after {self.restarts + 1} deaths")
        return 1

    def keep_alive(self, temporary: str) -> None:
        """Start vLLM again and again; returns when there is no hope."""
        deaths = 0
        while True:
            began = time.monotonic()
            self.phase("restarting" if self.restarts else "starting")
            self.vllm = subprocess.Popen(  # noqa: S603 -- the command that `start` made
                self.command,
                env=os.environ | {"TMPDIR": temporary},
                cwd=self.places.run,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 -- this process has one thread
            )
            code = self.watch(self.vllm)
            deaths = 1 if time.monotonic() - began > STEADY_SECONDS and self.was_ready else deaths + 1
            limit = DEATHS if self.was_ready else EARLY_DEATHS
            say(f"vLLM ended with exit code {code} ({deaths} of {limit} times in a row)")
            if deaths >= limit:
                return
            pause = min(2.0 ** (deaths - 1), LONGEST_PAUSE)
            say(f"starting it again in {pause:.0f} s")
            self.restarts += 1
            self.phase("restarting")
            time.sleep(pause)

    def watch(self, vllm: subprocess.Popen[bytes]) -> int:
        """Wait until vLLM is ready, load the adapters, wait for its end, clear up; its exit code."""
        ready = False
        while not ended(vllm):
            if not ready and healthy(self.port):
                ready = self.was_ready = True
                self.phase("ready", self.load_adapters())
            time.sleep(POLL_SECONDS)
        kill_group(vllm)
        return vllm.wait()

    def load_adapters(self) -> tuple[str, ...]:
        """Load what the list names; what went wrong, in words."""
        problems = []
        for name, path in remembered(self.places.state_dir, self.base_sha256).items():
            try:
                load_adapter(self.port, os.environ["VLLM_API_KEY"], name, path)
            except (OSError, http.client.HTTPException, AdapterRefusedError) as error:
                problems.append(f"adapter {name} ({path}) was not loaded: {error}")
                say(problems[-1])
        return tuple(problems)

    def end(self) -> None:
        """Have vLLM finish what runs, then end it and all its children."""
        if self.vllm is None or self.vllm.returncode is not None:
            return
        if not ended(self.vllm):
            self.vllm.terminate()  # the API server alone: it drains, and its children must live for that
        limit = time.monotonic() + KILL_SECONDS
        while not ended(self.vllm) and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
        kill_group(self.vllm)
        self.vllm.wait()

    def phase(
        self,
        name: Literal["starting", "ready", "restarting", "gave up", "stopped"],
        problems: tuple[str, ...] = (),
    ) -> None:
        """Write where it is for `start` and `status`."""
        phase = Phase(name=name, restarts=self.restarts, problems=problems)
        write_json(self.places.phase, phase.model_dump(mode="json"))


def raise_stop(_signal: int, _frame: object) -> NoReturn:
    """The handler of SIGTERM: once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stop


def say(text: str) -> None:
    """Write a line of ours into the log."""
    print(f"\napprentice: {time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)  # noqa: T201 -- that is the log


def die_with_parent() -> Callable[[], None]:
    """What vLLM's process does before it becomes vLLM: ask for SIGTERM when the supervisor dies."""
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork
    supervisor = os.getpid()

    def ask() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died in between
            os._exit(1)

    return ask


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended. It is not reaped, so that its number, which is its group's too, stays its own."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of its process group; the process itself must not be reaped yet."""
    os.killpg(process.pid, signal.SIGKILL)


def leave_terminal(log: Path) -> None:
    """Become a process that no terminal ends, with the log as its output."""
    if pid := os.fork():
        print(pid, flush=True)  # noqa: T201 -- `start` reads it
        os._exit(0)
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)


def main() -> int:
    """Read the command line, leave the terminal, supervise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    places = Places(args.state_dir)
    leave_terminal(places.log)
    return Supervisor(places, port=args.port, base_sha256=args.base, command=args.command).run()


if __name__ == "__main__":
    sys.exit(main())
