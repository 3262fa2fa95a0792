"""The way to an endpoint: where code may go, what leaves this machine, and what went wrong, in words.

All traffic leaves through `Door`: only to the named host or this machine, without redirects, with no header
that was not chosen here. What it raises itself as a `StudentError` is final; trying again would not help.
"""

# ruff: noqa: N818 -- the errors here are named for what happened; all are a StudentError

import ipaddress
import os
import re
import ssl
import textwrap
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx2

_CONNECT_SECONDS = 10
# Below the 5 s after which uvicorn closes an idle connection: never write into one that is being closed.
_KEEPALIVE_SECONDS = 3
_OUR_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
)
_SAID_LETTERS = 300
_OVERFLOW = re.compile(r"context[_ ](length|size|window)|max_model_len", re.IGNORECASE)
_NO_SUCH_MODEL = re.compile(
    r"model\b.*(not exist|not found|no such)|(invalid|unknown) model", re.IGNORECASE | re.DOTALL
)


class StudentError(RuntimeError):
    """No usable answer. The message says what was tried, what happened and the way out."""

    reason = "the student gave no usable answer"
    """The kind of failure in a few words, without names or numbers."""


class StudentUnreachable(StudentError):
    """Nobody answers there."""

    reason = "the student could not be reached"


class StudentTooSlow(StudentError):
    """The endpoint took the request and gave no answer in time."""

    reason = "the student gave no answer in time"


class StudentRefusedKey(StudentError):
    """401 or 403."""

    reason = "the student refused the key"


class UnknownModel(StudentError):
    """The endpoint does not serve that model or adapter."""

    reason = "the student does not serve that model"


class ContextOverflow(StudentError):
    """The prompt does not fit the model's context."""

    reason = "too long for the student's context"


class UntrustedCertificate(StudentError):
    """The endpoint's certificate is signed by nobody whom this machine trusts."""

    reason = "the student's certificate is not trusted"


class StudentBroken(StudentError):
    """The endpoint failed (5xx), sent nonsense, or pointed elsewhere."""

    reason = "the student failed"


class RequestRefused(StudentBroken):
    """Another 4xx or a 501: perhaps only a part of the request was not to its taste.

    Args:
        message: as in every `StudentError`.
        status: the HTTP status of the answer.
        said: the endpoint's own words.
    """

    def __init__(self, message: str, *, status: int, said: str) -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class AdapterRefused(StudentError):
    """The endpoint did not load or unload an adapter."""

    reason = "the student refused the adapter"


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_receive_code(host: str, named: str) -> bool:
    """Whether code may be sent to `host`: it is this machine, or the host that the settings name."""
    return is_loopback(host) or host == named


class Door(httpx2.AsyncClient):
    """The one way out; what it refuses is never sent.

    Args:
        url: the endpoint's address; its host is the named one.
        key: the endpoint's API key, or None.
        ca_file: certificates (PEM) to trust instead of SSL_CERT_FILE or the system's.
        read_seconds: how long to wait for one answer.

    Raises:
        UntrustedCertificate: the CA file cannot be used.
        StudentUnreachable: the proxy that the environment names cannot be used.
    """

    def __init__(self, url: httpx2.URL, *, key: str | None, ca_file: Path | None, read_seconds: float) -> None:
        self._named = url.host
        self._key = key
        self._read_seconds = read_seconds
        try:
            super().__init__(
                verify=_trusted(url, ca_file),
                # Environment proxies; never for this machine: a proxy elsewhere cannot reach it.
                trust_env=not is_loopback(url.host),
                timeout=httpx2.Timeout(read_seconds, connect=_CONNECT_SECONDS, pool=None),
                limits=httpx2.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_SECONDS),
            )
        except (ValueError, ImportError) as error:
            raise StudentUnreachable(f"The proxy of the environment cannot be used: {error}") from None

    async def send(self, request: httpx2.Request, **_: object) -> httpx2.Response:
        """Send a request as it may be sent, whatever else the caller asked for."""
        if not may_receive_code(request.url.host, self._named):
            raise StudentBroken(f"Nothing was sent to {request.url.host}: only to {self._named} or this machine.")
        for name in set(request.headers) - _OUR_HEADERS:  # such as what OPENAI_* variables add
            del request.headers[name]
        if self._key:
            request.headers["authorization"] = f"Bearer {self._key}"
        at = _plain(request.url)
        try:
            response = await super().send(request, follow_redirects=False)
        except (httpx2.ConnectError, ssl.SSLError) as error:
            for cause in _causes(error):
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise UntrustedCertificate(
                        f"The certificate of {at} is not trusted: {cause.verify_message}. If it is signed "
                        "by your own authority, name that one's PEM file in APPRENTICE_STUDENT_CA_FILE."
                    ) from None
            raise
        except (httpx2.ReadTimeout, httpx2.WriteTimeout):
            raise StudentTooSlow(
                f"{at} gave no answer within {self._read_seconds:g} seconds: ask less at once "
                "(APPRENTICE_STUDENT_CONCURRENCY) or wait longer (APPRENTICE_STUDENT_TIMEOUT_SECONDS)."
            ) from None
        except httpx2.TimeoutException:
            why = f"no connection within {_CONNECT_SECONDS} seconds"
            raise unreachable(request.url, why) from None
        if response.is_redirect:
            target = _plain(response.next_request.url) if response.next_request else "another place"
            raise StudentBroken(
                f"{at} sends us on to {target}. Code goes only where the settings say: "
                "if that is the right place, set APPRENTICE_STUDENT_URL to it."
            )
        return response


