"""What `connect` and `doctor` need of GitLab, against the stand-in."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import pytest

from bot.forge import ForgeDenied, ForgeRefused, NotFound
from bot.gitlab import GitLabAdmin, door
from bot.gitlab.admin import Group, Project, TokenInfo
from bot.hook import Delivery, Hook, Wanted
from tests.fakes import gitlab as stand_in
from tests.fakes.gitlab import DEVELOPER, MAINTAINER, OWNER
from tests.fakes.receiver import receive

SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Place:
    gitlab: stand_in.GitLab
    theirs: stand_in.Project
    admin: GitLabAdmin

    @property
    def project(self) -> Project:
        return self.admin.project(self.theirs.id)


@pytest.fixture(params=["", "/gitlab"])
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with stand_in.serve(root=request.param) as server:
        project = server.project("team/tools/shop", bot_level=MAINTAINER)
        project.push("main", {"a": "b\n"})
        admin = GitLabAdmin(f"{server.url}/", server.bot_token)
        yield Place(server, project, admin)
        admin.close()


def wanted(url: str = "https://bot.example/webhook", *, verify: bool = True) -> Wanted:
    return Wanted(url, "s3cret", SIGNING, verify)


def test_version_and_token(here: Place) -> None:
    assert here.admin.version() == "19.1.0"
    token = here.gitlab.token(here.gitlab.bot, scopes=("read_api", "read_user"), expires_on=date(2030, 1, 2))
    token.name = "reviews"
    admin = GitLabAdmin(here.gitlab.url, token.value)
    assert admin.token() == TokenInfo("reviews", ("read_api", "read_user"), date(2030, 1, 2))
    admin.close()


@pytest.mark.parametrize("by_path", [True, False])
def test_a_project_by_path_or_number(here: Place, *, by_path: bool) -> None:
    key: int | str = "team/tools/shop" if by_path else here.theirs.id
    url = f"{here.gitlab.url}/team/tools/shop"
    assert here.admin.project(key) == Project(here.theirs.id, "team/tools/shop", url, archived=False, level=MAINTAINER)


def test_a_project_that_is_not_there(here: Place) -> None:
    with pytest.raises(NotFound):
        here.admin.project("team/nothing")


def test_a_group_and_all_projects_below_it(here: Place) -> None:
    here.gitlab.project("team/other")
    here.gitlab.project("elsewhere/third")
    group = here.admin.group("team")
    assert group == here.admin.group(group.id) == Group(group.id, "team", f"{here.gitlab.url}/groups/team")
    assert {project.path for project in here.admin.projects(group)} == {"team/tools/shop", "team/other"}


def test_a_hook_is_made_and_changed(here: Place) -> None:
    project = here.project
    assert here.admin.hooks(project) == ()
    made = here.admin.add_hook(project, wanted())
    assert made == Hook(
        id=made.id,
        url="https://bot.example/webhook",
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
    changed = here.admin.change_hook(project, made.id, wanted("https://new.example/webhook", verify=False))
    assert (changed.id, changed.url, changed.verifies) == (made.id, "https://new.example/webhook", False)
    assert here.admin.hooks(project) == (changed,)
    (theirs,) = here.theirs.hooks
    assert (theirs.token, theirs.signing_token) == ("s3cret", SIGNING)
    assert not theirs.events["push_events"]


def test_secrets_that_are_not_wanted_are_left_as_they_are(here: Place) -> None:
    made = here.admin.add_hook(here.project, Wanted("https://bot.example/", None, None))
    assert (made.has_token, made.signs) == (False, False)


def test_an_older_gitlab_does_not_say_what_it_does_not_know(here: Place) -> None:
    here.gitlab.settings.signing_tokens = False
    made = here.admin.add_hook(here.project, wanted())
    assert (made.has_token, made.signs) == (None, None)


def test_a_hook_is_tested_and_its_deliveries_are_told(here: Place) -> None:
    here.theirs.push("fix", {"a": "c\n"})
    here.theirs.open_merge_request("fix")
    with receive() as receiver:
        made = here.admin.add_hook(here.project, wanted(receiver.url, verify=False))
        here.admin.test_hook(here.project, made.id)
        (delivery,) = here.admin.deliveries(here.project, made.id)
        assert delivery == Delivery(delivery.id, "merge_requests_events", 200, delivery.seconds)
        assert delivery.seconds is not None
    with pytest.raises(ForgeRefused):
        here.admin.test_hook(here.project, made.id)
    assert here.admin.deliveries(here.project, made.id)[0].status is None


def test_a_hook_of_a_group(here: Place) -> None:
    group = here.admin.group("team")
    with pytest.raises(ForgeDenied):
        here.admin.hooks(group)
    here.gitlab.group("team").members[here.gitlab.bot.id] = OWNER
    made = here.admin.add_hook(group, wanted())
    assert here.admin.hooks(group) == (made,)
    assert here.admin.deliveries(group, made.id) == ()


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (403, ForgeDenied)])
def test_the_free_edition_has_no_hooks_of_groups(here: Place, status: int, kind: type[Exception]) -> None:
    here.gitlab.settings.group_hooks = False
    here.gitlab.settings.free_says = status
    with pytest.raises(kind):
        here.admin.hooks(here.admin.group("team"))


def test_a_developer_may_not_see_hooks(here: Place) -> None:
    project = here.project
    here.theirs.members[here.gitlab.bot.id] = DEVELOPER
    with pytest.raises(ForgeDenied, match="Maintainer for webhooks"):
        here.admin.hooks(project)


def test_an_address_that_gitlab_does_not_take(here: Place) -> None:
    with pytest.raises(ForgeRefused, match="Invalid url given"):
        here.admin.add_hook(here.project, wanted("gopher://bot.example"))
