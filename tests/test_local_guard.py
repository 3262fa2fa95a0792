"""Which of vLLM's routes are open: the rule alone, the middleware alone, and a real vLLM behind it."""

import asyncio
import http.client
import json

import pytest

from bot.local.guard import OPEN, Guard, Message, Receive, Send, allowed
from bot.local.state import RunningStudent


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
def test_the_routes_of_the_list_are_open(method: str, path: str) -> None:
    assert allowed(method, path.encode())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"),
        ("POST", "//invocations"),
        ("POST", "/v1/../invocations"),
        ("POST", "/v1/chat/completions/../../../invocations"),
        ("POST", "/%69nvocations"),
        ("GET", "/v1/%6dodels"),
        ("GET", "/v1/models/"),
        ("GET", "//v1/models"),
        ("GET", "/V1/MODELS"),
        ("GET", "/v1/models;x"),
        ("GET", "/v1/models%00"),
        ("GET", ""),
        ("GET", "/"),
        ("get", "/health"),
        ("HEAD", "/health"),
        ("OPTIONS", "/v1/chat/completions"),
        ("POST", "/v1/models"),
        ("DELETE", "/adapters/x"),
        ("GET", "/docs"),
        ("GET", "/é"),
    ],
)
def test_everything_else_is_closed(method: str, path: str) -> None:
    assert not allowed(method, path.encode())


def through(scope: Message) -> tuple[bool, list[Message]]:
    """Send one scope through the guard; whether the server behind it was reached, and what was answered."""
    reached = False
    sent: list[Message] = []

    async def server(_scope: Message, _receive: Receive, _send: Send) -> None:
        nonlocal reached
        reached = True

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Guard(server)(scope, receive, send))
    return reached, sent


def http_scope(path: str, raw: bytes | None, method: str = "GET", root: str = "") -> Message:
    return {"type": "http", "method": method, "path": path, "raw_path": raw, "root_path": root}


def test_the_guard_lets_open_routes_and_the_servers_own_life_through() -> None:
    assert through(http_scope("/health", b"/health")) == (True, [])
    assert through({"type": "lifespan"}) == (True, [])


@pytest.mark.parametrize(
    "scope",
    [
        http_scope("/invocations", b"/invocations", "POST"),
        http_scope("/health", b"/%68ealth"),  # the decoded path alone would pass
        http_scope("/invocations", b"/health"),
        http_scope("/health", None),
        http_scope("/health", b"/health", root="/x"),
        {"type": "something new"},
    ],
)
def test_the_guard_answers_404_and_reaches_nothing(scope: Message) -> None:
    reached, (start, body) = through(scope)
    assert not reached
    assert start["status"] == 404
    assert json.loads(body["body"])["error"]["code"] == 404
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()


def test_the_guard_refuses_every_websocket() -> None:
    reached, sent = through({"type": "websocket", "path": "/v1/realtime"})
    assert not reached
    assert sent == [{"type": "websocket.close", "code": 1008}]


def ask(student: RunningStudent, method: str, path: str, *, key: str = "") -> int:
    """One request with the path exactly as written; the status."""
    connection = http.client.HTTPConnection("127.0.0.1", student.port, timeout=60)
    body = json.dumps({"model": student.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request(method, path, body=body, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.vllm
@pytest.mark.parametrize(
    "route",
    [
        "POST /invocations",
        "POST //invocations",
        "POST /v1/../invocations",
        "POST /%69nvocations",
        "POST /adapters",
        "DELETE /adapters/x",
        "POST /tokenize",
        "POST /detokenize",
        "POST /scale_elastic_ep",
        "POST /is_scaling_elastic_ep",
        "POST /generative_scoring",
        "POST /inference/v1/generate",
        "POST /v1/responses",
        "POST /v1/messages",
        "GET /v1/models/",
        "GET /load",
        "GET /version",
        "GET /ping",
        "GET /docs",
        "GET /openapi.json",
        "OPTIONS /v1/chat/completions",
    ],
)
def test_vllm_keeps_its_other_routes_closed_with_and_without_a_key(vllm_student: RunningStudent, route: str) -> None:
    method, path = route.split()
    assert ask(vllm_student, method, path) == 404
    assert ask(vllm_student, method, path, key=vllm_student.key) == 404


@pytest.mark.vllm
@pytest.mark.parametrize(("method", "path"), sorted(route for route in OPEN if route[1].startswith("/v1")))
def test_vllm_wants_its_key_under_v1(vllm_student: RunningStudent, method: str, path: str) -> None:
    assert ask(vllm_student, method, path) == 401
    assert ask(vllm_student, method, path, key="wrong") == 401


@pytest.mark.vllm
def test_vllm_answers_on_its_open_routes(vllm_student: RunningStudent) -> None:
    assert ask(vllm_student, "GET", "/health") == 200
    assert ask(vllm_student, "GET", "/metrics") == 200
    assert ask(vllm_student, "GET", "/v1/models", key=vllm_student.key) == 200
    assert ask(vllm_student, "POST", "/v1/chat/completions", key=vllm_student.key) == 200
