"""Closes every route of vLLM but the few that the bot uses: an ASGI middleware, standard library only.

vLLM's API key covers `/v1` and leaves `/invocations` (a whole chat completion), `/adapters` (loads and
unloads adapters), `/tokenize`, `/scale_elastic_ep` and others open to every user of the machine. `server.py`
copies this file beside the server and names it in `--middleware`; there it runs in vLLM's environment and
outermost, so that what it refuses reaches no other code. Routes under `/v1` still need the key: vLLM checks
it after this.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
    }
)


def allowed(method: str, path: bytes) -> bool:
    """Whether a request may reach vLLM.

    `path` is what stands in the request line, neither decoded nor normalised and without the query, so that
    no spelling of a closed route (`//invocations`, `/v1/../invocations`, `%69nvocations`) equals an open one.
    """
    return (method, path.decode("latin-1")) in OPEN


class Guard:
    """Answers 404 to everything that is not on the list, and refuses every websocket."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        kind = scope["type"]
        if kind == "lifespan" or (kind == "http" and self.opens(scope)):
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await receive()  # the connect message must be taken before it can be refused
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refuse(send)

    def opens(self, scope: Message) -> bool:
        """The rule, for a scope: path as sent, and the decoded one that vLLM routes by, must be the same."""
        raw: bytes = scope.get("raw_path") or b""
        return raw == scope["path"].encode() and not scope.get("root_path") and allowed(scope["method"], raw)


async def refuse(send: Send) -> None:
    """Send a 404 that says who refused."""
    body = json.dumps({"error": {"message": "closed by Apprentice", "type": "NotFoundError", "code": 404}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
