import base64
import copy
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from bot.domain import MergeRef
from bot.event import EmojiGiven, Event, MergeRequestChanged, NoteWritten, TokenExpiring, Trigger, dump, load
from bot.forge import Award, Person
from bot.webhook import (
    MAX_BODY,
    Ignored,
    Reason,
    Refusal,
    Rejected,
    Secrets,
    check_headers,
    read,
)

SAMPLES = Path(__file__).parent / "samples" / "gitlab"
RECORDED = Path(__file__).parents[2] / "shared" / "gitlab"
TOKEN = "a-made-up-webhook-token"
KEY = "whsec_" + base64.b64encode(b"a made-up key of 32 bytes, yes!!").decode()
SIGNED_AT = 1772611923
BOT, MIRA, TOM = 501, 31, 32
BY_TOKEN = Secrets(token=TOKEN)
BY_KEY = Secrets(signing_key=KEY)
BY_BOTH = Secrets(token=TOKEN, signing_key=KEY)
HEADERS = {"Content-Type": "application/json", "X-Gitlab-Token": TOKEN}
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC).timestamp()

JsonObject = dict[str, object]
Result = Event | Ignored | Rejected


def sample(name: str) -> tuple[dict[str, str], bytes]:
    folder = SAMPLES / name
    return json.loads((folder / "headers.json").read_bytes()), (folder / "body.json").read_bytes()


def read_sample(name: str, bot: int | None = BOT) -> Result:
    headers, body = sample(name)
    return read(headers, body, BY_TOKEN, NOW, bot)


def changed(name: str, path: str, value: object) -> bytes:
    """A sample's body with one value changed; `path` names it with dots."""
    body = json.loads(sample(name)[1])
    *parents, last = path.split(".")
    place = body
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(body).encode()


def read_body(body: bytes | object, bot: int | None = BOT) -> Result:
    return read(HEADERS, body if isinstance(body, bytes) else json.dumps(body).encode(), BY_TOKEN, NOW, bot)


def an_event(result: Result) -> Event:
    assert not isinstance(result, Ignored | Rejected), result
    return result


def a_change(result: Result) -> MergeRequestChanged:
    assert isinstance(result, MergeRequestChanged), result
    return result


# --- our own samples: every line of the table that is about content

OUTCOMES: dict[str, Trigger | type | Reason] = {
    "merge-request-opened": Trigger.OPENED,
    "merge-request-opened-draft": Trigger.OPENED,
    "merge-request-opened-signed": Trigger.OPENED,
    "merge-request-reopened": Trigger.REOPENED,
    "merge-request-pushed": Trigger.PUSHED,
    "merge-request-ready": Trigger.READY,
    "merge-request-ready-old-server": Trigger.READY,
    "merge-request-made-draft": Reason.NOT_A_TRIGGER,
    "merge-request-bot-asked": Trigger.REVIEWER,
    "merge-request-bot-asked-again": Trigger.REVIEWER,
    "merge-request-other-asked": Reason.NOT_A_TRIGGER,
    "merge-request-labelled": Reason.NOT_A_TRIGGER,
    "merge-request-retitled": Reason.NOT_A_TRIGGER,
    "merge-request-retargeted": Trigger.RETARGETED,
    "merge-request-approved": Reason.NOT_A_TRIGGER,
    "merge-request-approvals-reset": Reason.NOT_A_TRIGGER,
    "merge-request-closed": Trigger.CLOSED,
    "merge-request-merged": Trigger.MERGED,
    "merge-request-from-fork": Trigger.OPENED,
    "note-written": NoteWritten,
    "note-reply": NoteWritten,
    "note-internal": NoteWritten,
    "note-of-bot": Reason.OWN,
    "note-edited": Reason.EDITED_NOTE,
    "note-system": Reason.SYSTEM_NOTE,
    "note-on-issue": Reason.NOT_ON_MERGE_NOTE,
    "emoji-given": EmojiGiven,
    "emoji-taken-back": EmojiGiven,
    "emoji-of-bot": Reason.OWN,
    "emoji-on-other-note": Reason.NOT_OURS,
    "emoji-on-merge-request": Reason.NOT_ON_MERGE_NOTE,
    "emoji-on-issue-note": Reason.NOT_ON_MERGE_NOTE,
    "token-expiring-project": TokenExpiring,
    "token-expiring-group": TokenExpiring,
    "custom-template": Reason.UNKNOWN_EVENT,
    "push": Reason.UNKNOWN_EVENT,
}


def outcome(result: Result) -> object:
    match result:
        case Ignored(reason=reason) | Rejected(reason=reason):
            return reason
        case MergeRequestChanged(trigger=trigger):
            return trigger
        case event:
            return type(event)


def test_every_sample_has_an_outcome() -> None:
    assert {folder.name for folder in SAMPLES.iterdir()} == set(OUTCOMES)


