"""Deliver hooks over HTTP as GitLab does: headers, signature, 10 seconds, and switching off what fails."""

import base64
import hashlib
import hmac
import http.client
import json
import queue
import random
import ssl
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.fakes.gitlab.model import JSON, Delivery, Hook

if TYPE_CHECKING:
    from tests.fakes.gitlab.state import GitLab

EVENTS = {
    "push_events": "Push Hook",
    "merge_requests_events": "Merge Request Hook",
    "note_events": "Note Hook",
    "confidential_note_events": "Confidential Note Hook",
    "emoji_events": "Emoji Hook",
    "resource_access_token_events": "Resource Access Token Hook",
}
"""The events that this server fires, with their `X-Gitlab-Event`."""

OTHER_EVENTS = (
    "issues_events", "confidential_issues_events", "tag_push_events", "job_events", "pipeline_events",
    "wiki_page_events", "deployment_events", "feature_flag_events", "releases_events", "milestone_events",
    "repository_update_events",
)  # fmt: skip

MAX_BODY = 25 * 1024 * 1024
MAX_DELIVERIES = 200
FIRST_BACKOFF, LONGEST_BACKOFF = 60.0, 86_400.0
FOR_GOOD = 40
WORKERS = 8


@dataclass(frozen=True, slots=True)
class _Job:
    hook: Hook
    trigger: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Chain:
    """What caused an event: one request. `inherited`: the client passed on the UUID of a hook that it got."""

    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    inherited: bool = False

    def for_hook(self, hook: Hook) -> str:
        """GitLab has one UUID per request and hook; all events of a request share it."""
        return self.uuid if self.inherited else str(uuid.uuid5(uuid.UUID(self.uuid), str(hook.id)))


