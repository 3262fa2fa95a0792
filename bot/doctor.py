"""`apprentice doctor`: check what a bot needs, one line a check, and say how to mend what is wrong. Changes nothing."""

import asyncio
import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import typer

from bot import parts
from bot.endpoint import StudentError, UnknownModel
from bot.forge import ForgeDenied, ForgeError, NotFound, Person
from bot.gitlab import GitLabAdmin
from bot.gitlab.admin import DEVELOPER, MAINTAINER, Group, Place, Project
from bot.hanger import deliveries
from bot.hook import Change, Delivery, decide, find
from bot.interview import Endpoint, connect, find_endpoint
from bot.settings import Settings, SettingsError
from bot.store import StoreError
from bot.store import values as stored
from bot.student import Student
from bot.target import TargetError, read_target
from bot.webhook import REPLAY_SECONDS

CLOCK_SECONDS = 60.0
"""A difference of the clocks that is worth a word."""
SLOW_SECONDS = 5.0
"""A delivery that takes so long is half-way to GitLab's limit of ten."""
STUDENT_SECONDS = 15.0
"""How long the student may take to say what it serves."""

_LEVELS = {0: "no member", 5: "Minimal access", 10: "Guest", 15: "Planner", 20: "Reporter", 30: "Developer"}
_LEVELS |= {40: "Maintainer", 50: "Owner"}


