"""Start, watch, stop: with a small server in vLLM's place, and (marked) with vLLM itself."""

import concurrent.futures
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bot.local import server, state
from bot.local.command import Serving
from bot.local.environment import Device
from bot.local.models import Base
from bot.local.status import as_json
from bot.local.talk import request
from bot.settings import load
from tests.conftest import free_port

FAKE = Path(__file__).with_name("vllm_fake.py")
ROOT = Path(__file__).parents[1]


class Heard:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.kept: list[str] = []

    def stage(self, text: str, detail: str = "") -> None:
        self.stages.append(text + detail)

    def amount(self, done: float, total: float) -> None:
        pass

    def keep(self, line: str) -> None:
        self.kept.append(line)


class Place:
    """A state folder and a model folder, with a small server in vLLM's place."""

    def __init__(self, tmp: Path) -> None:
        self.state_dir = tmp / "state"
        self.heard = Heard()
        self.python = tmp / "python"
        self.python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} "$@"\n')
        self.python.chmod(0o755)
        self.folder = tmp / "model"
        self.folder.mkdir()
        self.behave()
        self.port = free_port()

    def behave(self, **behaviour: float) -> None:
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def start(self, *, name: str = "base", adapters: dict[str, Path] | None = None) -> state.RunningStudent:
        serving = Serving(
            python=self.python,
            device=Device.CPU,
            name=name,
            folder=self.folder,
            port=self.port,
            context=4096,
            dtype="float32",
        )
        base = Base(name=name, folder=self.folder, sha256=f"hash of {name}")
        return server.start(
            serving,
            base,
            state_dir=self.state_dir,
            cache_dir=self.state_dir,
            adapters=adapters or {},
            progress=self.heard,
        )

    def stop(self) -> bool:
        return server.stop(self.state_dir, self.heard)

    @property
    def log(self) -> str:
        return (self.state_dir / "student.log").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.stop()


