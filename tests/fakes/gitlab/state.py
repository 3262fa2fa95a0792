"""The server's whole state, and how tests make people, groups and projects in it."""

import random
import re
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.gitlab.faults import Faults
from tests.fakes.gitlab.hooks import Delivering
from tests.fakes.gitlab.model import DEVELOPER, MAINTAINER, Action, Group, Request, Settings, Token, User

if TYPE_CHECKING:
    from tests.fakes.gitlab.project import Project


class GitLab:
    """A GitLab. All reads and writes of its state happen under `lock`.

    Args:
        folder: where the repositories are; None: in a temporary folder that `close` removes.
        settings: may be changed later, too.
    """

    def __init__(self, folder: Path | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.lock = threading.RLock()
        self.root = ""
        self.address = "http://gitlab.invalid"
        self.users: dict[int, User] = {}
        self.groups: dict[str, Group] = {}
        self.projects: dict[int, Project] = {}
        self.tokens: dict[str, Token] = {}
        self.actions: list[Action] = []
        """Every quick action that ran: what must stay empty when notes are escaped well."""
        self.requests: list[Request] = []
        self.defects: list[str] = []
        """Errors of the stand-in itself."""
        self.notifications: list[tuple[int, int, str]] = []
        """One (project, merge request, what) for each e-mail that the people on a merge request would get."""
        self.faults = Faults()
        self.hooks = Delivering(self)
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="gitlab-", ignore_cleanup_errors=True)
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self._meanwhile: list[tuple[str, re.Pattern[str], Callable[[], object]]] = []
        self._ids: dict[str, int] = {}
        self._offset = timedelta()
        self._random = random.Random(1)  # noqa: S311 -- ids only
        self.admin = self.user("root", name="Administrator", admin=True)
        self.bot = self.user("apprentice", name="Apprentice", bot=True)
        self.bot_token = self.token(self.bot, "glpat-bot-000000000000").value

    # --- what everything needs

    @property
    def url(self) -> str:
        """Where a client reaches it: the relative root included, `/api/v4` not."""
        return self.address + self.root

    @property
    def own_url(self) -> str:
        """What GitLab writes into links."""
        return self.settings.external_url or self.url

    def next_id(self, kind: str, start: int = 1) -> int:
        with self.lock:
            self._ids[kind] = self._ids.get(kind, start - 1) + 1
            return self._ids[kind]

    def hex_id(self) -> str:
        return f"{self._random.getrandbits(160):040x}"

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def advance(self, seconds: float) -> None:
        """Let time pass: for hooks that are switched off for a while, and for tokens that expire."""
        self._offset += timedelta(seconds=seconds)

    def close(self) -> None:
        self.hooks.close()
        if self._temporary:
            self._temporary.cleanup()

    # --- people

    def user(self, username: str, *, name: str | None = None, bot: bool = False, admin: bool = False) -> User:
        """The user of that name, made when there is none."""
        with self.lock:
            for user in self.users.values():
                if user.username == username:
                    return user
            made = User(self.next_id("user"), username, name or username.title(), bot=bot, admin=admin)
            self.users[made.id] = made
            return made

    def token(
        self,
        user: User | str,
        value: str | None = None,
        *,
        scopes: tuple[str, ...] = ("api",),
        expires_on: date | None = None,
        name: str = "token",
    ) -> Token:
        """Make a token of a user; `value` is what a client sends."""
        owner = self.user(user) if isinstance(user, str) else user
        number = self.next_id("token")
        expiry = expires_on or (self.now() + timedelta(days=365)).date()
        made = Token(number, value or f"glpat-{owner.username}-{number:08}", owner, name, self.now(), scopes, expiry)
        self.tokens[made.value] = made
        return made

    # --- groups and projects

    def group(self, path: str) -> Group:
        """The group of that path, made with those around it when there is none."""
        with self.lock:
            if path not in self.groups:
                if "/" in path:
                    self.group(path.rpartition("/")[0])
                self.groups[path] = Group(self.next_id("group"), path)
            return self.groups[path]

    def project(self, path: str, *, bot_level: int | None = DEVELOPER, private: bool = True) -> "Project":
        """The project of that path, made when there is none: the bot is a member of it at that level (None: is not)."""
        from tests.fakes.gitlab.project import Project  # noqa: PLC0415 -- it needs this class

        with self.lock:
            for project in self.projects.values():
                if project.path == path:
                    return project
            group = self.group(path.rpartition("/")[0])
            number = self.next_id("project")
            made = Project(self, number, path, group, self.folder / f"{number}.git", private=private)
            self.projects[number] = made
            made.members[self.admin.id] = MAINTAINER + 10
            if bot_level is not None:
                made.members[self.bot.id] = bot_level
            return made

    def find_project(self, key: str) -> "Project | None":
        """By number or by path, as it stands in an API address."""
        if re.fullmatch(r"[0-9]+", key):
            return self.projects.get(int(key))
        return next((project for project in self.projects.values() if project.path.lower() == key.lower()), None)

    def refresh(self) -> None:
        """Notice what was pushed to the repositories' folders with git."""
        for project in list(self.projects.values()):
            project.refresh()

    # --- what a test asks

    def count(self, method: str | None = None, pattern: str = "", *, user: str | None = None) -> int:
        """How many requests came: of a method, whose path matches a regular expression, of a user."""
        return len(self.logged(method, pattern, user=user))

    def logged(self, method: str | None = None, pattern: str = "", *, user: str | None = None) -> list[Request]:
        with self.lock:
            return [
                request
                for request in self.requests
                if method in (None, request.method)
                and user in (None, request.user)
                and re.search(pattern, request.path)
            ]

    def meanwhile(self, method: str, pattern: str, action: Callable[[], object], *, times: int = 1) -> None:
        """Do something just before a request is answered: for what happens behind a client's back.

        Args:
            method: of the request.
            pattern: a regular expression for its path.
            action: called by the request's thread, without the lock.
            times: so often.
        """
        self._meanwhile += [(method, re.compile(pattern), action)] * times

    def take_meanwhile(self, method: str, path: str) -> Callable[[], object] | None:
        with self.lock:
            for number, (verb, pattern, action) in enumerate(self._meanwhile):
                if verb == method and pattern.search(path):
                    del self._meanwhile[number]
                    return action
            return None

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until every hook that was fired is delivered or given up.

        Raises:
            TimeoutError: some are still on their way.
        """
        self.hooks.settle(timeout)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it never was.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"it did not come true in {timeout:g} s")
            time.sleep(0.005)
