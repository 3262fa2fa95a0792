import asyncio
import contextlib
import json
import logging
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

import httpx2
import pytest
import trustme
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from bot import student
from bot.answer import TokenLogprob
from bot.domain import Usage
from bot.prompt import Message
from bot.student import Reply, ServedModel, Student, StudentError

KEY = "sk-very-secret-0123456789"
ASKED: list[Message] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "+ code"}]
SCHEMA: dict[str, object] = {"type": "object", "properties": {"x": {"type": "integer"}}}
CHAT = "/v1/chat/completions"
T = TypeVar("T")


def completion(content: str | None = '{"x":1}', **more: object) -> dict[str, object]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"id": "c", "object": "chat.completion", "choices": [choice | more], "usage": usage}


def failed(message: str) -> dict[str, object]:
    return {"error": {"message": message, "type": "BadRequestError", "code": 400}}


def connect(
    url: str,
    *,
    key: str | None = KEY,
    model: str | None = "base",
    adapter: str | None = None,
    ca_file: Path | None = None,
    timeout_seconds: float = 20,
    retries: int = 0,
) -> Student:
    return Student(
        url,
        key=key,
        model=model,
        adapter=adapter,
        ca_file=ca_file,
        timeout_seconds=timeout_seconds,
        retries=retries,
    )


def run(one: Student, use: Callable[[Student], Awaitable[T]]) -> T:
    async def main() -> T:
        async with one:
            return await use(one)

    return asyncio.run(main())


def ask(one: Student, *, schema: dict[str, object] | None = SCHEMA, priority: int | None = None) -> Reply:
    return run(one, lambda them: them.ask(ASKED, schema=schema, max_tokens=50, priority=priority))


def refusal(one: Student, kind: type[StudentError]) -> str:
    with pytest.raises(StudentError) as caught:
        ask(one)
    assert type(caught.value) is kind or (kind is student.StudentBroken and isinstance(caught.value, kind))
    assert KEY not in str(caught.value)
    assert KEY not in repr(one)
    assert caught.value.reason == kind.reason
    return str(caught.value)


@pytest.fixture
def url(httpserver: HTTPServer) -> str:
    return str(httpserver.url_for("/v1"))


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def bodies(server: HTTPServer) -> list[dict[str, object]]:
    return [request.get_json() for request, _ in server.log]


# What is asked, and what comes of the answer


def test_a_question_is_the_same_every_time(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT, method="POST").respond_with_json(completion())
    ask(connect(url), priority=3)
    request = httpserver.log[0][0]
    assert request.get_json() == {
        "model": "base",
        "messages": ASKED,
        "max_tokens": 50,
        "temperature": 0,
        "seed": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
        },
        "priority": 3,
    }
    assert request.headers["Authorization"] == f"Bearer {KEY}"


def test_free_text_is_asked_without_a_schema_and_without_a_priority(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_json(completion("hello"))
    assert ask(connect(url), schema=None).text == "hello"
    assert not bodies(httpserver)[0].keys() & {"response_format", "priority"}


def test_the_adapter_answers_where_there_is_one(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_json(completion())
    ask(connect(url, adapter="apprentice-0007"))
    assert bodies(httpserver)[0]["model"] == "apprentice-0007"


def test_a_reply_carries_text_logprobs_and_what_it_cost(httpserver: HTTPServer, url: str) -> None:
    tops = [{"token": "major", "logprob": -0.1, "bytes": [1]}, {"token": "minor", "logprob": -9999.0}]
    token = {"token": "major", "logprob": -0.1, "bytes": None, "top_logprobs": tops}
    body = completion(logprobs={"content": [token, {"token": "}", "logprob": 0.0}]})
    body["usage"] = {
        "prompt_tokens": 90,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 64},
    }
    httpserver.expect_request(CHAT).respond_with_json(body)
    reply = ask(connect(url))
    assert (reply.text, reply.finish_reason) == ('{"x":1}', "stop")
    assert reply.logprobs == (
        TokenLogprob("major", -0.1, (("major", -0.1), ("minor", -9999.0))),
        TokenLogprob("}", 0.0, ()),
    )
    assert reply.usage == Usage(1, 90, 64, 2, reply.usage.seconds)
    assert 0 < reply.usage.seconds < 20


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}])
def test_an_endpoint_that_tells_less_is_understood(httpserver: HTTPServer, url: str, details: object) -> None:
    body = completion(logprobs=None)
    body["usage"] = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": details}
    httpserver.expect_request(CHAT).respond_with_json(body)
    reply = ask(connect(url))
    assert reply.logprobs is None
    assert (reply.usage.prompt_tokens, reply.usage.cached_tokens) == (5, 0)


