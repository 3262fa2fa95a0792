"""The way to GitLab: what is sent again, whom the token is shown, and the words for what goes wrong."""

import json
import logging
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme
from pydantic import BaseModel
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from bot.forge import (
    ForgeBusy,
    ForgeDenied,
    ForgeError,
    ForgeRefused,
    ForgeUnreachable,
    NotFound,
    UntrustedForge,
)
from bot.gitlab import door
from bot.gitlab.access import TRIES, Access
from bot.gitlab.api import Api

TOKEN = "glpat-very-secret-0123456789"
JSON = "application/json"
TOO_MANY = "This endpoint has been requested too many times. Try again later."


class Thing(BaseModel):
    id: int


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)


@contextmanager
def opened(url: str, *, ca_file: Path | None = None, seconds: float = 5, tries: int = TRIES) -> Iterator[Api]:
    api = Api(Access(url, TOKEN, ca_file, seconds, tries))
    try:
        yield api
    finally:
        api.close()


@pytest.fixture
def url(httpserver: HTTPServer) -> str:
    return f"http://127.0.0.1:{httpserver.port}"


@pytest.fixture
def api(url: str) -> Iterator[Api]:
    with opened(url) as one:
        yield one


def answer_in_turn(httpserver: HTTPServer, *answers: Response) -> None:
    """Whatever is asked; the last answer is for all that comes after."""
    left = list(answers)

    def handler(_: Request) -> Response:
        return left.pop(0) if len(left) > 1 else left[0]

    httpserver.expect_request("/api/v4/things").respond_with_handler(handler)


def refusal(call: Callable[[], object], kind: type[ForgeError]) -> str:
    with pytest.raises(ForgeError) as caught:
        call()
    assert type(caught.value) is kind
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


FINE = Response('{"id": 7}', content_type=JSON)


def answer(status: int, body: str = "", kind: str = JSON, **headers: str) -> Response:
    return Response(body, status, {name.replace("_", "-"): value for name, value in headers.items()}, content_type=kind)


# What is sent


def test_a_request_carries_the_token_our_name_and_no_cookie(httpserver: HTTPServer, api: Api) -> None:
    answer_in_turn(httpserver, answer(200, '{"id": 1}', Set_Cookie="_gitlab_session=x; path=/"), FINE)
    for _ in range(2):
        api.get("/things", Thing)
    headers = httpserver.log[1][0].headers
    assert headers["PRIVATE-TOKEN"] == TOKEN
    assert headers["User-Agent"].startswith("apprentice/")
    assert "Cookie" not in headers
    assert "Authorization" not in headers


def test_every_thread_has_its_own_session(httpserver: HTTPServer, api: Api) -> None:
    answer_in_turn(httpserver, FINE)
    together = threading.Barrier(4)

    def ask(_: int) -> int:
        together.wait(timeout=5)
        return id(api._client) if api.get("/things", Thing).id == 7 else 0

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 4


@pytest.mark.parametrize("token", ["", "two words", "glpat-ü", "line\n"])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ForgeDenied, match=r"^APPRENTICE_GITLAB_TOKEN must be one word of plain ASCII characters\.$"):
        Access("http://gitlab.example", token)


def test_the_token_is_not_in_what_describes_the_access() -> None:
    assert TOKEN not in repr(Access("http://gitlab.example", TOKEN))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(httpserver: HTTPServer, api: Api, url: str, status: int) -> None:
    with HTTPServer() as other:
        target = f"http://127.0.0.1:{other.port}/api/v4/things"
        answer_in_turn(httpserver, answer(status, Location=f"{target}?private_token={TOKEN}"))
        for call in (lambda: api.get("/things", Thing), lambda: api.post("/things", {}, Thing)):
            words = refusal(call, ForgeRefused)
            assert words.endswith(
                f"{url}/api/v4/things answered {status}. It sends us on to {target}: if that is the right place, set "
                "APPRENTICE_GITLAB_URL to it."
            )
        assert not other.log


def test_a_link_to_another_place_is_not_followed(httpserver: HTTPServer, api: Api) -> None:
    link = '<http://evil.example/next?page=2>; rel="next"'
    answer_in_turn(httpserver, answer(200, '[{"id": 1}]', Link=link))
    words = refusal(lambda: list(api.pages("/things", Thing)), ForgeRefused)
    assert words.startswith("Nothing was sent to http://evil.example/next: the token is for ")