class Mark(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Line:
    """What a check says; for one that did not end well, with the way out."""

    check: str
    mark: Mark
    words: str


@dataclass(frozen=True, slots=True)
class _Memory:
    """What is connected, as the database has it."""

    groups: tuple[stored.Group, ...] = ()
    projects: tuple[stored.Project, ...] = ()
    serving: stored.StoredAdapter | None = None


def run(chosen: Settings, *, project: str | None) -> int:
    """Print all checks; returns the exit code.

    Raises:
        SettingsError: `project` names none.
    """
    key: int | str | None = None
    if project is not None:
        try:
            key = read_target(project, chosen.gitlab_url or "")
        except TargetError as error:
            raise SettingsError([str(error)]) from None
    failed = 0
    for line in examine(chosen, key):
        typer.echo(f"{line.mark:<8} {line.check}: {line.words}")
        failed += line.mark is Mark.FAILED
    typer.echo(f"{failed} {'check' if failed == 1 else 'checks'} failed." if failed else "Nothing failed.")
    return 1 if failed else 0


def examine(chosen: Settings, key: int | str | None) -> Iterator[Line]:
    """All checks.

    Args:
        chosen: the settings.
        key: the number or the path of the project to look at; None: all that are connected.
    """
    yield _secret(chosen)
    if parts.on_server(chosen):
        yield _salt(chosen)
    line, memory = _database(chosen)
    yield line
    yield from _gitlab(chosen, memory, key)
    yield from _student(chosen, memory)


def _skipped(needs: str, *checks: str) -> Iterator[Line]:
    for check in checks:
        yield Line(check, Mark.SKIPPED, f"not checked without {needs}")


# --- settings and database


def _secret(chosen: Settings) -> Line:
    name = "webhook secret"
    if lacking := parts.lacks_secret(chosen):
        way_out = "Make one (`openssl rand -hex 32`), and run `apprentice connect` afterwards"
        return Line(name, Mark.FAILED, f"{lacking[0]}. {way_out}")
    try:
        secrets = parts.webhook_secrets(chosen)
    except SettingsError as error:
        return Line(name, Mark.FAILED, str(error))
    kinds = {"a secret token": secrets.token, "a signing key": secrets.signing_key}
    return Line(name, Mark.OK, f"{' and '.join(kind for kind, value in kinds.items() if value)} set")


def _salt(chosen: Settings) -> Line:
    if chosen.vote_salt is None:
        words = "APPRENTICE_VOTE_SALT is not set. With PostgreSQL all workers need the same one: `openssl rand -hex 32`"
        return Line("vote salt", Mark.FAILED, words)
    return Line("vote salt", Mark.OK, "set")


def _database(chosen: Settings) -> tuple[Line, _Memory | None]:
    """Whether it can be used, and what stands there; None where it cannot be read."""
    name = "database"
    try:
        store = parts.existing_store(chosen)
        if store is None:
            words = f"there is none yet: the first `apprentice serve` or `connect` makes it in {chosen.data_dir}"
            return Line(name, Mark.WARNING, words), _Memory()
        store.check()
        memory = _Memory(store.groups(), store.projects(), store.serving_adapter())
    except StoreError as error:
        return Line(name, Mark.FAILED, str(error)), None
    return Line(name, Mark.OK, store.name), memory


# --- GitLab


def _gitlab(chosen: Settings, memory: _Memory | None, key: int | str | None) -> Iterator[Line]:
    needing = ("token", "clock", "user", "projects")
    if lacking := parts.lacks_gitlab(chosen):
        yield Line("GitLab", Mark.FAILED, "; ".join(lacking))
        yield from _skipped("GitLab", *needing)
        return
    try:
        admin = parts.open_admin(chosen)
        with closing(admin):
            version = admin.version()
            yield Line("GitLab", Mark.OK, f"{version} at {chosen.gitlab_url}")
            yield _checked("token", lambda: _token(admin))
            yield _checked("clock", lambda: _clock(admin, signed=chosen.webhook_signing_key is not None))
            yield from _user(chosen, admin, memory, key)
    except ForgeDenied as error:
        yield Line("GitLab", Mark.OK, f"answers at {chosen.gitlab_url}")
        yield Line("token", Mark.FAILED, str(error))
        yield from _skipped("a token that is good", *needing[1:])
    except ForgeError as error:
        yield Line("GitLab", Mark.FAILED, str(error))
        yield from _skipped("GitLab", *needing)


def _checked(check: str, act: Callable[[], Line]) -> Line:
    """The line of a check; GitLab's trouble makes it a failed one."""
    try:
        return act()
    except ForgeError as error:
        return Line(check, Mark.FAILED, str(error))


def _token(admin: GitLabAdmin) -> Line:
    name = "token"
    try:
        token = admin.token()
    except NotFound:
        return Line(name, Mark.WARNING, "this GitLab (before 15.5) does not tell its scopes and its last day")
    scopes = ", ".join(token.scopes) or "none"
    if "api" not in token.scopes:
        words = f"{token.name} has not the scope api, but: {scopes}. Make a new one, for APPRENTICE_GITLAB_TOKEN"
        return Line(name, Mark.FAILED, words)
    if token.expires_soon(datetime.now(UTC).date()):
        words = f"{token.name} ends on {token.expires_on}: make or rotate it in time, for APPRENTICE_GITLAB_TOKEN"
        return Line(name, Mark.WARNING, words)
    until = f"until {token.expires_on}" if token.expires_on else "without an end"
    return Line(name, Mark.OK, f"{token.name} (scopes: {scopes}), good {until}")


def _clock(admin: GitLabAdmin, *, signed: bool) -> Line:
    name, theirs = "clock", admin.clock()
    if theirs is None:
        return Line(name, Mark.SKIPPED, "GitLab's answers tell no time")
    apart = (datetime.now(UTC) - theirs).total_seconds()
    words = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} GitLab's"
    if abs(apart) < CLOCK_SECONDS:
        return Line(name, Mark.OK, words)
    words += ": let both machines set their clocks by NTP"
    if signed and abs(apart) > REPLAY_SECONDS:
        return Line(name, Mark.FAILED, f"{words}. Signed deliveries are refused so")
    return Line(name, Mark.WARNING, words)


def _user(chosen: Settings, admin: GitLabAdmin, memory: _Memory | None, key: int | str | None) -> Iterator[Line]:
    try:
        me = admin.me()
    except ForgeError as error:
        yield Line("user", Mark.FAILED, str(error))
        yield from _skipped("the user", "projects")
        return
    yield Line("user", Mark.OK, f"@{me.username}")
    if memory is None and key is None:
        yield from _skipped("the database", "projects")
    else:
        yield from _Round(chosen, admin, me, memory or _Memory()).lines(key)


