"""How a route is declared, what it gets, and what it answers."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from tests.fakes.gitlab.errors import Refused, forbidden, invalid, not_found
from tests.fakes.gitlab.hooks import Chain
from tests.fakes.gitlab.model import JSON, REPORTER, Token, User

if TYPE_CHECKING:
    from tests.fakes.gitlab.merge import MergeRequest
    from tests.fakes.gitlab.project import Project
    from tests.fakes.gitlab.state import GitLab

_TRUE, _FALSE = {"true", "1", "t", "on", "yes"}, {"false", "0", "f", "off", "no", ""}


class Params:
    """The parameters of a request, of its query and its body together, as GitLab takes them."""

    def __init__(self, values: JSON, prefix: str = "") -> None:
        self.values, self.prefix = values, prefix

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def _name(self, name: str) -> str:
        return f"{self.prefix}[{name}]" if self.prefix else name

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if isinstance(value, bool | int | float):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise invalid(self._name(name), "is invalid")
        return value

    def need(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise invalid(self._name(name), "is missing")
        return value

    def integer(self, name: str) -> int | None:
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            raise invalid(self._name(name), "is invalid")
        return int(str(value))

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise invalid(self._name(name), "is invalid")
        return word in _TRUE

    def one_of(self, name: str, allowed: Sequence[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in allowed:
            raise invalid(self._name(name), "does not have a valid value")
        return value

    def time(self, name: str) -> datetime | None:
        value = self.text(name)
        if value is None:
            return None
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            raise invalid(self._name(name), "is invalid") from None
        return when.astimezone()

    def texts(self, name: str) -> list[str] | None:
        """A list, or one text with commas."""
        value = self.values.get(name)
        if isinstance(value, list):
            return [str(one) for one in value]
        return [one for one in str(value).split(",") if one] if value is not None else None

    def integers(self, name: str) -> list[int] | None:
        values = self.texts(name)
        if values and not all(one.isdecimal() for one in values):
            raise invalid(self._name(name), "is invalid")
        return None if values is None else [int(one) for one in values]

    def table(self, name: str) -> "Params | None":
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, dict):
            raise invalid(self._name(name), "is invalid")
        return Params(value, self._name(name))


@dataclass(frozen=True)
class Call:
    """A request on its way through a route."""

    gitlab: "GitLab"
    path: dict[str, str]
    params: Params
    signed_in: User | None
    token: Token | None
    chain: Chain = field(default_factory=Chain)

    @property
    def user(self) -> User:
        return self.sign_in()

    def sign_in(self) -> User:
        """Whose request it is.

        Raises:
            Refused: nobody's, with a 401.
        """
        if self.signed_in is None:
            raise Refused(401, {"message": "401 Unauthorized"})
        return self.signed_in

    def number(self, name: str) -> int:
        if not self.path[name].isdecimal():
            raise invalid(name, "is invalid")
        return int(self.path[name])

    def project(self, level: int = REPORTER) -> "Project":
        """The project of the address, for a user with at least that level; who may not see it gets a 404."""
        found = self.gitlab.find_project(self.path["id"])
        if found is None or not self.may_see(found):
            raise not_found("Project")
        user = self.signed_in
        if level > REPORTER and not (user and user.admin) and found.level(user) < level:
            raise forbidden()
        return found

    def may_see(self, project: "Project") -> bool:
        user = self.signed_in
        return not project.private or (user is not None and (user.admin or project.level(user) >= REPORTER))

    def merge(self, level: int = REPORTER) -> "MergeRequest":
        found = self.project(level).merges.get(self.number("iid"))
        if found is None:
            raise not_found()
        return found


@dataclass(frozen=True)
class Answer:
    """What goes back. A list is sent in pages: `paged` makes the JSON of each item, if it is on the page."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    paged: Sequence[Callable[[], object]] | None = None
    raw: bytes | None = None
    later: "Callable[[], Answer] | None" = None
    """Goes on without the lock: for what takes long or waits for others."""
    kind: str = "application/json"


Item = TypeVar("Item")


def pages(items: Iterable[Item], render: Callable[[Item], object]) -> Answer:
    """A list that is sent in pages."""
    return Answer(paged=[partial(render, item) for item in items])


Route = Callable[[Call], Answer]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    """Declare what answers a method at an address below `/api/v4`; `:name` is one part of it."""
    compiled = re.compile(re.sub(r":(\w+)", r"(?P<\1>[^/]+)", pattern) + "/?")

    def declare(function: Route) -> Route:
        ROUTES.append((method, compiled, function))
        return function

    return declare


def find(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route for a request.

    Raises:
        Refused: there is none; the body is as GitLab's.
    """
    allowed = False
    for known, pattern, function in ROUTES:
        if match := pattern.fullmatch(path):
            if known == method:
                return function, {name: unquote(value) for name, value in match.groupdict().items()}
            allowed = True
    if allowed:
        raise Refused(405, {"error": "405 Method Not Allowed"})
    raise Refused(404, {"error": "404 Not Found"})
