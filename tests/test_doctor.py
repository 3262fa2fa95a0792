"""`apprentice doctor` as an operator runs it: what is wrong is named with the way out, and hides nothing else."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from pytest_httpserver import HTTPServer
from werkzeug import Response

from bot.doctor import SLOW_SECONDS
from bot.gitlab import door
from bot.store import AdapterState, Store
from tests.fakes import gitlab as stand_in
from tests.fakes import student as fake_student
from tests.fakes.gitlab import DEVELOPER, MAINTAINER, OWNER, REPORTER, GitLab
from tests.fakes.gitlab.model import Delivery
from tests.fakes.student import FINE, Said
from tests.test_review_command import apprentice, environment

pytestmark = pytest.mark.world

SECRET = "a-webhook-secret"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PASSWORD = "a-database-password"


@dataclass
class Place:
    gitlab: GitLab
    folder: Path
    student: str
    given: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        known = {
            "APPRENTICE_GITLAB_URL": self.gitlab.url,
            "APPRENTICE_GITLAB_TOKEN": self.gitlab.bot_token,
            "APPRENTICE_WEBHOOK_SECRET": SECRET,
            "APPRENTICE_STUDENT_URL": self.student,
            "APPRENTICE_DATA_DIR": str(self.folder / "data"),
            "APPRENTICE_STATE_DIR": str(self.folder / "state"),
        }
        return known | self.given

    def connect(self, target: str, url: str = "https://bot.example") -> None:
        done = apprentice("connect", target, "--url", url, folder=self.folder, stdin=b"", **self.settings)
        assert done.code == 0, done.out + done.err

    def doctor(self, *arguments: str, code: int = 0) -> dict[str, str]:
        """What each check said, with its mark before it."""
        done = apprentice("doctor", *arguments, folder=self.folder, stdin=b"", **self.settings)
        assert done.code == code, done.out + done.err
        for secret in (SECRET, SIGNING, PASSWORD, self.gitlab.bot_token, "s3cret-key"):
            assert secret not in done.out + done.err
        *lines, last = done.out.splitlines()
        failed = sum(line.startswith("FAILED") for line in lines)
        assert last == (f"{failed} check{'s' * (failed > 1)} failed." if failed else "Nothing failed.")
        return {
            check: f"{line[:8].strip()} {words}" for line in lines for check, _, words in [line[9:].partition(": ")]
        }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with stand_in.serve() as gitlab, fake_student.serve(lambda _: Said(FINE)) as student:
        yield Place(gitlab, tmp_path, student.url)


@pytest.fixture
def shop(place: Place) -> stand_in.Project:
    project = place.gitlab.project("team/shop", bot_level=MAINTAINER)
    place.connect("team/shop")
    return project


def delivered(project: stand_in.Project, *statuses: int | None, seconds: float = 0.1) -> None:
    """Let the webhook have made these deliveries, oldest first."""
    (hook,) = project.hooks
    for number, status in enumerate(statuses):
        delivery = Delivery(number, "note_events", hook.url, {}, b"", datetime.now(UTC))
        delivery.status, delivery.seconds = status, seconds
        hook.deliveries.append(delivery)


# --- all is well


def test_all_is_well(place: Place, shop: stand_in.Project) -> None:
    delivered(shop, 200)
    year = (datetime.now(UTC) + timedelta(days=365)).date()
    said = place.doctor()
    assert said.pop("clock").startswith("ok ")
    assert said == {
        "webhook secret": "ok a secret token set",
        "database": f"ok SQLite file {place.folder / 'data' / 'apprentice.sqlite'}",
        "GitLab": f"ok 19.1.0 at {place.gitlab.url}",
        "token": f"ok token (scopes: api), good until {year}",
        "user": "ok @apprentice",
        "role in team/shop": "ok Maintainer",
        "webhook of team/shop": "ok 1 to https://bot.example/webhook, last delivery 200",
        "student": f"ok answers at {place.student}",
        "model": "ok base, context of 4096 tokens",
        "adapter": "ok none is set: the base model reviews",
    }


def test_before_anything_is_connected(place: Place) -> None:
    said = place.doctor()
    assert said["database"].startswith("warning there is none yet: the first `apprentice serve` or `connect` makes it")
    assert said["projects"].startswith("warning none is connected yet: `apprentice connect GROUP_OR_PROJECT --url ")
    assert not (place.folder / "data").exists()


# --- settings and database


def test_nothing_is_set(place: Place) -> None:
    nothing = ("GITLAB_URL", "GITLAB_TOKEN", "WEBHOOK_SECRET", "STUDENT_URL")
    place.given |= {f"APPRENTICE_{name}": "" for name in nothing}
    said = place.doctor(code=1)
    assert said["webhook secret"].startswith("FAILED neither APPRENTICE_WEBHOOK_SECRET nor")
    assert "APPRENTICE_GITLAB_URL is not set" in said["GitLab"]
    assert "APPRENTICE_GITLAB_TOKEN is not set" in said["GitLab"]
    assert said["projects"] == said["clock"] == "skipped not checked without GitLab"
    assert "FAILED no student is running on this machine. Start one with" in said["student"]
    assert said["adapter"] == "skipped not checked without the student"


def test_settings_that_cannot_be_read_end_it(place: Place) -> None:
    place.given["APPRENTICE_GITLAB_ULR"] = "x"
    done = apprentice("doctor", folder=place.folder, stdin=b"", **place.settings)
    assert (done.code, done.out) == (2, "")
    assert "did you mean APPRENTICE_GITLAB_URL?" in done.err


def test_a_signing_key(place: Place) -> None:
    place.given["APPRENTICE_WEBHOOK_SIGNING_KEY"] = SIGNING
    assert place.doctor()["webhook secret"] == "ok a secret token and a signing key set"
    place.given["APPRENTICE_WEBHOOK_SIGNING_KEY"] = "whsec_short"
    assert "must be whsec_ and Base64" in place.doctor(code=1)["webhook secret"]


def test_a_database_of_another_version(place: Place, shop: stand_in.Project) -> None:
    store = Store(f"sqlite:///{place.folder / 'data' / 'apprentice.sqlite'}")
    store.migrate("0001")
    store.close()
    said = place.doctor(code=1)
    assert "has tables of an older version (0001): run `apprentice migrate`" in said["database"]
    assert said["projects"] == "skipped not checked without the database"
    assert place.doctor("--project", shop.path, code=1)["webhook of team/shop"].startswith("ok ")


def test_a_database_that_is_not_reached(place: Place) -> None:
    place.given["APPRENTICE_DATABASE_URL"] = f"postgresql://apprentice:{PASSWORD}@127.0.0.1:1/apprentice"
    said = place.doctor(code=1)
    assert said["database"].startswith("FAILED PostgreSQL at 127.0.0.1:1/apprentice: ")
    assert "APPRENTICE_VOTE_SALT is not set" in said["vote salt"]
    place.given["APPRENTICE_VOTE_SALT"] = "a-salt"
    assert place.doctor(code=1)["vote salt"] == "ok set"
    place.given["APPRENTICE_DATABASE_URL"] = f"mysql://apprentice:{PASSWORD}@127.0.0.1:1/apprentice"
    assert "a database of the kind mysql is not known" in place.doctor(code=1)["database"]


# --- GitLab


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://gitlab.invalid", "name"),
        ("http://127.0.0.1:1", "connection refused"),
    ],
)
def test_gitlab_is_not_reached(place: Place, url: str, said: str) -> None:
    place.given["APPRENTICE_GITLAB_URL"] = url
    lines = place.doctor(code=1)
    assert lines["GitLab"].startswith("FAILED GET ")
    assert said in lines["GitLab"].lower()
    assert {lines[name] for name in ("token", "clock", "user", "projects")} == {"skipped not checked without GitLab"}
    assert lines["student"].startswith("ok ")


def test_a_proxy_that_is_down(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    place.given["APPRENTICE_GITLAB_URL"] = "http://gitlab.invalid"
    assert "failed through the proxy that the environment names" in place.doctor(code=1)["GitLab"]


def test_a_relative_root_that_is_missing(tmp_path: Path, place: Place) -> None:
    with stand_in.serve(root="/gitlab") as gitlab:
        there = Place(gitlab, tmp_path, place.student)
        assert there.doctor()["GitLab"].startswith("ok ")
        there.given["APPRENTICE_GITLAB_URL"] = gitlab.address
        assert "with its path if GitLab has one?" in there.doctor(code=1)["GitLab"]


def test_a_certificate_of_an_own_authority(tmp_path: Path, place: Place) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with stand_in.serve(tls=context) as gitlab:
        there = Place(gitlab, tmp_path, place.student)
        assert "name that one's PEM file in APPRENTICE_GITLAB_CA_FILE" in there.doctor(code=1)["GitLab"]
        file = tmp_path / "ca.pem"
        there.given["APPRENTICE_GITLAB_CA_FILE"] = str(file)
        file.write_text("none")
        said = there.doctor(code=1)
        assert "cannot be used as certificates in PEM form" in said["GitLab"]
        assert said["token"].startswith("skipped")
        authority.cert_pem.write_to_path(str(file))
        assert there.doctor()["GitLab"].startswith("ok ")


def test_clocks_that_differ(place: Place) -> None:
    assert place.doctor()["clock"].startswith("ok ")
    place.gitlab.advance(120)
    assert place.doctor()["clock"].endswith("s behind GitLab's: let both machines set their clocks by NTP")
    place.gitlab.advance(-1000)
    assert place.doctor()["clock"].startswith("warning ")
    place.given["APPRENTICE_WEBHOOK_SIGNING_KEY"] = SIGNING
    assert place.doctor(code=1)["clock"].endswith("ahead of GitLab's: let both machines set their clocks by NTP. "
                                                  "Signed deliveries are refused so")  # fmt: skip


def test_a_wrong_token(place: Place) -> None:
    place.given["APPRENTICE_GITLAB_TOKEN"] = "glpat-wrong"
    said = place.doctor(code=1)
    assert said["GitLab"] == f"ok answers at {place.gitlab.url}"
    assert "is wrong, expired or revoked" in said["token"]
    assert {said[name] for name in ("clock", "user", "projects")} == {
        "skipped not checked without a token that is good"
    }


def test_an_expired_token(place: Place) -> None:
    old = place.gitlab.token(place.gitlab.bot, expires_on=(datetime.now(UTC) - timedelta(days=1)).date())
    place.given["APPRENTICE_GITLAB_TOKEN"] = old.value
    assert "Token is expired" in place.doctor(code=1)["token"]


def test_a_token_that_ends_soon(place: Place) -> None:
    day = (datetime.now(UTC) + timedelta(days=5)).date()
    place.given["APPRENTICE_GITLAB_TOKEN"] = place.gitlab.token(place.gitlab.bot, expires_on=day, name="reviews").value
    assert place.doctor()["token"].startswith(f"warning reviews ends on {day}: make or rotate it in time")


def test_a_token_without_the_scope(place: Place) -> None:
    place.given["APPRENTICE_GITLAB_TOKEN"] = place.gitlab.token(place.gitlab.bot, scopes=("read_api",)).value
    said = place.doctor(code=1)
    assert said["token"].startswith("FAILED token has not the scope api, but: read_api.")
    assert said["user"] == "ok @apprentice"


def test_an_older_gitlab(place: Place, shop: stand_in.Project) -> None:
    delivered(shop, 500)
    place.gitlab.settings.own_tokens = place.gitlab.settings.hook_events = False
    said = place.doctor()
    assert said["token"] == "warning this GitLab (before 15.5) does not tell its scopes and its last day"
    assert said["webhook of team/shop"].endswith("nothing was delivered yet")


@pytest.mark.parametrize(
    ("path", "check", "skipped"),
    [
        ("/user$", "user", ["projects"]),
        ("/members/all/", "role in team/shop", ["webhook of team/shop"]),
        ("/hooks$", "webhook of team/shop", []),
        ("/personal_access_tokens/self", "token", []),
    ],
)
def test_a_gitlab_that_fails_at_one_thing(
    place: Place, shop: stand_in.Project, path: str, check: str, skipped: list[str]
) -> None:
    place.gitlab.faults.add("500", pattern=path)
    if "members" in path:
        del shop.members[place.gitlab.bot.id]
        shop.private = False
    said = place.doctor(code=1)
    assert said[check].startswith("FAILED GET ")
    assert all(said[name].startswith("skipped ") for name in skipped)
    assert said["model"].startswith("ok ")


# --- projects


def test_roles(place: Place, shop: stand_in.Project) -> None:
    shop.members[place.gitlab.bot.id] = DEVELOPER
    said = place.doctor()
    assert said["role in team/shop"] == "ok Developer"
    assert said["webhook of team/shop"].startswith("skipped only Maintainers see it, under Settings > Webhooks: is ")
    shop.members[place.gitlab.bot.id] = REPORTER
    said = place.doctor(code=1)
    assert said["role in team/shop"].startswith("FAILED Reporter. Make @apprentice a Developer there")
    del shop.members[place.gitlab.bot.id]
    said = place.doctor(code=1)
    assert "is the bot a member of the project, as Developer?" in said["role in team/shop"]
    assert said["webhook of team/shop"] == "skipped not checked without the project"


def test_one_project_that_fails_hides_no_other(place: Place, shop: stand_in.Project) -> None:
    gone = place.gitlab.project("team/gone", bot_level=MAINTAINER)
    place.connect("team/gone")
    gone.hooks.clear()
    said = place.doctor(code=1)
    assert said["webhook of team/gone"].startswith(
        "FAILED it is gone: `apprentice connect team/gone --url https://bot.example` makes a new one"
    )
    assert said["webhook of team/shop"].startswith("ok ")
    shop.archived = True
    assert place.doctor(code=1)["role in team/shop"].startswith("warning archived")


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ((), "ok 1 to https://bot.example/webhook, nothing was delivered yet"),
        ((500, 200), "warning 1 to https://bot.example/webhook, last delivery 200, but 1 of the last 2 failed"),
        ((200, None), "FAILED 1 to https://bot.example/webhook, GitLab did not reach it at the last delivery: "),
        ((502,), "FAILED 1 to https://bot.example/webhook, which answered 502 to the last delivery: the bot's log"),
        ((404,), "FAILED 1 to https://bot.example/webhook, which answered 404 to the last delivery: does https"),
        ((401,), "FAILED 1 to https://bot.example/webhook: the bot refuses its secret. `apprentice connect team/shop "),
    ],
)
def test_deliveries(place: Place, shop: stand_in.Project, statuses: tuple[int | None, ...], said: str) -> None:
    delivered(shop, *statuses)
    told = place.doctor(code=1 if said.startswith("FAILED") else 0)["webhook of team/shop"]
    assert told.startswith(said)


def test_a_slow_bot(place: Place, shop: stand_in.Project) -> None:
    delivered(shop, 200, seconds=SLOW_SECONDS + 1)
    assert "which took 6.0 s for the last delivery" in place.doctor()["webhook of team/shop"]


def test_a_webhook_that_is_off_or_not_right(place: Place, shop: stand_in.Project) -> None:
    (hook,) = shop.hooks
    hook.failures, hook.events["note_events"] = 40, False
    assert place.doctor(code=1)["webhook of team/shop"] == (
        "FAILED 1 to https://bot.example/webhook: events, switched off by GitLab. "
        "`apprentice connect team/shop --url https://bot.example` repairs that"
    )


def test_the_webhook_of_a_group(place: Place) -> None:
    group = place.gitlab.group("team")
    group.members[place.gitlab.bot.id] = OWNER
    for path in ("team/a", "team/b"):
        place.gitlab.project(path, bot_level=MAINTAINER)
    place.connect("team")
    said = place.doctor()
    assert said["webhook of team"].startswith("ok 1 to ")
    assert "webhook of team/a" not in said
    group.hooks.clear()
    said = place.doctor("--project", "team/b", code=1)
    assert said["webhook of team"].startswith("FAILED it is gone")
    assert "role in team/a" not in said
    group.members.clear()
    assert "answered 403" in place.doctor(code=1)["webhook of team"]


def test_a_project_that_is_named(place: Place, shop: stand_in.Project) -> None:
    other = place.gitlab.project("team/other", bot_level=MAINTAINER)
    said = place.doctor("--project", other.web_url, code=1)
    assert said["webhook of team/other"].startswith("FAILED there is none: `apprentice connect team/other --url https")
    assert "role in team/shop" not in said
    other.add_hook("https://by.hand/webhook", token="whatever")
    assert (
        "2 to https://by.hand/webhook: events"
        in place.doctor("--project", "team/other", code=1)["webhook of team/other"]
    )
    assert "role in team/nothing" in place.doctor("--project", "team/nothing", code=1)
    assert shop.hooks
    done = apprentice("doctor", "--project", "https://gitlab.com/a/b", folder=place.folder, stdin=b"", **place.settings)
    assert (done.code, "is not on http" in done.err) == (2, True)


# --- the student


def test_a_student_that_is_down(place: Place) -> None:
    place.given |= {"APPRENTICE_STUDENT_URL": "http://127.0.0.1:1/v1", "APPRENTICE_STUDENT_RETRIES": "0"}
    said = place.doctor(code=1)
    assert "cannot be reached: Connection refused" in said["student"]
    assert said["model"] == said["adapter"] == "skipped not checked without the student"


def test_a_key_that_the_student_refuses(place: Place, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_json({"error": "no"}, status=401)
    place.given |= {"APPRENTICE_STUDENT_URL": httpserver.url_for("/v1"), "APPRENTICE_STUDENT_API_KEY": "s3cret-key"}
    assert "Is the key in APPRENTICE_STUDENT_API_KEY right?" in place.doctor(code=1)["student"]


def test_a_model_that_is_not_served(place: Place) -> None:
    place.given["APPRENTICE_STUDENT_MODEL"] = "another"
    said = place.doctor(code=1)
    assert said["student"].startswith("ok ")
    assert "does not serve another; it serves base. Set APPRENTICE_STUDENT_MODEL" in said["model"]


def test_adapters(place: Place, httpserver: HTTPServer) -> None:
    served = {"data": [{"id": "base"}, {"id": "round-3", "parent": "base"}]}
    httpserver.expect_request("/v1/models").respond_with_json(served)
    place.given |= {"APPRENTICE_STUDENT_URL": httpserver.url_for("/v1"), "APPRENTICE_STUDENT_ADAPTER": "round-3"}
    said = place.doctor()
    assert (said["model"], said["adapter"]) == ("ok base", "ok round-3")
    place.given["APPRENTICE_STUDENT_ADAPTER"] = "round-4"
    said = place.doctor(code=1)
    assert said["model"] == "ok base"
    assert "has no adapter round-4; it serves base, round-3. Load it" in said["adapter"]


def test_the_adapter_that_the_learning_loop_promoted(place: Place, httpserver: HTTPServer) -> None:
    place.gitlab.project("team/shop", bot_level=MAINTAINER)
    place.connect("team/shop")
    place.given |= {"APPRENTICE_STUDENT_URL": httpserver.url_for("/v1")}
    served: list[dict[str, str]] = [{"id": "base"}]
    httpserver.expect_request("/v1/models").respond_with_handler(lambda _: Response(json.dumps({"data": served})))
    store = Store(f"sqlite:///{place.folder / 'data' / 'apprentice.sqlite'}")
    when = datetime(2026, 11, 25, 9, 5, tzinfo=UTC)
    store.register_adapter("r7", base="base", parent=None, card={}, state=AdapterState.CANDIDATE, at=when)
    store.serve_adapter("r7", when)
    store.close()
    assert place.doctor(code=1)["adapter"] == (
        f"FAILED r7 serves, and {httpserver.url_for('/v1')} has not loaded it. A running bot loads it within a minute; "
        "if it does not, its log says why, and `apprentice train rollback` goes back to the one before"
    )
    served.append({"id": "r7", "parent": "base"})
    said = place.doctor()
    assert (said["model"], said["adapter"]) == ("ok base", "ok r7, serving since 2026-11-25 09:05 UTC")
    (place.folder / "data" / "apprentice.sqlite").write_text("no database")
    assert place.doctor(code=1)["adapter"].startswith("skipped not checked without the database")


# --- the real command


@pytest.mark.process
def test_the_command_itself(place: Place, shop: stand_in.Project) -> None:
    call = [sys.executable, "-m", "bot", "doctor"]
    done = subprocess.run(
        call, env=environment(**place.settings), cwd=place.folder, capture_output=True, text=True, check=True
    )
    assert "ok       role in team/shop: Maintainer\n" in done.stdout
    assert done.stderr == ""
    shop.hooks.clear()
    done = subprocess.run(
        call, env=environment(**place.settings), cwd=place.folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("1 check failed.\n")
