"""What is to be done about a webhook, for every way in which it can be wrong."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bot.hook import Add, Change, Decision, Fault, Hook, Keep, Wanted, decide, find, not_taken

URL = "https://bot.example/webhook"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WANTED = Wanted(URL, "s3cret", SIGNING)
RIGHT = Hook(
    id=7,
    url=URL,
    merge_requests=True,
    notes=True,
    emoji=True,
    token_expiry=True,
    verifies=True,
    has_token=True,
    signs=True,
    alert_status="executable",
    disabled_until=None,
)
OLD = replace(RIGHT, emoji=None, token_expiry=None, has_token=None, signs=None, alert_status=None)


def test_where_there_is_none_one_is_made() -> None:
    assert decide(None, WANTED) == Add()


@pytest.mark.parametrize("last", [None, 200, 302, 404, 500])
@pytest.mark.parametrize("hook", [RIGHT, OLD])
def test_what_is_right_is_kept(hook: Hook, last: int | None) -> None:
    assert decide(hook, WANTED, last) == Keep(hook)


def test_what_nobody_wants_is_left_alone() -> None:
    assert decide(replace(RIGHT, has_token=False), Wanted(URL, None, SIGNING)) == Keep(replace(RIGHT, has_token=False))
    assert decide(replace(RIGHT, signs=False), Wanted(URL, "s3cret", None)) == Keep(replace(RIGHT, signs=False))


@pytest.mark.parametrize(
    ("hook", "last", "faults", "test"),
    [
        (replace(RIGHT, url=f"{URL}/"), None, (Fault.ADDRESS,), False),
        (replace(RIGHT, merge_requests=False), None, (Fault.EVENTS,), False),
        (replace(RIGHT, notes=False), None, (Fault.EVENTS,), False),
        (replace(RIGHT, emoji=False), None, (Fault.EVENTS,), False),
        (replace(RIGHT, token_expiry=False), None, (Fault.EVENTS,), False),
        (replace(RIGHT, verifies=False), None, (Fault.CERTIFICATE,), False),
        (replace(RIGHT, has_token=False), None, (Fault.SECRET,), False),
        (replace(RIGHT, signs=False), None, (Fault.SIGNING,), False),
        (RIGHT, 401, (Fault.REFUSED,), True),
        (replace(RIGHT, alert_status="disabled"), None, (Fault.OFF,), True),
        (replace(RIGHT, alert_status="temporarily_disabled"), 500, (Fault.OFF,), True),
        (replace(RIGHT, notes=False, verifies=False), 200, (Fault.EVENTS, Fault.CERTIFICATE), False),
    ],
)
def test_what_is_wrong_is_changed(hook: Hook, last: int | None, faults: tuple[Fault, ...], *, test: bool) -> None:
    decision = decide(hook, WANTED, last)
    assert decision == Change(hook, faults)
    assert decision.test == test


def test_the_certificate_need_not_be_verified() -> None:
    unverified: Decision = Keep(replace(RIGHT, verifies=False))
    assert decide(replace(RIGHT, verifies=False), replace(WANTED, verify=False)) == unverified


@pytest.mark.parametrize(
    ("urls", "known", "found"),
    [
        ([], None, None),
        ([], 1, None),
        (["https://elsewhere.example/webhook"], None, None),
        (["https://elsewhere.example/webhook", URL], None, 2),
        (["https://BOT.example/webhook/"], None, 1),
        (["http://bot.example/webhook"], None, None),
        (["https://old.example/webhook", "https://other.example/"], 1, 1),
        (["https://old.example/webhook", URL], 1, 2),
        ([URL, URL], 2, 1),
    ],
)
def test_the_bots_own_is_found(urls: list[str], known: int | None, found: int | None) -> None:
    hooks = [replace(RIGHT, id=number, url=url) for number, url in enumerate(urls, start=1)]
    hook = find(hooks, URL, known)
    assert (hook.id if hook else None) == found


@pytest.mark.parametrize(
    ("hook", "wanted", "said"),
    [
        (RIGHT, WANTED, None),
        (OLD, WANTED, None),
        (OLD, Wanted(URL, None, SIGNING), "this GitLab signs nothing (19.0 and later do): set APPRENTICE_WEBHOOK_SEC"),
        (replace(RIGHT, alert_status="disabled", disabled_until=datetime(2030, 1, 1, tzinfo=UTC)), WANTED, None),
        (
            replace(RIGHT, alert_status="disabled", notes=False, signs=False),
            WANTED,
            "GitLab did not take what was set (events, no signing key)",
        ),
    ],
)
def test_what_gitlab_did_not_take(hook: Hook, wanted: Wanted, said: str | None) -> None:
    told = not_taken(hook, wanted)
    assert told == said if said is None else told is not None and told.startswith(said)


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(WANTED)
    assert SIGNING not in repr(WANTED)


def test_what_gitlab_is_sent() -> None:
    body = WANTED.body()
    assert (body["url"], body["token"], body["signing_token"]) == (URL, "s3cret", SIGNING)
    assert (body["enable_ssl_verification"], body["emoji_events"], body["push_events"]) == (True, True, False)
    assert not {"token", "signing_token"} & set(Wanted(URL, None, None).body())