class _Round:
    """A look at each project: the role there, and the webhook.

    Args:
        chosen: the settings.
        admin: GitLab.
        me: the token's user.
        memory: what is connected, as far as that can be read.
    """

    def __init__(self, chosen: Settings, admin: GitLabAdmin, me: Person, memory: _Memory) -> None:
        self.chosen = chosen
        self.admin = admin
        self.me = me
        self.groups = memory.groups
        self.projects = {project.id: project for project in memory.projects}

    def lines(self, key: int | str | None) -> Iterator[Line]:
        """The checks of one project, or of all that are connected."""
        if key is None and not self.projects and not self.groups:
            yield Line("projects", Mark.WARNING, f"none is connected yet: {_connect('GROUP_OR_PROJECT', None)}")
        groups, named = self.groups, None
        if key is not None:
            try:
                named = self.admin.project(key)
            except ForgeError as error:
                yield Line(f"role in {key}", Mark.FAILED, str(error))
                return
            groups = tuple(group for group in groups if _around(group, named.path))
        for group in groups:
            if group.hook is not None:
                yield self._webhook(Group(group.id, group.path, ""), group)
        if named is not None:
            yield from self._project(named)
            return
        for known in self.projects.values():
            try:
                project = self.admin.project(known.id)
            except ForgeError as error:
                yield Line(f"role in {known.path}", Mark.FAILED, str(error))
                yield from _skipped("the project", f"webhook of {known.path}")
            else:
                yield from self._project(project)

    def _project(self, project: Project) -> Iterator[Line]:
        role, webhook = f"role in {project.path}", f"webhook of {project.path}"
        try:
            level = project.level or self.admin.level(project, self.me)
        except ForgeError as error:
            yield Line(role, Mark.FAILED, str(error))
            yield from _skipped("the role", webhook)
            return
        title = _LEVELS.get(level, str(level))
        if project.archived:
            yield Line(role, Mark.WARNING, "archived: nobody can write there")
        elif level < DEVELOPER:
            words = f"{title}. Make @{self.me.username} a Developer there, or a Maintainer, who may make webhooks"
            yield Line(role, Mark.FAILED, words)
        else:
            yield Line(role, Mark.OK, title)
        known = self.projects.get(project.id)
        if any(group.hook is not None and _around(group, project.path) for group in self.groups):
            return  # the group's webhook serves it
        if level < MAINTAINER:
            yield Line(webhook, Mark.SKIPPED, f"only Maintainers see it, under Settings > Webhooks: {_ways(known)}")
        else:
            yield self._webhook(project, known)

    def _webhook(self, place: Place, known: stored.Project | stored.Group | None) -> Line:
        name = f"webhook of {place.path}"
        return _checked(name, lambda: self._look(name, place, known))

    def _look(self, name: str, place: Place, known: stored.Project | stored.Group | None) -> Line:
        hooks = self.admin.hooks(place)
        if known is not None and known.url is not None:
            url, verify, made = known.url, known.verify, known.hook
        elif ours := [hook for hook in hooks if urlsplit(hook.url).path.rstrip("/").endswith("/webhook")]:
            url, verify, made = ours[0].url, ours[0].verifies, None  # connected from another machine, or by hand
        else:
            return Line(name, Mark.FAILED, f"there is none: {_connect(place.path, None)}")
        hook = find(hooks, url, made)
        if hook is None:
            return Line(name, Mark.FAILED, f"it is gone: {_connect(place.path, url, verify=verify)} makes a new one")
        newest = deliveries(self.admin, place, hook)
        decision = decide(hook, parts.wanted_hook(self.chosen, url, verify), newest[0].status if newest else None)
        if isinstance(decision, Change):
            way_out = f"{_connect(place.path, url, verify=verify)} repairs that"
            return Line(name, Mark.FAILED, f"{hook.id} to {url}: {', '.join(decision.faults)}. {way_out}")
        mark, words = _delivered(newest, url)
        return Line(name, mark, f"{hook.id} to {url}, {words}")


def _around(group: stored.Group, path: str) -> bool:
    return path.startswith(f"{group.path}/")


def _connect(path: str, url: str | None, *, verify: bool = True) -> str:
    """The command that mends it."""
    base = "https://bot.example" if url is None else url.removesuffix("/webhook")
    return f"`apprentice connect {path} --url {base}{'' if verify else ' --no-verify-tls'}`"


