"""`apprentice connect`: hang up the webhooks of a project, or of all projects of a group, and remember both."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import typer

from bot import parts
from bot.forge import ForgeDenied, ForgeError, NotFound, Person
from bot.gitlab import GitLabAdmin
from bot.gitlab.admin import DEVELOPER, Group, Place, Project
from bot.hanger import Hanger, Hung
from bot.hook import Wanted
from bot.settings import Settings, SettingsError, check_address
from bot.store import Store
from bot.store import values as stored
from bot.target import read_target
from bot.webhook import Secrets

_SOMETHING_FAILED = 3


def run(chosen: Settings, *, target: str, url: str, verify: bool, dry_run: bool) -> int:
    """Connect a project or a group; returns the exit code.

    Args:
        chosen: the settings.
        target: its number, full path or page.
        url: where GitLab reaches the bot.
        verify: let GitLab verify the certificate there.
        dry_run: only say what would be done.

    Raises:
        SettingsError: something is missing or wrong in the settings or the arguments.
        ForgeError: GitLab cannot be used, or the token does not do.
        StoreError: the database cannot be used.
    """
    wanted, key = _read(chosen, target, url, verify=verify)
    admin = parts.open_admin(chosen)
    try:
        me = _introduce(admin, chosen)
        place = _find(admin, key, me)
        store = parts.existing_store(chosen) if dry_run else parts.ready_store(chosen)
        connecting = _Connecting(admin, store, wanted, me, dry=dry_run)
        if isinstance(place, Project):
            connecting.one(place)
        else:
            connecting.group(place)
        connecting.conclude()
    finally:
        admin.close()
    return _SOMETHING_FAILED if connecting.failed else 0


def _read(chosen: Settings, target: str, url: str, *, verify: bool) -> tuple[Wanted, int | str]:
    problems = parts.lacks_gitlab(chosen) + parts.lacks_secret(chosen)
    key: int | str = 0
    with _noted(problems):
        key = read_target(target, chosen.gitlab_url or "")
    with _noted(problems, "--url "):
        url = check_address(url, instead="GitLab shows it to all Maintainers", example="https://bot.example")
    wanted = parts.wanted_hook(chosen, f"{url.removesuffix('/webhook')}/webhook", verify)
    if wanted.signing_token:
        with _noted(problems):
            Secrets(wanted.token, wanted.signing_token)
    if problems:
        raise SettingsError(problems)
    return wanted, key


@contextmanager
def _noted(problems: list[str], before: str = "") -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        problems.append(f"{before}{error}")


def _introduce(admin: GitLabAdmin, chosen: Settings) -> Person:
    """Say which GitLab it is and whose token that is.

    Raises:
        ForgeDenied: the token does not do.
    """
    me = admin.me()
    typer.echo(f"GitLab {admin.version()} at {chosen.gitlab_url}, as @{me.username}")
    with suppress(NotFound):  # GitLab before 15.5
        token = admin.token()
        if "api" not in token.scopes:
            scopes = ", ".join(token.scopes) or "none"
            raise ForgeDenied(
                f"The token has not the scope api (it has: {scopes}). Make a new one with it, for "
                "APPRENTICE_GITLAB_TOKEN."
            )
        if token.expires_on is not None:
            warning = "warning: renew it in time: " if token.expires_soon(datetime.now(UTC).date()) else ""
            typer.echo(f"{warning}the token {token.name} is good until {token.expires_on}")
    return me


def _find(admin: GitLabAdmin, key: int | str, me: Person) -> Place:
    """The project or the group that is meant.

    Raises:
        NotFound: there is none.
        SettingsError: there are two with this number.
    """
    found: list[Place] = []
    with suppress(NotFound):
        found.append(admin.project(key))
    with suppress(NotFound):
        found.append(admin.group(key))
    match found:
        case [place]:
            return place
        case []:
            raise NotFound(
                f"{key} is no project and no group that @{me.username} can see. Is it right (the full path, with all "
                f"groups), and is @{me.username} a member there?"
            )
        case _:
            raise SettingsError([f"{key} is {' and '.join(_named(place) for place in found)}: write the path"])


def _named(place: Place) -> str:
    return f"the {'project' if isinstance(place, Project) else 'group'} {place.path}"


class _Connecting:
    """One run of the command: does it place by place, and prints what it does.

    Args:
        admin: GitLab.
        store: what the bot remembers; None: nothing yet, and nothing is to be kept.
        wanted: what the webhooks shall be.
        me: the token's user.
        dry: only say what would be done.
    """

    def __init__(self, admin: GitLabAdmin, store: Store | None, wanted: Wanted, me: Person, *, dry: bool) -> None:
        self.admin = admin
        self.wanted = wanted
        self.me = me
        self.hanger = Hanger(admin, dry=dry)
        self.keeper = None if dry else store
        self.known = {project.id: project for project in (store.projects() if store else ())}
        self.known_groups = {group.id: group for group in (store.groups() if store else ())}
        self.counts = Counter[str]()
        self.denied = False

    @property
    def failed(self) -> bool:
        """Whether something could not be done."""
        return bool(self.counts["failed"])

    def one(self, project: Project) -> None:
        """Connect one project."""
        if project.archived:
            self._say(project.path, Hung(None, "archived: nobody can write there", error=NotFound("archived")))
        else:
            self._hang(project, "")

    def group(self, group: Group) -> None:
        """Connect a group: by one webhook, where that can be had, or else by one for each of its projects."""
        projects = list(self.admin.projects(group))
        if self._has_hooks(group):
            known = self.known_groups.get(group.id)
            hung = self.hanger.hang(group, self.wanted, known.hook if known else None)
            self._say(f"group {group.path}", hung)
            if hung.hook is not None:  # the group's webhook serves them, and needs none beside it
                self._remember_group(group, hung.hook)
                for project in projects:
                    self._by_group(project)
            return
        typer.echo(
            f"group {group.path}: GitLab has no webhook of the whole group here (that takes Premium, and the role Owner"
            "): one for each project"
        )
        for number, project in enumerate(projects, start=1):
            self._hang(project, f"[{number}/{len(projects)}] ")
        if self.counts.total() > self.counts["failed"] or not projects:
            self._remember_group(group, None)
            typer.echo("New projects get theirs within ten minutes while the bot runs.")

    def conclude(self) -> None:
        """Say what came of it all, and the way out where rights lack."""
        told = ", ".join(f"{count} {what}" for what, count in self.counts.items()) or "there are no projects yet"
        typer.echo(f"{told} (a dry run: nothing was changed)" if self.hanger.dry else told)
        if self.denied:
            typer.echo(
                f"Where rights lack: make @{self.me.username} a Maintainer (of the project or a group around it) and "
                "run this again. Or let a Maintainer make the webhook by hand (Settings > Webhooks): URL "
                f"{self.wanted.url}, the secret of APPRENTICE_WEBHOOK_SECRET, for comments, emoji and merge requests. "
                "As a Developer the bot reviews without it, too, but looks for news every ten minutes only."
            )

    def _has_hooks(self, group: Group) -> bool:
        try:
            self.admin.hooks(group)
        except (NotFound, ForgeDenied):
            return False
        return True

    def _hang(self, project: Project, count: str) -> None:
        known = self.known.get(project.id)
        hung = self.hanger.hang(project, self.wanted, known.hook if known else None)
        self._say(f"{count}{project.path}", hung)
        if self.keeper and (not hung.error or self._may_review(project)):
            self.keeper.remember_project(
                project.id, project.path, hung.hook, url=self.wanted.url, verify=self.wanted.verify
            )

    def _may_review(self, project: Project) -> bool:
        with suppress(ForgeError):
            return self.admin.level(project, self.me) >= DEVELOPER
        return False

    def _by_group(self, project: Project) -> None:
        known = self.known.get(project.id)
        needless = f"; its own webhook {known.hook} is not needed any more: delete it" if known and known.hook else ""
        typer.echo(f"{project.path}: by the group's webhook{needless}")
        self.counts["by the group's webhook"] += 1
        if self.keeper:
            self.keeper.remember_project(project.id, project.path, None)

    def _remember_group(self, group: Group, hook: int | None) -> None:
        if self.keeper:
            self.keeper.remember_group(stored.Group(group.id, group.path, hook, self.wanted.url, self.wanted.verify))

    def _say(self, name: str, hung: Hung) -> None:
        self.denied |= isinstance(hung.error, ForgeDenied)
        done = "to be changed" if self.hanger.dry else "changed"
        what = "failed" if hung.error else done if hung.changed else "already right"
        self.counts[what] += 1
        typer.echo(f"{name}: {'FAILED: ' if hung.error else ''}{hung.words}")