def test_no_usage_at_all_counts_as_one_request(httpserver: HTTPServer, url: str) -> None:
    body = completion(logprobs={"content": []})
    del body["usage"]
    httpserver.expect_request(CHAT).respond_with_json(body)
    reply = ask(connect(url))
    assert (reply.usage.requests, reply.usage.prompt_tokens, reply.logprobs) == (1, 0, None)


@pytest.mark.parametrize(("content", "text"), [('{"x":', '{"x":'), (None, "")])
def test_a_cut_answer_is_an_answer(httpserver: HTTPServer, url: str, content: str | None, text: str) -> None:
    httpserver.expect_request(CHAT).respond_with_json(completion(content, finish_reason="length"))
    reply = ask(connect(url))
    assert (reply.text, reply.finish_reason) == (text, "length")


# What an endpoint does not take is left out, and said


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("response_format is not supported by this model", {"response_format"}),
        ("'response_format.type' must be one of 'text', 'json_object'", {"response_format"}),
        ("logprobs are not supported", {"logprobs", "top_logprobs"}),
        (
            "Requested sample logprobs of 20, which is greater than max allowed: 5",
            {"logprobs", "top_logprobs"},
        ),
        ("Got priority 3 but Priority scheduling is not enabled.", {"priority"}),
        ("Extra inputs are not permitted: seed", {"seed"}),
    ],
)
def test_an_unsupported_part_is_left_out_from_then_on(
    httpserver: HTTPServer, url: str, said: str, lost: set[str]
) -> None:
    httpserver.expect_ordered_request(CHAT).respond_with_json(failed(said), status=400)
    httpserver.expect_ordered_request(CHAT).respond_with_json(completion())
    httpserver.expect_ordered_request(CHAT).respond_with_json(completion())

    async def twice(one: Student) -> tuple[str, ...]:
        for _ in range(2):
            await one.ask(ASKED, schema=SCHEMA, max_tokens=50, priority=3)
        return one.warnings

    (warning,) = run(connect(url), twice)
    assert f"does not take {min(lost)}" in warning
    first, second, third = bodies(httpserver)
    assert first.keys() - second.keys() == lost
    assert second == third


def test_two_unsupported_parts_are_found_one_after_the_other(httpserver: HTTPServer, url: str) -> None:
    def answer(request: Request) -> Response:
        for name in ("response_format", "logprobs"):
            if name in request.get_json():
                return Response(json.dumps({"detail": f"{name}: unknown"}), 422, mimetype="application/json")
        return Response(json.dumps(completion()), mimetype="application/json")

    httpserver.expect_request(CHAT).respond_with_handler(answer)
    assert ask(connect(url)).text == '{"x":1}'
    assert len(httpserver.log) == 3


