"""The edge to the student: asks an OpenAI-compatible endpoint, vLLM above all, and names what went wrong.

All traffic leaves through `_Door`: only to the named host or this machine, without redirects, with no
header that was not chosen here. Retries are the openai client's (lost connection, 429, 5xx; `Retry-After` is
honoured). A time-out or a refused certificate is not tried again: it would cost the same time twice.
"""

# ruff: noqa: N818 -- the errors here are named for what happened; all are a StudentError

import asyncio
import ipaddress
import os
import re
import ssl
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NotRequired, Self
from urllib.request import getproxies, proxy_bypass

import httpx2
from pydantic import BaseModel, ValidationError
from typing_extensions import (
    TypedDict,  # pydantic takes no other on 3.11
)

from bot.answer import TokenLogprob
from bot.domain import Usage
from bot.prompt import Message

if TYPE_CHECKING:
    import openai

_CONNECT_SECONDS = 10
_HEALTH_SECONDS = 5
# Below the 5 s after which uvicorn closes an idle connection: never write into one that is being closed.
_KEEPALIVE_SECONDS = 3
_OUR_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
)
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SAID_LETTERS = 300
_TOP_LOGPROBS = 20  # the most that vLLM and OpenAI give

# What a request can do without, and the word for it in the error of an endpoint that does not take it.
_OPTIONAL = {
    "response_format": re.compile(r"response.?format|json_schema", re.IGNORECASE),
    "logprobs": re.compile(r"logprobs", re.IGNORECASE),
    "priority": re.compile(r"\bpriority\b", re.IGNORECASE),
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
}
_OVERFLOW = re.compile(r"context[_ ](length|size|window)|max_model_len", re.IGNORECASE)
_NO_SUCH_MODEL = re.compile(
    r"model\b.*(not exist|not found|no such)|(invalid|unknown) model", re.IGNORECASE | re.DOTALL
)


