"""A small OpenAI-compatible server that answers as the test says: what a student could send, good and bad."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Request = dict[str, object]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: its text and how it ended, or another status with that text as body; `drop` closes the line."""

    text: str = ""
    finish_reason: str = "stop"
    status: int = 200
    drop: bool = False


@dataclass
class FakeStudent:
    """What the test knows of the running server."""

    url: str
    requests: list[Request] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        """All that was sent, one text a request, in the order of arrival."""
        return [
            "\n".join(str(message["content"]) for message in request["messages"])  # type: ignore[attr-defined]
            for request in self.requests
        ]


def suspect(**told: object) -> str:
    """An answer by the schema; it needs only what the test is about."""
    whole = {
        "line": 1,
        "quote": "",
        "explanation": "It does harm.",
        "severity": "major",
        "category": "correctness",
        "title": "A problem",
        "suggestion": None,
    }
    return json.dumps(whole | told)


FINE = suspect(severity="none")


@contextmanager
def serve(answer: Callable[[Request], Said]) -> Iterator[FakeStudent]:
    """Run the server on a free port; `answer` may be called by several threads at once."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._send(200, {"data": [{"id": "base", "max_model_len": 4096}]})
            else:
                self._send(200, {})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            student.requests.append(request)
            said = answer(request)
            if said.drop:
                self.close_connection = True
                self.connection.close()
            elif said.status != 200:
                self._send(said.status, {"error": {"message": said.text, "code": said.status}})
            else:
                self._send(
                    200,
                    {
                        "id": "1",
                        "object": "chat.completion",
                        "created": 0,
                        "model": request["model"],
                        "choices": [
                            {
                                "index": 0,
                                "message": {"role": "assistant", "content": said.text},
                                "finish_reason": said.finish_reason,
                                "logprobs": None,
                            }
                        ],
                        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
                    },
                )

        def _send(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            with suppress(ConnectionError):  # the client may have gone
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    student = FakeStudent(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield student
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