def test_a_link_by_the_address_that_gitlab_gives_itself_is_followed_by_ours(httpserver: HTTPServer) -> None:
    link = '<https://gitlab.corp/git/api/v4/things?page=2&per_page=100>; rel="next"'
    left = [answer(200, '[{"id": 1}]', Link=link), answer(200, '[{"id": 2}]')]
    httpserver.expect_request("/git/api/v4/things").respond_with_handler(lambda _: left.pop(0))
    with opened(f"http://127.0.0.1:{httpserver.port}/git") as api:
        assert [thing.id for thing in api.pages("/things", Thing)] == [1, 2]
    assert [request.args["per_page"] for request, _ in httpserver.log] == ["100", "100"]


# What is sent again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520])
def test_a_read_is_tried_again(httpserver: HTTPServer, api: Api, status: int) -> None:
    answer_in_turn(httpserver, answer(status), answer(status), FINE)
    assert api.get("/things", Thing).id == 7


def test_a_read_is_given_up_after_some_tries(httpserver: HTTPServer, api: Api, url: str) -> None:
    answer_in_turn(httpserver, answer(502, "<html>Bad gateway</html>", "text/html"))
    words = refusal(lambda: api.get("/things", Thing), ForgeBusy)
    assert words == f"GET {url}/api/v4/things answered 502. GitLab's own log says more."
    assert len(httpserver.log) == TRIES


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_post_is_not_sent_again_after_an_error_of_the_server(httpserver: HTTPServer, api: Api, status: int) -> None:
    answer_in_turn(httpserver, answer(status, Retry_After="0"))
    refusal(lambda: api.post("/things", {"a": 1}, Thing), ForgeBusy)
    assert len(httpserver.log) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, f'{{"message": {{"error": "{TOO_MANY}"}}}}'), (409, '{"message": "409 Conflict: Resource lock"}')],
)
def test_a_post_that_was_turned_away_is_sent_again(httpserver: HTTPServer, api: Api, status: int, body: str) -> None:
    answer_in_turn(httpserver, answer(status, body), FINE)
    assert api.post("/things", {"a": 1}, Thing).id == 7
    assert [request.get_json() for request, _ in httpserver.log] == [{"a": 1}, {"a": 1}]


def test_changes_and_deletions_are_tried_again(httpserver: HTTPServer, api: Api) -> None:
    answer_in_turn(httpserver, answer(503), FINE, answer(500), answer(204))
    assert api.put("/things", {"a": 1}, Thing).id == 7
    api.delete("/things")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_what_is_final_is_not_tried_again(httpserver: HTTPServer, api: Api, status: int) -> None:
    answer_in_turn(httpserver, answer(status, '{"message": "no"}'))
    with pytest.raises(ForgeError):
        api.get("/things", Thing)
    assert len(httpserver.log) == 1


def in_a_minute() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=60)


@pytest.mark.parametrize(
    "headers",
    [
        lambda: {"Retry_After": "60"},
        lambda: {"Retry_After": format_datetime(in_a_minute(), usegmt=True)},
        lambda: {"RateLimit_Reset": str(int(in_a_minute().timestamp()))},
        lambda: {"RateLimit_ResetTime": format_datetime(in_a_minute(), usegmt=True)},
        lambda: {"Retry_After": "soon", "RateLimit_Reset": str(int(in_a_minute().timestamp()))},
    ],
)
def test_who_is_asked_for_long_patience_says_so_at_once(
    httpserver: HTTPServer, api: Api, headers: Callable[[], dict[str, str]]
) -> None:
    answer_in_turn(httpserver, answer(429, '{"message": "Retry later"}', **headers()))
    with pytest.raises(ForgeBusy, match=r"answered 429: Retry later\. The rate limit is reached\.$") as caught:
        api.get("/things", Thing)
    assert caught.value.retry_after == pytest.approx(60, abs=20)
    assert len(httpserver.log) == 1


def test_the_end_of_the_rate_window_is_no_matter_where_it_is_not_reached(httpserver: HTTPServer, api: Api) -> None:
    answer_in_turn(httpserver, answer(500, RateLimit_Reset=str(int(in_a_minute().timestamp()))), FINE)
    assert api.get("/things", Thing).id == 7