def test_a_complaint_about_a_part_that_was_not_sent_is_an_error(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_json(failed("priority is wrong"), status=400)
    assert "answered 400: priority is wrong" in refusal(connect(url), student.StudentBroken)
    assert len(httpserver.log) == 1


# What goes wrong


def test_a_dead_endpoint_fails_within_seconds(closed_port: int) -> None:
    started = time.perf_counter()
    said = refusal(connect(f"http://127.0.0.1:{closed_port}/v1", retries=2), student.StudentUnreachable)
    assert time.perf_counter() - started < 5
    assert f"http://127.0.0.1:{closed_port}/v1/chat/completions cannot be reached: Connection refused" in said
    assert "apprentice student start" in said


def test_a_name_that_nobody_has_is_unreachable() -> None:
    said = refusal(connect("http://nobody.invalid/v1"), student.StudentUnreachable)
    assert "nobody.invalid" in said


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, {"error": "Unauthorized"}, student.StudentRefusedKey, "401: Unauthorized. Is the key in"),
        (401, failed(f"Incorrect API key provided: {KEY}."), student.StudentRefusedKey, "provided: ***."),
        (403, "<b>go\x1b[31m away</b>", student.StudentRefusedKey, "403: <b>go [31m away</b>. Is the key in"),
        (404, failed("The model `base` does not exist."), student.UnknownModel, "APPRENTICE_STUDENT_MODEL"),
        (404, failed('model "base" not found, try pulling it first'), student.UnknownModel, "404: model"),
        (400, failed("Invalid model name passed in model=base"), student.UnknownModel, "400: Invalid"),
        (404, {"detail": "Not Found"}, student.StudentBroken, "Is APPRENTICE_STUDENT_URL right?"),
        (
            400,
            failed("This model's maximum context length is 4096 tokens. However, your prompt has 4097"),
            student.ContextOverflow,
            "maximum context length is 4096",
        ),
        (400, failed("the request exceeds the available context size"), student.ContextOverflow, "exceeds"),
        (400, failed("temperature must be hot"), student.StudentBroken, "400: temperature must be hot."),
        (429, failed("slow down"), student.StudentBroken, "APPRENTICE_STUDENT_CONCURRENCY"),
        (
            500,
            failed("EngineCore encountered an issue."),
            student.StudentBroken,
            "500: EngineCore encountered",
        ),
        (503, "", student.StudentBroken, "503. Its own log"),
        (501, failed("no"), student.StudentBroken, "501: no."),
        (418, {"message": "x" * 5000}, student.StudentBroken, "418: …."),
    ],
)
def test_every_refusal_is_named(  # noqa: PLR0917
    httpserver: HTTPServer, url: str, status: int, body: object, kind: type[StudentError], words: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    httpserver.expect_request(CHAT).respond_with_data(text, status=status)
    said = refusal(connect(url), kind)
    assert words in said
    assert f"{url}/chat/completions" in said
    assert len(said) < 600
    assert said.isprintable()


def test_a_missing_key_is_told_from_a_wrong_one(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_json({"error": "Unauthorized"}, status=401)
    assert "Set APPRENTICE_STUDENT_API_KEY." in refusal(connect(url, key=None), student.StudentRefusedKey)
    assert "Authorization" not in httpserver.log[0][0].headers


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(httpserver: HTTPServer, url: str, status: int) -> None:
    httpserver.expect_ordered_request(CHAT).respond_with_data("", status=status, headers={"Retry-After": "1"})
    httpserver.expect_ordered_request(CHAT).respond_with_json(completion())
    started = time.perf_counter()
    assert ask(connect(url, retries=1)).text == '{"x":1}'
    assert time.perf_counter() - started >= 1


def test_it_gives_up_after_its_retries(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_data("", status=503)
    refusal(connect(url, retries=1), student.StudentBroken)
    assert len(httpserver.log) == 2


def test_a_hanging_endpoint_times_out_and_is_not_asked_again(httpserver: HTTPServer, url: str) -> None:
    waiting = threading.Event()

    def hang(_: Request) -> Response:
        waiting.wait(10)
        return Response("")

    httpserver.expect_request(CHAT).respond_with_handler(hang)
    started = time.perf_counter()
    said = refusal(connect(url, timeout_seconds=0.3, retries=5), student.StudentTooSlow)
    waiting.set()
    assert time.perf_counter() - started < 8  # five more tries would take 10 s and longer
    assert "gave no answer within 0.3 seconds" in said
    assert "APPRENTICE_STUDENT_TIMEOUT_SECONDS" in said


def test_a_host_that_takes_no_connection_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student, "_CONNECT_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 -- the standard library's own
            waiting.connect_ex(full.getsockname())
        started = time.perf_counter()
        one = connect(f"http://127.0.0.1:{full.getsockname()[1]}/v1", retries=5)
        said = refusal(one, student.StudentUnreachable)
    assert "cannot be reached: no connection within 0.3 seconds" in said
    assert time.perf_counter() - started < 8


@pytest.mark.parametrize(
    "text",
    [
        "<html>Please log in</html>",
        "",
        "[]",
        json.dumps(completion() | {"choices": []}),
        json.dumps(completion() | {"choices": None}),
        json.dumps(completion(None)),
        json.dumps(completion(finish_reason=None)),
        json.dumps(failed("no such thing")),
        '{"choices": [',
        "data: {}\n\ndata: [DONE]\n\n",
    ],
)
def test_nonsense_is_named(httpserver: HTTPServer, url: str, text: str) -> None:
    httpserver.expect_request(CHAT).respond_with_data(text, content_type="application/json")
    said = refusal(connect(url), student.StudentBroken)
    assert "something that is no chat completion" in said


def test_bytes_that_are_no_text_are_named(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_data(b"\xff\xfe\x00")
    assert "no chat completion" in refusal(connect(url), student.StudentBroken)


def test_a_connection_that_closes_in_the_middle_is_unreachable() -> None:
    class Closes(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)

    with serving(Closes) as port:
        said = refusal(connect(f"http://127.0.0.1:{port}/v1"), student.StudentUnreachable)
    assert "Server disconnected" in said


def test_a_cancelled_question_is_aborted_at_the_endpoint() -> None:
    asked, gone = threading.Event(), threading.Event()

    class Waits(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            asked.set()
            with contextlib.suppress(ConnectionError):
                while self.request.recv(65536):
                    pass
            gone.set()

    async def cancel(one: Student) -> None:
        task = asyncio.create_task(one.ask(ASKED, schema=None, max_tokens=5))
        await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gone.wait, 5)

    with serving(Waits) as port:
        run(connect(f"http://127.0.0.1:{port}/v1"), cancel)


def test_no_more_than_the_allowed_questions_are_in_flight() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def answer(_: Request) -> Response:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return Response(json.dumps(completion()))

    async def many(one: Student) -> None:
        await asyncio.gather(*(one.ask(ASKED, schema=None, max_tokens=5) for _ in range(12)))

    with HTTPServer(threaded=True) as server:
        server.expect_request(CHAT).respond_with_handler(answer)
        run(Student(str(server.url_for("/v1")), model="base", concurrency=3), many)
    assert most == 3


# Where code may go


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """A real server that speaks whatever `handler` does; gives its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("host", "named", "may"),
    [
        ("127.0.0.1", "gpu.corp", True),
        ("127.9.9.9", "gpu.corp", True),
        ("::1", "gpu.corp", True),
        ("localhost", "gpu.corp", True),
        ("gpu.corp", "gpu.corp", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("evil.example", "gpu.corp", False),
        ("gpu.corp.evil.example", "gpu.corp", False),
        ("localhost.evil.example", "gpu.corp", False),
        ("127.0.0.1.evil.example", "gpu.corp", False),
        ("sub.gpu.corp", "gpu.corp", False),
        ("0.0.0.0", "127.0.0.1", False),  # noqa: S104
        ("10.0.0.1", "127.0.0.1", False),
        ("", "gpu.corp", False),
    ],
)
def test_code_goes_to_this_machine_or_the_named_host(host: str, named: str, may: bool) -> None:  # noqa: FBT001
    assert student.may_receive_code(host, named) is may


def test_the_door_refuses_a_request_to_another_host() -> None:
    async def leak(one: Student) -> None:
        await one._client.post("https://evil.example/v1/x", cast_to=httpx2.Response, body={"code": 1})

    with pytest.raises(student.StudentBroken, match=r"Nothing was sent to evil\.example"):
        run(connect("http://127.0.0.1:1/v1"), leak)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(httpserver: HTTPServer, url: str, status: int) -> None:
    with HTTPServer() as other:
        other.expect_request("/v1/chat/completions").respond_with_json(completion())
        target = str(other.url_for(CHAT)).replace("localhost", "127.0.0.1")
        httpserver.expect_request(CHAT).respond_with_data(
            "", status=status, headers={"Location": f"{target}?token=t0ps3cret"}
        )
        said = refusal(connect(url, retries=2), student.StudentBroken)
        assert other.log == []
    assert f"sends us on to {target}." in said
    assert "t0ps3cret" not in said
    assert len(httpserver.log) == 1


def test_a_redirect_to_nowhere_is_refused_too() -> None:
    class Redirects(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n")

    with serving(Redirects) as port:
        said = refusal(connect(f"http://127.0.0.1:{port}/v1"), student.StudentBroken)
    assert "sends us on to another place" in said


def test_openai_variables_of_the_environment_change_nothing(
    httpserver: HTTPServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://evil.example/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-mine\nX-Mine: mine")
    httpserver.expect_request(CHAT).respond_with_json(completion())
    ask(connect(url, key=None))
    assert "mine" not in str(httpserver.log[0][0].headers)
    assert "Authorization" not in httpserver.log[0][0].headers


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://gpu.corp/v1", True),
        ("https://gpu.corp/v1", False),
        ("http://127.0.0.1:8100/v1", False),
        ("http://localhost:8100/v1", False),
    ],
)
def test_an_open_line_is_warned_of(url: str, warned: bool) -> None:  # noqa: FBT001
    one = connect(url)
    assert any("not encrypted" in warning for warning in one.warnings) is warned
    assert len(one.warnings) == int(warned)


def test_logs_hold_no_key(httpserver: HTTPServer, url: str, caplog: pytest.LogCaptureFixture) -> None:
    httpserver.expect_request(CHAT).respond_with_json(completion())
    with caplog.at_level(logging.DEBUG):
        ask(connect(url))
    assert caplog.text
    assert KEY not in caplog.text


# Proxies


class Proxy(socketserver.StreamRequestHandler):
    """A plain HTTP proxy that answers every request itself, as the host that it was asked for."""

    seen: list[str]

    def handle(self) -> None:
        self.seen.append(self.rfile.readline().decode().strip())
        length = 0
        while line := self.rfile.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.rfile.read(length)
        text = json.dumps(completion()).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text) + text)


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    Proxy.seen = []
    with serving(Proxy) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        assert ask(connect("http://gpu.corp/v1")).text == '{"x":1}'
    assert Proxy.seen == ["POST http://gpu.corp/v1/chat/completions HTTP/1.1"]


def test_a_dead_proxy_is_named_as_such(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://user:{KEY}@127.0.0.1:{closed_port}")
    said = refusal(connect("https://gpu.corp/v1"), student.StudentUnreachable)
    assert "cannot be reached through the proxy that the environment names: Connection refused" in said


def test_this_machine_is_never_reached_through_a_proxy(
    httpserver: HTTPServer, url: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    httpserver.expect_request(CHAT).respond_with_json(completion())
    assert ask(connect(url)).text == '{"x":1}'


def test_a_proxy_setting_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"gopher://user:{KEY}@proxy")
    with pytest.raises(student.StudentUnreachable, match="proxy of the environment") as caught:
        connect("https://gpu.corp/v1")
    assert KEY not in str(caught.value)


# TLS


@pytest.fixture
def secure() -> Iterator[tuple[str, trustme.CA]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with HTTPServer(ssl_context=context) as server:
        server.expect_request(CHAT).respond_with_json(completion())
        yield str(server.url_for("/v1")), authority


def test_a_certificate_of_an_unknown_authority_is_not_trusted(secure: tuple[str, trustme.CA]) -> None:
    started = time.perf_counter()
    said = refusal(connect(secure[0], retries=5), student.UntrustedCertificate)
    assert "unable to get local issuer certificate" in said
    assert "APPRENTICE_STUDENT_CA_FILE" in said
    assert time.perf_counter() - started < 8


def test_an_own_authority_is_trusted(secure: tuple[str, trustme.CA], tmp_path: Path) -> None:
    secure[1].cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert ask(connect(secure[0], ca_file=tmp_path / "ca.pem")).text == '{"x":1}'


def test_ssl_cert_file_is_honoured(
    secure: tuple[str, trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure[1].cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert ask(connect(secure[0])).text == '{"x":1}'


def test_a_file_without_certificates_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("hello")
    with pytest.raises(student.UntrustedCertificate, match=r"ca\.pem cannot be used"):
        connect("https://gpu.corp/v1", ca_file=tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(student.UntrustedCertificate, match=r"absent\.pem cannot be used"):
        connect("https://gpu.corp/v1")


def test_https_to_a_server_that_speaks_http_is_unreachable(httpserver: HTTPServer, url: str) -> None:
    said = refusal(connect(url.replace("http:", "https:")), student.StudentUnreachable)
    assert "WRONG_VERSION_NUMBER" in said or "record layer failure" in said
    assert httpserver.log == []


def test_http_to_a_server_that_speaks_https_is_unreachable(secure: tuple[str, trustme.CA]) -> None:
    refusal(connect(secure[0].replace("https:", "http:")), student.StudentUnreachable)


# Models and health


VLLM_MODELS = {
    "object": "list",
    "data": [
        {"id": "base", "object": "model", "root": "/m", "parent": None, "max_model_len": 4096},
        {"id": "apprentice-1", "object": "model", "root": "/a", "parent": "base", "max_model_len": None},
    ],
}


def test_models_are_listed(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/models", method="GET").respond_with_json(VLLM_MODELS)
    assert run(connect(url), lambda one: one.models()) == (
        ServedModel("base", None, 4096),
        ServedModel("apprentice-1", "base", None),
    )


@pytest.mark.parametrize("text", ["{}", "no", '{"data": [{"name": "x"}]}'])
def test_a_list_of_models_that_is_none_is_named(httpserver: HTTPServer, url: str, text: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_data(text)
    with pytest.raises(student.StudentBroken, match="no list of models"):
        run(connect(url), lambda one: one.models())


@pytest.mark.parametrize(("model", "adapter"), [(None, None), ("base", None), (None, "apprentice-1")])
def test_the_base_model_is_found(httpserver: HTTPServer, url: str, model: str | None, adapter: str | None) -> None:
    httpserver.expect_request("/v1/models").respond_with_json(VLLM_MODELS)

    async def twice(one: Student) -> ServedModel:
        await one.base()
        return await one.base()

    assert run(connect(url, model=model, adapter=adapter), twice) == ServedModel("base", None, 4096)
    assert len(httpserver.log) == 1


def test_a_question_without_a_model_goes_to_the_only_one(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_json(VLLM_MODELS)
    httpserver.expect_request(CHAT).respond_with_json(completion())
    ask(connect(url, model=None))
    assert httpserver.log[1][0].get_json()["model"] == "base"


@pytest.mark.parametrize(
    ("model", "adapter", "ids", "words"),
    [
        (
            "other",
            None,
            ["base", "b2"],
            "does not serve other; it serves base, b2. Set APPRENTICE_STUDENT_MODEL",
        ),
        (None, None, ["base", "b2"], "leaves open which model to ask; it serves base, b2."),
        (None, None, [], "it serves nothing"),
        ("base", "a7", ["base"], "has no adapter a7; it serves base."),
    ],
)
def test_a_model_that_is_not_there_is_named(  # noqa: PLR0917
    httpserver: HTTPServer, url: str, model: str | None, adapter: str | None, ids: list[str], words: str
) -> None:
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": one} for one in ids]})
    with pytest.raises(student.UnknownModel) as caught:
        run(connect(url, model=model, adapter=adapter), lambda one: one.base())
    assert words in str(caught.value)


def test_an_endpoint_without_a_list_of_models_needs_a_model_by_name(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("Not Found", status=404)
    assert run(connect(url), lambda one: one.base()) == ServedModel("base")
    with pytest.raises(student.StudentBroken, match="404"):
        run(connect(url, model=None), lambda one: one.base())


@pytest.mark.parametrize(
    ("health", "models", "healthy"),
    [(200, 500, True), (503, 200, False), (404, 200, True), (404, 401, False)],
)
def test_health_is_vllms_or_the_list_of_models(
    httpserver: HTTPServer, url: str, health: int, models: int, *, healthy: bool
) -> None:
    httpserver.expect_request("/health").respond_with_data("", status=health)
    httpserver.expect_request("/v1/models").respond_with_json({"data": []}, status=models)
    assert run(connect(url), lambda one: one.healthy()) is healthy


def test_a_dead_endpoint_is_not_healthy_at_once(closed_port: int) -> None:
    started = time.perf_counter()
    assert not run(connect(f"http://127.0.0.1:{closed_port}/v1", retries=5), lambda one: one.healthy())
    assert time.perf_counter() - started < 8


# Adapters


def test_adapters_are_loaded_and_unloaded(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/load_lora_adapter", method="POST").respond_with_data(
        "Success: LoRA adapter 'a-1' added successfully."
    )
    httpserver.expect_request("/v1/unload_lora_adapter", method="POST").respond_with_data("Success")

    async def both(one: Student) -> None:
        await one.load_adapter("a-1", PurePosixPath("/adapters/a-1"))
        await one.unload_adapter("a-1")

    run(connect(url), both)
    assert bodies(httpserver) == [{"lora_name": "a-1", "lora_path": "/adapters/a-1"}, {"lora_name": "a-1"}]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, failed("The lora adapter 'a-1' has already been loaded."), "has already been loaded"),
        (
            404,
            failed("Loading lora a-1 failed: No adapter found for /x/models/not exist"),
            "No adapter found",
        ),
        (500, failed("LoRA rank 32 is greater than max_lora_rank 16."), "rank 32 is greater"),
        (404, {"detail": "Not Found"}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
    ],
)
def test_a_refused_adapter_is_named_and_not_tried_again(
    httpserver: HTTPServer, url: str, status: int, body: object, words: str
) -> None:
    httpserver.expect_request("/v1/load_lora_adapter").respond_with_json(body, status=status)
    with pytest.raises(student.AdapterRefused) as caught:
        run(connect(url, retries=3), lambda one: one.load_adapter("a-1", PurePosixPath("/x")))
    assert "The adapter a-1 was not loaded" in str(caught.value)
    assert words in str(caught.value)
    assert len(httpserver.log) == 1


def test_unloading_an_unknown_adapter_is_named(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/unload_lora_adapter").respond_with_json(
        failed("The lora adapter 'a-1' cannot be found."), status=404
    )
    with pytest.raises(student.AdapterRefused, match="cannot be found"):
        run(connect(url), lambda one: one.unload_adapter("a-1"))


def test_a_wrong_key_for_adapters_is_a_wrong_key(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/unload_lora_adapter").respond_with_json({}, status=401)
    with pytest.raises(student.StudentRefusedKey):
        run(connect(url), lambda one: one.unload_adapter("a-1"))


@pytest.mark.parametrize("name", ["", "-a", "../a", "a b", "a/b", "a\n", "é", "a" * 101])
def test_a_bad_adapter_name_is_not_sent(httpserver: HTTPServer, url: str, name: str) -> None:
    with pytest.raises(student.AdapterRefused, match="is no adapter name"):
        run(connect(url), lambda one: one.load_adapter(name, PurePosixPath("/x")))
    assert httpserver.log == []


def test_a_relative_adapter_path_is_not_sent(url: str) -> None:
    with pytest.raises(student.AdapterRefused, match="absolute"):
        run(connect(url), lambda one: one.load_adapter("a", PurePosixPath("someone/adapter")))
