import base64
import io
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bot.telemetry import HIDDEN, Metrics, Redactor, set_up_logging

SECRET = "s3cr3t/of+ours=="


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def one_line(stream: io.StringIO) -> dict[str, object]:
    [line] = stream.getvalue().splitlines()
    document = json.loads(line)
    assert isinstance(document, dict)
    return document


# --- log lines


def test_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream)
    structlog.get_logger("bot.jobs").info("review posted", merge="7!12", seconds=1.5, findings=[1, 2], ok=True, by=None)
    line = one_line(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "review posted",
        "level": "info",
        "logger": "bot.jobs",
        "merge": "7!12",
        "seconds": 1.5,
        "findings": [1, 2],
        "ok": True,
        "by": None,
    }


def test_other_libraries_write_the_same_lines_and_hide_the_same_secrets() -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream, secrets=[SECRET])
    logging.getLogger("sqlalchemy").warning("cannot connect to %s", f"postgresql://bot:{SECRET}@db/bot")
    line = one_line(stream)
    assert line["event"] == f"cannot connect to postgresql://{HIDDEN}@db/bot"
    assert (line["level"], line["logger"]) == ("warning", "sqlalchemy")


def test_who_logged_before_the_set_up_is_heard_after() -> None:
    early = structlog.get_logger()
    stream = io.StringIO()
    set_up_logging(stream=stream)
    early.info("hello")
    assert one_line(stream)["event"] == "hello"


def test_levels() -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream, level="WARNING")
    structlog.get_logger().info("no")
    logging.getLogger("httpx2").warning("yes")
    assert one_line(stream)["event"] == "yes"


@pytest.mark.parametrize("name", ["httpx2", "httpcore2", "urllib3", "openai", "alembic"])
def test_clients_do_not_write_a_line_for_each_request(name: str) -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream)
    logging.getLogger(name).info("GET https://gitlab.example/api/v4/user?private_token=x")
    assert stream.getvalue() == ""


def test_a_terminal_gets_text() -> None:
    stream = Terminal()
    set_up_logging(stream=stream, secrets=[SECRET])
    structlog.get_logger().warning("look", at=SECRET, text="\x1b[2Jgone")
    text = stream.getvalue()
    assert "look" in text
    assert HIDDEN in text
    assert SECRET not in text
    assert "\x1b[2J" not in text
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(text)


def test_without_a_stream_it_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    structlog.get_logger().info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "hello"


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_in_exceptions(*, as_json: bool) -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream, secrets=[SECRET], as_json=as_json)
    try:
        try:
            dict[str, int]()[SECRET]
        except KeyError as error:
            raise RuntimeError(f"refused: PRIVATE-TOKEN: {SECRET}") from error
    except RuntimeError:
        structlog.get_logger().exception("failed", error=RuntimeError(SECRET))
        logging.getLogger("dbos").exception("failed too")
    text = stream.getvalue()
    assert SECRET not in text
    assert "Traceback" in text
    assert text.count("RuntimeError: refused") == 2
    assert text.count(HIDDEN) >= 5


def test_the_context_is_in_each_line() -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream, secrets=[SECRET])
    with structlog.contextvars.bound_contextvars(review="review:7:12:1", token=SECRET):
        logging.getLogger("x").warning("hello")
    line = one_line(stream)
    assert (line["review"], line["token"]) == ("review:7:12:1", HIDDEN)


# --- the redactor


def clean(value: object, *secrets: str) -> object:
    return Redactor(secrets)(None, "info", {"event": value})["event"]


class Odd:
    def __repr__(self) -> str:  # the same in each worker: it is part of a test's name
        return "Odd()"

    def __str__(self) -> str:
        return f"Odd({SECRET})"


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        (SECRET, HIDDEN),
        (f"<{SECRET}>", f"<{HIDDEN}>"),
        (f"https://x/?token={quote(SECRET, safe='')}", f"https://x/?token={HIDDEN}"),
        (base64.b64encode(SECRET.encode()).decode(), HIDDEN),
        ([SECRET, {"a": (SECRET, 1)}], [HIDDEN, {"a": [HIDDEN, 1]}]),
        ({SECRET: 1}, {HIDDEN: 1}),
        ({1: SECRET}, {"1": HIDDEN}),
        (frozenset({SECRET}), [HIDDEN]),
        (Odd(), f"Odd({HIDDEN})"),
        (SECRET.encode(), f"b'{HIDDEN}'"),
        (RuntimeError(SECRET), HIDDEN),
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("nothing", "nothing"),
    ],
    ids=repr,
)
def test_secrets_are_found_wherever_they_stand(value: object, cleaned: object) -> None:
    assert clean(value, SECRET, "another secret") == cleaned