def _ways(known: stored.Project | None) -> str:
    where = f" to {known.url}" if known and known.url else ""
    return f"is there one{where}?"


def _delivered(newest: Sequence[Delivery], url: str) -> tuple[Mark, str]:
    """What the newest deliveries show, and the way out."""
    if not newest:
        return Mark.OK, "nothing was delivered yet"
    last = newest[0]
    if last.status is None:
        words = "GitLab did not reach it at the last delivery: is the bot up, does GitLab's machine know the name and "
        words += "get through to it, and does it trust the certificate (`connect` with --no-verify-tls)?"
        return Mark.FAILED, words
    if last.status >= HTTPStatus.BAD_REQUEST:
        broken = last.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        way_out = "the bot's log, or its proxy's, says why" if broken else f"does {url} lead to the bot?"
        return Mark.FAILED, f"which answered {last.status} to the last delivery: {way_out}"
    if last.seconds is not None and last.seconds > SLOW_SECONDS:
        return Mark.WARNING, f"which took {last.seconds:.1f} s for the last delivery; GitLab gives up after 10"
    bad = sum(each.status is None or each.status >= HTTPStatus.BAD_REQUEST for each in newest)
    if bad:
        return Mark.WARNING, f"last delivery {last.status}, but {bad} of the last {len(newest)} failed"
    return Mark.OK, f"last delivery {last.status}"


# --- the student


def _student(chosen: Settings, memory: _Memory | None) -> Iterator[Line]:
    try:
        endpoint = find_endpoint(chosen)
        asked = asyncio.run(_asked(chosen, endpoint, memory))
    except (StudentError, TimeoutError) as error:
        words = str(error) or f"no answer within {STUDENT_SECONDS:.0f} s. Is it overloaded? Its own log says more"
        yield Line("student", Mark.FAILED, words)
        yield from _skipped("the student", "model", "adapter")
        return
    warnings, model, adapter = asked
    yield Line("student", Mark.WARNING if warnings else Mark.OK, " ".join((f"answers at {endpoint.url}", *warnings)))
    yield model
    yield adapter


async def _asked(chosen: Settings, endpoint: Endpoint, memory: _Memory | None) -> tuple[tuple[str, ...], Line, Line]:
    """What a person should know about the endpoint; the lines of the model and of the adapter.

    Raises:
        StudentError: the endpoint cannot be used.
        TimeoutError: it takes too long.
    """
    async with asyncio.timeout(STUDENT_SECONDS):
        async with connect(endpoint, chosen, None) as student:
            model = await _served(student, "model")
        return student.warnings, model, await _adapter(chosen, endpoint, memory)


async def _adapter(chosen: Settings, endpoint: Endpoint, memory: _Memory | None) -> Line:
    """Which adapter reviews, and whether it is there."""
    check = "adapter"
    if pinned := chosen.student_adapter:
        async with connect(endpoint, chosen, pinned) as student:
            line = await _served(student, check)
        return Line(check, Mark.OK, pinned) if line.mark is Mark.OK else line
    if memory is None:
        return Line(check, Mark.SKIPPED, "not checked without the database, which knows the one that serves")
    if memory.serving is None:
        return Line(check, Mark.OK, "none is set: the base model reviews")
    promoted = memory.serving
    async with connect(endpoint, chosen, promoted.name) as student:
        line = await _served(student, check)
    if line.mark is Mark.OK:
        return Line(check, Mark.OK, f"{promoted.name}, serving since {promoted.served_at:%Y-%m-%d %H:%M} UTC")
    words = f"{promoted.name} serves, and {endpoint.url} has not loaded it. A running bot loads it within a minute; "
    way_out = "if it does not, its log says why, and `apprentice train rollback` goes back to the one before"
    return Line(check, Mark.FAILED, words + way_out)


async def _served(student: Student, check: str) -> Line:
    try:
        base = await student.base()
    except UnknownModel as error:
        return Line(check, Mark.FAILED, str(error))
    return Line(check, Mark.OK, f"{base.id}{f', context of {base.max_model_len} tokens' if base.max_model_len else ''}")
