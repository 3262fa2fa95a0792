import asyncio
import contextlib
import http.client
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
import schemathesis
import structlog
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.checks import not_a_server_error

import bot.app
import bot.inbox
import bot.webhook
from bot.app import MAX_HEAD, create_app, server_config
from bot.event import MergeRequestChanged, TokenExpiring, load
from bot.inbox import Inbox, InboxFailed
from bot.ready import Check, Readiness
from bot.store import Arrival, Store
from bot.telemetry import Metrics, set_up_logging
from bot.webhook import Secrets

SAMPLES = Path(__file__).parent / "samples" / "gitlab"
TOKEN = "a-made-up-webhook-token"
BOT = 501


class Keeps:
    """An inbox in memory. Each call waits for `go`, and fails with `failure` if there is one."""

    def __init__(self) -> None:
        self.calls: list[list[Arrival]] = []
        self.keys: set[str] = set()
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None

    def receive_many(self, arrivals: Sequence[Arrival]) -> list[bool]:
        self.calls.append(list(arrivals))
        self.entered.set()
        assert self.go.wait(10)
        if self.failure:
            raise self.failure
        said = []
        for arrival in arrivals:
            said.append(arrival.key not in self.keys)
            self.keys.add(arrival.key)
        return said


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


@dataclass
class Running:
    """An app behind a real uvicorn."""

    port: int
    server: uvicorn.Server

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def deliver(self, name: str, **headers: str) -> Answer:
        sample = SAMPLES / name
        given = json.loads((sample / "headers.json").read_bytes()) | headers
        return self.ask("POST", "/webhook", (sample / "body.json").read_bytes(), given)

    def count(self, **labels: str) -> float:
        families = text_string_to_metric_families(self.get("/metrics").body.decode())
        samples = [one for family in families for one in family.samples if one.name == "apprentice_deliveries_total"]
        return sum(one.value for one in samples if labels.items() <= one.labels.items())

    def raw(self, head: str, *chunks: bytes) -> bytes:
        """Send bytes as they are; gives all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(head.replace("\n", "\r\n").encode())
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for chunk in chunks:
                    connection.sendall(chunk)
            return connection.recv(65536)


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[Running]:
    server = uvicorn.Server(server_config(app, host="127.0.0.1", port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield Running(server.servers[0].sockets[0].getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(15)


class Starts(Protocol):
    """Starts an app with what a test wants of it."""

    def __call__(
        self, *, checks: Mapping[str, Check] | None = None, bot: int | None = BOT, openapi: bool = False
    ) -> Running: ...


@pytest.fixture
def keeps() -> Keeps:
    return Keeps()


@pytest.fixture
def start(keeps: Keeps) -> Iterator[Starts]:
    with contextlib.ExitStack() as stack:

        def begin(
            *, checks: Mapping[str, Check] | None = None, bot: int | None = BOT, openapi: bool = False
        ) -> Running:
            app = create_app(
                store=keeps,
                secrets=Secrets(token=TOKEN),
                metrics=Metrics(),
                checks=checks or {},
                bot=lambda: bot,
                openapi=openapi,
            )
            return stack.enter_context(running(app))

        yield begin
        keeps.go.set()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    set_up_logging(stream=stream, as_json=True)
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def lines(log: io.StringIO, event: str) -> list[dict[str, object]]:
    return [line for text in log.getvalue().splitlines() if (line := json.loads(text))["event"] == event]


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- deliveries


def test_a_delivery_becomes_a_row(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/apprentice.sqlite")
    store.migrate()
    app = create_app(store=store, secrets=Secrets(token=TOKEN), metrics=Metrics(), checks={}, bot=lambda: BOT)
    with running(app) as served:
        first = served.deliver("merge-request-opened")
        again = served.deliver("merge-request-opened", **{"Idempotency-Key": "that of the group's hook"})
        served.deliver("note-reply")
        assert (first.status, first.body) == (200, b"")
        assert (again.status, again.body) == (200, b"")
        assert served.count(kind="merge_request", outcome="received") == 1
        assert served.count(kind="merge_request", outcome="duplicate") == 1
    change, note = (delivery.arrival for delivery in store.unhandled(10))
    assert (change.kind, change.project, change.iid) == ("merge_request", 7, 12)
    assert (note.kind, note.project, note.iid) == ("note", 7, 12)
    event = load(change.payload)
    assert isinstance(event, MergeRequestChanged)
    assert event.key == change.key
    assert abs((datetime.now(UTC) - change.at).total_seconds()) < 60
    store.close()


@pytest.mark.parametrize(("name", "project"), [("token-expiring-project", 7), ("token-expiring-group", 0)])
def test_a_token_is_of_no_merge_request(start: Starts, keeps: Keeps, name: str, project: int) -> None:
    start().deliver(name)
    [[arrival]] = keeps.calls
    assert (arrival.kind, arrival.project, arrival.iid) == ("access_token", project, None)
    assert isinstance(load(arrival.payload), TokenExpiring)


def test_what_is_of_no_use_is_answered_with_the_reason(start: Starts, keeps: Keeps) -> None:
    served = start()
    answer = served.deliver("merge-request-labelled")
    assert answer.status == 200
    assert answer.json == {"outcome": "ignored", "reason": "not_a_trigger"}
    assert served.deliver("push").json == {"outcome": "ignored", "reason": "unknown_event"}
    assert keeps.calls == []
    assert served.count(kind="merge_request", outcome="ignored", reason="not_a_trigger") == 1
    assert served.count(kind="other", outcome="ignored", reason="unknown_event") == 1


def test_the_bots_own_id_is_asked_for_each_time(keeps: Keeps) -> None:
    known: list[int | None] = [None]
    app = create_app(store=keeps, secrets=Secrets(token=TOKEN), metrics=Metrics(), checks={}, bot=lambda: known[0])
    with running(app) as served:
        assert served.deliver("note-of-bot").body == b""
        known[0] = BOT
        assert served.deliver("note-of-bot").json["reason"] == "own"


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"{}", {"X-Gitlab-Token": "another"}, 401, "token"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "content_type"),
        (b"{", {}, 400, "json"),
        (b"", {}, 400, "json"),
        (b"[" * 100_000, {}, 400, "json"),
    ],
)
def test_what_is_not_gitlabs(start: Starts, body: bytes, headers: dict[str, str], status: int, reason: str) -> None:
    served = start()
    answer = served.ask(
        "POST", "/webhook", body, {"Content-Type": "application/json", "X-Gitlab-Token": TOKEN} | headers
    )
    assert answer.status == status
    assert answer.json == {"outcome": "rejected", "reason": reason}
    assert served.count(kind="none", outcome="rejected", reason=reason) == 1


def test_it_is_answered_after_the_commit_and_the_loop_goes_on_meanwhile(start: Starts, keeps: Keeps) -> None:
    served = start()
    keeps.go.clear()
    answers: list[Answer] = []
    sender = threading.Thread(target=lambda: answers.append(served.deliver("merge-request-opened")))
    sender.start()
    assert keeps.entered.wait(10)
    assert served.get("/healthz").status == 200
    assert answers == []
    keeps.go.set()
    sender.join(10)
    assert answers[0].status == 200


def test_a_database_that_fails_is_told_to_gitlab_and_to_the_log(start: Starts, keeps: Keeps, log: io.StringIO) -> None:
    served = start()
    keeps.failure = RuntimeError("the disk is full")
    for _ in range(3):
        answer = served.deliver("merge-request-opened")
        assert answer.status == 503
        assert answer.json == {"outcome": "failed", "reason": "inbox"}
    [line] = lines(log, "delivery")  # once a minute
    assert line["error"] == "the database did not keep it: the disk is full"
    keeps.failure = None
    assert served.deliver("merge-request-opened").status == 200
    assert served.count(outcome="failed") == 3


def test_a_refusal_is_logged_once_a_minute(start: Starts, log: io.StringIO) -> None:
    served = start()
    for _ in range(3):
        served.deliver("push", **{"X-Gitlab-Token": "a-token-that-was-guessed"})
    [line] = lines(log, "delivery")
    assert (line["reason"], line["status"], line["level"]) == ("token", 401, "warning")
    assert "guessed" not in log.getvalue()


# --- bodies

HEAD = f"POST /webhook HTTP/1.1\nHost: x\nContent-Type: application/json\nX-Gitlab-Token: {TOKEN}\n"


def test_a_body_that_says_it_is_too_long_is_not_read(start: Starts) -> None:
    served = start()
    answer = served.raw(f"{HEAD}Content-Length: {bot.webhook.MAX_BODY + 1}\n\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert served.count(reason="too_large", outcome="rejected") == 1


def test_a_stranger_is_refused_before_the_body_comes(start: Starts) -> None:
    head = HEAD.replace(TOKEN, "another")
    assert start().raw(f"{head}Content-Length: 1000\n\n").startswith(b"HTTP/1.1 401 ")


def test_a_body_of_unknown_length_is_read_up_to_the_limit(start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.app, "MAX_BODY", 100_000)
    served = start()
    body = (SAMPLES / "merge-request-opened" / "body.json").read_bytes()
    good = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert served.raw(f"{HEAD}Transfer-Encoding: chunked\n\n", good).startswith(b"HTTP/1.1 200 ")
    endless = [b"%x\r\n%b\r\n" % (50_000, b" " * 50_000)] * 3
    assert served.raw(f"{HEAD}Transfer-Encoding: chunked\n\n", *endless).startswith(b"HTTP/1.1 413 ")


def test_a_slow_body(start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.app, "BODY_SECONDS", 0.1)
    served = start()
    assert served.raw(f"{HEAD}Content-Length: 1000\n\n", b"{").startswith(b"HTTP/1.1 408 ")
    assert served.count(reason="slow") == 1


def test_a_sender_that_goes_away(start: Starts) -> None:
    served = start()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(f"{HEAD}Content-Length: 1000\n\n".replace("\n", "\r\n").encode() + b"{")
    until(lambda: served.count(reason="gone") == 1)


def test_large_bodies_come_two_at_a_time(start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.app, "_LARGE", 1000)
    served = start()
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            slow.sendall(f"{HEAD}Content-Length: 2000\n\n".replace("\n", "\r\n").encode() + b"{")
        time.sleep(0.2)
        assert served.ask("POST", "/webhook", b"{}", {"X-Gitlab-Token": TOKEN}).status == 415  # small ones go on
        answers: list[Answer] = []
        third = threading.Thread(target=lambda: answers.append(served.deliver("merge-request-opened")))
        third.start()
        third.join(0.3)
        assert answers == []
    third.join(10)
    assert answers[0].status == 200


def test_endless_headers_are_cut_off(start: Starts) -> None:
    served = start()
    chunk = b"a" * 16_384
    answer = served.raw("GET /healthz HTTP/1.1\nHost: x\nX-Long: ", *[chunk] * (MAX_HEAD // len(chunk) + 2))
    assert answer.startswith(b"HTTP/1.1 400 ")
    many = b"".join(b"X-%d: y\r\n" % number for number in range(10_000))
    assert served.raw("GET /healthz HTTP/1.1\nHost: x\n", many, many).startswith(b"HTTP/1.1 400 ")
    assert served.get("/healthz").status == 200


def test_a_kept_connection_waits_for_no_acknowledgement(start: Starts) -> None:
    served = start()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    seconds = []
    with contextlib.closing(connection):
        for _ in range(20):
            began = time.perf_counter()
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok"
            seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[10] < 0.03


# --- the inbox


def arrival(number: int) -> Arrival:
    return Arrival(f"key-{number}", "note", 7, 12, "{}", datetime.now(UTC))


def test_what_waits_together_is_committed_together(keeps: Keeps) -> None:
    async def run() -> list[bool]:
        inbox = Inbox(keeps)
        keeps.go.clear()
        first = asyncio.create_task(inbox.receive(arrival(0)))
        await asyncio.to_thread(keeps.entered.wait, 10)
        others = [asyncio.create_task(inbox.receive(arrival(number))) for number in [*range(1, 20), 5]]
        await asyncio.sleep(0)
        keeps.go.set()
        return [await first, *[await other for other in others]]

    assert asyncio.run(run()) == [True] * 20 + [False]
    assert [len(call) for call in keeps.calls] == [1, 20]


def test_a_failure_is_everybodys_in_the_batch_and_nobodys_after(keeps: Keeps) -> None:
    async def run() -> None:
        inbox = Inbox(keeps)
        keeps.failure = RuntimeError("locked")
        results = await asyncio.gather(*(inbox.receive(arrival(number)) for number in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["the database did not keep it"] * 3
        keeps.failure = None
        assert await inbox.receive(arrival(0))

    asyncio.run(run())


@pytest.mark.parametrize("fails", [False, True])
def test_nobody_waits_for_ever(keeps: Keeps, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    monkeypatch.setattr(bot.inbox, "PATIENCE", 0.05)

    async def run() -> None:
        inbox = Inbox(keeps)
        keeps.go.clear()
        first = asyncio.create_task(inbox.receive(arrival(0)))
        await asyncio.to_thread(keeps.entered.wait, 10)
        with pytest.raises(InboxFailed, match=r"not kept within 0\.05 seconds"):
            await inbox.receive(arrival(1))
        with pytest.raises(InboxFailed, match="not kept"):
            await first
        keeps.failure = RuntimeError("too late") if fails else None
        keeps.go.set()
        await asyncio.sleep(0.05)
        keeps.failure = None
        assert await inbox.receive(arrival(2))

    asyncio.run(run())
    assert [[one.key for one in call] for call in keeps.calls if call] == [["key-0"], ["key-2"]]


def test_a_full_inbox_says_so_at_once(keeps: Keeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.inbox, "MAX_WAITING", 2)

    async def run() -> None:
        inbox = Inbox(keeps)
        results = await asyncio.gather(*(inbox.receive(arrival(number)) for number in range(4)), return_exceptions=True)
        assert [isinstance(result, InboxFailed) for result in results] == [False, False, True, True]

    asyncio.run(run())


# --- readiness


@dataclass
class Part:
    """Something that is well, or not, or hangs; counts how often it was asked."""

    error: Exception | None = None
    asked: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    hangs: bool = False

    def check(self) -> None:
        self.asked += 1
        if self.hangs:
            self.go.wait(10)
        if self.error:
            raise self.error


def test_ready(start: Starts) -> None:
    answer = start(checks={"database": Part().check, "gitlab": Part().check}).get("/readyz")
    assert (answer.status, answer.json) == (200, {"ready": True, "parts": {"database": "ok", "gitlab": "ok"}})


@pytest.mark.parametrize("adapter", ["student-r0007", None])
def test_ready_says_which_adapter_answers(adapter: str | None) -> None:
    app = create_app(store=Keeps(), secrets=Secrets(token=TOKEN), metrics=Metrics(), checks={}, adapter=lambda: adapter)
    with running(app) as served:
        assert served.get("/readyz").json == {"ready": True, "parts": {}, "adapter": adapter}


def test_not_ready_names_the_part_and_only_the_log_says_why(start: Starts, log: io.StringIO) -> None:
    gitlab = Part(RuntimeError("gitlab.internal:8443 refused the connection"))
    answer = start(checks={"database": Part().check, "gitlab": gitlab.check}).get("/readyz")
    assert (answer.status, answer.json) == (503, {"ready": False, "parts": {"database": "ok", "gitlab": "failed"}})
    [line] = lines(log, "not ready")
    assert (line["part"], line["error"]) == ("gitlab", "RuntimeError: gitlab.internal:8443 refused the connection")


def test_the_parts_are_asked_now_and_then() -> None:
    part = Part()

    async def run() -> None:
        readiness = Readiness({"student": part.check}, keep=0.1)
        for _ in range(3):
            await asyncio.gather(*(readiness.look() for _ in range(5)))
        assert part.asked == 1
        await asyncio.sleep(0.12)
        assert await readiness.look() == {"student": "ok"}
        assert part.asked == 2

    asyncio.run(run())


def test_a_part_that_hangs_is_late_and_not_asked_again_meanwhile() -> None:
    slow, well = Part(hangs=True), Part()

    async def run() -> None:
        readiness = Readiness({"student": slow.check, "database": well.check}, keep=0, patience=0.05)
        assert await readiness.look() == {"student": "late", "database": "ok"}
        assert await readiness.look() == {"student": "late", "database": "ok"}
        assert (slow.asked, well.asked) == (1, 2)
        slow.go.set()
        await asyncio.sleep(0.05)
        assert await readiness.look() == {"student": "ok", "database": "ok"}

    asyncio.run(run())


def test_a_failure_is_logged_when_it_begins(log: io.StringIO) -> None:
    part = Part(RuntimeError("down"))

    async def run() -> None:
        readiness = Readiness({"gitlab": part.check}, keep=0)
        for error in [part.error, part.error, None, RuntimeError("down again")]:
            part.error = error
            await readiness.look()

    asyncio.run(run())
    assert [line["error"] for line in lines(log, "not ready")] == ["RuntimeError: down", "RuntimeError: down again"]
    assert [line["gitlab"] for line in lines(log, "readiness")] == ["failed", "ok", "failed"]


# --- all the rest


def test_alive(start: Starts) -> None:
    answer = start(checks={"gitlab": Part(RuntimeError("down")).check}).get("/healthz")
    assert (answer.status, answer.body) == (200, b"ok")


def test_metrics(start: Starts) -> None:
    served = start()
    served.deliver("merge-request-opened")
    answer = served.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"apprentice_deliveries", "apprentice_ack_seconds", "apprentice_inbox_deliveries"} <= names
    assert "process_resident_memory_bytes" in names
    assert b"apprentice_ack_seconds_count 1.0" in answer.body


@pytest.mark.parametrize("path", ["/webhook", "/healthz", "/readyz", "/metrics", "/nothing"])
def test_every_answer_has_the_security_headers_and_names_no_server(start: Starts, path: str) -> None:
    headers = start().get(path).headers
    assert "server" not in headers
    assert "x-powered-by" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect", "/healthz/", "/webhook/"]
)
def test_what_is_not_there(start: Starts, path: str) -> None:
    served = start()
    assert served.get(path).status == 404
    assert served.ask("POST", path, b"{}").status in {404, 405}


def test_a_webhook_is_posted(start: Starts) -> None:
    assert start().get("/webhook").status == 405


def test_the_app_stops_while_a_connection_is_open(keeps: Keeps) -> None:
    app = create_app(store=keeps, secrets=Secrets(token=TOKEN), metrics=Metrics(), checks={})
    began = time.monotonic()
    with running(app) as served:
        idle = socket.create_connection(("127.0.0.1", served.port))
        served.get("/healthz")
    idle.close()
    assert time.monotonic() - began < 8


# --- anything at all


def test_the_description_names_every_route(start: Starts) -> None:
    paths = start(openapi=True).get("/openapi.json").json["paths"]
    assert isinstance(paths, dict)
    assert {(path, method) for path, one in paths.items() for method in one} == {
        ("/webhook", "post"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }


@pytest.mark.process
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("POST", "/webhook", schemathesis.GenerationMode.POSITIVE),
        ("POST", "/webhook", schemathesis.GenerationMode.NEGATIVE),
        ("GET", "/healthz", schemathesis.GenerationMode.POSITIVE),
        ("GET", "/readyz", schemathesis.GenerationMode.POSITIVE),
        ("GET", "/metrics", schemathesis.GenerationMode.POSITIVE),
    ],
)
def test_no_request_makes_it_fail(method: str, path: str, mode: schemathesis.GenerationMode) -> None:
    """Schemathesis draws requests from the description, good ones and bad ones."""
    app = create_app(
        store=Keeps(), secrets=Secrets(token=TOKEN), metrics=Metrics(), checks={}, bot=lambda: BOT, openapi=True
    )
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method]
    statuses = set()

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case) -> None:  # type: ignore[type-arg]
        for headers in ({}, {"X-Gitlab-Token": TOKEN}, {"X-Gitlab-Token": TOKEN, "Content-Type": "application/json"}):
            response = case.call(headers=headers)
            case.validate_response(response, checks=[not_a_server_error])
            statuses.add(response.status_code)

    call()
    assert 200 in statuses
    assert statuses <= {200, 400, 401, 415}