@pytest.mark.parametrize("name", [name for name in OUTCOMES if name != "merge-request-opened-signed"])
def test_samples(name: str) -> None:
    assert outcome(read_sample(name)) == OUTCOMES[name]


def test_a_merge_request_that_was_opened() -> None:
    event = a_change(read_sample("merge-request-opened"))
    assert event == MergeRequestChanged(
        key=event.key,
        delivery=sample("merge-request-opened")[0]["Idempotency-Key"],
        ref=MergeRef(7, 12),
        trigger=Trigger.OPENED,
        head="86f7e437faa5a7fce15d1ddcb9eaeaea377667b8",
        old_head=None,
        draft=False,
        author=MIRA,
        actor=MIRA,
        asked=(),
        at=datetime(2026, 3, 4, 8, 12, 3, tzinfo=UTC),
    )


def test_a_push_has_both_heads() -> None:
    event = a_change(read_sample("merge-request-pushed"))
    assert event.old_head == "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"
    assert event.head == "84a516841ba77a5b4648de2cd0dfcb30ea46dbb4"


def test_a_draft_is_told_as_one() -> None:
    assert a_change(read_sample("merge-request-opened-draft")).draft
    assert not a_change(read_sample("merge-request-ready-old-server")).draft


def test_a_fork_belongs_to_the_target_project() -> None:
    assert a_change(read_sample("merge-request-from-fork")).ref == MergeRef(7, 13)


def test_a_note() -> None:
    event = read_sample("note-written")
    assert isinstance(event, NoteWritten)
    assert event == NoteWritten(
        key=event.key,
        delivery=event.delivery,
        ref=MergeRef(7, 12),
        note=4001,
        discussion="3c363836cf4e16666669a25da280a1865c2d2874",
        author=Person(TOM, "tom"),
        body="@apprentice-bot review full",
        internal=False,
        at=datetime(2026, 3, 4, 10, 20, 30, tzinfo=UTC),
    )


def test_an_internal_note_is_told_by_its_field_or_by_its_event() -> None:
    for name, value in [("object_attributes.internal", False), ("event_type", "note"), ("event_type", ...)]:
        event = read_body(changed("note-internal", name, value))
        assert isinstance(event, NoteWritten)
        assert event.internal


def test_an_emoji_and_its_revocation() -> None:
    given, revoked = read_sample("emoji-given"), read_sample("emoji-taken-back")
    assert isinstance(given, EmojiGiven)
    assert isinstance(revoked, EmojiGiven)
    assert given.note == 4000
    assert given.body is not None
    assert "apprentice:finding=" in given.body
    assert given.award == Award(77, "thumbsup", Person(TOM, "tom"), datetime(2026, 3, 4, 11, tzinfo=UTC))
    assert (given.given, revoked.given) == (True, False)
    assert given.key != revoked.key
    assert replace(revoked, key=given.key, delivery=given.delivery, given=True) == given


def test_tokens_that_expire() -> None:
    project, group = read_sample("token-expiring-project"), read_sample("token-expiring-group")
    assert isinstance(project, TokenExpiring)
    assert isinstance(group, TokenExpiring)
    assert (project.project, project.group) == (7, None)
    assert (group.project, group.group) == (None, 4)
    assert (project.token, project.name, project.user, project.expires_on) == (61, "apprentice", BOT, date(2026, 3, 11))


# --- who is believed


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Refusal.TOKEN),
        ({"X-Gitlab-Token": ""}, Refusal.TOKEN),
        ({"X-Gitlab-Token": TOKEN[:-1]}, Refusal.TOKEN),
        ({"X-Gitlab-Token": TOKEN + "x"}, Refusal.TOKEN),
        ({"X-Gitlab-Token": TOKEN.upper()}, Refusal.TOKEN),
        ({"X-Gitlab-Token": "\udc80é"}, Refusal.TOKEN),
        ({"X-Gitlab-Token": TOKEN}, Trigger.OPENED),
        ({"x-GITLAB-token": TOKEN}, Trigger.OPENED),
        # a signature that nobody here can check says nothing
        ({"X-Gitlab-Token": TOKEN, "webhook-signature": "v1,bm8="}, Trigger.OPENED),
        ({"webhook-signature": "v1,bm8="}, Refusal.TOKEN),
    ],
)
def test_the_token(headers: dict[str, str], expected: object) -> None:
    body = sample("merge-request-opened")[1]
    assert outcome(read({"Content-Type": "application/json", **headers}, body, BY_TOKEN, NOW)) == expected


