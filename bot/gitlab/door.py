"""The one way to GitLab: to that server only, without redirects, and again where that does no harm.

What is idempotent (all but POST) is sent again after a lost connection or a 5xx; a POST only where nothing of it was
taken: no connection came about, or GitLab said 429.
"""

import ssl
import time
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from bot.endpoint import is_loopback
from bot.forge import ForgeBusy, ForgeError, ForgeRefused, ForgeUnreachable
from bot.gitlab import trouble
from bot.gitlab.access import Access, plain

FIRST_WAIT = 0.5
"""Seconds before the second try, where GitLab does not say; twice as long before the next, and so on."""
MOST_WAITING = 30.0
"""Seconds that all waits of one request may take together. Who is asked for more gets a `ForgeBusy`."""

_CONNECT_SECONDS = 10.0


class _Adapter(HTTPAdapter):
    """Trusts whom its context trusts, and nobody else."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **more: object) -> None:  # noqa: FBT001, FBT002 -- the base class's
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **more)

    def proxy_manager_for(self, proxy: str, **more: object) -> object:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **more)

    def cert_verify(self, *_: object) -> None:
        """Add no certificates to the context's."""


class Door(requests.Session):
    """A session for one thread.

    Args:
        access: where to, and as whom.
        trusted: what `access.trusted()` gave.
    """

    def __init__(self, access: Access, trusted: ssl.SSLContext | None) -> None:
        super().__init__()
        self._access = access
        self._home = f"{requests.Request('GET', f'{access.url}/').prepare().url}"  # as all our addresses are written
        # Environment proxies; never for this machine: a proxy elsewhere cannot reach it.
        self.trust_env = not is_loopback(urlsplit(access.url).hostname or "")
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        if trusted is not None:
            self.mount("https://", _Adapter(trusted))

    def send(self, request: requests.PreparedRequest, **how: object) -> requests.Response:
        """Send a request and give the answer, which is of 2xx.

        Raises:
            ForgeError: one of its subclasses.
        """
        access = self._access
        if not f"{request.url}".startswith(self._home):  # a link of GitLab's could name another place
            raise ForgeRefused(f"Nothing was sent to {plain(request.url)}: the token is for {access.url} only.")
        how |= {"allow_redirects": False}
        how |= {"timeout": (min(_CONNECT_SECONDS, access.timeout_seconds), access.timeout_seconds)}
        tried, waited = 1, 0.0
        while True:
            try:
                response = super().send(request, **how)
                access.heard(f"{request.method}", f"{response.status_code}")
                if HTTPStatus.OK <= response.status_code < HTTPStatus.MULTIPLE_CHOICES:
                    return response
                failure = trouble.explained(access, response)
                nothing_done = trouble.untouched(response.status_code, failure)
                response.close()
            except (requests.RequestException, HTTPError) as error:
                access.heard(f"{request.method}", "unreachable")
                failure, nothing_done = trouble.lost(access, request, error), trouble.never_sent(error)
            wait = _wait(failure, tried)
            harmless = nothing_done or request.method != "POST"
            if wait is None or not harmless or tried >= access.tries or waited + wait > MOST_WAITING:
                raise failure
            time.sleep(wait)
            tried, waited = tried + 1, waited + wait


def _wait(failure: ForgeError, tried: int) -> float | None:
    """Seconds until another try; None where that makes no sense."""
    match failure:
        case ForgeBusy(retry_after=float(seconds)):
            return seconds
        case ForgeBusy() | ForgeUnreachable():
            return FIRST_WAIT * 2.0 ** (tried - 1)
        case _:
            return None
