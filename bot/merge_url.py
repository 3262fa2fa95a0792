"""Read the address of a merge request's page, as it stands in a browser. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_EXAMPLE = "/group/project/-/merge_requests/12"
_PAGE = re.compile(r"/(?P<project>[\w.-]+(?:/[\w.-]+)+)/-/merge_requests/(?P<iid>[0-9]{1,18})(?:/.*)?", re.ASCII)
_PORTS = {"http": 80, "https": 443}


class MergeUrlError(ValueError):
    """It is no address of a merge request on the GitLab that the settings name."""


@dataclass(frozen=True, slots=True)
class MergeUrl:
    """A merge request by its project's full path and its number."""

    project: str
    iid: int


def read_merge_url(url: str, home: str) -> MergeUrl:
    """Say which merge request an address names, on whatever of its tabs and at whatever of its notes it points.

    Nothing is ever sent to this address: the way to GitLab is `home`. So http and https are the same here.

    Args:
        url: what a person gave.
        home: GitLab's address (APPRENTICE_GITLAB_URL), with its path if it has one.

    Raises:
        MergeUrlError: it names none, or one of another server.
    """
    shown = repr(url.rpartition("@")[2][:200])  # what stands before the @ may be a password
    try:
        given, own = urlsplit(url), urlsplit(home)
        there, here = _server(given), _server(own)
    except ValueError:
        raise MergeUrlError(f"{shown} is no address; {home}{_EXAMPLE} would be one") from None
    if given.scheme not in _PORTS or not given.hostname:
        raise MergeUrlError(
            f"{shown} is no address of a merge request: {home}{_EXAMPLE} would be one (commits are named with --range)"
        )
    if there != here:
        raise MergeUrlError(
            f"{_name(there)} is not the GitLab of APPRENTICE_GITLAB_URL, {home}: the token is for that one only. "
            "Review one of its merge requests, or set APPRENTICE_GITLAB_URL and the token to the other one."
        )
    if not given.path.startswith(f"{own.path.rstrip('/')}/"):
        raise MergeUrlError(f"{given.path or '/'} is not below APPRENTICE_GITLAB_URL, {home}: is that right?")
    page = _PAGE.fullmatch(given.path.removeprefix(own.path.rstrip("/")))
    if page is None:
        raise MergeUrlError(f"{given.path} is no page of a merge request; {home}{_EXAMPLE} would be one")
    return MergeUrl(page["project"], int(page["iid"]))


def _server(parts: SplitResult) -> tuple[str | None, int | None]:
    """Its host, and its port where that is not the scheme's own."""
    return parts.hostname, None if parts.port == _PORTS.get(parts.scheme) else parts.port


def _name(server: tuple[str | None, int | None]) -> str:
    host, port = server
    return f"{host}:{port}" if port else f"{host}"