SIGNED, SIGNED_BODY = sample("merge-request-opened-signed")
WRONG = "v1," + base64.b64encode(bytes(32)).decode()
RIGHT = SIGNED["webhook-signature"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Trigger.OPENED),
        ({"webhook-signature": f"{WRONG} {RIGHT}"}, Trigger.OPENED),
        ({"webhook-signature": f"{RIGHT} {WRONG}"}, Trigger.OPENED),
        ({"webhook-signature": f"v1a,bm8= {RIGHT}"}, Trigger.OPENED),
        ({"webhook-signature": WRONG}, Refusal.SIGNATURE),
        ({"webhook-signature": ""}, Refusal.SIGNATURE),
        ({"webhook-signature": RIGHT.removeprefix("v1,")}, Refusal.SIGNATURE),
        ({"webhook-signature": "v2" + RIGHT.removeprefix("v1")}, Refusal.SIGNATURE),
        ({"webhook-signature": "v1,\udc80é"}, Refusal.SIGNATURE),
        ({"webhook-signature": None}, Refusal.SIGNATURE),
        ({"webhook-id": None}, Refusal.SIGNATURE),
        ({"webhook-id": "another"}, Refusal.SIGNATURE),
        ({"webhook-timestamp": None}, Refusal.SIGNATURE),
        ({"webhook-timestamp": str(SIGNED_AT + 1)}, Refusal.SIGNATURE),
        ({"webhook-timestamp": "soon"}, Refusal.STALE),
        ({"webhook-timestamp": "-1"}, Refusal.STALE),
        ({"webhook-timestamp": "9" * 5000}, Refusal.STALE),
    ],
)
def test_the_signature(change: dict[str, str | None], expected: object) -> None:
    headers = {name: value for name, value in (SIGNED | change).items() if value is not None}
    assert outcome(read(headers, SIGNED_BODY, BY_KEY, SIGNED_AT)) == expected
    if "webhook-signature" in headers:  # a token does not make a signature better
        headers["X-Gitlab-Token"] = TOKEN
        assert outcome(read(headers, SIGNED_BODY, BY_BOTH, SIGNED_AT)) == expected


