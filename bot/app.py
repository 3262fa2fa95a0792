"""The web side of the bot: `POST /webhook`, `GET /healthz`, `/readyz` and `/metrics`.

A delivery is answered when its row is committed, and before anything else happens. The answers' status is decided in
`bot.webhook`; besides those there are 408 (the body did not come in time) and 503 (the database does not keep it).
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bot import __version__
from bot.event import Event, TokenExpiring, dump
from bot.inbox import Inbox, InboxFailed, Keeper
from bot.ready import Check, Readiness
from bot.store.values import Arrival
from bot.telemetry import Metrics
from bot.webhook import MAX_BODY, Ignored, Refusal, Rejected, Secrets, check_headers, read

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
BODY_SECONDS = 10.0
"""How long a body may take. GitLab gives up after as long."""
_LARGE = 1024 * 1024  # bytes; GitLab's deliveries have some thousand
_LARGE_AT_ONCE = 2  # so that strangers cannot fill the memory
_SECONDS_BETWEEN_WARNINGS = 60.0

_log = structlog.get_logger()


def create_app(
    *,
    store: Keeper,
    secrets: Secrets,
    metrics: Metrics,
    checks: Mapping[str, Check],
    bot: Callable[[], int | None] = lambda: None,
    adapter: Callable[[], str | None] | None = None,
    openapi: bool = False,
) -> FastAPI:
    """Make the app.

    Args:
        store: who keeps the deliveries.
        secrets: what GitLab proves itself with.
        metrics: where everything is counted.
        checks: what `/readyz` asks, by part: database, gitlab, student, worker.
        bot: gives the bot's own user id, None while it is not known. It must not wait.
        adapter: gives the adapter that answers, None: the base model does. It must not wait. None: this process does
            not know.
        openapi: whether `/openapi.json` is there.
    """
    app = _Documented(
        title="Apprentice",
        version=__version__,
        openapi_url="/openapi.json" if openapi else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(_SecurityHeaders)
    reception = _Reception(Inbox(store), secrets, metrics, bot)
    readiness = Readiness(checks)

    app.add_route("/webhook", reception.answer, methods=["POST"])  # FastAPI's own route costs 0.1 ms more

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> Response:
        """Say that the process is alive."""
        return PlainTextResponse("ok")

    @app.get("/readyz", responses={503: {"description": "One of the parts is not ready."}})
    async def readyz() -> Response:
        """Say which of the parts that reviews need are ready."""
        parts = await readiness.look()
        ready = set(parts.values()) <= {"ok"}
        answers = {"adapter": adapter()} if adapter else {}
        return JSONResponse({"ready": ready, "parts": parts, **answers}, 200 if ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Give the metrics in Prometheus' format."""
        text, media_type = await asyncio.to_thread(metrics.render)
        return Response(text, media_type=media_type)

    return app


