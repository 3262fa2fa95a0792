"""Hooks and their deliveries as the API shows them."""

from typing import TYPE_CHECKING

from tests.fakes.gitlab.entities.people import stamp
from tests.fakes.gitlab.hooks import EVENTS, OTHER_EVENTS
from tests.fakes.gitlab.model import JSON, Delivery, Hook

if TYPE_CHECKING:
    from tests.fakes.gitlab.state import GitLab


def hook(gitlab: "GitLab", one: Hook) -> JSON:
    known: JSON = {
        "id": one.id,
        "url": one.url,
        "name": one.name,
        "description": one.description,
        "created_at": stamp(one.created_at),
        "enable_ssl_verification": one.ssl,
        "alert_status": gitlab.hooks.alert_status(one),
        "disabled_until": stamp(one.disabled_until),
        "url_variables": [],
        "push_events_branch_filter": None,
        "branch_filter_strategy": "wildcard",
        "custom_webhook_template": one.template,
        "custom_headers": [{"key": key} for key in one.headers],
    }
    events = [each for each in (*EVENTS, *OTHER_EVENTS) if each != "emoji_events" or gitlab.settings.emoji_hooks]
    known |= {event: one.events.get(event, False) for event in events}
    known |= {"project_id": one.project} if one.project is not None else {"group_id": one.group}
    if gitlab.settings.signing_tokens:
        known |= {"token_present": one.token is not None, "signing_token_present": one.signing_token is not None}
    return known


def delivery(one: Delivery) -> JSON:
    return {
        "id": one.id,
        "url": one.url,
        "trigger": one.trigger,
        "request_headers": one.headers,
        "request_data": one.body.decode(errors="replace"),
        "response_headers": one.answer_headers,
        "response_body": one.answer,
        "execution_duration": one.seconds,
        "response_status": str(one.status) if one.status is not None else "internal error",
    }