@pytest.mark.parametrize(("off", "believed"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_signature_is_good_for_five_minutes(off: int, *, believed: bool) -> None:
    result = read(SIGNED, SIGNED_BODY, BY_KEY, SIGNED_AT + off)
    assert outcome(result) == (Trigger.OPENED if believed else Refusal.STALE)


def test_a_signature_is_of_the_raw_bytes() -> None:
    same = json.dumps(json.loads(SIGNED_BODY)).encode()
    assert read(SIGNED, same, BY_KEY, SIGNED_AT) == Rejected(Refusal.SIGNATURE)


def test_another_key_signs_nothing() -> None:
    other = Secrets(signing_key="whsec_" + base64.b64encode(bytes(32)).decode())
    assert read(SIGNED, SIGNED_BODY, other, SIGNED_AT) == Rejected(Refusal.SIGNATURE)


def test_what_others_sign_is_believed() -> None:
    body = sample("note-written")[1]
    now = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": "one",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(KEY).sign("one", now, body.decode()),
    }
    assert outcome(read(headers, body, BY_KEY, now.timestamp())) is NoteWritten


def test_the_vector_of_the_standard() -> None:
    headers = {
        "content-type": "application/json",
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secrets = Secrets(signing_key="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert read(headers, body, secrets, 1614265330) == Ignored(Reason.UNKNOWN_EVENT, "other")
    assert read(headers, body + b" ", secrets, 1614265330) == Rejected(Refusal.SIGNATURE)


@pytest.mark.parametrize(
    ("secrets", "token", "expected"),
    [
        (BY_BOTH, TOKEN, Trigger.OPENED),  # a hook that was made without a key, or an older server
        (BY_BOTH, "another", Refusal.TOKEN),
        (BY_KEY, TOKEN, Refusal.SIGNATURE),  # the operator insists on signatures
    ],
)
def test_the_token_where_there_is_no_signature(secrets: Secrets, token: str, expected: object) -> None:
    headers = {"Content-Type": "application/json", "X-Gitlab-Token": token}
    assert outcome(read(headers, SIGNED_BODY, secrets, SIGNED_AT)) == expected


@pytest.mark.parametrize(
    ("token", "key"),
    [(None, None), ("", ""), (None, "whsec_no base64"), (TOKEN, "whsec_é"), (None, "whsec_"), (None, "whsec_c2hvcnQ=")],
)
def test_secrets_that_protect_nothing_are_refused(token: str | None, key: str | None) -> None:
    with pytest.raises(ValueError, match=r"token or a signing key|whsec_ and Base64") as caught:
        Secrets(token, key)
    assert not key or key == "whsec_" or key.removeprefix("whsec_") not in str(caught.value)


def test_secrets_do_not_show() -> None:
    assert TOKEN not in repr(BY_BOTH)
    assert KEY not in repr(BY_BOTH)


def test_the_headers_alone_refuse_most_of_it() -> None:
    assert check_headers(HEADERS, BY_TOKEN, NOW) is None
    assert check_headers({}, BY_TOKEN, NOW) == Rejected(Refusal.TOKEN)
    assert check_headers(SIGNED, BY_KEY, SIGNED_AT) is None
    assert check_headers(SIGNED, BY_KEY, NOW) == Rejected(Refusal.STALE)


# --- what is no event


@pytest.mark.parametrize(
    ("content_type", "good"),
    [
        ("application/json", True),
        ("Application/JSON", True),
        ("application/json; charset=utf-8", True),
        ("application/json ;x=y", True),
        (" application/json ", True),
        ("", False),
        (None, False),
        ("text/plain", False),
        ("application/jsonl", False),
        ("application/x-www-form-urlencoded", False),
        ("text/plain; application/json", False),
    ],
)
def test_content_types(content_type: str | None, *, good: bool) -> None:
    headers = {"X-Gitlab-Token": TOKEN} | ({"Content-Type": content_type} if content_type is not None else {})
    result = read(headers, sample("merge-request-opened")[1], BY_TOKEN, NOW)
    assert outcome(result) == (Trigger.OPENED if good else Refusal.CONTENT_TYPE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}{}",
        b"\xef\xbb\xbf{}",
        b'{"object_kind": "push\xff"}',
        b'{"object_kind": "\\ud800"}',
        b'{"object_kind": "push", "x": NaN}',
        b'{"object_kind": "push", "x": -Infinity}',
        b'{"object_kind": "push", "x": ' + b"9" * 5000 + b"}",
        b"[" * 300 + b"]" * 300,
        b"[" * 1_000_000,
        b'{"x":' * 1_000_000,
        b"{'object_kind': 'push'}",
        '{"object_kind": "push"}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json(body: bytes) -> None:
    assert read_body(body) == Rejected(Refusal.JSON)


@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        True,
        0,
        "merge_request",
        ["object_kind", "merge_request"],
        {},
        {"object_kind": None},
        {"object_kind": 1},
        {"object_kind": ["note"]},
        {"object_kind": "Note"},
        {"object_kind": "pipeline", "object_attributes": {"iid": 2**70}},
        {"event_name": "project_create", "project_id": 7},
    ],
    ids=repr,
)
def test_what_is_no_event_of_ours(body: object) -> None:
    assert read_body(body) == Ignored(Reason.UNKNOWN_EVENT, "other")


def test_too_much() -> None:
    body = sample("merge-request-opened")[1]
    assert outcome(read_body(body + b" " * (MAX_BODY - len(body)))) == Trigger.OPENED
    assert read({}, b" " * (MAX_BODY + 1), BY_TOKEN, NOW) == Rejected(Refusal.TOO_LARGE)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("merge-request-opened", "object_attributes", ...),
        ("merge-request-opened", "object_attributes", []),
        ("merge-request-opened", "object_attributes.iid", ...),
        ("merge-request-opened", "object_attributes.iid", None),
        ("merge-request-opened", "object_attributes.iid", "12"),
        ("merge-request-opened", "object_attributes.iid", True),
        ("merge-request-opened", "object_attributes.iid", 12.0),
        ("merge-request-opened", "object_attributes.iid", 0),
        ("merge-request-opened", "object_attributes.iid", 2**63),
        ("merge-request-opened", "object_attributes.iid", 10**300),
        ("merge-request-opened", "object_attributes.target_project_id", -7),
        ("merge-request-opened", "object_attributes.action", ["open"]),
        ("merge-request-opened", "object_attributes.last_commit", "86f7e437"),
        ("merge-request-opened", "object_attributes.last_commit.id", "main"),
        ("merge-request-opened", "user", "mira"),
        ("note-written", "object_attributes.id", ...),
        ("note-written", "object_attributes.note", ...),
        ("note-written", "object_attributes.note", {"text": "x"}),
        ("note-written", "object_attributes.system", "no"),
        ("note-written", "merge_request", ...),
        ("note-written", "merge_request", {"iid": 12}),
        ("emoji-given", "object_attributes.id", ...),
        ("emoji-given", "object_attributes.name", 1),
        ("emoji-given", "object_attributes.user_id", None),
        ("emoji-given", "object_attributes.action", "moved"),
        ("emoji-given", "merge_request", ...),
        ("token-expiring-project", "object_attributes.expires_at", "soon"),
        ("token-expiring-project", "object_attributes.user_id", ...),
    ],
)
def test_what_is_missing_or_of_the_wrong_type(name: str, path: str, value: object) -> None:
    result = read_body(changed(name, path, value))
    assert result == Ignored(Reason.MALFORMED, json.loads(sample(name)[1])["object_kind"])