def server_config(app: FastAPI, *, host: str, port: int) -> uvicorn.Config:
    """How uvicorn serves the app: it tells nobody its name, writes no access log, and leaves logging alone.

    For `uvicorn.Server.run` without sockets. One that `uvicorn.Config.bind_socket` made names no protocol, so that
    asyncio leaves Nagle's algorithm on: each answer on a kept connection would wait 40 ms for an acknowledgement.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        ws="none",
        server_header=False,
        access_log=False,
        log_config=None,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_graceful_shutdown=10,
    )


class _Reception:
    """Takes deliveries: reads, keeps, counts, answers."""

    def __init__(self, inbox: Inbox, secrets: Secrets, metrics: Metrics, bot: Callable[[], int | None]) -> None:
        self._inbox = inbox
        self._secrets = secrets
        self._metrics = metrics
        self._bot = bot
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._warned: dict[str, float] = {}

    async def answer(self, request: Request) -> Response:
        with self._metrics.ack_seconds.time():
            now = time.time()
            refused = check_headers(request.headers, self._secrets, now)
            if refused is None:
                body = await self._body(request)
                if isinstance(body, Response):
                    return body
                result = read(request.headers, body, self._secrets, now, self._bot())
            else:
                result = refused
            match result:
                case Rejected(reason=reason, status=status):
                    return self._say(status, "none", "rejected", reason)
                case Ignored(reason=reason, kind=kind):
                    return self._say(200, kind, "ignored", reason)
                case event:
                    return await self._keep(event)

    async def _body(self, request: Request) -> bytes | Response:
        """The body, or the answer where there is none."""
        length = _length(request)
        if length > MAX_BODY:
            return self._say(413, "none", "rejected", Refusal.TOO_LARGE)
        try:
            async with asyncio.timeout(BODY_SECONDS), self._large if length > _LARGE else contextlib.nullcontext():
                body = bytearray()
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MAX_BODY:
                        return self._say(413, "none", "rejected", Refusal.TOO_LARGE)
                return bytes(body)
        except TimeoutError:
            return self._say(408, "none", "rejected", "slow")
        except ClientDisconnect:
            return self._say(400, "none", "rejected", "gone")  # nobody hears it

    async def _keep(self, event: Event) -> Response:
        try:
            is_new = await self._inbox.receive(_arrival(event))
        except InboxFailed as failure:
            return self._say(503, event.kind, "failed", "inbox", error=f"{failure}: {failure.__cause__}")
        return self._say(200, event.kind, "received" if is_new else "duplicate", "")

    def _say(self, status: int, kind: str, outcome: str, reason: str, **more: str) -> Response:
        """Count it, log what an operator must know of (each once a minute), and answer."""
        self._metrics.deliveries.labels(kind, outcome, reason).inc()
        now = time.monotonic()
        if outcome in {"rejected", "failed"} and now >= self._warned.get(reason, 0.0):
            self._warned[reason] = now + _SECONDS_BETWEEN_WARNINGS
            _log.warning("delivery", outcome=outcome, reason=reason, status=status, **more)
        if not reason:
            return Response(status_code=status)
        return JSONResponse({"outcome": outcome, "reason": reason}, status)  # GitLab shows it beside the delivery


def _length(request: Request) -> int:
    """How long the body is said to be. Where nothing is said it may be anything."""
    try:
        return int(request.headers["content-length"])
    except (KeyError, ValueError):
        return MAX_BODY


def _arrival(event: Event) -> Arrival:
    """The event as the inbox keeps it. A group's token belongs to no project: it is kept under 0."""
    if isinstance(event, TokenExpiring):
        project, iid = event.project or 0, None
    else:
        project, iid = event.ref.project, event.ref.iid
    return Arrival(event.key, event.kind, project, iid, dump(event), datetime.now(UTC))


class _SecurityHeaders:
    """Adds the headers that every answer has, unless it brought its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                brought = {name for name, _value in message["headers"]}
                more = [(name, value) for name, value in _HEADERS if name not in brought]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, send_on)


_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class _Protocol(HttpToolsProtocol):
    """Uvicorn's faster HTTP protocol, with the limit that only its slower one has: endless headers fill no memory."""

    _head: int | None = 0
    """Bytes of the head that came so far; None while a body comes."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MAX_HEAD:
                self.send_400_response("The headers are too long.")


class _Documented(FastAPI):
    """Tells of the webhook too, whose route is not FastAPI's."""

    def openapi(self) -> dict[str, object]:
        schema = super().openapi()
        schema["paths"]["/webhook"] = _WEBHOOK
        return schema


_TEXT = {"type": "string"}
_WEBHOOK = {
    "post": {
        "summary": "Take a delivery of GitLab",
        "operationId": "webhook",
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": about, "schema": _TEXT}
            for name, about in {
                "X-Gitlab-Token": "The secret token of the hook.",
                "webhook-id": "With the next two: a signature by Standard Webhooks.",
                "webhook-timestamp": "Seconds since 1970.",
                "webhook-signature": "v1 and Base64; several stand with blanks between them.",
                "Idempotency-Key": "GitLab's name of the delivery.",
            }.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "properties": {"object_kind": _TEXT}}}},
        },
        "responses": {
            "200": {"description": "Kept, or here before: no content. Of no use: the reason, in JSON."},
            **{
                status: {
                    "description": about,
                    "content": {
                        "application/json": {
                            "schema": {"type": "object", "properties": {"outcome": _TEXT, "reason": _TEXT}}
                        }
                    },
                }
                for status, about in {
                    "400": "No JSON.",
                    "401": "No proof that GitLab sent it.",
                    "408": "The body did not come in time.",
                    "413": "More than GitLab sends.",
                    "415": "Not application/json.",
                    "503": "The database does not keep it.",
                }.items()
            },
        },
    }
}
