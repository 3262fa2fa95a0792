"""The door and its words: where code may go, with which headers, through which proxy and under whose certificate."""

import asyncio
import contextlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import trustme
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from bot import endpoint
from bot.endpoint import Door, StudentError, explained, may_receive_code, reason_of, unreachable

KEY = "sk-very-secret-0123456789"


def failed(message: str) -> dict[str, object]:
    return {"error": {"message": message, "type": "BadRequestError", "code": 400}}


def get(
    url: str,
    *,
    at: str | None = None,
    key: str | None = KEY,
    ca_file: Path | None = None,
    read_seconds: float = 20,
    headers: dict[str, str] | None = None,
) -> httpx2.Response:
    """What comes back through the door of `url`, asked for `at` or else for the same address."""

    async def main() -> httpx2.Response:
        async with Door(httpx2.URL(url), key=key, ca_file=ca_file, read_seconds=read_seconds) as door:
            return await door.get(at or url, headers=headers)

    return asyncio.run(main())


def refusal(url: str, kind: type[StudentError], *, at: str | None = None, read_seconds: float = 20) -> str:
    with pytest.raises(kind) as caught:
        get(url, at=at, read_seconds=read_seconds)
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)
    return str(caught.value)


def broken_connection(url: str) -> str:
    """The words for a connection that the door did not get."""
    with pytest.raises(httpx2.TransportError) as caught:
        get(url)
    return str(unreachable(caught.value.request.url, reason_of(caught.value)))


@pytest.fixture
def url(httpserver: HTTPServer) -> str:
    return str(httpserver.url_for("/v1/x"))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens, and nobody begins to: it is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


# Where code may go


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
def test_code_goes_to_this_machine_or_the_named_host(host: str, named: str, *, may: bool) -> None:
    assert may_receive_code(host, named) is may


def test_the_door_refuses_a_request_to_another_host() -> None:
    said = refusal("http://127.0.0.1:1/v1", endpoint.StudentBroken, at="https://evil.example/v1/x?token=t0ps3cret")
    assert said == "Nothing was sent to evil.example: only to 127.0.0.1 or this machine."


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[HTTPServer]:
    """A second server, which nobody must ask."""
    with HTTPServer() as other:
        yield other


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(httpserver: HTTPServer, elsewhere: HTTPServer, url: str, status: int) -> None:
    target = str(elsewhere.url_for("/v1/x")).replace("localhost", "127.0.0.1")
    httpserver.expect_request("/v1/x").respond_with_data(
        "", status=status, headers={"Location": f"{target}?token=t0ps3cret"}
    )
    said = refusal(url, endpoint.StudentBroken)
    assert elsewhere.log == []
    assert f"sends us on to {target}." in said
    assert "t0ps3cret" not in said