def test_a_note_without_any_author() -> None:
    body = json.loads(changed("note-written", "user.id", None))
    assert outcome(read_body(body)) is NoteWritten  # the note itself names its author
    del body["object_attributes"]["author_id"]
    assert read_body(body) == Ignored(Reason.MALFORMED, "note")


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("merge-request-opened", "object_attributes.last_commit", None),  # a branch without commits
        ("merge-request-opened", "user.id", ...),  # servers before 13
        ("merge-request-opened", "user", None),
        ("merge-request-opened", "changes", ...),
        ("merge-request-opened", "changes", {}),
        ("merge-request-opened", "changes", []),
        ("merge-request-opened", "changes", {"reviewers": "all", "draft": 1, "title": [], "target_branch": {}}),
        ("merge-request-opened", "object_attributes.updated_at", None),
        ("merge-request-opened", "object_attributes.author_id", None),
        ("note-written", "object_attributes.action", ...),  # servers before 16.11
        ("note-written", "object_attributes.discussion_id", None),
        ("emoji-given", "object_attributes.action", ...),
        ("emoji-given", "note.author_id", None),
        ("emoji-given", "note.note", None),
        ("emoji-given", "user", None),
    ],
)
def test_what_may_be_missing(name: str, path: str, value: object) -> None:
    assert outcome(read_body(changed(name, path, value))) == OUTCOMES[name]


def test_of_two_equal_keys_the_last_counts() -> None:
    body = sample("merge-request-opened")[1].rstrip().removesuffix(b"}") + b', "object_kind": "push"}'
    assert read_body(body) == Ignored(Reason.UNKNOWN_EVENT, "other")


@pytest.mark.parametrize(
    ("name", "path", "value", "reason"),
    [
        ("merge-request-opened", "object_attributes.action", ..., Reason.NOT_A_TRIGGER),  # an old system hook
        ("merge-request-opened", "object_attributes.action", "locked", Reason.NOT_A_TRIGGER),
        ("merge-request-pushed", "object_attributes.action", "approved", Reason.NOT_A_TRIGGER),
        ("note-on-issue", "object_attributes.noteable_type", "Commit", Reason.NOT_ON_MERGE_NOTE),
        ("note-written", "object_attributes.noteable_type", ..., Reason.NOT_ON_MERGE_NOTE),
        ("emoji-given", "note", ..., Reason.NOT_ON_MERGE_NOTE),
        ("emoji-given", "object_attributes.awardable_type", "Issue", Reason.NOT_ON_MERGE_NOTE),
        ("token-expiring-project", "event_name", "expired_access_token", Reason.NOT_A_TRIGGER),
        ("token-expiring-project", "object_attributes.user_id", 90, Reason.NOT_OURS),
    ],
)
def test_what_is_ignored(name: str, path: str, value: object, reason: Reason) -> None:
    assert outcome(read_body(changed(name, path, value))) == reason


# --- triggers of an update

READY = "Count returned parts once"


@pytest.mark.parametrize(
    ("before", "after", "ready"),
    [
        (f"Draft: {READY}", READY, True),
        (f"draft:{READY}", READY, True),
        (f"[Draft] {READY}", READY, True),
        (f"(DRAFT) {READY}", READY, True),
        (f"Draft - {READY}", READY, True),
        (f"WIP: {READY}", READY, True),
        (f"[wip] {READY}", READY, True),
        (f"WIP: {READY}", f"Draft: {READY}", False),
        (READY, f"Draft: {READY}", False),
        ("Draft beer for all", READY, False),
        ("Wipe the disk", READY, False),
        (READY, "Another title", False),
    ],
)
def test_ready_by_the_title_alone(before: str, after: str, *, ready: bool) -> None:
    body = changed("merge-request-ready-old-server", "changes.title", {"previous": before, "current": after})
    assert outcome(read_body(body)) == (Trigger.READY if ready else Reason.NOT_A_TRIGGER)


def test_a_server_that_knows_drafts_is_not_asked_for_titles() -> None:
    body = changed("merge-request-ready", "changes.draft", ...)
    assert outcome(read_body(body)) == Reason.NOT_A_TRIGGER


def bot_and(*others: int, **bot: object) -> list[JsonObject]:
    reviewers: list[JsonObject] = [{"id": other} for other in others]
    return [{"id": BOT, "username": "apprentice-bot", **bot}, *reviewers]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"previous": [], "current": bot_and()}, (BOT,)),
        ({"previous": [{"id": TOM}], "current": bot_and(TOM, MIRA)}, (BOT, MIRA)),
        ({"current": bot_and()}, (BOT,)),
        ({"previous": None, "current": bot_and(re_requested=None)}, (BOT,)),
        ([[], bot_and()], (BOT,)),
        ([bot_and(re_requested=False), bot_and(re_requested=True)], (BOT,)),
        ([bot_and(), bot_and(re_requested=True, state="unreviewed")], (BOT,)),
        ([bot_and(re_requested=True), bot_and(re_requested=True)], ()),
        ([bot_and(state="unreviewed"), bot_and(state="review_started")], ()),
        ([bot_and(), []], ()),
        ({"previous": bot_and(), "current": bot_and(TOM)}, (TOM,)),
        ({"previous": [], "current": [{"username": "apprentice-bot"}]}, ()),  # servers before 13
        ([bot_and()], ()),
        ({"previous": [], "current": [BOT]}, ()),
        ("apprentice-bot", ()),
    ],
)
def test_reviewers_in_both_shapes(change: object, asked: tuple[int, ...]) -> None:
    body = changed("merge-request-bot-asked", "changes.reviewers", change)
    result = read_body(body)
    assert outcome(result) == (Trigger.REVIEWER if BOT in asked else Reason.NOT_A_TRIGGER)
    unknown = read_body(body, bot=None)
    if asked:  # whether it was the bot is seen later
        assert a_change(unknown).trigger is Trigger.REVIEWER
        assert a_change(unknown).asked == asked
    else:
        assert outcome(unknown) == Reason.NOT_A_TRIGGER