def until(true: Callable[[], object], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come about"
        time.sleep(0.05)


def children(student: state.RunningStudent) -> list[psutil.Process]:
    return psutil.Process(student.pid).children(recursive=True)


@pytest.mark.process
def test_start_status_stop(place: Place) -> None:
    student = place.start()
    assert student == state.running(place.state_dir)
    assert student.url == f"http://127.0.0.1:{place.port}/v1"
    assert student.tokenizer == place.folder / "tokenizer.json"
    status = server.status(place.state_dir)
    assert (status.state, status.restarts, status.adapters) == ("ready", 0, ())
    assert status.memory > 1_000_000
    shown = json.loads(as_json(status))
    assert shown["model"] == "base"
    assert shown["port"] == place.port
    processes = children(student)
    assert len(processes) == 2  # the server and its worker
    assert place.stop()
    assert not any(process.is_running() for process in processes)
    assert not psutil.pid_exists(student.pid) or psutil.Process(student.pid).status() == psutil.STATUS_ZOMBIE
    assert server.status(place.state_dir).state == "not running"
    assert json.loads(as_json(server.status(place.state_dir)))["url"] is None
    assert not place.stop()


@pytest.mark.process
def test_what_is_written_is_the_owners_alone_and_the_key_is_kept(place: Place) -> None:
    student = place.start()
    key = student.key
    assert len(key) > 30
    assert key not in place.log
    assert key not in " ".join(psutil.Process(student.pid).cmdline())
    assert key not in place.state_dir.joinpath("student.json").read_text()
    for name in ("student.key", "student.json", "student.log"):
        assert (place.state_dir / name).stat().st_mode & 0o077 == 0, name
    assert place.state_dir.stat().st_mode & 0o077 == 0
    place.stop()
    assert place.start().key == key


@pytest.mark.process
def test_it_runs_away_from_the_users_folder(place: Place) -> None:
    place.start()
    assert f"started in {place.state_dir / 'run'}" in place.log


@pytest.mark.process
def test_a_second_start_finds_the_first(place: Place) -> None:
    student = place.start()
    assert place.start() == student


@pytest.mark.process
def test_two_starts_at_once_give_one_student(place: Place) -> None:
    place.behave(slow=1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: place.start(), range(2))
    assert first == second


@pytest.mark.process
def test_another_model_is_refused_while_one_runs(place: Place) -> None:
    place.start()
    with pytest.raises(server.LocalStudentError, match=r"running already: base on port .* student stop"):
        place.start(name="other")


@pytest.mark.process
def test_a_taken_port_is_named_with_its_owner(place: Place) -> None:
    with socket.create_server(("127.0.0.1", place.port)):
        with pytest.raises(server.LocalStudentError) as caught:
            place.start()
        assert f"Port {place.port} cannot be used" in str(caught.value)
        assert f"process {os.getpid()}" in str(caught.value)
        assert f"--port {place.port + 1}" in str(caught.value)
    assert state.running(place.state_dir) is None


@pytest.mark.process
def test_a_stale_state_file_is_cleaned_with_a_word(place: Place) -> None:
    old = place.start()
    place.stop()
    stale = old.model_copy(update={"create_time": old.create_time - 1000, "pid": os.getpid()})  # a number reused
    place.state_dir.joinpath("student.json").write_text(stale.model_dump_json())
    assert state.running(place.state_dir) is None
    place.start()
    assert any("was stale" in line for line in place.heard.kept)


@pytest.mark.process
def test_a_student_whose_state_file_is_broken_is_replaced(place: Place) -> None:
    old = place.start()
    place.state_dir.joinpath("student.json").write_text('{"pid": ')
    assert state.running(place.state_dir) is None
    assert place.start().pid != old.pid


@pytest.mark.process
def test_three_early_deaths_end_the_start_with_the_end_of_the_log(place: Place) -> None:
    place.behave(die=0)  # vLLM's exit code after a crash
    with pytest.raises(server.LocalStudentError) as caught:
        place.start()
    assert "the fake cannot start" in str(caught.value)
    assert "gave up after 3 deaths" in str(caught.value)
    assert str(place.state_dir / "student.log") in str(caught.value)
    assert [line for line in place.heard.kept if "trying again" in line]
    assert place.log.count("exit code 0") == 3


@pytest.mark.process
def test_a_start_that_somebody_stops_says_so(place: Place) -> None:
    place.behave(die=1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = pool.submit(place.start)
        until(lambda: (place.state_dir / "student.log").exists() and "starting it again" in place.log)
        assert place.stop()
        with pytest.raises(server.LocalStudentError, match="was stopped while it started"):
            started.result()
    assert "Traceback" not in place.log


@pytest.mark.process
def test_an_interrupted_start_leaves_nothing(place: Place) -> None:
    place.behave(slow=60)

    class Interrupted(Heard):
        def stage(self, text: str, detail: str = "") -> None:
            super().stage(text, detail)
            if "reading the model" in text:
                raise KeyboardInterrupt

    place.heard = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        place.start()
    assert state.running(place.state_dir) is None
    assert state.leftovers(place.state_dir) == []


@pytest.mark.process
def test_it_is_started_again_when_it_dies_and_gets_its_adapters_back(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    student = place.start(adapters={"mine": folder})
    state.remember_adapter(place.state_dir, "gone", tmp_path / "gone")
    state.remember_adapter(place.state_dir, "other base", folder, base_sha256="another")
    assert server.status(place.state_dir).adapters == ("mine",)
    api_server, worker = children(student)
    api_server.kill()
    until(lambda: not worker.is_running())  # it would outlive its parent
    until(lambda: server.status(place.state_dir).state == "ready")
    status = server.status(place.state_dir)
    assert status.restarts == 1
    assert status.adapters == ("mine",)
    assert len(status.problems) == 1
    assert "adapter gone" in status.problems[0]
    assert "No adapter found" in status.problems[0]
    assert state.running(place.state_dir) == student
    state.forget_adapter(place.state_dir, "gone")
    assert state.remembered(place.state_dir, student.base_sha256) == {"mine": folder}


@pytest.mark.process
def test_an_adapter_joins_a_running_student_and_its_name_stays_its_own(place: Place, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    place.start()
    for _ in range(2):
        place.start(adapters={"mine": first})
    assert server.status(place.state_dir).adapters == ("mine",)
    with pytest.raises(server.LocalStudentError, match="mine is loaded already"):
        place.start(adapters={"mine": second})


@pytest.mark.process
def test_an_adapter_that_is_asked_for_and_not_loaded_is_an_error(place: Place, tmp_path: Path) -> None:
    with pytest.raises(server.LocalStudentError, match="without mine"):
        place.start(adapters={"mine": tmp_path / "gone"})
    assert any("No adapter found" in line for line in place.heard.kept)
    place.stop()
    place.start()
    assert any("mine is forgotten" in line for line in place.heard.kept)
    assert server.status(place.state_dir).problems == ()


@pytest.mark.process
def test_nothing_stays_when_the_supervisor_is_killed(place: Place) -> None:
    student = place.start()
    processes = children(student)
    psutil.Process(student.pid).kill()
    psutil.wait_procs(processes, timeout=10)
    assert not any(process.is_running() for process in processes)


@pytest.mark.process
def test_what_a_killed_pair_leaves_is_ended_by_the_next_start(place: Place) -> None:
    student = place.start()
    api_server, worker = children(student)
    os.kill(student.pid, signal.SIGSTOP)  # so that it cannot clear up
    api_server.kill()
    os.kill(student.pid, signal.SIGKILL)
    until(lambda: state.running(place.state_dir) is None)
    assert worker.is_running()
    temporary = (place.state_dir / "run" / "temporary").readlink()
    assert temporary.is_dir()
    place.start()
    assert not worker.is_running()
    assert not temporary.exists()
    assert any("left behind" in line for line in place.heard.kept)


def post(student: state.RunningStudent, body: dict[str, object], path: str = "/v1/chat/completions") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", student.port, timeout=300)
    headers = {"Authorization": f"Bearer {student.key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, body=json.dumps(body), headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.process
def test_stop_lets_a_running_request_finish(place: Place) -> None:
    student = place.start()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(post, student, {"seconds": 2})
        time.sleep(0.5)
        place.stop()
        assert answer.result() == (200, "finished")


@pytest.mark.process
def test_a_long_log_is_put_aside_at_the_next_start(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.start()
    place.stop()
    monkeypatch.setattr(server, "LOG_SIZE", 10)
    place.start()
    assert "stopped" in place.state_dir.joinpath("student.log.1").read_text()
    assert "stopped" not in place.log


# From here on with vLLM itself.


def chat(student: state.RunningStudent, model: str, *, tokens: int = 16) -> dict[str, object]:
    messages = [{"role": "user", "content": "MARKER: name three colours."}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    status, text = post(student, body)
    assert status == 200, text
    choice: dict[str, object] = json.loads(text)["choices"][0]
    return choice


def apprentice(student: state.RunningStudent, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = os.environ | {"APPRENTICE_STATE_DIR": str(student.log.parent)}
    command = [sys.executable, "-m", "bot", "student", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=folder)


@pytest.mark.vllm
def test_vllm_is_found_by_a_second_start_and_shown_by_status(vllm_student: state.RunningStudent) -> None:
    again = apprentice(vllm_student, "start", "--model", vllm_student.model, "--device", "cpu")
    assert again.returncode == 0, again.stderr
    assert f"is running already: {vllm_student.url}" in again.stderr
    other = apprentice(vllm_student, "start", "--model", "qwen2.5-coder-1.5b-instruct", "--device", "cpu")
    assert other.returncode == 3
    assert "Stop it first" in other.stderr
    shown = json.loads(apprentice(vllm_student, "status", "--json").stdout)
    assert shown["state"] == "ready"
    assert shown["model"] == vllm_student.model
    assert shown["memory_bytes"] > 1e9
    assert "GB" in apprentice(vllm_student, "status").stdout


@pytest.mark.vllm
def test_vllm_is_started_again_when_its_worker_is_killed_and_has_its_adapter(
    vllm_student: state.RunningStudent, tiny_adapter: Path
) -> None:
    state_dir = vllm_student.log.parent
    restarts = server.status(state_dir).restarts
    server.add_adapters(vllm_student, state_dir, {"tiny": tiny_adapter})
    base, adapted = chat(vllm_student, vllm_student.model), chat(vllm_student, "tiny")
    assert base["message"] != adapted["message"]
    workers = [one for one in children(vllm_student) if "Worker" in one.name() + " ".join(one.cmdline())]
    assert workers
    workers[0].kill()
    until(lambda: server.status(state_dir).state != "ready", seconds=60)
    until(lambda: server.status(state_dir).state == "ready", seconds=300)
    assert "tiny" in server.status(state_dir).adapters
    assert server.status(state_dir).restarts == restarts + 1
    assert chat(vllm_student, "tiny")["message"] == adapted["message"]


@pytest.mark.vllm
def test_vllm_finishes_a_request_while_it_stops_and_starts_again(
    vllm_student: state.RunningStudent, vllm_serving: Serving, small_base: Base, tiny_adapter: Path
) -> None:
    state_dir, heard = vllm_student.log.parent, Heard()
    server.add_adapters(vllm_student, state_dir, {"tiny": tiny_adapter})
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(chat, vllm_student, vllm_student.model, tokens=150)
        until(lambda: "vllm:num_requests_running{" in running_requests(vllm_student))
        assert server.stop(state_dir, heard)
        assert answer.result()["finish_reason"] == "length"
    assert state.leftovers(state_dir) == []
    log = vllm_student.log.read_text()
    assert "MARKER" not in log
    assert (state_dir / "student.key").read_text().strip() not in log
    vllm_student.log.parent.joinpath("student.json").write_text(vllm_student.model_dump_json())
    again = server.start(
        vllm_serving, small_base, state_dir=state_dir, cache_dir=load({}).cache_dir, adapters={}, progress=heard
    )
    assert any("was stale" in line for line in heard.kept)
    assert again.key == vllm_student.key
    assert "tiny" in server.status(state_dir).adapters


def running_requests(student: state.RunningStudent) -> str:
    """The line of the metrics that counts running requests, where it is not zero."""
    _, text = request(student.port, "GET", "/metrics", seconds=30)
    lines = (line for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))
    return "".join(line for line in lines if not line.endswith(" 0.0"))