def test_deep_nesting_becomes_text() -> None:
    value: object = SECRET
    for _ in range(50):
        value = [value]
    assert SECRET not in str(clean(value, SECRET))
    assert HIDDEN in str(clean(value, SECRET))


def test_the_longest_secret_goes_first() -> None:
    assert clean("abcdefgh abcd", "abcd", "abcdefgh") == f"{HIDDEN} {HIDDEN}"


def test_a_quoted_secret_with_signs_is_found() -> None:
    secret = "back\\slash'n\"quote"
    assert "slash" not in str(clean({"a": [repr(secret), secret]}, secret))


def test_very_short_secrets_are_not_looked_for() -> None:
    assert clean("a line", "a") == "a line"
    assert clean("a line") == "a line"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("token glpat-abcdefghij0123456789 is old", f"token {HIDDEN} is old"),
        ("glcbt-64_abcdefghij0123456789", HIDDEN),
        ("key whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", f"key {HIDDEN}"),
        ("Authorization: Bearer abcdefgh.12345", f"Authorization: Bearer {HIDDEN}"),
        ("authorization: basic dXNlcjpwYXNz", f"authorization: basic {HIDDEN}"),
        ("PRIVATE-TOKEN: abcdefgh12345", f"PRIVATE-TOKEN: {HIDDEN}"),
        ("X-Gitlab-Token: abcdefgh12345", f"X-Gitlab-Token: {HIDDEN}"),
        ("postgresql://bot:pass@db:5432/bot", f"postgresql://{HIDDEN}@db:5432/bot"),
        ("https://gitlab.example:8443/a@b", "https://gitlab.example:8443/a@b"),
        ("a basic idea", "a basic idea"),
        ("global-warming", "global-warming"),
        ("line one\nline two\tx", "line one\nline two\tx"),
        ("\x1b[31mred\x07\x9b", "\ufffd[31mred\ufffd\ufffd"),
    ],
)
def test_what_looks_like_a_secret(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


@given(st.text(PRINTABLE, min_size=4), st.text(PRINTABLE), st.text(PRINTABLE))
def test_no_secret_stays(secret: str, before: str, after: str) -> None:
    cleaned = Redactor([secret]).text(before + secret + after)
    assert HIDDEN in cleaned
    assert secret not in cleaned.replace(HIDDEN, "\0")


@given(st.recursive(st.none() | st.text() | st.binary(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)))
def test_every_line_can_be_written(value: object) -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream, as_json=True)
    structlog.get_logger().info("hello", value=value)
    assert one_line(stream)["event"] == "hello"


# --- metrics


def test_metrics_are_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.deliveries.labels("note", "received", "").inc()
    metrics.reviews.labels("posted").inc()
    metrics.findings.labels("major", "yes").inc(3)
    metrics.review_seconds.observe(4)
    metrics.student_requests.inc()
    metrics.student_tokens.labels("prompt").inc(1200)
    metrics.heard_forge("GET", "200")
    metrics.votes.labels("emoji", "up").inc()
    metrics.inbox.set(2)
    text, media_type = metrics.render()
    assert media_type.startswith("text/plain")
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert values["apprentice_deliveries_total", "note", "received", ""] == 1
    assert values["apprentice_findings_total", "major", "yes"] == 3
    assert values["apprentice_review_seconds_count",] == 1
    assert values["apprentice_student_tokens_total", "prompt"] == 1200
    assert values["apprentice_forge_requests_total", "GET", "200"] == 1
    assert values["apprentice_votes_total", "emoji", "up"] == 1
    assert values["apprentice_inbox_deliveries",] == 2


def test_two_sets_of_metrics_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.reviews.labels("posted").inc()
    assert b'apprentice_reviews_total{outcome="posted"} 1.0' in one.render()[0]
    assert b"apprentice_reviews_total{" not in other.render()[0]
