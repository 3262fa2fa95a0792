"""The edge to the student: asks an OpenAI-compatible endpoint, vLLM above all, and names what went wrong.

Retries are the openai client's (lost connection, 429, 5xx; `Retry-After` is honoured). A time-out or a refused
certificate is not tried again: it would cost the same time twice.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, NotRequired, Self

import httpx2
from pydantic import AliasPath, BaseModel, Field, ValidationError
from typing_extensions import TypedDict  # pydantic takes no other on 3.11

from bot.answer import TokenLogprob
from bot.domain import Usage
from bot.endpoint import (
    AdapterRefused,
    Door,
    RequestRefused,
    StudentBroken,
    StudentError,
    UnknownModel,
    explained,
    is_loopback,
    nonsense,
    reason_of,
    unreachable,
)
from bot.prompt import Message

if TYPE_CHECKING:
    import openai

_HEALTH_SECONDS = 5
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TOP_LOGPROBS = 20  # the most that vLLM and OpenAI give

# What a request can do without, and the word for it in the error of an endpoint that does not take it.
_OPTIONAL = {
    "response_format": re.compile(r"response.?format|json_schema", re.IGNORECASE),
    "logprobs": re.compile(r"logprobs", re.IGNORECASE),
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `finish_reason` "length": it was cut; `logprobs` None: the endpoint gives none."""

    text: str
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model or an adapter at an endpoint. Only vLLM tells an adapter's base, the context length and the folder."""

    id: str
    parent: str | None = None
    max_model_len: int | None = None
    root: str | None = None


class _Top(TypedDict):
    token: str
    logprob: float


class _Token(TypedDict):
    token: str
    logprob: float
    top_logprobs: NotRequired[list[_Top] | None]


class _Completion(BaseModel):
    """What is read of an answer; other choices than the first were not asked for."""

    text: str | None = Field(default=None, validation_alias=AliasPath("choices", 0, "message", "content"))
    finish_reason: str = Field(validation_alias=AliasPath("choices", 0, "finish_reason"))
    tokens: list[_Token] | None = Field(default=None, validation_alias=AliasPath("choices", 0, "logprobs", "content"))
    prompt_tokens: int = Field(default=0, validation_alias=AliasPath("usage", "prompt_tokens"))
    cached_tokens: int | None = Field(
        default=None, validation_alias=AliasPath("usage", "prompt_tokens_details", "cached_tokens")
    )
    completion_tokens: int = Field(default=0, validation_alias=AliasPath("usage", "completion_tokens"))


class _Models(BaseModel):
    data: list[ServedModel]


class Student:
    """A client for one endpoint; use it as an async context manager, from one event loop.

    Args:
        url: the endpoint's address; ends in /v1, holds no user name and no query.
        key: its API key, or None.
        model: the base model's name, or None for the only one that is served.
        adapter: the LoRA adapter that shall answer, or None for the base model.
        ca_file: certificates (PEM) to trust instead of SSL_CERT_FILE or the system's.
        timeout_seconds: how long to wait for one answer.
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
        retries: int = 2,
    ) -> None:
        import openai  # noqa: PLC0415 -- imported late: it takes most of a second

        self._url = httpx2.URL(url)
        self._base: ServedModel | None = None
        self._model = model
        self._adapter = adapter
        self._unsupported: set[str] = set()
        door = Door(self._url, key=key, ca_file=ca_file, read_seconds=timeout_seconds)
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key="the door has it", max_retries=retries, timeout=door.timeout, http_client=door
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about this endpoint, as sentences; grows with what it lacks."""
        told = [f"{self._url} does not take {word}; asked without." for word in sorted(self._unsupported)]
        if self._url.scheme == "http" and not is_loopback(self._url.host):
            told.insert(0, f"{self._url} is not encrypted: code and key cross the network in the open.")
        return tuple(told)

    async def ask(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int) -> Reply:
        """The adapter's (or the base model's) answer, as reproducible as the endpoint can.

        Args:
            messages: the chat so far.
            schema: JSON schema of the answer. An endpoint without structured output is asked without it: the
                answer may be anything.
            max_tokens: the longest answer; a longer one is cut (`finish_reason` is "length").

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
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            },
        }
        while True:
            for parameter in self._unsupported:
                body.pop(parameter, None)
            if "logprobs" not in body:
                body.pop("top_logprobs", None)
            started = time.perf_counter()
            try:
                response = await self._send("/chat/completions", body)
            except RequestRefused as refused:
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
            raise nonsense(response, "list of models") from None
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
        except RequestRefused as refused:
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
            except RequestRefused:
                await self._send("/models", options=quick)
        except StudentError:
            return False
        return True

    async def load_adapter(self, name: str, path: PurePath) -> None:
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
            if isinstance(refused, RequestRefused) and refused.said == "Not Found":  # there is no such route
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
            raise explained(error.response) from None
        except openai.APIConnectionError as error:
            raise unreachable(error.request.url, reason_of(error)) from None


def _reply(response: httpx2.Response, seconds: float) -> Reply:
    try:
        completion = _Completion.model_validate_json(response.content)
    except ValidationError:
        raise nonsense(response, "chat completion") from None
    # No text, and cut: it thought until its tokens were spent. That is an answer, an empty one.
    if completion.text is None and completion.finish_reason != "length":
        raise nonsense(response, "chat completion (it has no content)")
    return Reply(
        text=completion.text or "",
        finish_reason=completion.finish_reason,
        logprobs=_token_logprobs(completion.tokens) if completion.tokens else None,
        usage=Usage(
            requests=1,
            prompt_tokens=completion.prompt_tokens,
            cached_tokens=completion.cached_tokens or 0,
            completion_tokens=completion.completion_tokens,
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
