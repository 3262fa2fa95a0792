"""The HTTP side: reads requests, finds the route, answers; pages, rates, and faults on the way."""

import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.fakes.gitlab import page, routes  # noqa: F401 -- the latter declares themselves
from tests.fakes.gitlab.errors import Refused
from tests.fakes.gitlab.faults import AFTER, Fault
from tests.fakes.gitlab.forms import flat, parts
from tests.fakes.gitlab.hooks import Chain
from tests.fakes.gitlab.model import JSON, Request, Settings, Token, User
from tests.fakes.gitlab.routing import Answer, Call, Params, find
from tests.fakes.gitlab.state import GitLab

API = "/api/v4"
MAX_BODY = 20 * 1024 * 1024
TOO_MANY = "This endpoint has been requested too many times. Try again later."


class _Cut(Exception):  # noqa: N818 -- no error: a fault that was asked for
    """The line is cut without an answer."""


class _Rate:
    """Requests of the last minute by user."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], list[float]] = {}

    def check(self, name: str, who: str, limit: int | None) -> tuple[bool, dict[str, str]]:
        """Whether one more is fine, and the headers about it."""
        if limit is None:
            return True, {}
        now = time.time()
        recent = [at for at in self.seen.get((name, who), []) if at > now - 60]
        fine = len(recent) < limit
        if fine:
            recent.append(now)
        self.seen[name, who] = recent
        reset = int(recent[0] + 60) + 1 if recent else int(now) + 60
        headers = {
            "RateLimit-Limit": str(limit),
            "RateLimit-Name": name,
            "RateLimit-Observed": str(len(recent) + (not fine)),
            "RateLimit-Remaining": str(max(0, limit - len(recent))),
            "RateLimit-Reset": str(reset),
        }
        if not fine:
            headers["RateLimit-ResetTime"] = format_datetime(datetime.fromtimestamp(reset, UTC), usegmt=True)
            headers["Retry-After"] = str(max(1, reset - int(now)))
        return fine, headers


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "Server"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Say nothing: there is the request log."""

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def _serve(self) -> None:
        gitlab = self.server.gitlab
        given = self._body()
        target = urlsplit(self.path)
        path = target.path.removeprefix(gitlab.root).removeprefix(API)
        known = target.path.startswith(gitlab.root + API + "/")
        if not known and target.path != gitlab.root + API:
            self._show(target.path.removeprefix(gitlab.root))
            return
        user, status = None, None
        try:
            fault = gitlab.faults.draw(self.command, path)
            user, answer = self._answer(path, target.query, given, fault)
            status = answer.status
        except _Cut:
            self._cut()
            return
        finally:
            name = user.username if user else None
            gitlab.requests.append(Request(self.command, path, target.query, name, status, time.monotonic()))
        self._write(answer, target.path, target.query)

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET  # noqa: N815 -- the base class's names

    def _show(self, path: str) -> None:
        """The page of a merge request; there are no others."""
        gitlab = self.server.gitlab
        match = re.fullmatch(r"/(.+)/-/merge_requests/(\d+)", path)
        with gitlab.lock:
            project = gitlab.find_project(match[1]) if match else None
            merge = project.merges.get(int(match[2])) if match and project else None
            text = page.render(merge) if merge else "There is nothing here.\n"
        self._send(200 if merge else 404, text.encode(), {}, "text/plain; charset=utf-8")

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` of an answer, by the clock that `GitLab.advance` moves."""
        return super().date_time_string(timestamp or self.server.gitlab.now().timestamp())

    # --- from the request to the answer

    def _answer(self, path: str, query: str, given: bytes, fault: Fault | None) -> tuple[User | None, Answer]:
        gitlab = self.server.gitlab
        known = gitlab.tokens.get(self._secret())
        user = known.user if known else None
        if fault and fault.kind not in AFTER:
            return user, self._fail(fault)
        try:
            token = self._token()
            function, names = find(self.command, path)
            params = Params(self._params(query, given))
            self._scope(token)
            headers = self._rate(user, path)
            inherited = self.headers.get("X-Gitlab-Event-UUID")
            if action := gitlab.take_meanwhile(self.command, path):
                action()
            chain = Chain(inherited, inherited=True) if inherited else Chain()
            with gitlab.lock:
                answer = function(Call(gitlab, names, params, user, token, chain))
            answer.headers.update(headers)
            if answer.later:
                answer = answer.later()
        except Refused as refused:
            raw = None if refused.body else b""
            answer = Answer(refused.status, refused.body, refused.headers, raw=raw)
        except Exception:  # noqa: BLE001 -- shown when the server is closed
            gitlab.defects.append(traceback.format_exc())
            answer = Answer(500, {"message": "500 Internal Server Error"})
        if fault:
            return user, self._fail(fault)
        return user, answer

    def _fail(self, fault: Fault) -> Answer:
        """Do what the fault says.

        Raises:
            _Cut: nothing is answered.
        """
        kind = fault.kind.removesuffix("_after").removesuffix("_before")
        if kind == "timeout":
            time.sleep(fault.seconds)
            raise _Cut
        if kind == "reset":
            raise _Cut
        if kind == "busy":
            return Answer(429, {"message": {"error": TOO_MANY}}, {"Retry-After": str(max(0, int(fault.seconds)))})
        if kind == "409":
            return Answer(409, {"message": "409 Conflict: Resource lock"})
        if kind == "500":
            return Answer(500, {"message": "500 Internal Server Error"})
        page = b"<html><body><h1>GitLab is not responding</h1></body></html>"
        return Answer(int(kind), raw=page, kind="text/html")

    def _secret(self) -> str:
        """The token that was sent, however it was; empty where there is none."""
        bearer = self.headers.get("Authorization", "")
        return self.headers.get("PRIVATE-TOKEN") or (bearer[7:] if bearer.lower().startswith("bearer ") else "")

    def _token(self) -> Token | None:
        """Whose request it is.

        Raises:
            Refused: the token is unknown, revoked or expired.
        """
        gitlab, value = self.server.gitlab, self._secret()
        if not value:
            return None
        token = gitlab.tokens.get(value)
        if token is None:
            raise Refused(401, {"message": "401 Unauthorized"})
        what = "revoked" if token.revoked else None
        if token.expires_on and token.expires_on <= gitlab.now().date():
            what = "expired"
        if what:
            said = f"Token {'was' if what == 'revoked' else 'is'} {what}."
            if what == "revoked":
                said += " You have to re-authorize from the user."
            else:
                said += " You can either do re-authorization or token refresh."
            raise Refused(401, {"error": "invalid_token", "error_description": said})
        return token

    def _scope(self, token: Token | None) -> None:
        if token is None or "api" in token.scopes:
            return
        if self.command in {"GET", "HEAD"} and "read_api" in token.scopes:
            return
        body: JSON = {
            "error": "insufficient_scope",
            "error_description": "The request requires higher privileges than provided by the access token.",
            "scope": "api" if self.command not in {"GET", "HEAD"} else "api read_api",
        }
        raise Refused(403, body)

    def _rate(self, user: User | None, path: str) -> dict[str, str]:
        limits, who = self.server.gitlab.settings.limits, user.username if user else self.client_address[0]
        name = "throttle_authenticated_api"
        with self.server.gitlab.lock:
            fine, headers = self.server.rate.check(name, who, limits.requests_per_minute)
            if not fine:
                raise Refused(429, {"message": "Retry later"}, headers)
            writes = self.command == "POST" and re.search(r"/(notes|discussions|bulk_publish)$", path)
            if writes and limits.notes_per_minute is not None:
                fine, told = self.server.rate.check("notes_create", who, limits.notes_per_minute)
                if not fine:
                    raise Refused(429, {"message": {"error": TOO_MANY}}, {"Retry-After": told["Retry-After"]})
        return headers

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(min(length, MAX_BODY)) if length else b""

    def _params(self, query: str, given: bytes) -> JSON:
        values = flat(parse_qsl(query, keep_blank_values=True))
        if not given:
            return values
        kind = (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if kind == "application/json":
            try:
                body = json.loads(given)
            except ValueError:
                raise Refused(400, {"error": "Problems parsing JSON"}) from None
            return values | body if isinstance(body, dict) else values
        if kind == "application/x-www-form-urlencoded":
            return values | flat(parse_qsl(given.decode(errors="replace"), keep_blank_values=True))
        if kind == "multipart/form-data":
            return values | flat(parts(self.headers.get("Content-Type") or "", given))
        raise Refused(415, {"error": f"The provided content-type '{kind}' is not supported."})

    # --- from the answer to the line

    def _write(self, answer: Answer, path: str, query: str) -> None:
        headers = dict(answer.headers)
        body = answer.body
        if answer.paged is not None:
            body, more = self._page(answer, path, query)
            headers |= more
        if answer.raw is not None:
            data = answer.raw
        elif answer.status == 204:
            data = b""
        else:
            data = json.dumps(body, ensure_ascii=False).encode()
        self._send(answer.status, data, headers, answer.kind)

    def _page(self, answer: Answer, path: str, query: str) -> tuple[list[object], dict[str, str]]:
        gitlab, items = self.server.gitlab, answer.paged or ()
        asked = dict(parse_qsl(query, keep_blank_values=True))
        size = min(_number(asked.get("per_page"), 20), gitlab.settings.limits.page)
        page = _number(asked.get("page"), 1)
        last = max(1, -(-len(items) // size))
        own = f"{gitlab.own_url.removesuffix(gitlab.root)}{path}"

        def link(number: int, relation: str) -> str:
            there = sorted((asked | {"page": str(number), "per_page": str(size)}).items())
            return f'<{own}?{urlencode(there)}>; rel="{relation}"'

        links = [link(page - 1, "prev")] if 1 < page <= last + 1 else []
        links += [link(page + 1, "next")] if page < last else []
        headers = {
            "Link": ", ".join((*links, link(1, "first"), link(last, "last"))),
            "X-Next-Page": str(page + 1) if page < last else "",
            "X-Page": str(page),
            "X-Per-Page": str(size),
            "X-Prev-Page": str(page - 1) if page > 1 else "",
            "X-Total": str(len(items)),
            "X-Total-Pages": str(last),
        }
        with gitlab.lock:
            return [item() for item in items[(page - 1) * size : page * size]], headers

    def _send(self, status: int, data: bytes, headers: dict[str, str], kind: str) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    def _cut(self) -> None:
        """Reset the connection: the client gets an error, no answer."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _number(value: str | None, default: int) -> int:
    return max(1, int(value)) if value and value.isdecimal() else default


class Server(ThreadingHTTPServer):
    """The listening server of one GitLab."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], gitlab: GitLab) -> None:
        self.gitlab = gitlab
        self.rate = _Rate()
        self.open: set[socket.socket] = set()
        super().__init__(address, Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is a defect of this server, and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def cut_all(self) -> None:
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serve(
    *,
    port: int = 0,
    root: str = "",
    folder: Path | None = None,
    settings: Settings | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[GitLab]:
    """Run a GitLab on this machine.

    Args:
        port: 0 takes a free one.
        root: a relative URL root like `/gitlab`.
        folder: for the repositories; None: a temporary one.
        settings: see `Settings`.
        tls: serve https with the certificate of this context, as localhost.

    Raises:
        RuntimeError: at the end, if the stand-in itself was defective: a test must not take that for GitLab's fault.
    """
    gitlab = GitLab(folder, settings)
    server = Server(("127.0.0.1", port), gitlab)
    gitlab.root, gitlab.address = root.rstrip("/"), f"http://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        gitlab.address = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="gitlab", daemon=True)
    thread.start()
    try:
        yield gitlab
    finally:
        server.shutdown()
        server.cut_all()
        server.server_close()
        thread.join()
        gitlab.close()
    if gitlab.defects:
        raise RuntimeError("the stand-in is defective:\n" + "\n".join(gitlab.defects))
