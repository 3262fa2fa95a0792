"""Who is there, and who the client is."""

from tests.fakes.gitlab import entities
from tests.fakes.gitlab.errors import not_found
from tests.fakes.gitlab.model import User
from tests.fakes.gitlab.routing import Answer, Call, pages, route


@route("GET", "/version")
@route("GET", "/metadata")
def version(call: Call) -> Answer:
    call.sign_in()
    settings = call.gitlab.settings
    kas = {"enabled": False, "externalUrl": None, "externalK8sProxyUrl": None, "version": None}
    return Answer(
        body={
            "version": settings.version,
            "revision": "0123456789a",
            "kas": kas,
            "enterprise": settings.group_hooks,
        }
    )


@route("GET", "/user")
def user(call: Call) -> Answer:
    return Answer(body=entities.whole_user(call.gitlab, call.user, own=True))


@route("GET", "/users")
def users(call: Call) -> Answer:
    name = call.params.text("username")
    found = [one for one in call.gitlab.users.values() if name is None or one.username.lower() == name.lower()]
    return pages(found, lambda one: entities.user(call.gitlab, one))


@route("GET", "/users/:user")
def one_user(call: Call) -> Answer:
    found = call.gitlab.users.get(call.number("user"))
    if found is None:
        raise not_found("User")
    return Answer(body=entities.whole_user(call.gitlab, found, own=False))


@route("GET", "/personal_access_tokens/self")
def own_token(call: Call) -> Answer:
    call.sign_in()
    if not call.gitlab.settings.own_tokens:
        raise not_found()
    assert call.token
    return Answer(body=entities.token(call.token))


def _members(call: Call, *, inherited: bool) -> list[tuple[User, int]]:
    project = call.project()
    people = ((one, project.level(one) if inherited else project.members.get(one.id, 0)) for one in _all(call))
    return [(one, level) for one, level in people if level]


def _all(call: Call) -> list[User]:
    return list(call.gitlab.users.values())


def _member(call: Call, *, inherited: bool) -> Answer:
    number = call.number("user")
    for one, level in _members(call, inherited=inherited):
        if one.id == number:
            return Answer(body=entities.member(call.gitlab, one, level))
    raise not_found()


@route("GET", "/projects/:id/members/all")
def all_members(call: Call) -> Answer:
    return pages(_members(call, inherited=True), lambda pair: entities.member(call.gitlab, *pair))


@route("GET", "/projects/:id/members/all/:user")
def any_member(call: Call) -> Answer:
    return _member(call, inherited=True)


@route("GET", "/projects/:id/members")
def members(call: Call) -> Answer:
    return pages(_members(call, inherited=False), lambda pair: entities.member(call.gitlab, *pair))


@route("GET", "/projects/:id/members/:user")
def member(call: Call) -> Answer:
    return _member(call, inherited=False)