def test_of_several_triggers_the_strongest() -> None:
    body = json.loads(sample("merge-request-pushed")[1])
    body["changes"] |= {"target_branch": {"previous": "main", "current": "release"}}
    assert a_change(read_body(body)).trigger is Trigger.PUSHED
    body["changes"] |= {"draft": {"previous": True, "current": False}}
    ready = a_change(read_body(body))
    assert (ready.trigger, ready.old_head) == (Trigger.READY, None)
    body["changes"] |= {"reviewers": {"previous": [], "current": bot_and()}}
    assert a_change(read_body(body)).trigger is Trigger.REVIEWER
    assert a_change(read_body(body, bot=None)).trigger is Trigger.READY


@pytest.mark.parametrize("changes", [..., None, {}, [], "none"])
def test_an_update_without_changes_may_be_a_push(changes: object) -> None:
    assert outcome(read_body(changed("merge-request-pushed", "changes", changes))) == Trigger.PUSHED
    assert outcome(read_body(changed("merge-request-labelled", "changes", changes))) == Reason.NOT_A_TRIGGER


def test_a_push_that_moves_nothing_is_none() -> None:
    head = json.loads(sample("merge-request-pushed")[1])["object_attributes"]["last_commit"]["id"]
    assert outcome(read_body(changed("merge-request-pushed", "object_attributes.oldrev", head))) == Reason.NOT_A_TRIGGER


def test_a_merge_request_may_be_the_bots_own() -> None:
    """Whoever tries the bot with a token of their own shall see reviews of their merge requests."""
    assert a_change(read_sample("merge-request-opened", bot=MIRA)).actor == MIRA


def test_while_the_bot_is_not_known_echoes_come_through() -> None:
    for name in ("note-of-bot", "emoji-of-bot", "emoji-on-other-note", "token-expiring-project"):
        an_event(read_sample(name, bot=None))


# --- times and keys


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        ("2026-03-04 08:12:03 UTC", datetime(2026, 3, 4, 8, 12, 3, tzinfo=UTC)),
        ("2026-03-04T09:12:03.500+01:00", datetime(2026, 3, 4, 8, 12, 3, 500_000, tzinfo=UTC)),
        ("2026-03-04T08:12:03Z", datetime(2026, 3, 4, 8, 12, 3, tzinfo=UTC)),
        ("2026-03-04", datetime(2026, 3, 4, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", datetime.fromtimestamp(NOW, UTC)),
        ("yesterday", datetime.fromtimestamp(NOW, UTC)),
        ("", datetime.fromtimestamp(NOW, UTC)),
        (None, datetime.fromtimestamp(NOW, UTC)),
    ],
)
def test_times_in_all_the_ways_that_gitlab_writes_them(stamp: str | None, at: datetime) -> None:
    assert a_change(read_body(changed("merge-request-opened", "object_attributes.updated_at", stamp))).at == at


EVENTS = [name for name, result in OUTCOMES.items() if not isinstance(result, Reason) and "signed" not in name]


@pytest.mark.parametrize("name", EVENTS)
def test_two_hooks_and_a_resend_are_one_event(name: str) -> None:
    headers, body = sample(name)
    one = an_event(read(headers, body, BY_TOKEN, NOW, BOT))
    another_hook = headers | {"Idempotency-Key": "another", "X-Gitlab-Event-UUID": "x", "X-Gitlab-Webhook-UUID": "y"}
    reordered = json.dumps(dict(reversed(json.loads(body).items()))).encode()
    two = an_event(read(another_hook, reordered, BY_TOKEN, NOW + 60, BOT))
    assert one.key == two.key
    assert two.delivery == "another"


def test_different_events_have_different_keys() -> None:
    keys = [an_event(read_sample(name)).key for name in EVENTS]
    assert len(set(keys)) == len(EVENTS)
    later = changed("merge-request-reopened", "object_attributes.updated_at", "2026-03-05 08:00:01 UTC")
    assert an_event(read_body(later)).key not in keys
    other_head = changed("merge-request-opened", "object_attributes.last_commit.id", "0" * 40)
    assert an_event(read_body(other_head)).key not in keys
    other_project = changed("note-written", "merge_request.target_project_id", 8)
    assert an_event(read_body(other_project)).key not in keys
    other_award = changed("emoji-given", "object_attributes.id", 81)
    assert an_event(read_body(other_award)).key not in keys