def explained(response: httpx2.Response) -> StudentError:
    """What an answer other than 2xx means, and what to do about it."""
    status, said = response.status_code, _said(response)
    answered = f"{_plain(response.request.url)} answered {status}{said and ': '}{said}."
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        given = "authorization" in response.request.headers
        way_out = "Is the key in APPRENTICE_STUDENT_API_KEY right?" if given else "Set APPRENTICE_STUDENT_API_KEY."
        return StudentRefusedKey(f"{answered} {way_out}")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return StudentBroken(f"{answered} Ask later, or less at once (APPRENTICE_STUDENT_CONCURRENCY).")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
        return StudentBroken(f"{answered} Its own log says more.")
    if _NO_SUCH_MODEL.search(said):
        return UnknownModel(f"{answered} Change APPRENTICE_STUDENT_MODEL or APPRENTICE_STUDENT_ADAPTER.")
    if _OVERFLOW.search(said):
        return ContextOverflow(f"{answered} Lower APPRENTICE_STUDENT_CONTEXT_TOKENS.")
    way_out = " Is APPRENTICE_STUDENT_URL right?" if status == HTTPStatus.NOT_FOUND else ""
    return RequestRefused(answered + way_out, status=status, said=said)


def _said(response: httpx2.Response) -> str:
    """The endpoint's own words about an error."""
    try:
        said = response.json()
    except ValueError:
        said = response.text
    for name in ("error", "message", "detail"):  # {"error": {"message": …}}, {"error": …}, {"detail": …}
        if isinstance(said, dict) and name in said:
            said = said[name]
    return _one_line(response, str(said)).rstrip(".")


def _one_line(response: httpx2.Response, text: str) -> str:
    """Words of an endpoint for a terminal: short, printable, without our key should it repeat it."""
    if key := response.request.headers.get("authorization", "").removeprefix("Bearer "):
        text = text.replace(key, "***")
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:5000])
    return textwrap.shorten(printable, _SAID_LETTERS, placeholder="…")


def nonsense(response: httpx2.Response, wanted: str) -> StudentBroken:
    """The error for a 2xx answer that is not what was asked for."""
    return StudentBroken(
        f"{_plain(response.request.url)} answered with something that is no {wanted}: "
        f"{_one_line(response, response.text)!r}. Is APPRENTICE_STUDENT_URL right?"
    )


def _trusted(url: httpx2.URL, ca_file: Path | None) -> ssl.SSLContext:
    if url.scheme == "http":  # reading the system's certificates takes a while
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    source = ca_file or os.environ.get("SSL_CERT_FILE") or "the system's certificates"
    try:
        return ssl.create_default_context(cafile=ca_file) if ca_file else httpx2.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        raise UntrustedCertificate(f"{source} cannot be used as certificates in PEM form: {error}") from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in the words of the system where it has some."""
    *_, last = _causes(error)
    if isinstance(last, OSError) and not isinstance(last, ssl.SSLError) and last.errno and last.errno > 0:
        return os.strerror(last.errno)
    return str(last) or type(last).__name__


def unreachable(url: httpx2.URL, why: str) -> StudentUnreachable:
    """The error for a connection that did not come about or broke."""
    proxied = url.scheme in getproxies() and not is_loopback(url.host) and not proxy_bypass(url.host)
    way = " through the proxy that the environment names" if proxied else ""
    return StudentUnreachable(
        f"{_plain(url)} cannot be reached{way}: {why}. Is it up? `apprentice student start` starts one on "
        "this machine; APPRENTICE_STUDENT_URL names another."
    )


def _plain(url: httpx2.URL) -> httpx2.URL:
    """The address without anything that could be a secret."""
    return url.copy_with(userinfo=b"", query=None, fragment=None)