class StudentError(RuntimeError):
    """No usable answer. The message says what was tried, what happened and the way out.

    Args:
        message: that message.
        status: the HTTP status of the answer, if there was one.
        said: the endpoint's own words.
    """

    reason = "the student gave no usable answer"
    """The kind of failure in a few words, without names or numbers."""

    def __init__(self, message: str, *, status: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said


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


class _Refused(StudentBroken):
    """Another 4xx or a 501: perhaps only a part of the request was not to its taste."""


class AdapterRefused(StudentError):
    """The endpoint did not load or unload an adapter."""

    reason = "the student refused the adapter"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `finish_reason` "length": it was cut; `logprobs` None: the endpoint gives none."""

    text: str
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model or an adapter at an endpoint. Only vLLM tells an adapter's base and the context length."""

    id: str
    parent: str | None = None
    max_model_len: int | None = None


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_receive_code(host: str, named: str) -> bool:
    """Whether code may be sent to `host`: it is this machine, or the host that the settings name."""
    return is_loopback(host) or host == named


class _Top(TypedDict):
    token: str
    logprob: float


class _Token(TypedDict):
    token: str
    logprob: float
    top_logprobs: NotRequired[list[_Top] | None]


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _AnswerMessage(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _AnswerMessage
    finish_reason: str
    logprobs: _Logprobs | None = None


class _CachedTokens(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Models(BaseModel):
    data: list[ServedModel]


class _Door(httpx2.AsyncClient):
    """The one way out; what it refuses is never sent."""

    def __init__(self, url: httpx2.URL, *, key: str | None, ca_file: Path | None, read_seconds: float) -> None:
        self._named = url.host
        self._key = key
        self._read_seconds = read_seconds
        super().__init__(
            verify=_trusted(url, ca_file),
            # Environment proxies; never for this machine: a proxy elsewhere cannot reach it.
            trust_env=not is_loopback(url.host),
            timeout=httpx2.Timeout(read_seconds, connect=_CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_SECONDS),
        )

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
            raise StudentUnreachable(_unreachable(request.url, why)) from None
        if response.is_redirect:
            target = _plain(response.next_request.url) if response.next_request else "another place"
            raise StudentBroken(
                f"{at} sends us on to {target}. Code goes only where the settings say: "
                "if that is the right place, set APPRENTICE_STUDENT_URL to it."
            )
        return response


class Student:
    """A client for one endpoint; use it as an async context manager, from one event loop.

    Args:
        url: the endpoint's address; ends in /v1, holds no user name and no query.
        key: its API key, or None.
        model: the base model's name, or None for the only one that is served.
        adapter: the LoRA adapter that shall answer, or None for the base model.
        ca_file: certificates (PEM) to trust instead of SSL_CERT_FILE or the system's.
        timeout_seconds: how long to wait for one answer.
        concurrency: how many questions may be in flight at once; more wait here.
        retries: tries after the first one for a lost connection, 408, 409, 429 and 5xx.

    Raises:
        UntrustedCertificate: the CA file cannot be used.
        StudentUnreachable: the proxy that the environment names cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        model: str | None = None,
        adapter: str | None = None,
        ca_file: Path | None = None,
        timeout_seconds: float = 120,
        concurrency: int = 8,
        retries: int = 2,
    ) -> None:
        import openai  # noqa: PLC0415 -- imported late: it takes most of a second

        self._url = httpx2.URL(url)
        self._base: ServedModel | None = None
        self._model = model
        self._adapter = adapter
        self._places = asyncio.Semaphore(concurrency)
        self._unsupported: set[str] = set()
        try:
            door = _Door(self._url, key=key, ca_file=ca_file, read_seconds=timeout_seconds)
        except (ValueError, ImportError) as error:
            raise StudentUnreachable(f"The proxy of the environment cannot be used: {error}") from None
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key="the door has it",
            max_retries=retries,
            timeout=door.timeout,
            http_client=door,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about this endpoint, as sentences; grows with what it lacks."""
        told = [f"{self._url} does not take {word}; asked without." for word in sorted(self._unsupported)]
        if self._url.scheme == "http" and not is_loopback(self._url.host):
            told.insert(0, f"{self._url} is not encrypted: code and key cross the network in the open.")
        return tuple(told)

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, object] | None,
        max_tokens: int,
        priority: int | None = None,
    ) -> Reply:
        """The adapter's (or the base model's) answer, as reproducible as the endpoint can.

        Args:
            messages: the chat so far.
            schema: JSON schema of the answer, or None for free text. An endpoint without structured output is
                asked without it: the answer may be anything.
            max_tokens: the longest answer; a longer one is cut (`finish_reason` is "length").
            priority: with vLLM's priority scheduling, lower goes first.

        Raises:
            StudentError: one of its subclasses.
        """
        body: dict[str, object] = {
            "model": self._adapter or self._model or (await self.base()).id,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 0,
            "logprobs": True,
            "top_logprobs": _TOP_LOGPROBS,
        }
        if schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        if priority is not None:
            body["priority"] = priority
        async with self._places:
            while True:
                for parameter in self._unsupported:
                    body.pop(parameter, None)
                if "logprobs" not in body:
                    body.pop("top_logprobs", None)
                started = time.perf_counter()
                try:
                    response = await self._send("/chat/completions", body)
                except _Refused as refused:
                    lacks = {name for name in body.keys() & _OPTIONAL if _OPTIONAL[name].search(refused.said)}
                    if not lacks:
                        raise
                    self._unsupported |= lacks
                else:
                    return _reply(response, time.perf_counter() - started)

    async def models(self) -> tuple[ServedModel, ...]:
        """What the endpoint serves: base models and adapters.

        Raises:
            StudentError: one of its subclasses.
        """
        response = await self._send("/models")
        try:
            served = _Models.model_validate_json(response.content)
        except ValidationError:
            raise StudentBroken(_nonsense(response, "list of models")) from None
        return tuple(served.data)

    async def base(self) -> ServedModel:
        """The base model that answers, or that the adapter stands on; asks the endpoint once.

        Raises:
            UnknownModel: it does not serve the model or the adapter, or serves several and none was chosen.
            StudentError: another of its subclasses.
        """
        if self._base is None:
            self._base = await self._find_base()
        return self._base

    async def _find_base(self) -> ServedModel:
        try:
            served = await self.models()
        except _Refused as refused:
            if self._model and refused.status == HTTPStatus.NOT_FOUND:  # an endpoint without such a list
                return ServedModel(self._model)
            raise
        names = ", ".join(one.id for one in served[:20]) or "nothing"
        if self._adapter and self._adapter not in {one.id for one in served}:
            raise UnknownModel(
                f"{self._url} has no adapter {self._adapter}; it serves {names}. Load it, or change "
                "APPRENTICE_STUDENT_ADAPTER."
            )
        if self._model:
            fitting = [one for one in served if one.id == self._model]
        else:
            fitting = [one for one in served if one.parent is None and one.id != self._adapter]
        if len(fitting) != 1:
            wanted = f"does not serve {self._model}" if self._model else "leaves open which model to ask"
            raise UnknownModel(f"{self._url} {wanted}; it serves {names}. Set APPRENTICE_STUDENT_MODEL to one of them.")
        return fitting[0]

    async def healthy(self) -> bool:
        """Whether it says that it works: vLLM at /health, other endpoints by listing their models."""
        health = self._url.copy_with(path=self._url.path.removesuffix("/v1") + "/health")
        quick: openai.RequestOptions = {"max_retries": 0, "timeout": _HEALTH_SECONDS}
        try:
            try:
                await self._send(str(health), options=quick)
            except _Refused:
                await self._send("/models", options=quick)
        except StudentError:
            return False
        return True

    async def load_adapter(self, name: str, path: PurePosixPath) -> None:
        """Make vLLM serve the adapter in the folder `path` (on its machine) as `name`.

        A name never gets a second meaning: vLLM would mix old and new weights. The folder must stay until the
        adapter is unloaded and its requests are done, or vLLM dies.

        Raises:
            AdapterRefused: a bad name or path, or vLLM's own reason.
            StudentError: another of its subclasses.
        """
        if not path.is_absolute():  # vLLM would look for anything else at a hub
            raise AdapterRefused(f"The adapter's folder must be an absolute path at the student, not {path}.")
        await self._change_adapter("load", {"lora_name": name, "lora_path": str(path)})

    async def unload_adapter(self, name: str) -> None:
        """Make vLLM forget an adapter's name; running requests finish.

        Raises:
            AdapterRefused: a bad name, or vLLM's own reason.
            StudentError: another of its subclasses.
        """
        await self._change_adapter("unload", {"lora_name": name})

    async def _change_adapter(self, verb: Literal["load", "unload"], body: Mapping[str, str]) -> None:
        name = body["lora_name"]
        if not _ADAPTER_NAME.fullmatch(name):
            raise AdapterRefused(f"{name!r} is no adapter name: it takes 1 to 100 of A-Z a-z 0-9 . _ -")
        try:
            await self._send(f"/{verb}_lora_adapter", body, {"max_retries": 0})
        except (StudentBroken, UnknownModel) as refused:
            if isinstance(refused, _Refused) and refused.said == "Not Found":  # there is no such route
                way_out = "Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."
            else:
                way_out = str(refused)
            raise AdapterRefused(f"The adapter {name} was not {verb}ed at {self._url}. {way_out}") from None

    async def _send(
        self, path: str, body: object = None, options: "openai.RequestOptions | None" = None
    ) -> httpx2.Response:
        """POST where there is a body, else GET; answers other than 2xx become a `StudentError`."""
        import openai  # noqa: PLC0415 -- imported already, by __init__

        options = options or {}
        try:
            if body is None:
                return await self._client.get(path, cast_to=httpx2.Response, options=options)
            return await self._client.post(path, cast_to=httpx2.Response, body=body, options=options)
        except openai.APIStatusError as error:
            raise _explained(error.response) from None
        except openai.APIConnectionError as error:
            raise StudentUnreachable(_unreachable(error.request.url, _reason(error))) from None


def _explained(response: httpx2.Response) -> StudentError:
    """What an answer other than 2xx means, and what to do about it."""
    status, said = response.status_code, _said(response)
    answered = f"{_plain(response.request.url)} answered {status}{said and ': '}{said}."
    kind: type[StudentError] = _Refused
    way_out = ""
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        kind = StudentRefusedKey
        given = "authorization" in response.request.headers
        way_out = " Is the key in APPRENTICE_STUDENT_API_KEY right?" if given else " Set APPRENTICE_STUDENT_API_KEY."
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        kind, way_out = StudentBroken, " Ask later, or less at once (APPRENTICE_STUDENT_CONCURRENCY)."
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
        kind, way_out = StudentBroken, " Its own log says more."
    elif _NO_SUCH_MODEL.search(said):
        kind, way_out = UnknownModel, " Change APPRENTICE_STUDENT_MODEL or APPRENTICE_STUDENT_ADAPTER."
    elif _OVERFLOW.search(said):
        kind, way_out = ContextOverflow, " Lower APPRENTICE_STUDENT_CONTEXT_TOKENS."
    elif status == HTTPStatus.NOT_FOUND:
        way_out = " Is APPRENTICE_STUDENT_URL right?"
    return kind(answered + way_out, status=status, said=said)


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


def _nonsense(response: httpx2.Response, wanted: str) -> str:
    return (
        f"{_plain(response.request.url)} answered with something that is no {wanted}: "
        f"{_one_line(response, response.text)!r}. Is APPRENTICE_STUDENT_URL right?"
    )


def _reply(response: httpx2.Response, seconds: float) -> Reply:
    try:
        completion = _Completion.model_validate_json(response.content)
    except ValidationError:
        raise StudentBroken(_nonsense(response, "chat completion")) from None
    if not completion.choices:
        raise StudentBroken(_nonsense(response, "chat completion (it has no choices)"))
    choice, usage = completion.choices[0], completion.usage or _Usage()
    text = choice.message.content
    # No text, and cut: it thought until its tokens were spent. That is an answer, an empty one.
    if text is None and choice.finish_reason != "length":
        raise StudentBroken(_nonsense(response, "chat completion (it has no content)"))
    details = usage.prompt_tokens_details or _CachedTokens()
    return Reply(
        text=text or "",
        finish_reason=choice.finish_reason,
        logprobs=_token_logprobs(choice.logprobs.content) if choice.logprobs and choice.logprobs.content else None,
        usage=Usage(
            requests=1,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=details.cached_tokens or 0,
            completion_tokens=usage.completion_tokens,
            seconds=seconds,
        ),
    )


def _token_logprobs(tokens: list[_Token]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            one["token"],
            one["logprob"],
            tuple((other["token"], other["logprob"]) for other in one.get("top_logprobs") or ()),
        )
        for one in tokens
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


def _reason(error: BaseException) -> str:
    """Why a connection failed, in the words of the system where it has some."""
    *_, last = _causes(error)
    if isinstance(last, OSError) and not isinstance(last, ssl.SSLError) and last.errno and last.errno > 0:
        return os.strerror(last.errno)
    return str(last) or type(last).__name__


def _unreachable(url: httpx2.URL, reason: str) -> str:
    proxied = url.scheme in getproxies() and not is_loopback(url.host) and not proxy_bypass(url.host)
    way = " through the proxy that the environment names" if proxied else ""
    return (
        f"{_plain(url)} cannot be reached{way}: {reason}. Is it up? `apprentice student start` starts one on "
        "this machine; APPRENTICE_STUDENT_URL names another."
    )


def _plain(url: httpx2.URL) -> httpx2.URL:
    """The address without anything that could be a secret."""
    return url.copy_with(userinfo=b"", query=None, fragment=None)
