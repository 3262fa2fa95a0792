"""`apprentice connect` as an operator runs it, and what the running bot does about webhooks, against the stand-in."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import structlog
import trustme

from bot.forge import ForgeRefused
from bot.gitlab import GitLabAdmin, door
from bot.hook import Wanted
from bot.store import Group, Store
from bot.upkeep import Upkeep
from tests.fakes import gitlab as stand_in
from tests.fakes.gitlab import DEVELOPER, MAINTAINER, OWNER, GitLab
from tests.fakes.receiver import receive
from tests.test_review_command import Ran, apprentice, environment

pytestmark = pytest.mark.world

SECRET = "a-webhook-secret"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://bot.example/webhook"


@dataclass
class Place:
    gitlab: GitLab
    folder: Path
    given: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        known = {
            "APPRENTICE_GITLAB_URL": self.gitlab.url,
            "APPRENTICE_GITLAB_TOKEN": self.gitlab.bot_token,
            "APPRENTICE_WEBHOOK_SECRET": SECRET,
            "APPRENTICE_DATA_DIR": str(self.folder / "data"),
        }
        return known | self.given

    def connect(self, target: str, *more: str, url: str = "https://bot.example", code: int = 0) -> Ran:
        done = apprentice("connect", target, "--url", url, *more, folder=self.folder, stdin=b"", **self.settings)
        assert done.code == code, done.out + done.err
        for secret in (SECRET, SIGNING, self.gitlab.bot_token):
            assert secret not in done.out + done.err
        return done

    @property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.folder / 'data' / 'apprentice.sqlite'}")

    def remembered(self) -> list[tuple[str, int | None, str | None]]:
        return [(it.path, it.hook, it.url) for it in self.store.projects()]

    def project(self, path: str, level: int | None = MAINTAINER) -> stand_in.Project:
        return self.gitlab.project(path, bot_level=level)

    def writes(self) -> int:
        return sum(self.gitlab.count(method, "hooks") for method in ("POST", "PUT", "DELETE"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with stand_in.serve() as gitlab:
        yield Place(gitlab, tmp_path)


def no_group_hooks(place: Place) -> None:
    place.gitlab.settings.group_hooks = False


# --- one project


@pytest.mark.parametrize("kind", ["path", "number", "page"])
def test_a_project_gets_its_webhook_and_is_remembered(place: Place, kind: str) -> None:
    for name in ("one", "two"):
        place.project(f"team/tools/{name}")  # so that the project's number is no group's
    project = place.project("team/tools/shop")
    page = f"{project.web_url}/-/merge_requests/1"
    done = place.connect({"path": project.path, "number": str(project.id), "page": page}[kind])
    assert done.out.splitlines() == [
        f"GitLab 19.1.0 at {place.gitlab.url}, as @apprentice",
        f"the token token is good until {(datetime.now(UTC) + timedelta(days=365)).date()}",
        "team/tools/shop: webhook 1 made",
        "1 changed",
    ]
    (hook,) = project.hooks
    assert (hook.url, hook.token, hook.signing_token, hook.ssl) == (URL, SECRET, None, True)
    assert {name for name, on in hook.events.items() if on} == {
        "merge_requests_events",
        "note_events",
        "emoji_events",
        "resource_access_token_events",
    }
    assert place.remembered() == [("team/tools/shop", 1, URL)]


def test_a_second_run_finds_it_right_and_writes_nothing(place: Place) -> None:
    place.project("team/shop")
    place.connect("team/shop")
    written = place.writes()
    assert "team/shop: already right (webhook 1)\n1 already right\n" in place.connect("team/shop", url=URL).out
    assert place.writes() == written


def test_what_is_wrong_is_repaired_in_place(place: Place) -> None:
    place.given["APPRENTICE_WEBHOOK_SIGNING_KEY"] = SIGNING
    project = place.project("team/shop")
    project.add_hook("https://elsewhere.example/webhook")
    mine = project.add_hook(f"{URL}/", events=["push_events", "note_events"])
    mine.ssl = False
    assert (
        "team/shop: webhook 2 repaired (address, events, certificate check, no secret, no signing key)"
        in place.connect("team/shop").out
    )
    assert len(project.hooks) == 2
    assert (mine.url, mine.token, mine.signing_token, mine.ssl) == (URL, SECRET, SIGNING, True)
    assert "already right (webhook 2)" in place.connect("team/shop").out


def test_the_bot_moved_to_another_address(place: Place) -> None:
    project = place.project("team/shop")
    place.connect("team/shop", url="https://old.example")
    assert "webhook 1 repaired (address)" in place.connect("team/shop").out
    assert [hook.url for hook in project.hooks] == [URL]


def test_a_receiver_with_a_certificate_of_its_own(place: Place) -> None:
    project = place.project("team/shop")
    place.connect("team/shop", "--no-verify-tls")
    assert not project.hooks[0].ssl
    assert "webhook 1 repaired (certificate check)" in place.connect("team/shop").out


def with_merge_request(project: stand_in.Project) -> None:
    project.push("main", {"a": "b\n"})
    project.push("fix", {"a": "c\n"})
    project.open_merge_request("fix")


@pytest.mark.parametrize("sample", [with_merge_request, lambda project: project.push("main", {"a": "b\n"})])
def test_a_switched_off_webhook_is_switched_on_by_a_test(place: Place, sample: object) -> None:
    project = place.project("team/shop")
    assert callable(sample)
    sample(project)
    with receive() as receiver:
        url = receiver.url.removesuffix("/webhook")
        place.connect("team/shop", url=url)
        (hook,) = project.hooks
        hook.failures, hook.token = 40, "another"
        said = place.connect("team/shop", url=url).out
        assert "webhook 1 repaired (switched off by GitLab)" in said
        assert receiver.got[-1].headers["X-Gitlab-Token"] == SECRET
    assert place.gitlab.hooks.alert_status(hook) == "executable"


def test_a_secret_that_the_bot_refuses_is_set_anew(place: Place) -> None:
    project = place.project("team/shop")
    with_merge_request(project)
    with receive() as receiver:
        url = receiver.url.removesuffix("/webhook")
        place.connect("team/shop", url=url)
        project.hooks[0].token, receiver.status = "another", 401
        project.push("fix", {"a": "d\n"})
        place.gitlab.settle()
        failed = place.connect("team/shop", url=url, code=3).out
        assert "team/shop: FAILED: webhook 1: GitLab's test of it failed: 401. Is the bot up" in failed
        receiver.status = 200
        assert "webhook 1 repaired (the bot refuses its secret)" in place.connect("team/shop", url=url).out
        assert "already right" in place.connect("team/shop", url=url).out


def test_a_webhook_that_cannot_be_tested(place: Place) -> None:
    project = place.project("team/shop")
    place.connect("team/shop")
    project.hooks[0].failures = 40
    said = place.connect("team/shop", code=3).out
    assert "FAILED: webhook 1 cannot be tested from here: press Test at it in GitLab" in said
    assert place.remembered() == [("team/shop", 1, URL)]


def test_a_gitlab_that_cannot_test_webhooks(place: Place) -> None:
    place.gitlab.settings.hook_tests = place.gitlab.settings.hook_events = place.gitlab.settings.own_tokens = False
    project = place.project("team/shop")
    with_merge_request(project)
    place.connect("team/shop")
    assert "already right" in place.connect("team/shop").out
    project.hooks[0].failures = 40
    assert "press Test at it in GitLab" in place.connect("team/shop", code=3).out


def test_an_older_gitlab_is_not_asked_for_what_it_does_not_know(place: Place) -> None:
    place.gitlab.settings.emoji_hooks = place.gitlab.settings.signing_tokens = False
    place.given["APPRENTICE_WEBHOOK_SIGNING_KEY"] = SIGNING
    place.project("team/shop")
    place.connect("team/shop")
    assert "already right" in place.connect("team/shop").out
    place.given["APPRENTICE_WEBHOOK_SECRET"] = ""
    assert "FAILED: webhook 1: this GitLab signs nothing (19.0 and later do)" in place.connect("team/shop", code=3).out


def test_an_address_that_gitlab_refuses(place: Place, upkeep: Upkeep) -> None:
    project = upkeep.admin.project(place.project("team/shop").id)
    hung = upkeep.hanger.hang(project, Wanted("gopher://10.0.0.1/webhook", SECRET, None), None)
    assert isinstance(hung.error, ForgeRefused)
    assert "answered 422: Invalid url given. If that address is in GitLab's own network, an administrator" in hung.words


def test_a_gitlab_that_fails(place: Place) -> None:
    place.project("team/shop")
    place.gitlab.faults.add("500", method="POST", pattern="/hooks$")
    assert "team/shop: FAILED: POST " in place.connect("team/shop", code=3).out


def test_an_archived_project(place: Place) -> None:
    place.project("team/shop").archived = True
    assert "team/shop: FAILED: archived: nobody can write there" in place.connect("team/shop", code=3).out
    assert place.writes() == 0


# --- a group


@pytest.fixture
def team(place: Place) -> Place:
    for path in ("team/shop", "team/tools/deep/forge", "other/third"):
        place.project(path)
    place.project("team/old").archived = True
    return place


def test_a_group_gets_one_webhook_where_gitlab_has_that(team: Place) -> None:
    team.gitlab.group("team").members[team.gitlab.bot.id] = OWNER
    done = team.connect("team")
    assert "group team: webhook 1 made\n" in done.out
    assert done.out.endswith("1 changed, 2 by the group's webhook\n")
    (hook,) = team.gitlab.group("team").hooks
    assert (hook.url, hook.token) == (URL, SECRET)
    assert not any(project.hooks for project in team.gitlab.projects.values())
    assert team.remembered() == [("team/shop", None, None), ("team/tools/deep/forge", None, None)]
    (group,) = team.store.groups()
    assert (group.path, group.hook, group.url, group.verify) == ("team", 1, URL, True)
    assert "group team: already right (webhook 1)" in team.connect("team").out


def test_projects_of_a_group_with_a_webhook_need_no_other(team: Place) -> None:
    team.connect("team/shop")
    team.gitlab.group("team").members[team.gitlab.bot.id] = OWNER
    assert "team/shop: by the group's webhook; its own webhook 1 is not needed any more" in team.connect("team").out


@pytest.mark.parametrize("status", [403, 404])
def test_in_the_free_edition_each_project_gets_its_own(team: Place, status: int) -> None:
    no_group_hooks(team)
    team.gitlab.settings.free_says = status
    done = team.connect(f"{team.gitlab.url}/groups/team/-/group_members")
    assert "[1/2] team/" in done.out
    assert "[2/2] team/" in done.out
    assert done.out.endswith("2 changed\n")
    hooked = {project.path for project in team.gitlab.projects.values() if project.hooks}
    assert hooked == {"team/shop", "team/tools/deep/forge"}
    assert [(group.path, group.hook) for group in team.store.groups()] == [("team", None)]
    written = team.writes()
    assert team.connect("team").out.endswith("2 already right\n")
    assert team.writes() == written


def test_a_subgroup(team: Place) -> None:
    no_group_hooks(team)
    assert "[1/1] team/tools/deep/forge: webhook 1 made" in team.connect("team/tools").out


def test_a_group_without_projects(place: Place) -> None:
    no_group_hooks(place)
    place.gitlab.group("empty").members[place.gitlab.bot.id] = MAINTAINER
    assert "there are no projects yet" in place.connect("empty").out
    assert [group.path for group in place.store.groups()] == ["empty"]


def test_where_rights_lack_the_others_are_done_and_the_way_out_is_named(team: Place) -> None:
    no_group_hooks(team)
    team.gitlab.find_project("team/shop").members[team.gitlab.bot.id] = DEVELOPER  # type: ignore[union-attr]
    done = team.connect("team", code=3)
    assert "team/shop: FAILED: GET " in done.out
    assert "(Maintainer for webhooks)" in done.out
    assert "team/tools/deep/forge: webhook 1 made" in done.out
    assert "Where rights lack: make @apprentice a Maintainer" in done.out
    assert "As a Developer the bot reviews without it, too" in done.out
    assert team.remembered() == [("team/shop", None, URL), ("team/tools/deep/forge", 1, URL)]


def test_what_the_bot_is_no_member_of_is_not_remembered(place: Place) -> None:
    no_group_hooks(place)
    place.gitlab.project("public/one", bot_level=None, private=False)
    place.connect("public", code=3)
    assert place.remembered() == []
    assert place.store.groups() == ()


def test_sixty_projects(place: Place) -> None:
    no_group_hooks(place)
    for number in range(60):
        place.project(f"big/p{number:02}")
    place.gitlab.settings.limits.page = 20
    done = place.connect("big")
    assert all(f"big/p{number:02}: webhook " in done.out for number in range(60))
    assert "[60/60] " in done.out
    assert done.out.endswith("60 changed\n")
    assert len(place.remembered()) == 60
    assert place.gitlab.count("POST") == 60


@pytest.mark.parametrize("group_hooks", [True, False])
def test_a_dry_run_changes_nothing(team: Place, *, group_hooks: bool) -> None:
    team.gitlab.settings.group_hooks = group_hooks
    team.gitlab.group("team").members[team.gitlab.bot.id] = OWNER
    off = team.gitlab.find_project("team/shop")
    assert off
    off.add_hook(URL).failures = 40
    done = team.connect("team", "--dry-run")
    assert "a webhook would be made" in done.out
    if not group_hooks:
        assert "team/shop: webhook 1 would be repaired (no secret, switched off by GitLab)" in done.out.replace(
            "(events, ", "("
        )
    assert done.out.endswith("(a dry run: nothing was changed)\n")
    assert team.writes() == 0
    assert not (team.folder / "data").exists()


# --- what is wrong


def test_a_wrong_token(place: Place) -> None:
    place.given["APPRENTICE_GITLAB_TOKEN"] = "glpat-wrong"
    assert "is wrong, expired or revoked: make a new one" in place.connect("team/shop", code=3).err


def test_an_expired_token(place: Place) -> None:
    old = place.gitlab.token(place.gitlab.bot, expires_on=(datetime.now(UTC) - timedelta(days=1)).date())
    place.given["APPRENTICE_GITLAB_TOKEN"] = old.value
    assert "Token is expired" in place.connect("team/shop", code=3).err


def test_a_token_that_ends_soon(place: Place) -> None:
    place.project("team/shop")
    soon = place.gitlab.token(
        place.gitlab.bot, expires_on=(datetime.now(UTC) + timedelta(days=5)).date(), name="reviews"
    )
    place.given["APPRENTICE_GITLAB_TOKEN"] = soon.value
    assert "warning: renew it in time: the token reviews is good until" in place.connect("team/shop").out


def test_a_token_without_the_scope(place: Place) -> None:
    weak = place.gitlab.token(place.gitlab.bot, scopes=("read_api", "read_user"))
    place.given["APPRENTICE_GITLAB_TOKEN"] = weak.value
    said = place.connect("team/shop", code=3).err
    assert "The token has not the scope api (it has: read_api, read_user)" in said


def test_nothing_of_that_name(place: Place) -> None:
    said = place.connect("team/nothing", code=3).err
    assert "team/nothing is no project and no group that @apprentice can see" in said


def test_a_number_of_both_a_project_and_a_group(place: Place) -> None:
    project = place.project("team/shop")
    assert project.id == place.gitlab.group("team").id == 1
    said = place.connect("1", code=2).err
    assert "1 is the project team/shop and the group team: write the path" in said


def test_all_that_is_wrong_with_settings_and_arguments_is_said_at_once(place: Place) -> None:
    place.given |= {"APPRENTICE_WEBHOOK_SECRET": "", "APPRENTICE_GITLAB_TOKEN": ""}
    said = place.connect("https://gitlab.com/team", url="bot.example", code=2).err
    assert "APPRENTICE_GITLAB_TOKEN is not set" in said
    assert "neither APPRENTICE_WEBHOOK_SECRET nor" in said
    assert "is not on http" in said
    assert "--url must begin with http:// or https://" in said


def test_a_signing_key_that_is_none(place: Place) -> None:
    place.given["APPRENTICE_WEBHOOK_SIGNING_KEY"] = "whsec_short"
    assert "signing key must be whsec_ and Base64" in place.connect("team/shop", code=2).err


def test_gitlab_that_is_down_in_the_middle_ends_it_and_what_was_done_stays(team: Place) -> None:
    no_group_hooks(team)
    (first, *_) = [project for project in team.gitlab.projects.values() if project.path.startswith("team/")]
    other = next(one for one in team.gitlab.projects.values() if one.path == "team/tools/deep/forge")
    team.gitlab.faults.add("reset_before", pattern=f"/projects/{other.id}/hooks")
    assert "failed: Connection reset by peer" in team.connect("team", code=3).err
    team.gitlab.faults.rules.clear()
    assert "changed" in team.connect("team").out
    assert first.hooks


# --- where GitLab is


def test_a_relative_root(tmp_path: Path) -> None:
    with stand_in.serve(root="/gitlab") as gitlab:
        place = Place(gitlab, tmp_path)
        project = place.project("team/shop")
        assert "team/shop: webhook 1 made" in place.connect(project.web_url).out
        place.given["APPRENTICE_GITLAB_URL"] = gitlab.address
        assert "with its path if GitLab has one?" in place.connect("team/shop", code=3).err


def test_a_gitlab_with_a_certificate_of_its_own_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with stand_in.serve(tls=context) as gitlab:
        place = Place(gitlab, tmp_path)
        place.project("team/shop")
        assert "name that one's PEM file in APPRENTICE_GITLAB_CA_FILE" in place.connect("team/shop", code=3).err
        place.given["APPRENTICE_GITLAB_CA_FILE"] = str(tmp_path / "ca.pem")
        assert "team/shop: webhook 1 made" in place.connect("team/shop").out


# --- while the bot runs


def wanted(url: str, verify: bool) -> Wanted:  # noqa: FBT001 -- as the store has it
    return Wanted(url, SECRET, None, verify)


@pytest.fixture
def upkeep(place: Place) -> Iterator[Upkeep]:
    (place.folder / "data").mkdir()
    store = place.store
    store.migrate()
    admin = GitLabAdmin(place.gitlab.url, place.gitlab.bot_token)
    yield Upkeep(admin, store, wanted)
    admin.close()
    store.close()


def test_new_projects_of_a_group_get_their_webhook(place: Place, upkeep: Upkeep) -> None:
    no_group_hooks(place)
    place.project("team/first")
    place.connect("team")
    second = place.project("team/sub/second")
    place.project("other/third")
    upkeep.look_after()
    assert [hook.url for hook in second.hooks] == [URL]
    assert place.remembered() == [("team/first", 1, URL), ("team/sub/second", 2, URL)]
    written = place.writes()
    upkeep.look_after()
    assert place.writes() == written


def test_new_projects_of_a_group_with_a_webhook_are_remembered(place: Place, upkeep: Upkeep) -> None:
    place.project("team/first")
    place.gitlab.group("team").members[place.gitlab.bot.id] = OWNER
    place.connect("team")
    second = place.project("team/second")
    upkeep.look_after()
    assert second.hooks == []
    assert place.remembered() == [("team/first", None, None), ("team/second", None, None)]


def test_webhooks_that_were_deleted_are_made_anew(place: Place, upkeep: Upkeep) -> None:
    project = place.project("solo/shop")
    place.connect("solo/shop", "--no-verify-tls")
    place.project("team/first")
    group = place.gitlab.group("team")
    group.members[place.gitlab.bot.id] = OWNER
    place.connect("team")
    project.hooks.clear()
    group.hooks.clear()
    upkeep.look_after()
    assert [(hook.url, hook.token, hook.ssl) for hook in project.hooks] == [(URL, SECRET, False)]
    assert [(hook.url, hook.token, hook.ssl) for hook in group.hooks] == [(URL, SECRET, True)]
    assert [it.hook for it in upkeep.store.projects() if it.url] == [project.hooks[0].id]
    assert [it.hook for it in upkeep.store.groups()] == [group.hooks[0].id]


@pytest.mark.parametrize("where", ["project", "group"])
def test_webhooks_that_were_switched_off_are_switched_on(place: Place, upkeep: Upkeep, where: str) -> None:
    project = place.project("team/first")
    with_merge_request(project)
    if where == "group":
        place.gitlab.group("team").members[place.gitlab.bot.id] = OWNER
    with receive() as receiver:
        place.connect("team/first" if where == "project" else "team", url=receiver.url.removesuffix("/webhook"))
        (hook,) = project.hooks or place.gitlab.group("team").hooks
        receiver.status = 500
        for number in range(4):
            project.push("fix", {"a": f"{number}\n"})
            place.gitlab.settle()
        assert place.gitlab.hooks.alert_status(hook) == "temporarily_disabled"
        upkeep.look_after()
        assert place.gitlab.hooks.alert_status(hook) == "temporarily_disabled"
        receiver.status = 200
        upkeep.look_after()
    assert place.gitlab.hooks.alert_status(hook) == "executable"


def test_what_fails_is_said_once_and_holds_up_no_other(place: Place, upkeep: Upkeep) -> None:
    no_group_hooks(place)
    first, gone = place.project("team/first"), place.project("team/gone")
    place.connect("team")
    upkeep.store.remember_group(Group(4711, "deleted", None, URL, verify=True))
    gone.members[place.gitlab.bot.id] = DEVELOPER
    first.hooks.clear()
    with structlog.testing.capture_logs() as logs:
        upkeep.look_after()
        upkeep.look_after()
        gone.members[place.gitlab.bot.id] = MAINTAINER
        upkeep.look_after()
    assert len(first.hooks) == 1
    assert [(line["event"], line.get("task") or line.get("path"), line["log_level"]) for line in logs] == [
        ("clerk", "projects of deleted", "warning"),
        ("webhook", "team/first", "info"),
        ("clerk", "webhook of team/gone", "warning"),
        ("clerk", "webhook of team/gone", "info"),
    ]
    assert place.remembered()[1] == ("team/gone", gone.hooks[0].id, URL)


# --- the real command


@pytest.mark.process
def test_the_command_itself(place: Place) -> None:
    no_group_hooks(place)
    place.project("team/shop")
    call = [sys.executable, "-m", "bot", "connect", "team", "--url", "https://bot.example"]
    run = partial(subprocess.run, env=environment(**place.settings), cwd=place.folder, capture_output=True, text=True)
    done = run(call, check=True)
    assert "[1/1] team/shop: webhook 1 made" in done.stdout
    assert done.stderr == ""
    assert "already right" in run(call, check=True).stdout
    wrong = run([*call, "--hurry"], check=False)
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
