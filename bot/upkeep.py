"""Keep the webhooks up while the bot runs: new projects of groups get theirs, and what was switched off goes on."""

from collections.abc import Callable

import structlog

from bot.complaints import Complaints
from bot.forge import ForgeError, ForgeUnreachable
from bot.gitlab import GitLabAdmin
from bot.gitlab.admin import Group, Place, Project
from bot.hanger import Hanger
from bot.hook import Wanted
from bot.store import Store
from bot.store import values as stored

log = structlog.get_logger()


class Upkeep:
    """The chore. What fails at one place is logged once, and the others are seen to.

    Args:
        admin: GitLab.
        store: the projects and groups that `apprentice connect` remembered.
        wanted: what the webhook is that goes to an address, and verifies the certificate there or does not.
    """

    def __init__(self, admin: GitLabAdmin, store: Store, wanted: Callable[[str, bool], Wanted]) -> None:
        self.admin = admin
        self.store = store
        self.wanted = wanted
        self.hanger = Hanger(admin)
        self.complaints = Complaints()

    def look_after(self) -> None:
        """See to all webhooks once.

        Raises:
            ForgeUnreachable: GitLab does not answer.
            StoreError: the database cannot be used.
        """
        for group in self.store.groups():
            place = Group(group.id, group.path, "")
            if group.hook is not None:
                hook = self._hang(place, self.wanted(group.url, group.verify), group.hook)
                if hook != group.hook:
                    self.store.remember_group(stored.Group(group.id, group.path, hook, group.url, group.verify))
            self._welcome(place, group)
        for project in self.store.projects():
            if project.url is not None:
                there = Project(project.id, project.path, "", archived=False, level=0)
                hook = self._hang(there, self.wanted(project.url, project.verify), project.hook)
                if hook != project.hook:
                    self.store.remember_project(project.id, project.path, hook, url=project.url, verify=project.verify)

    def _welcome(self, place: Group, group: stored.Group) -> None:
        """Remember the new projects of a group; those that need a webhook of their own get it like all others."""
        known = {project.id for project in self.store.projects()}
        url = group.url if group.hook is None else None
        try:
            for project in self.admin.projects(place):
                if project.id not in known:
                    self.store.remember_project(project.id, project.path, None, url=url, verify=group.verify)
                    log.info("new project", path=project.path)
        except ForgeUnreachable:
            raise
        except ForgeError as error:
            self.complaints.failed(f"projects of {group.path}", error)
        else:
            self.complaints.worked(f"projects of {group.path}")

    def _hang(self, place: Place, wanted: Wanted, known: int | None) -> int | None:
        hung = self.hanger.hang(place, wanted, known)
        task = f"webhook of {place.path}"
        if hung.error:
            self.complaints.failed(task, hung.words)
            return hung.hook
        self.complaints.worked(task)
        if hung.changed:
            log.info("webhook", path=place.path, outcome=hung.words)
        return hung.hook