def test_without_a_time_the_body_tells_events_apart() -> None:
    first = json.loads(changed("merge-request-reopened", "object_attributes.updated_at", ...))
    second = copy.deepcopy(first)
    second["object_attributes"]["title"] = "Another title by then"
    assert an_event(read_body(first)).key == an_event(read_body(first)).key
    assert an_event(read_body(first)).key != an_event(read_body(second)).key


def test_a_token_is_told_of_once_a_day() -> None:
    headers, body = sample("token-expiring-project")
    keys = {an_event(read(headers, body, BY_TOKEN, NOW + hours * 3600, BOT)).key for hours in (0, 1, 24, 6 * 24)}
    assert len(keys) == 3


def test_the_deliverys_name() -> None:
    body = sample("note-written")[1]
    for headers, name in [
        ({}, ""),
        ({"webhook-id": "w"}, "w"),
        ({"Idempotency-Key": "k", "webhook-id": "w"}, "k"),
        ({"Idempotency-Key": "x" * 1000}, "x" * 100),
        ({"Idempotency-Key": "\udc80"}, "\\udc80"),
        ({"X-Gitlab-Event-UUID": "e", "X-Gitlab-Webhook-UUID": "u"}, ""),
    ]:
        assert an_event(read(HEADERS | headers, body, BY_TOKEN, NOW, BOT)).delivery == name


# --- the inbox's text


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_comes_back_from_its_text(name: str) -> None:
    event = an_event(read_sample(name))
    text = dump(event)
    assert load(text) == event
    assert json.loads(text)["kind"] == event.kind
    assert len(text) < 1000


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "push"}', '{"kind": "note"}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        load(text)


# --- anything at all

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(SCALARS, lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(), one, max_size=4))
NAMES = ["X-Gitlab-Token", "webhook-id", "webhook-timestamp", "webhook-signature", "Content-Type", "Idempotency-Key"]


def check(result: Result) -> None:
    if isinstance(result, Rejected):
        assert result.status in {400, 401, 413, 415}
    elif not isinstance(result, Ignored):
        assert load(dump(result)) == result
        assert len(result.key) == 64


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), st.text()), st.binary(), st.sampled_from([0.0, NOW, 1e12]))
def test_no_headers_and_no_bytes_raise(headers: dict[str, str], body: bytes, now: float) -> None:
    for secrets in (BY_TOKEN, BY_KEY, BY_BOTH):
        result = read(headers, body, secrets, now)
        assert isinstance(result, Rejected)
        check(result)
    check(read(headers | HEADERS, body, BY_TOKEN, NOW))


@given(ANYTHING)
def test_no_json_raises(document: object) -> None:
    check(read_body(json.dumps(document).encode()))


def paths(document: object, prefix: str = "") -> list[str]:
    if not isinstance(document, dict):
        return []
    return [path for name, one in document.items() for path in (f"{prefix}{name}", *paths(one, f"{prefix}{name}."))]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_change_of_a_real_delivery_raises(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(EVENTS))
    path = data.draw(st.sampled_from(paths(json.loads(sample(name)[1]))))
    value = data.draw(ANYTHING | st.just(...) | st.sampled_from([2**63 - 1, 2**63, "9" * 400, "\0", [[], []]]))
    try:
        body = changed(name, path, value)
    except ValueError:  # half a surrogate pair is nothing that can be sent
        return
    for bot in (BOT, None):
        result = read_body(body, bot)
        assert not isinstance(result, Rejected) or result.reason is Refusal.JSON
        check(result)


def test_it_is_fast() -> None:
    headers, body = sample("merge-request-bot-asked-again")
    seconds = []
    for _ in range(200):
        begun = time.perf_counter()
        result = read(headers, body, BY_TOKEN, NOW, BOT)
        seconds.append(time.perf_counter() - begun)
    assert a_change(result).trigger is Trigger.REVIEWER
    assert statistics.median(seconds) < 0.001


# --- what others recorded