def test_a_server_that_is_down_for_long_says_so(httpserver: HTTPServer, api: Api) -> None:
    answer_in_turn(httpserver, answer(503, Retry_After="120"))
    with pytest.raises(ForgeBusy) as caught:
        api.get("/things", Thing)
    assert caught.value.retry_after == 120


def test_an_address_in_any_letters_is_the_same(httpserver: HTTPServer) -> None:
    answer_in_turn(httpserver, FINE)
    with opened(f"http://LocalHost:{httpserver.port}") as api:
        assert api.get("/things", Thing).id == 7


def test_a_short_wait_is_waited(httpserver: HTTPServer, api: Api) -> None:
    answer_in_turn(httpserver, answer(429, Retry_After="1"), FINE)
    begun = time.monotonic()
    api.post("/things", {}, Thing)
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("said", ["0", "never", "", format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)])
def test_where_gitlab_says_no_time_nobody_is_told_one(httpserver: HTTPServer, url: str, said: str) -> None:
    answer_in_turn(httpserver, answer(429, Retry_After=said))
    with opened(url, tries=1) as api, pytest.raises(ForgeBusy) as caught:
        api.get("/things", Thing)
    assert caught.value.retry_after is None


class Cutting(socketserver.ThreadingTCPServer):
    """Takes a request and says something of its own, then the line is cut. `asked` counts."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.asked = 0
        super().__init__(("127.0.0.1", 0), _Cut)


class _Cut(socketserver.BaseRequestHandler):
    server: Cutting

    def handle(self) -> None:
        self.request.recv(65536)
        self.server.asked += 1
        self.request.sendall(self.server.said)


@contextmanager
def cutting(said: bytes = b"") -> Iterator[Cutting]:
    with Cutting(said) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{"]
)
def test_a_lost_connection_is_tried_again_but_a_post_is_not(said: bytes) -> None:
    with cutting(said) as server, opened(f"http://127.0.0.1:{server.server_address[1]}") as api:
        words = refusal(lambda: api.get("/things", Thing), ForgeUnreachable)
        assert server.asked == TRIES
        assert words.endswith(". Is GitLab up, and is APPRENTICE_GITLAB_URL right?")
        refusal(lambda: api.post("/things", {}, Thing), ForgeUnreachable)
        assert server.asked == TRIES + 1


def test_a_file_that_breaks_off_is_read_again() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: text/plain\r\n\r\nabc"
    with cutting(said) as server, opened(f"http://127.0.0.1:{server.server_address[1]}") as api:
        refusal(lambda: api.fetch("/things", 1000), ForgeUnreachable)
        assert server.asked == TRIES


def test_a_post_is_sent_again_where_there_was_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with HTTPServer("127.0.0.1", port) as late:
        late.stop()
        timer = threading.Timer(0.02, late.start)
        late.expect_request("/api/v4/things").respond_with_response(FINE)
        timer.start()
        with opened(f"http://127.0.0.1:{port}", tries=8) as api:
            assert api.post("/things", {}, Thing).id == 7
        timer.join()


def test_no_answer_in_time_is_named(httpserver: HTTPServer, url: str) -> None:
    def slowly(_: Request) -> Response:
        time.sleep(0.5)
        return FINE

    httpserver.expect_request("/api/v4/things").respond_with_handler(slowly)
    with opened(url, seconds=0.1) as api:
        words = refusal(lambda: api.post("/things", {}, Thing), ForgeUnreachable)
    assert words == f"POST {url}/api/v4/things got no answer within 0.1 seconds. Is GitLab overloaded?"
    time.sleep(0.5)
    assert len(httpserver.log) == 1


# Words


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with opened(f"http://127.0.0.1:{port}/gitlab") as nobody:
        words = refusal(lambda: nobody.get("/things", Thing), ForgeUnreachable)
    assert words == (
        f"GET http://127.0.0.1:{port}/gitlab/api/v4/things failed: Connection refused. Is GitLab up, and is "
        "APPRENTICE_GITLAB_URL right?"
    )


def test_no_such_host() -> None:
    with opened("http://gitlab.invalid") as nobody:
        words = refusal(lambda: nobody.get("/things", Thing), ForgeUnreachable)
    assert "GET http://gitlab.invalid/api/v4/things failed: " in words


def said(message: object) -> str:
    return json.dumps({"message": message})


def oauth(error: str, description: str) -> str:
    return json.dumps({"error": error, "error_description": description})


RIGHTS = "The token needs the scope `api`, and its user the role Developer in the project (Maintainer for webhooks)."
NEW_TOKEN = "The token in APPRENTICE_GITLAB_TOKEN is wrong, expired or revoked: make a new one with the scope `api`."
HIDDEN = "It is not there, or the token's user may not see it: is the bot a member of the project, as Developer?"
ELSEWHERE = "Is APPRENTICE_GITLAB_URL right, with its path if GitLab has one?"
EXPLAINED: tuple[tuple[int, str, type[ForgeError], str], ...] = (
    (401, said("401 Unauthorized"), ForgeDenied, f"401: Unauthorized. {NEW_TOKEN}"),
    (401, oauth("invalid_token", "Token is expired."), ForgeDenied, f"401: Token is expired. {NEW_TOKEN}"),
    (403, said("403 Forbidden"), ForgeDenied, f"403: Forbidden. {RIGHTS}"),
    (403, oauth("insufficient_scope", "It needs more."), ForgeDenied, f"403: It needs more. {RIGHTS}"),
    (404, said("404 Project Not Found"), NotFound, f"404: Project Not Found. {HIDDEN}"),
    (404, '{"error":"404 Not Found"}', NotFound, f"404: Not Found. {HIDDEN}"),
    (404, "<html>", NotFound, f"404. {ELSEWHERE}"),
    (400, said({"place": ["is old", "is bad"], "base": []}), ForgeRefused, "400: place: is old, is bad; base:."),
    (400, said(["one", "two"]), ForgeRefused, "400: one, two."),
    (400, '{"error":"name is missing"}', ForgeRefused, "400: name is missing."),
    (400, "[null, 1]", ForgeRefused, "400: None, 1."),
    (400, "{broken", ForgeRefused, "400."),
    (409, said("409 Conflict"), ForgeRefused, "409: Conflict."),
    (429, said({"error": TOO_MANY}), ForgeBusy, f"429: {TOO_MANY} The rate limit is reached."),
    (400, said(f"{TOKEN} http://u:pw@proxy/ \x1b[31m {'x ' * 500}"), ForgeRefused, "400: *** http://***@proxy/"),
)  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "words"), EXPLAINED)
def test_an_answer_is_explained(
    httpserver: HTTPServer, *, status: int, body: str, kind: type[ForgeError], words: str
) -> None:
    answer_in_turn(httpserver, answer(status, body, "text/html" if body == "<html>" else f"{JSON}; charset=utf-8"))
    url = f"http://127.0.0.1:{httpserver.port}"
    with opened(url, tries=1) as api:
        told = refusal(lambda: api.get("/things", Thing), kind)
    assert told.startswith(f"GET {url}/api/v4/things answered {words}")
    assert told.isprintable()
    assert len(told) < 500


def test_a_refusal_keeps_status_and_words(httpserver: HTTPServer, api: Api) -> None:
    answer_in_turn(httpserver, answer(422, '{"error":"Invalid url given"}'))
    with pytest.raises(ForgeRefused) as caught:
        api.post("/things", {}, Thing)
    assert (caught.value.status, caught.value.said) == (422, "Invalid url given")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("<html>Sign in</html>", "text/html"),
        ("{broken", JSON),
        ('{"name": "no id"}', JSON),
        ('[{"id": 1}]', JSON),
        ("null", JSON),
    ],
)
def test_an_answer_that_gitlab_would_not_give(httpserver: HTTPServer, api: Api, url: str, body: str, kind: str) -> None:
    answer_in_turn(httpserver, answer(200, body, kind))
    for call in (
        lambda: api.get("/things", Thing),
        lambda: api.post("/things", {}, Thing),
        lambda: api.put("/things", {}, Thing),
    ):
        words = refusal(call, ForgeRefused)
        assert words == (
            f"{url} answered /things with something that GitLab would not say. Is APPRENTICE_GITLAB_URL right?"
        )


@pytest.mark.parametrize("body", ["{broken", '{"id": 1}', '[{"name": "no id"}]', '"text"'])
def test_a_list_that_gitlab_would_not_give(httpserver: HTTPServer, api: Api, body: str) -> None:
    answer_in_turn(httpserver, answer(200, body))
    refusal(lambda: list(api.pages("/things", Thing)), ForgeRefused)
    refusal(lambda: api.newest("/things", Thing, 5), ForgeRefused)


def test_a_file_is_read_up_to_a_limit(httpserver: HTTPServer, api: Api) -> None:
    httpserver.expect_request("/api/v4/things").respond_with_data(b"x" * 1000)
    assert api.fetch("/things", 1000) == (b"x" * 1000, True)
    assert api.fetch("/things", 999) == (b"x" * 999, False)


def test_the_token_stands_in_no_log(
    httpserver: HTTPServer, url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    answer_in_turn(httpserver, answer(401, f'{{"message": "{TOKEN}"}}'))
    with caplog.at_level(logging.DEBUG), opened(url) as api:
        refusal(lambda: api.get("/things", Thing, {"a": "b"}), ForgeDenied)
        refusal(lambda: api.post("/things", {"a": "b"}, Thing), ForgeDenied)
    assert caplog.records
    assert TOKEN not in caplog.text
    assert TOKEN not in "".join(capfd.readouterr())


# Certificates and proxies


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(ca: trustme.CA) -> Iterator[HTTPServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    with HTTPServer("localhost", ssl_context=context) as server:
        server.expect_request("/api/v4/things").respond_with_response(FINE)
        yield server


def test_an_own_authority_is_trusted_where_it_is_named(tls: HTTPServer, ca: trustme.CA, tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(pem)
    with opened(f"https://localhost:{tls.port}", ca_file=pem) as api:
        assert api.get("/things", Thing).id == 7


def test_an_own_authority_is_trusted_by_the_environment(
    tls: HTTPServer, ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with opened(f"https://localhost:{tls.port}") as api:
        assert api.get("/things", Thing).id == 7


@pytest.mark.parametrize("named", [False, True])
def test_a_stranger_is_not_trusted(tls: HTTPServer, tmp_path: Path, *, named: bool) -> None:
    pem = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(pem)
    with opened(f"https://localhost:{tls.port}", ca_file=pem if named else None) as api:
        words = refusal(lambda: api.post("/things", {}, Thing), UntrustedForge)
    assert words.startswith(f"The certificate of https://localhost:{tls.port} is not trusted: ")
    assert words.endswith("name that one's PEM file in APPRENTICE_GITLAB_CA_FILE.")
    assert not tls.log


def test_a_certificate_for_another_name_is_not_trusted(ca: trustme.CA, tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("other.example").configure_cert(context)
    with (
        HTTPServer("localhost", ssl_context=context) as server,
        opened(f"https://localhost:{server.port}", ca_file=pem) as api,
    ):
        assert "Hostname mismatch" in refusal(lambda: api.get("/things", Thing), UntrustedForge)


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    words = refusal(lambda: Api(Access("https://gitlab.example", TOKEN, tmp_path / "ca.pem")), UntrustedForge)
    assert words.startswith(f"{tmp_path / 'ca.pem'} cannot be used as certificates in PEM form: ")


def test_the_way_leads_through_the_proxy_of_the_environment(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:pw@127.0.0.1:{httpserver.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    httpserver.expect_request("/api/v4/things").respond_with_response(FINE)
    with opened("http://gitlab.invalid") as api:
        assert api.get("/things", Thing).id == 7
    assert httpserver.log[0][0].host == "gitlab.invalid"


def test_a_proxy_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://user:pa55word@127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with opened("http://gitlab.invalid") as api:
        words = refusal(lambda: api.get("/things", Thing), ForgeUnreachable)
    assert "failed through the proxy that the environment names: Connection refused." in words
    assert "pa55word" not in words


def test_the_way_by_https_leads_through_the_proxy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with cutting(b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with opened("https://gitlab.invalid", tries=2) as api:
            words = refusal(lambda: api.get("/things", Thing), ForgeUnreachable)
        assert proxy.asked == 2
    assert "failed through the proxy that the environment names: Tunnel connection failed: 403 Forbidden." in words


def test_a_proxy_setting_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "gopher://user:pa55word@proxy")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with opened("http://gitlab.invalid") as api:
        words = refusal(lambda: api.get("/things", Thing), ForgeUnreachable)
    assert "failed through the proxy that the environment names: " in words
    assert "pa55word" not in words


def test_this_machine_is_reached_without_a_proxy(
    httpserver: HTTPServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answer_in_turn(httpserver, FINE)
    assert api.get("/things", Thing).id == 7
