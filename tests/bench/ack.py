"""How fast a delivery is acknowledged: the real app and the real store in a process of their own, and a load client.

python -m tests.bench.ack [--seconds 10] [--connections 8] [--fresh] [--signed] [--database URL]

Every delivery is a new event, so each costs a row; in the end the rows are counted. `--fresh` opens a connection for
each request, as GitLab does; without it a connection is used again, which leaves more room for the bot.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvicorn
from sqlalchemy import create_engine, text

from bot.app import create_app, server_config
from bot.store import Store
from bot.telemetry import Metrics, set_up_logging
from bot.webhook import Secrets

SAMPLES = Path(__file__).parents[1] / "samples" / "gitlab"
TOKEN = "a-made-up-webhook-token"
KEY = b"a made-up key of 32 bytes, yes!!"
MIXTURE = ["merge-request-pushed", "merge-request-opened", "note-reply", "emoji-given"]
WARM_UP = 200


@dataclass(slots=True)
class Figures:
    """What the client saw: the seconds of each answer, and how long all took."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.wall

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share of the answers came."""
        return statistics.quantiles(self.seconds, n=1000, method="inclusive")[round(share * 1000) - 1] * 1000


def deliveries(*, signed: bool) -> Iterator[bytes]:
    """Whole HTTP requests, each of a new event."""
    templates = []
    for name in MIXTURE:
        body = json.loads((SAMPLES / name / "body.json").read_bytes())
        place = body["object_attributes"]
        place["iid" if "pushed" in name or "opened" in name else "id"] = 10_000_000_000
        templates.append(json.dumps(body, separators=(",", ":")).encode())
    for number in itertools.count(10_000_000_001):
        body = templates[number % len(templates)].replace(b"10000000000", str(number).encode())
        headers = {"Host": "bot.example", "Content-Type": "application/json", "Content-Length": str(len(body))}
        headers |= {"User-Agent": "GitLab/18.10.1", "Idempotency-Key": f"key-{number}"}
        if signed:
            stamp = str(int(time.time()))
            digest = hmac.digest(KEY, f"key-{number}.{stamp}.".encode() + body, hashlib.sha256)
            headers |= {"webhook-id": f"key-{number}", "webhook-timestamp": stamp}
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        else:
            headers["X-Gitlab-Token"] = TOKEN
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield f"POST /webhook HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(maxsplit=2)[1])


async def load(
    port: int, *, seconds: float, connections: int = 8, fresh: bool = False, signed: bool = False
) -> Figures:
    """Send as fast as the answers come, over so many connections at once."""
    requests, figures = deliveries(signed=signed), Figures()

    async def client(end: float, *, count: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = 0
        while time.perf_counter() < end and (count or sent < WARM_UP // connections):
            request = next(requests)
            began = time.perf_counter()
            if fresh:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            status = await _exchange(reader, writer, request)
            sent += 1
            if count:
                figures.seconds.append(time.perf_counter() - began)
                figures.statuses[status] = figures.statuses.get(status, 0) + 1
        writer.close()

    far = time.perf_counter() + 60
    await asyncio.gather(*(client(far, count=False) for _ in range(connections)))
    began = time.perf_counter()
    await asyncio.gather(*(client(began + seconds, count=True) for _ in range(connections)))
    figures.wall = time.perf_counter() - began
    return figures


@dataclass(slots=True)
class Process:
    """The app's process."""

    port: int
    id: int

    def cpu_seconds(self) -> float:
        """How long it has computed so far; on a shared machine this says more than the clock."""
        times = psutil.Process(self.id).cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def serving(database: str) -> Iterator[Process]:
    """Run the app in a process of its own."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "tests.bench.ack", "--serve", database, "--ready", str(write_end)]
    process = subprocess.Popen(command, pass_fds=[write_end])
    os.close(write_end)
    try:
        with os.fdopen(read_end) as ready:
            line = ready.readline()
        if not line:
            raise SystemExit("the server did not start")
        yield Process(int(line), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def serve(database: str, ready: int) -> None:
    """The server's process."""
    set_up_logging(level="WARNING", as_json=True)
    store = Store(database)
    secrets = Secrets(token=TOKEN, signing_key="whsec_" + base64.b64encode(KEY).decode())
    app = create_app(store=store, secrets=secrets, metrics=Metrics(), checks={}, bot=lambda: 501)
    config = server_config(app, host="127.0.0.1", port=0)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            os.write(ready, f"{self.servers[0].sockets[0].getsockname()[1]}\n".encode())
            os.close(ready)

    Server(config).run()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--signed", action="store_true")
    parser.add_argument("--database", help="URL; without it, a new SQLite file")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--ready", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.ready)
        return
    with tempfile.TemporaryDirectory() as folder:
        database = options.database or f"sqlite:///{folder}/apprentice.sqlite"
        Store(database).migrate()
        with serving(database) as server:
            before = server.cpu_seconds()
            figures = asyncio.run(
                load(
                    server.port,
                    seconds=options.seconds,
                    connections=options.connections,
                    fresh=options.fresh,
                    signed=options.signed,
                )
            )
            cpu = server.cpu_seconds() - before
        with create_engine(database.replace("postgresql://", "postgresql+psycopg://")).connect() as connection:
            rows = connection.scalar(text("SELECT count(*) FROM deliveries"))
    print(f"answers            {len(figures.seconds):>10}   by status {figures.statuses}")
    print(f"rows in the inbox  {rows:>10}   (with the warm-up's {WARM_UP})")
    print(f"CPU ms a request   {cpu * 1000 / (len(figures.seconds) + WARM_UP):>10.2f}   of the bot's process")
    print(f"requests/s         {figures.rate:>10.0f}   goal: 700 or more")
    for share, goal in [(0.5, ""), (0.95, "goal: 15 or less"), (0.99, "goal: 100 or less while reviews run")]:
        print(f"p{share * 100:.0f} ms             {figures.percentile(share):>10.2f}   {goal}")


if __name__ == "__main__":
    main()
