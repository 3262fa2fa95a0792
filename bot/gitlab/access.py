"""Where GitLab is, as whom the bot comes, and whom it trusts."""

import os
import re
import ssl
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2

from bot.forge import ForgeDenied, UntrustedForge

TRIES = 4

_SAID_LETTERS = 300
_MOST_SAID = 5_000


@dataclass(frozen=True, slots=True)
class Access:
    """What a way to GitLab needs.

    Args:
        url: its address, with its path if it has one, without a slash at the end.
        token: the access token of the bot's user.
        ca_file: certificates (PEM) to trust instead of SSL_CERT_FILE or the system's.
        timeout_seconds: how long to wait for an answer.
        tries: how often a request is sent at most.
        heard: called after each time that it is sent, with the method and the answer's status, or `unreachable`.

    Raises:
        ForgeDenied: the token cannot be one.
    """

    url: str
    token: str = field(repr=False)
    ca_file: Path | None = None
    timeout_seconds: float = 30.0
    tries: int = TRIES
    heard: Callable[[str, str], None] = lambda _method, _status: None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[!-~]+", self.token):  # http.client would quote it in its error
            raise ForgeDenied("APPRENTICE_GITLAB_TOKEN must be one word of plain ASCII characters.")

    def trusted(self) -> ssl.SSLContext | None:
        """Whose certificates are trusted; None where none are needed.

        Raises:
            UntrustedForge: the CA file cannot be used.
        """
        if not self.url.startswith("https:"):  # reading the system's certificates takes a while
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else httpx2.create_ssl_context()
        except OSError as error:  # ssl.SSLError is one
            source = self.ca_file or os.environ.get("SSL_CERT_FILE") or "The system's store"
            raise UntrustedForge(f"{source} cannot be used as certificates in PEM form: {error}") from None

    def scrubbed(self, text: str) -> str:
        """Words from elsewhere in one short printable line, without the token and without passwords in addresses."""
        text = re.sub(r"//[^/@\s]+@", "//***@", text.replace(self.token, "***")[:_MOST_SAID])
        printable = "".join(letter if letter.isprintable() else " " for letter in text)
        return textwrap.shorten(printable, _SAID_LETTERS, placeholder="…")


def plain(url: str | None) -> str:
    """An address without anything that could be a secret."""
    parts = urlsplit(url or "")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
