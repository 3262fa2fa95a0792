"""What went wrong on the way to GitLab, as a `ForgeError` that says what was tried, what happened and the way out."""

import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import requests
from requests.exceptions import ProxyError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxySchemeUnknown

from bot.forge import ForgeBusy, ForgeDenied, ForgeError, ForgeRefused, ForgeUnreachable, NotFound, UntrustedForge
from bot.gitlab.access import Access, plain

_DENIED = {
    HTTPStatus.UNAUTHORIZED: "The token in APPRENTICE_GITLAB_TOKEN is wrong, expired or revoked: make a new one with "
    "the scope `api`.",
    HTTPStatus.FORBIDDEN: "The token needs the scope `api`, and its user the role Developer in the project (Maintainer "
    "for webhooks).",
}
_RETRY = "Retry-After"
_RESETS = (_RETRY, "RateLimit-Reset", "RateLimit-ResetTime")  # the last two stand in all answers, failed ones too
_HIDDEN = "It is not there, or the token's user may not see it: is the bot a member of the project, as Developer?"
_ELSEWHERE = "Is APPRENTICE_GITLAB_URL right, with its path if GitLab has one?"


def lost(access: Access, request: requests.PreparedRequest, error: Exception) -> ForgeError:
    """What it means that no answer came, or not all of it."""
    at = f"{request.method} {plain(request.url)}"
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedForge(
                f"The certificate of {plain(access.url)} is not trusted: {cause.verify_message}. If it is signed by "
                "your own authority, name that one's PEM file in APPRENTICE_GITLAB_CA_FILE."
            )
    if isinstance(error, requests.ReadTimeout):
        return ForgeUnreachable(f"{at} got no answer within {access.timeout_seconds:g} seconds. Is GitLab overloaded?")
    system = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    why = access.scrubbed(system or str(causes[-1]) or type(causes[-1]).__name__)
    proxied = any(isinstance(cause, (ProxyError, ProxySchemeUnknown)) for cause in causes)
    way = " through the proxy that the environment names" if proxied else ""
    return ForgeUnreachable(f"{at} failed{way}: {why}. Is GitLab up, and is APPRENTICE_GITLAB_URL right?")


def never_sent(error: Exception) -> bool:
    """Whether there was no connection at all, so that GitLab cannot have done anything."""
    return any(isinstance(cause, (NewConnectionError, ConnectTimeoutError)) for cause in _causes(error))


def explained(access: Access, response: requests.Response) -> ForgeError:
    """What an answer other than 2xx means."""
    status, said = response.status_code, _said(access, response)
    answered = f"{response.request.method} {plain(response.url)} answered {status}{said and ': '}{said}."
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return ForgeBusy(f"{answered} The rate limit is reached.", retry_after=_patience(response, *_RESETS))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or _is_locked(status, said):
        return ForgeBusy(f"{answered} GitLab's own log says more.", retry_after=_patience(response, _RETRY))
    if status in _DENIED:
        return ForgeDenied(f"{answered} {_DENIED[HTTPStatus(status)]}")
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(f"{answered} {_HIDDEN if _is_json(response) else _ELSEWHERE}")
    if "location" in response.headers:
        target = access.scrubbed(plain(response.headers["location"]))
        answered += f" It sends us on to {target}: if that is the right place, set APPRENTICE_GITLAB_URL to it."
    return ForgeRefused(answered, status=status, said=said)


def untouched(status: int, said: ForgeError) -> bool:
    """Whether an answer says that nothing was done."""
    return isinstance(said, ForgeBusy) and status < HTTPStatus.INTERNAL_SERVER_ERROR


def nonsense(access: Access, path: str) -> ForgeRefused:
    """An answer of 2xx that is not what was asked for."""
    return ForgeRefused(
        f"{plain(access.url)} answered {path} with something that GitLab would not say. Is APPRENTICE_GITLAB_URL right?"
    )


def _is_locked(status: int, said: str) -> bool:
    return status == HTTPStatus.CONFLICT and "resource lock" in said.lower()


def _is_json(response: requests.Response) -> bool:
    return response.headers.get("content-type", "").startswith("application/json")


def _said(access: Access, response: requests.Response) -> str:
    """GitLab's own words about an error, without the status at their beginning; empty for a page of HTML."""
    if not _is_json(response):
        return ""
    try:
        said = _words(response.json())
    except (ValueError, requests.RequestException):
        return ""
    return access.scrubbed(said).removeprefix(f"{response.status_code} ").rstrip(".")


def _words(said: object) -> str:
    """`message` may be a text, a table or a list; some answers say `error` and `error_description` instead."""
    if isinstance(said, list):
        return ", ".join(map(_words, said))
    if not isinstance(said, dict):
        return str(said)
    for name in ("message", "error_description", "error"):
        if name in said:
            return _words(said[name])
    return "; ".join(f"{name}: {_words(value)}" for name, value in said.items())


def _patience(response: requests.Response, *names: str) -> float | None:
    """How many seconds GitLab asks us to wait, by the first header that says so; None where none does."""
    for name in names:
        value = response.headers.get(name, "")
        if value.isdecimal():
            wait = float(value) - (time.time() if name == "RateLimit-Reset" else 0)
        else:
            try:
                wait = parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        return wait if wait > 0 else None
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it; requests and urllib3 keep some in `args` and `reason`."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        one = queue.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            queue += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