@pytest.mark.parametrize("location", [b"", b"Location: http://[::1\r\n"])
def test_a_redirect_to_nowhere_is_refused_too(location: bytes) -> None:
    class Redirects(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(b"HTTP/1.1 302 Found\r\n" + location + b"Content-Length: 0\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Redirects) as server:
        threading.Thread(target=server.handle_request).start()
        said = refusal(f"http://127.0.0.1:{server.server_address[1]}/v1", endpoint.StudentBroken)
    assert "sends us on to another place" in said


def test_only_chosen_headers_leave(httpserver: HTTPServer, url: str) -> None:
    httpserver.expect_request("/v1/x").respond_with_data("")
    get(url, headers={"Authorization": "Bearer sk-mine", "X-Mine": "mine", "Cookie": "mine"})
    get(url, key=None, headers={"Authorization": "Bearer sk-mine"})
    first, second = (request.headers for request, _ in httpserver.log)
    assert "mine" not in f"{first}{second}"
    assert first["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in second


# What went wrong


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, {"error": "Unauthorized"}, endpoint.StudentRefusedKey, "401: Unauthorized. Is the key in"),
        (401, failed(f"Incorrect API key provided: {KEY}."), endpoint.StudentRefusedKey, "provided: ***."),
        (403, "<b>go\x1b[31m away</b>", endpoint.StudentRefusedKey, "403: <b>go [31m away</b>. Is the key in"),
        (404, failed("The model `base` does not exist."), endpoint.UnknownModel, "APPRENTICE_STUDENT_MODEL"),
        (404, failed('model "base" not found, try pulling it first'), endpoint.UnknownModel, "404: model"),
        (400, failed("Invalid model name passed in model=base"), endpoint.UnknownModel, "400: Invalid"),
        (404, {"detail": "Not Found"}, endpoint.RequestRefused, "404: Not Found. Is APPRENTICE_STUDENT_URL right?"),
        (
            400,
            failed("This model's maximum context length is 4096 tokens. However, your prompt has 4097"),
            endpoint.ContextOverflow,
            "maximum context length is 4096",
        ),
        (400, failed("the request exceeds the available context size"), endpoint.ContextOverflow, "exceeds"),
        (400, failed("temperature must be hot"), endpoint.RequestRefused, "400: temperature must be hot."),
        (429, failed("slow down"), endpoint.StudentBroken, "APPRENTICE_STUDENT_CONCURRENCY"),
        (500, failed("EngineCore encountered an issue."), endpoint.StudentBroken, "500: EngineCore encountered"),
        (503, "", endpoint.StudentBroken, "503. Its own log"),
        (501, failed("no"), endpoint.RequestRefused, "501: no."),
        (418, {"message": "x" * 5000}, endpoint.RequestRefused, "418: …."),
    ],
)
def test_every_refusal_is_named(status: int, body: object, kind: type[StudentError], words: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    request = httpx2.Request("POST", "http://u:pass@gpu/v1/x?q=pass", headers={"Authorization": f"Bearer {KEY}"})
    error = explained(httpx2.Response(status, text=text, request=request))
    said = str(error)
    assert type(error) is kind
    assert words in said
    assert said.startswith("http://gpu/v1/x answered")
    assert KEY not in said
    assert len(said) < 600
    assert said.isprintable()


def test_a_missing_key_is_told_from_a_wrong_one() -> None:
    response = httpx2.Response(401, json={"error": "Unauthorized"}, request=httpx2.Request("POST", "http://gpu/v1/x"))
    assert "Set APPRENTICE_STUDENT_API_KEY." in str(explained(response))


def test_a_name_that_nobody_has_is_unreachable() -> None:
    assert "http://nobody.invalid/v1 cannot be reached: " in broken_connection("http://nobody.invalid/v1")


def test_a_closed_port_is_named_in_the_systems_words(closed_port: int) -> None:
    said = broken_connection(f"http://127.0.0.1:{closed_port}/v1")
    assert f"http://127.0.0.1:{closed_port}/v1 cannot be reached: Connection refused." in said
    assert "apprentice student start" in said


def test_no_answer_in_time_is_named(httpserver: HTTPServer, url: str) -> None:
    waiting = threading.Event()

    def hang(_: Request) -> Response:
        waiting.wait(10)
        return Response("")

    httpserver.expect_request("/v1/x").respond_with_handler(hang)
    said = refusal(url, endpoint.StudentTooSlow, read_seconds=0.3)
    waiting.set()
    assert "gave no answer within 0.3 seconds" in said
    assert "APPRENTICE_STUDENT_TIMEOUT_SECONDS" in said


def test_a_host_that_takes_no_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_CONNECT_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 -- the standard library's own
            waiting.connect_ex(full.getsockname())
        said = refusal(f"http://127.0.0.1:{full.getsockname()[1]}/v1", endpoint.StudentUnreachable)
    assert "cannot be reached: no connection within 0.3 seconds" in said


# Proxies


def test_a_proxy_of_the_environment_is_used(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    httpserver.expect_request("/v1/x").respond_with_data("from the proxy")
    monkeypatch.setenv("http_proxy", str(httpserver.url_for("")))
    assert get("http://gpu.corp/v1/x").text == "from the proxy"
    assert httpserver.log[0][0].environ["REQUEST_URI"] == "http://gpu.corp/v1/x"


def test_a_dead_proxy_is_named_as_such(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://user:{KEY}@127.0.0.1:{closed_port}")
    said = broken_connection("https://gpu.corp/v1")
    assert "cannot be reached through the proxy that the environment names: Connection refused" in said
    assert KEY not in said


def test_this_machine_is_never_reached_through_a_proxy(
    httpserver: HTTPServer, url: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    httpserver.expect_request("/v1/x").respond_with_data("here")
    assert get(url).text == "here"


def test_a_proxy_setting_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"gopher://user:{KEY}@proxy")
    assert "proxy of the environment" in refusal("https://gpu.corp/v1", endpoint.StudentUnreachable)


# TLS


@pytest.fixture
def secure() -> Iterator[tuple[str, trustme.CA]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with HTTPServer(ssl_context=context) as server:
        server.expect_request("/v1/x").respond_with_data("safe")
        yield str(server.url_for("/v1/x")), authority


def test_a_certificate_of_an_unknown_authority_is_not_trusted(secure: tuple[str, trustme.CA]) -> None:
    said = refusal(secure[0], endpoint.UntrustedCertificate)
    assert "unable to get local issuer certificate" in said
    assert "APPRENTICE_STUDENT_CA_FILE" in said


def test_an_own_authority_is_trusted(secure: tuple[str, trustme.CA], tmp_path: Path) -> None:
    secure[1].cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert get(secure[0], ca_file=tmp_path / "ca.pem").text == "safe"


def test_ssl_cert_file_is_honoured(
    secure: tuple[str, trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure[1].cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert get(secure[0]).text == "safe"


def test_a_file_without_certificates_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("hello")
    with pytest.raises(endpoint.UntrustedCertificate, match=r"ca\.pem cannot be used"):
        get("https://gpu.corp/v1", ca_file=tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(endpoint.UntrustedCertificate, match=r"absent\.pem cannot be used"):
        get("https://gpu.corp/v1")


def test_https_to_a_server_that_speaks_http_is_unreachable(httpserver: HTTPServer, url: str) -> None:
    said = broken_connection(url.replace("http:", "https:"))
    assert "WRONG_VERSION_NUMBER" in said or "record layer failure" in said
    assert httpserver.log == []


def test_http_to_a_server_that_speaks_https_is_unreachable(secure: tuple[str, trustme.CA]) -> None:
    assert "cannot be reached" in broken_connection(secure[0].replace("https:", "http:"))