class Delivering:
    """Fires hooks on threads of its own. Nothing promises the order, as in GitLab."""

    def __init__(self, gitlab: "GitLab") -> None:
        self.gitlab = gitlab
        self.copies = 0
        """How many times more each delivery is made, at once and with the same key."""
        self.repeat_share = 0.0
        """The probability that a delivery is made twice."""
        self.random = random.Random(0)  # noqa: S311 -- to be repeatable
        self._ran: dict[str, set[int]] = {}
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0
        self._changed = threading.Condition()

    # --- firing

    def fire(self, hooks: list[Hook], event: str, make: Callable[[], JSON], *, chain: Chain) -> None:
        """Send an event to those of the hooks that want it; its payload is only made if there is one."""
        if self.gitlab.settings.silent:
            return
        if event == "emoji_events" and not self.gitlab.settings.emoji_hooks:
            return
        wanting = [hook for hook in hooks if hook.events.get(event)]
        payload = make() if wanting else {}
        for hook in wanting:
            if self.alert_status(hook) != "executable":
                hook.dropped += 1
                continue
            identifier = chain.for_hook(hook)
            if chain.inherited and hook.id in self._ran.get(identifier, ()):
                hook.dropped += 1  # GitLab takes it for a circle
                continue
            self._ran.setdefault(identifier, set()).add(hook.id)
            job = self._job(hook, event, payload, identifier)
            if len(job.body) > MAX_BODY:
                hook.dropped += 1
                continue
            extra = self.copies + (self.random.random() < self.repeat_share)
            for _ in range(1 + extra):
                self._put(job)

    def again(self, hook: Hook, delivery: Delivery) -> Delivery:
        """Deliver once more what was delivered before ("Resend"), with the same Idempotency-Key; waits for it."""
        headers = delivery.headers | self._signature(hook, delivery.headers, delivery.body)
        return self._deliver(_Job(hook, delivery.trigger, delivery.body, headers), forced=True)

    def test(self, hook: Hook, event: str, payload: JSON) -> Delivery:
        """Deliver now, also to a hook that is switched off; a 2xx switches it on again."""
        return self._deliver(self._job(hook, event, payload, str(uuid.uuid4())), forced=True)

    def alert_status(self, hook: Hook) -> str:
        if self.gitlab.settings.hook_failures is None:
            return "executable"
        if hook.failures >= FOR_GOOD:
            return "disabled"
        off = hook.disabled_until is not None and hook.disabled_until > self.gitlab.now()
        return "temporarily_disabled" if off else "executable"

    # --- waiting

    def settle(self, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._open == 0, timeout):
                raise TimeoutError(f"{self._open} hooks are still on their way")

    def close(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=0.2)  # one may sit in a delivery that nobody answers

    # --- the work

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._open += 1
            if len(self._threads) < min(WORKERS, self._open):
                thread = threading.Thread(target=self._work, name="gitlab-hooks", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put(job)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                self._deliver(job)
            except Exception:  # noqa: BLE001 -- shown when the server is closed
                self.gitlab.defects.append(traceback.format_exc())
            finally:
                with self._changed:
                    self._open -= 1
                    self._changed.notify_all()

    def _job(self, hook: Hook, event: str, payload: JSON, chain: str) -> _Job:
        settings = self.gitlab.settings
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        if hook.template is not None:
            body = hook.template.encode()  # nothing is put into it here
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"GitLab/{settings.version}",
            "X-Gitlab-Event": EVENTS[event],
            "X-Gitlab-Webhook-UUID": str(uuid.uuid4()),
            "X-Gitlab-Instance": self.gitlab.own_url,
            "X-Gitlab-Event-UUID": chain,
        }
        if settings.idempotency_keys:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        if hook.token:
            headers["X-Gitlab-Token"] = hook.token
        headers |= hook.headers
        headers |= self._signature(hook, headers, body)
        return _Job(hook, event, body, headers)

    def _signature(self, hook: Hook, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        if hook.signing_token is None or not self.gitlab.settings.signing_tokens:
            return {}
        stamp = int(self.gitlab.now().timestamp())
        return sign(hook.signing_token, headers["Idempotency-Key"], stamp, body)

    def _deliver(self, job: _Job, *, forced: bool = False) -> Delivery:
        gitlab = self.gitlab
        delivery = Delivery(gitlab.next_id("delivery"), job.trigger, job.hook.url, job.headers, job.body, gitlab.now())
        begun = time.monotonic()
        try:
            self._post(job.hook, delivery)
        except (OSError, http.client.HTTPException) as error:
            delivery.error = f"{type(error).__name__}: {error}"
        delivery.seconds = time.monotonic() - begun
        with gitlab.lock:
            job.hook.deliveries.append(delivery)
            del job.hook.deliveries[:-MAX_DELIVERIES]
            self._judge(job.hook, delivery, forced=forced)
        return delivery

    def _judge(self, hook: Hook, delivery: Delivery, *, forced: bool) -> None:
        if delivery.status is not None and delivery.status < 400:
            hook.failures, hook.backoffs, hook.disabled_until = 0, 0, None
            return
        if forced:
            return
        hook.failures += 1
        limit = self.gitlab.settings.hook_failures
        if limit is not None and hook.failures >= limit:
            wait = min(FIRST_BACKOFF * 2**hook.backoffs, LONGEST_BACKOFF)
            hook.backoffs += 1
            hook.disabled_until = self.gitlab.now() + timedelta(seconds=wait)

    def _post(self, hook: Hook, delivery: Delivery) -> None:
        """Send it; the whole exchange may take no longer than GitLab's limit."""
        url = urlsplit(hook.url)
        limit = self.gitlab.settings.hook_timeout
        deadline = time.monotonic() + limit
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = ssl.create_default_context() if hook.ssl else ssl._create_unverified_context()  # noqa: S323 -- as the hook says
            connection = http.client.HTTPSConnection(url.netloc, timeout=limit, context=context)
        else:
            connection = http.client.HTTPConnection(url.netloc, timeout=limit)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", target, body=delivery.body, headers=delivery.headers)
            if connection.sock is not None:
                connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            answer = connection.getresponse()
            delivery.answer = answer.read(8192).decode(errors="replace")
            delivery.answer_headers = dict(answer.getheaders())
            delivery.status = answer.status
        finally:
            connection.close()


def sign(token: str, identifier: str, stamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks."""
    key = base64.b64decode(token.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{identifier}.{stamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(stamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
