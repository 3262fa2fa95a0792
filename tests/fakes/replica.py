"""A small real server that loads, unloads and forgets adapters like vLLM, and dies like it of what kills it.

It needs no key. What vLLM 0.32.0 does with an adapter is copied from what was seen there: a name that is loaded is
refused, a folder that is not there is not found, and an adapter that is asked when its folder is gone takes the whole
engine down.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from tests.fakes.student import FINE

Body = dict[str, object]


class DropError(Exception):
    """Raised by a hook: the line is closed without an answer."""


@dataclass
class Replica:
    """What the test knows of the running server.

    Args:
        url: ends in /v1.
        loaded: folder by adapter.
        calls: what was asked that changes something or takes a while: `load A`, `unload A`, `chat A`.
        bodies: what was sent with each of them.
        hook: called with each of them, and whether it is done ("before", "after"); may raise `DropError`.
        answer: of every chat; text and how it ended.
        think: gives another text, by what is asked.
        dead: the engine is: everything is answered with 500.
    """

    url: str
    loaded: dict[str, Path] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    hook: Callable[[str, str], None] = lambda _call, _when: None
    answer: tuple[str, str] = (FINE, "stop")
    think: Callable[[Body], str] | None = None
    dead: bool = False

    def restart(self) -> None:
        """It is started anew: it has forgotten every adapter."""
        self.loaded.clear()
        self.dead = False

    def respond(self, path: str, body: Body) -> tuple[int, Body]:
        """Do what is asked."""
        if self.dead:
            return 500, error("EngineCore encountered an issue")
        name = str(body.get("lora_name", body.get("model")))
        match path:
            case "/v1/load_lora_adapter":
                return self.load(name, Path(str(body["lora_path"])))
            case "/v1/unload_lora_adapter":
                gone = self.loaded.pop(name, None)
                return (200, {}) if gone else (404, error(f"The lora adapter '{name}' cannot be found."))
            case "/v1/chat/completions":
                return self.chat(name, body)
            case _:
                base: Body = {"id": "base", "max_model_len": 4096, "root": "/models/base"}
                return 200, {"data": [base, *(self.card(name) for name in list(self.loaded))]}

    def load(self, name: str, folder: Path) -> tuple[int, Body]:
        if name in self.loaded:
            return 400, error(f"The lora adapter '{name}' has already been loaded.")
        if not (folder / "adapter_config.json").is_file():
            return 404, error(f"Loading lora {name} failed: No adapter found for {folder}")
        self.loaded[name] = folder
        return 200, {}

    def chat(self, name: str, body: Body) -> tuple[int, Body]:
        if name != "base" and name not in self.loaded:
            return 404, error(f"The model `{name}` does not exist. Valid aliases: base.")
        if name != "base" and not self.loaded[name].is_dir():
            self.dead = True
            return 500, error("EngineCore encountered an issue")
        text, how = (self.think(body), "stop") if self.think else self.answer
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": how}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}

    def card(self, name: str) -> Body:
        return {"id": name, "parent": "base", "root": str(self.loaded[name])}


def error(message: str) -> Body:
    return {"error": {"message": message}}


WORDS = {"/v1/load_lora_adapter": "load", "/v1/unload_lora_adapter": "unload", "/v1/chat/completions": "chat"}


class Handler(BaseHTTPRequestHandler):
    replica: ClassVar[Replica]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send(*self.replica.respond(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        call = f"{WORDS[self.path]} {body.get('lora_name', body.get('model'))}"
        self.replica.calls.append(call)
        self.replica.bodies.append(body)
        try:
            self.replica.hook(call, "before")
            said = self.replica.respond(self.path, body)
            self.replica.hook(call, "after")
        except DropError:
            self.close_connection = True
            return
        self.send(*said)

    def send(self, status: int, document: Body) -> None:
        text = json.dumps(document).encode()
        with suppress(ConnectionError):  # the client may have gone
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[Replica]:
    """Run one on a free port."""

    class Ours(Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ours)
    server.daemon_threads = True
    replica = Ours.replica = Replica(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield replica
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
