"""Hooks of projects and groups."""

from functools import partial

from tests.fakes.gitlab import entities, payloads
from tests.fakes.gitlab.errors import Refused, forbidden, invalid, not_found
from tests.fakes.gitlab.hooks import EVENTS, OTHER_EVENTS
from tests.fakes.gitlab.model import JSON, MAINTAINER, OWNER, Delivery, Hook
from tests.fakes.gitlab.project import Project
from tests.fakes.gitlab.routing import Answer, Call, pages, route

DEFAULTS = {"push_events": True}
MAX_HOOKS = 100


class _Place:
    """Where hooks hang: at a project or a group. Only its Maintainers (Owners) may see them."""

    def __init__(self, call: Call) -> None:
        self.project: Project | None = None
        self.group: int | None = None
        if "group" not in call.path:
            self.project = call.project(MAINTAINER)
            self.hooks = self.project.hooks
            return
        gitlab, key = call.gitlab, call.path["group"]
        found = next((one for one in gitlab.groups.values() if key in {str(one.id), one.path}), None)
        if found is None:
            raise not_found("Group")
        if not gitlab.settings.group_hooks:
            raise forbidden() if gitlab.settings.free_says == 403 else not_found()
        if not call.user.admin and found.members.get(call.user.id, 0) < OWNER:
            raise forbidden()
        self.group, self.hooks = found.id, found.hooks

    def hook(self, call: Call) -> Hook:
        for one in self.hooks:
            if one.id == call.number("hook"):
                return one
        raise not_found()


def _fill(call: Call, one: Hook) -> None:
    params, settings = call.params, call.gitlab.settings
    if "url" in params and not params.need("url").startswith(("http://", "https://")):
        raise Refused(422, {"error": "Invalid url given"})
    one.url = params.text("url") or one.url
    for event in (*EVENTS, *OTHER_EVENTS):
        known = event != "emoji_events" or settings.emoji_hooks
        wanted = params.flag(event)
        if wanted is not None and known:
            one.events[event] = wanted
    ssl = params.flag("enable_ssl_verification")
    one.ssl = one.ssl if ssl is None else ssl
    if "token" in params.values:
        one.token = params.text("token") or None
    if settings.signing_tokens and "signing_token" in params.values:
        one.signing_token = params.text("signing_token") or None
        if one.signing_token and not one.signing_token.startswith("whsec_"):
            raise invalid("signing_token", "is invalid")
    one.name = params.text("name") or one.name
    one.description = params.text("description") or one.description
    one.template = params.text("custom_webhook_template") or one.template
    headers = params.values.get("custom_headers")
    if isinstance(headers, list):
        one.headers = {str(each["key"]): str(each["value"]) for each in headers if isinstance(each, dict)}


@route("GET", "/projects/:id/hooks")
@route("GET", "/groups/:group/hooks")
def hooks(call: Call) -> Answer:
    return pages(_Place(call).hooks, lambda one: entities.hook(call.gitlab, one))


@route("POST", "/projects/:id/hooks")
@route("POST", "/groups/:group/hooks")
def add(call: Call) -> Answer:
    place = _Place(call)
    url = call.params.need("url")
    if len(place.hooks) >= MAX_HOOKS:
        raise Refused(422, {"message": {"base": ["Maximum number of project hooks (100) exceeded"]}})
    project = place.project.id if place.project else None
    made = Hook(call.gitlab.next_id("hook"), url, call.gitlab.now(), project, place.group, dict(DEFAULTS))
    _fill(call, made)
    place.hooks.append(made)
    return Answer(201, entities.hook(call.gitlab, made))


@route("GET", "/projects/:id/hooks/:hook")
@route("GET", "/groups/:group/hooks/:hook")
def hook(call: Call) -> Answer:
    return Answer(body=entities.hook(call.gitlab, _Place(call).hook(call)))


@route("PUT", "/projects/:id/hooks/:hook")
@route("PUT", "/groups/:group/hooks/:hook")
def change(call: Call) -> Answer:
    one = _Place(call).hook(call)
    _fill(call, one)
    return Answer(body=entities.hook(call.gitlab, one))


