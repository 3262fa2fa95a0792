"""A small HTTP server that takes hooks and keeps them: what a test sees of deliveries."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Got:
    """One delivery."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> str:
        return self.headers["X-Gitlab-Event"]

    @property
    def json(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.body)
        return document

    @property
    def attributes(self) -> dict[str, object]:
        found = self.json["object_attributes"]
        assert isinstance(found, dict)
        return found


@dataclass
class Receiver:
    """The running server; `status` and `seconds` (before it answers) may be changed at any time."""

    url: str
    got: list[Got] = field(default_factory=list)
    status: int = 200
    seconds: float = 0.0

    def events(self, name: str) -> list[Got]:
        return [one for one in self.got if one.event == name]


@contextmanager
def receive() -> Iterator[Receiver]:
    """Run it on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(Got(dict(self.headers), body))
            time.sleep(receiver.seconds)
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/webhook")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
