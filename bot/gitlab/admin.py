"""What an operator's commands need of GitLab: who the token is, projects and groups, webhooks."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

from bot.forge import NotFound, Person
from bot.gitlab import answers
from bot.gitlab.access import Access
from bot.gitlab.api import Api
from bot.gitlab.door import Door
from bot.hook import Delivery, Hook, Wanted

DEVELOPER, MAINTAINER = 30, 40
"""Levels: who may review, and who may make webhooks."""

_DELIVERIES = 20
_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """An access token: its name, its scopes, and its last day."""

    name: str
    scopes: tuple[str, ...]
    expires_on: date | None

    def expires_soon(self, today: date) -> bool:
        """Whether it is time to renew it."""
        return self.expires_on is not None and self.expires_on - today <= _SOON


@dataclass(frozen=True, slots=True)
class Project:
    """A project.

    Args:
        id: its number.
        path: its full path, with all groups.
        web_url: its page.
        archived: nobody can write to it.
        level: the bot's own level in it by GitLab's word, 0 where it says none.
    """

    id: int
    path: str
    web_url: str
    archived: bool
    level: int


@dataclass(frozen=True, slots=True)
class Group:
    """A group: number, full path and page."""

    id: int
    path: str
    web_url: str


Place = Project | Group
"""Where webhooks hang."""


class GitLabAdmin:
    """A GitLab server, as an operator's commands see it. The arguments are those of `GitLabForge`.

    Every method may raise a `ForgeError`.
    """

    def __init__(self, url: str, token: str, *, ca_file: Path | None = None, timeout_seconds: float = 30) -> None:
        self._api = Api(Access(url.rstrip("/"), token, ca_file, timeout_seconds))

    def close(self) -> None:
        """Close all connections."""
        self._api.close()

    def version(self) -> str:
        """Which GitLab it is, like 17.11.2-ee."""
        return self._api.get("/version", answers.Version).version

    def clock(self) -> datetime | None:
        """What time GitLab thinks it is, to the second; None where its answers do not tell."""
        access = self._api.access
        with Door(access, access.trusted()) as door:
            response = door.get(f"{access.url}/api/v4/version", headers={"PRIVATE-TOKEN": access.token})
        try:
            return parsedate_to_datetime(response.headers.get("Date", "")).astimezone(UTC)
        except ValueError:
            return None

    def me(self) -> Person:
        """Whose token it is."""
        return self._api.get("/user", answers.User).value()

    def token(self) -> TokenInfo:
        """What the token is."""
        said = self._api.get("/personal_access_tokens/self", answers.Token)
        return TokenInfo(said.name, said.scopes, said.expires_at)

    # --- projects and groups

    def project(self, key: int | str) -> Project:
        """A project by its number or its full path."""
        return _project(self._api.get(f"/projects/{quote(str(key), safe='')}", answers.Project))

    def group(self, key: int | str) -> Group:
        """A group by its number or its full path."""
        query = {"with_projects": "false"}
        said = self._api.get(f"/groups/{quote(str(key), safe='')}", answers.Group, query)
        return Group(said.id, said.full_path, said.web_url)

    def level(self, project: Project, person: Person) -> int:
        """A person's level in a project, also where it comes from a group that was invited; 0: none."""
        try:
            return self._api.get(f"/projects/{project.id}/members/all/{person.id}", answers.Member).access_level
        except NotFound:
            return 0

    def projects(self, group: Group) -> Iterator[Project]:
        """The projects of a group and of those below it that are not archived. GitLab tells no levels here.

        Those of other groups that are shared with it are not its own.
        """
        query = {"include_subgroups": "true", "with_shared": "false", "archived": "false"}
        query |= {"order_by": "id", "sort": "asc"}
        for said in self._api.pages(f"/groups/{group.id}/projects", answers.Project, query):
            yield _project(said)

    # --- webhooks

    def hooks(self, place: Place) -> tuple[Hook, ...]:
        """The webhooks there. GitLab's Free edition knows none of groups: `NotFound` or `ForgeDenied`."""
        return tuple(_hook(said) for said in self._api.pages(_hooks(place), answers.Hook))

    def add_hook(self, place: Place, wanted: Wanted) -> Hook:
        """Make a webhook. Look afterwards whether it `signs`: older versions take that in silence."""
        return _hook(self._api.post(_hooks(place), wanted.body(), answers.Hook))

    def change_hook(self, place: Place, hook: int, wanted: Wanted) -> Hook:
        """Make a webhook what it shall be."""
        return _hook(self._api.put(f"{_hooks(place)}/{hook}", wanted.body(), answers.Hook))

    def test_hook(self, place: Place, hook: int, trigger: str = "merge_requests_events") -> None:
        """Let a webhook send a sample, which also switches it on again. `ForgeRefused` where the receiver refuses."""
        self._api.act(f"{_hooks(place)}/{hook}/test/{trigger}")

    def deliveries(self, place: Place, hook: int) -> tuple[Delivery, ...]:
        """The newest deliveries of a webhook, newest first."""
        said = self._api.newest(f"{_hooks(place)}/{hook}/events", answers.Delivery, _DELIVERIES)
        return tuple(_delivery(each) for each in said)


def _project(said: answers.Project) -> Project:
    ways = said.permissions
    accesses = (ways.project_access, ways.group_access) if ways else ()
    level = max((access.access_level for access in accesses if access), default=0)
    return Project(said.id, said.path_with_namespace, said.web_url, bool(said.archived), level)


def _hooks(place: Place) -> str:
    return f"/{'projects' if isinstance(place, Project) else 'groups'}/{place.id}/hooks"


def _hook(said: answers.Hook) -> Hook:
    return Hook(
        id=said.id,
        url=said.url,
        merge_requests=bool(said.merge_requests_events),
        notes=bool(said.note_events),
        emoji=said.emoji_events,
        token_expiry=said.resource_access_token_events,
        verifies=bool(said.enable_ssl_verification),
        has_token=said.token_present,
        signs=said.signing_token_present,
        alert_status=said.alert_status,
        disabled_until=said.disabled_until,
    )


def _delivery(said: answers.Delivery) -> Delivery:
    status = str(said.response_status)
    return Delivery(said.id, said.trigger, int(status) if status.isdecimal() else None, said.execution_duration)