@route("DELETE", "/projects/:id/hooks/:hook")
@route("DELETE", "/groups/:group/hooks/:hook")
def remove(call: Call) -> Answer:
    place = _Place(call)
    place.hooks.remove(place.hook(call))
    return Answer(204)


@route("POST", "/projects/:id/hooks/:hook/test/:trigger")
@route("POST", "/groups/:group/hooks/:hook/test/:trigger")
def test(call: Call) -> Answer:
    """Send a sample made of what is in the project, at once."""
    _since(known=call.gitlab.settings.hook_tests)
    place = _Place(call)
    one, trigger = place.hook(call), call.path["trigger"]
    if trigger not in (*EVENTS, *OTHER_EVENTS):
        raise invalid("trigger", "does not have a valid value")
    project = place.project or _first(call, place)
    payload = _sample(call, project, trigger)

    def send() -> Answer:
        delivery = call.gitlab.hooks.test(one, trigger, payload)
        if delivery.status is None:
            return Answer(422, {"message": delivery.error})
        if delivery.status >= 400:
            return Answer(422, {"message": delivery.answer or str(delivery.status)})
        return Answer(201, {"message": "201 Created"})

    return Answer(later=send)


def _since(*, known: bool) -> None:
    """Answer as an older GitLab does where there is no such route."""
    if not known:
        raise Refused(404, {"error": "404 Not Found"})


def _first(call: Call, place: _Place) -> Project:
    """The project of a group that a sample is made of: one with merge requests, if there is one."""
    inside = [one for one in call.gitlab.projects.values() if any(each is place.hooks for each in _around(one))]
    if not inside:
        raise Refused(422, {"message": "Ensure the group has a project with commits."})
    return max(inside, key=lambda one: len(one.merges))


def _around(project: Project) -> list[list[Hook]]:
    return [project.gitlab.groups[path].hooks for path in project.group.parents]


def _sample(call: Call, project: Project, trigger: str) -> JSON:
    if trigger == "push_events":
        head = project.head(project.default_branch)
        if head is None:
            raise Refused(422, {"message": "Ensure the project has at least one commit."})
        return payloads.pushed(project, project.default_branch, head, head, call.user)
    if trigger not in EVENTS:
        raise Refused(422, {"message": "the stand-in has no sample of this event"})
    if trigger == "resource_access_token_events":
        return payloads.token_expires(project, call.user, "token", "2030-01-01")
    merge = next(iter(project.merges.values()), None)
    if merge is None:
        raise Refused(422, {"message": "Ensure the project has merge requests."})
    if trigger == "merge_requests_events":
        return payloads.merge_event(merge, "open", {}, call.user, None)
    noted = [one for one in merge.all_notes() if not one.system]
    if not noted:
        raise Refused(422, {"message": "Ensure the project has notes."})
    if trigger == "emoji_events":
        given = [(one, award) for one in noted for award in one.awards]
        if not given:
            raise Refused(422, {"message": "Ensure the project has emoji reactions."})
        return payloads.emoji_event(merge, *given[-1], "award")
    return payloads.note_event(merge, noted[-1], "create", call.user)


@route("GET", "/projects/:id/hooks/:hook/events")
@route("GET", "/groups/:group/hooks/:hook/events")
def events(call: Call) -> Answer:
    _since(known=call.gitlab.settings.hook_events)
    one = _Place(call).hook(call)
    return pages(reversed(one.deliveries), entities.delivery)


@route("POST", "/projects/:id/hooks/:hook/events/:event/resend")
@route("POST", "/groups/:group/hooks/:hook/events/:event/resend")
def resend(call: Call) -> Answer:
    one = _Place(call).hook(call)
    for delivery in one.deliveries:
        if delivery.id == call.number("event"):
            return Answer(later=partial(_resend, call, one, delivery))
    raise not_found()


def _resend(call: Call, one: Hook, delivery: Delivery) -> Answer:
    return Answer(201, {"response_status": call.gitlab.hooks.again(one, delivery).status})
