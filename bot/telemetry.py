"""What the bot tells about itself: log lines without secrets, and Prometheus metrics. All metrics stand here."""

import logging
import re
import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import TextIO
from urllib.parse import quote

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from structlog.typing import EventDict, Processor, WrappedLogger

_ACK_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1, 5, 10)
_REVIEW_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """The metrics, in a registry of their own.

    Args:
        deliveries: webhook deliveries, by kind of event, outcome (received, duplicate, ignored, rejected, failed) and
            reason (`bot.webhook.Reason`, `bot.webhook.Refusal`, or empty).
        ack_seconds: from a delivery's first byte to its answer.
        inbox: deliveries that nobody has handled yet.
        reviews: reviews that ended, by outcome (`bot.store.ReviewState`); `review_seconds`: how long they took.
        findings: by severity, and whether they were shown.
        student_requests: requests to the student; `student_tokens`: by kind (prompt, cached, completion).
        forge_requests: requests to the forge, by method and status (a number, or `unreachable`).
        votes: by origin, and whether they were up or down.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"apprentice_{name}", about, labels, registry=registry)

        self._registry = registry
        self.deliveries = counter("deliveries", "Webhook deliveries.", "kind", "outcome", "reason")
        self.ack_seconds = Histogram(
            "apprentice_ack_seconds",
            "From a delivery's first byte to its answer.",
            buckets=_ACK_SECONDS,
            registry=registry,
        )
        self.inbox = Gauge("apprentice_inbox_deliveries", "Deliveries that wait to be handled.", registry=registry)
        self.reviews = counter("reviews", "Reviews that ended.", "outcome")
        self.review_seconds = Histogram(
            "apprentice_review_seconds", "How long reviews took.", buckets=_REVIEW_SECONDS, registry=registry
        )
        self.findings = counter("findings", "Findings of the student.", "severity", "shown")
        self.student_requests = counter("student_requests", "Requests to the student.")
        self.student_tokens = counter("student_tokens", "Tokens read and written by the student.", "kind")
        self.forge_requests = counter("forge_requests", "Requests to the forge.", "method", "status")
        self.votes = counter("votes", "Votes on findings.", "origin", "vote")

    def heard_forge(self, method: str, status: str) -> None:
        """Count a request to the forge."""
        self.forge_requests.labels(method, status).inc()

    def render(self) -> tuple[bytes, str]:
        """All of them as Prometheus reads them, and the media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


# --- log lines

HIDDEN = "[redacted]"
_MIN_SECRET = 4  # characters; shorter ones would blot out half of each line
_DEPTH = 6
# What looks like a secret although nobody told us about it. `bot.redact` sees more, and takes 0.5 ms a text.
_LOOKS_SECRET = re.compile(
    r"\bgl[a-z]{2,6}-[\w.-]{16,}"  # a token of GitLab
    r"|\bwhsec_[\w+/=-]{16,}"
    r"|(?i:(?<=bearer )|(?<=basic )|(?<=private-token: )|(?<=x-gitlab-token: ))[\w.~+/=-]{8,}"
    r"|(?<=://)[^\s/@:]{0,100}:[^\s/@]{1,200}(?=@)"  # user and password of an address
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")  # terminals obey them, or begin a line


class Redactor:
    """A structlog processor that takes secrets and control characters out of every value of a log line.

    Args:
        secrets: the values themselves; they are found as they are, in URLs and in Base64.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {form for secret in secrets if len(secret) >= _MIN_SECRET for form in _forms(secret)}
        longest_first = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        """Clean one line."""
        return {self.text(name): self._clean(value, _DEPTH) for name, value in event.items()}

    def text(self, text: str) -> str:
        """A text without secrets."""
        if self._known:
            text = self._known.sub(HIDDEN, text)
        return _CONTROL.sub("\ufffd", _LOOKS_SECRET.sub(HIDDEN, text))

    def _clean(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping) and depth:
            return {self.text(str(name)): self._clean(one, depth - 1) for name, one in value.items()}
        if isinstance(value, list | tuple | set | frozenset) and depth:
            return [self._clean(one, depth - 1) for one in value]
        return self.text(str(value))


def _forms(secret: str) -> set[str]:
    """How a secret may stand in a text: as it is, in a URL, in quotes, in a header."""
    return {secret, quote(secret, safe=""), repr(secret)[1:-1], b64encode(secret.encode("utf-8", "replace")).decode()}


def set_up_logging(
    *,
    secrets: Iterable[str] = (),
    level: str = "INFO",
    stream: TextIO | None = None,
    as_json: bool | None = None,
) -> None:
    """Send all log lines, structlog's and those of other libraries, through one redactor to one stream.

    Args:
        secrets: what must never stand in a log.
        level: the lowest level that is written.
        stream: where to; stderr without it.
        as_json: one JSON object a line; without it, by whether the stream is a terminal.
    """
    stream = stream or sys.stderr
    if as_json is None:
        as_json = not stream.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # whoever logged before this call shall be heard, too
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                Redactor(secrets),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in ("httpx2", "httpcore2", "urllib3", "openai", "alembic"):  # a line for each request, with its address
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