RECORDED_OUTCOMES: Mapping[str, object] = {
    "atlantis/gitlab-merge-request-comment-event-subgroup": NoteWritten,
    "atlantis/gitlab-merge-request-comment-event": NoteWritten,
    "atlantis/gitlab-merge-request-event-mark-as-ready": Trigger.READY,
    "atlantis/gitlab-merge-request-event-subgroup": Trigger.OPENED,
    "atlantis/gitlab-merge-request-event-update-assignee": Reason.NOT_A_TRIGGER,
    "atlantis/gitlab-merge-request-event-update-description": Reason.NOT_A_TRIGGER,
    "atlantis/gitlab-merge-request-event-update-labels": Reason.NOT_A_TRIGGER,
    "atlantis/gitlab-merge-request-event-update-milestone": Reason.NOT_A_TRIGGER,
    "atlantis/gitlab-merge-request-event-update-mixed": Reason.NOT_A_TRIGGER,
    "atlantis/gitlab-merge-request-event-update-new-commit": Trigger.PUSHED,
    "atlantis/gitlab-merge-request-event-update-reviewer": Trigger.REVIEWER,
    # of 2020: it tells of a new target branch by nothing but `merge_status`, like many other things
    "atlantis/gitlab-merge-request-event-update-target-branch": Reason.NOT_A_TRIGGER,
    "atlantis/gitlab-merge-request-event-update-title": Reason.NOT_A_TRIGGER,
    "atlantis/gitlab-merge-request-event": Trigger.OPENED,
    "atlantis/gitlabMergeCommentEvent_notAllowlisted": NoteWritten,
    "atlantis/gitlabMergeCommentEvent_shouldIgnore": NoteWritten,
    "gitlab-docs/emoji-event-award-note": Reason.NOT_ON_MERGE_NOTE,
    "gitlab-docs/merge-request-open-2026": Trigger.OPENED,
    "go-scm/webhooks/branch_create": Reason.UNKNOWN_EVENT,
    "go-scm/webhooks/branch_delete": Reason.UNKNOWN_EVENT,
    "go-scm/webhooks/branch_delete_subgroup": Reason.UNKNOWN_EVENT,
    "go-scm/webhooks/merge_request_comment_create": NoteWritten,
    "go-scm/webhooks/merge_request_comment_subgroup": NoteWritten,
    "go-scm/webhooks/merge_request_subgroup": Trigger.OPENED,
    "go-scm/webhooks/pull_request_close": Trigger.CLOSED,
    "go-scm/webhooks/pull_request_create": Trigger.OPENED,
    "go-scm/webhooks/pull_request_merge": Trigger.MERGED,
    "go-scm/webhooks/pull_request_reopen": Trigger.REOPENED,
    "go-scm/webhooks/pull_request_review_ready": Reason.NOT_A_TRIGGER,  # it became a draft, in spite of its name
    "go-scm/webhooks/push": Reason.UNKNOWN_EVENT,
    "go-scm/webhooks/push_merge": Reason.UNKNOWN_EVENT,
    "go-scm/webhooks/push_subgroup": Reason.UNKNOWN_EVENT,
    **{
        f"{client}/{name}": result
        for client in ("client-go", "go-gitlab")
        for name, result in {
            "systemhooks/merge_request": Reason.NOT_A_TRIGGER,  # without an action
            "systemhooks/push": Reason.UNKNOWN_EVENT,
            "webhooks/group_merge_request": Reason.MALFORMED,  # each of its keys ends in a blank
            "webhooks/merge_request": Trigger.OPENED,
            "webhooks/note_commit": Reason.NOT_ON_MERGE_NOTE,
            "webhooks/note_merge_request": NoteWritten,
            "webhooks/push": Reason.UNKNOWN_EVENT,
            "webhooks/service_merge_request": Trigger.PUSHED,
        }.items()
    },
    "client-go/webhooks/resource_access_token_group": TokenExpiring,
    "client-go/webhooks/resource_access_token_project": TokenExpiring,
}
"""By file: what each delivery of `../shared/gitlab` is, while the bot's id is not known."""

needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"{RECORDED} is not there (it is not published)")


def recorded() -> dict[str, JsonObject]:
    """The deliveries among the files; some others are whole HTTP answers, with their headers."""
    documents = {
        path.relative_to(RECORDED).with_suffix("").as_posix(): json.loads(text)
        for path in RECORDED.rglob("*.json")
        if (text := path.read_text()).startswith(("{", "["))
    }
    return {
        name: document
        for name, document in documents.items()
        if isinstance(document, dict) and {"object_kind", "event_name"} & set(document)
    }


@pytest.mark.shared
@needs_recorded
def test_what_others_recorded() -> None:
    documents = recorded()
    results = {name: read_body(document, bot=None) for name, document in documents.items()}
    assert {name: outcome(result) for name, result in results.items()} == RECORDED_OUTCOMES
    for result in results.values():
        check(result)


@pytest.mark.shared
@needs_recorded
def test_the_recorded_request_of_a_reviewer() -> None:
    document = recorded()["atlantis/gitlab-merge-request-event-update-reviewer"]
    assert a_change(read_body(document, bot=2)).asked == (2,)
    assert outcome(read_body(document, bot=3)) == Reason.NOT_A_TRIGGER


@pytest.mark.shared
@needs_recorded
def test_the_parts_of_events_in_gitlabs_documentation() -> None:
    """Partial bodies: laid over a sample of ours, they mean what the documentation says."""
    parts = json.loads((RECORDED / "gitlab-docs" / "merge-request-partials.json").read_bytes())
    results = {}
    for name, part in parts.items():
        body = json.loads(sample("merge-request-labelled")[1])
        body["object_attributes"] |= part["object_attributes"]
        body["changes"] = part.get("changes", {})
        results[name] = outcome(read_body(body, bot=6))
    assert results == {
        "push_update": Trigger.PUSHED,
        "system_reset": Reason.NOT_A_TRIGGER,
        "re_request": Trigger.REVIEWER,
    }
