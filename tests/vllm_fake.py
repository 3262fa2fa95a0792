"""A small real server that starts, answers and dies like vLLM, in a second: for tests of what keeps it alive.

It runs in place of the student environment's Python, so it gets vLLM's command line. `behaviour.json` in the
model's folder tells it how to behave:
`die` (exit code at once), `slow` (seconds before /health answers).
Like vLLM it has a child that outlives it, and drains on SIGTERM.
"""

# ruff: noqa: T201 -- its output is the log

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ADAPTERS: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/v1/models":
            data = [{"id": "base"}, *({"id": name, "parent": "base"} for name in ADAPTERS)]
            self.answer(200, json.dumps({"data": data}))
        else:
            self.answer(200, "")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.answer(401, "Unauthorized")
        elif self.path == "/v1/load_lora_adapter":
            if Path(body["lora_path"]).is_dir():
                ADAPTERS.append(body["lora_name"])
                self.answer(200, "Success")
            else:
                self.answer(404, f"No adapter found for {body['lora_path']}")
        else:
            time.sleep(body["seconds"])
            self.answer(200, "finished")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


def main() -> None:
    options = dict(itertools.pairwise(sys.argv))
    behaviour = json.loads((Path(options["--model"]) / "behaviour.json").read_text())
    print(f"non-default args: the fake was started in {Path.cwd()}", flush=True)
    if "die" in behaviour:
        print("the fake cannot start", flush=True)
        sys.exit(behaviour["die"])
    time.sleep(behaviour.get("slow", 0))
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"worker {worker.pid}", flush=True)
    server = ThreadingHTTPServer(("127.0.0.1", int(options["--port"])), Handler)
    server.daemon_threads = False  # requests that run are finished

    def drain(*_: object) -> None:
        print("draining", flush=True)
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, drain)
    server.serve_forever()
    server.server_close()
    worker.kill()
    worker.wait()


if __name__ == "__main__":
    main()
