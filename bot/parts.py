"""The parts that a bot is made of, as the settings name them: the database, GitLab, and what is missing for them."""

import secrets
from collections.abc import Callable

from pydantic import SecretStr

from bot.gitlab import GitLabAdmin, GitLabForge
from bot.hook import Wanted
from bot.local.files import write_private
from bot.settings import SECRETS, Settings, SettingsError
from bot.store import Store
from bot.webhook import Secrets

# --- what is missing


def lacks_gitlab(chosen: Settings) -> list[str]:
    """What is not set that a way to GitLab needs, one line each."""
    wanted = {"gitlab_url": "https://gitlab.example", "gitlab_token": "glpat-… (scope api, role Developer or more)"}
    return [
        f"APPRENTICE_{name.upper()} is not set: {example}"
        for name, example in wanted.items()
        if getattr(chosen, name) is None
    ]


def lacks_secret(chosen: Settings) -> list[str]:
    """What is not set that tells GitLab's webhooks from anybody else's, one line each."""
    if chosen.webhook_secret is not None or chosen.webhook_signing_key is not None:
        return []
    return ["neither APPRENTICE_WEBHOOK_SECRET nor APPRENTICE_WEBHOOK_SIGNING_KEY is set: anybody could send webhooks"]


# --- secrets


def value(secret: SecretStr | None) -> str | None:
    """The secret itself."""
    return secret.get_secret_value() if secret else None


def hidden_values(chosen: Settings) -> list[str]:
    """What must never stand in a log."""
    values = (getattr(chosen, name) for name in SECRETS)
    return [secret.get_secret_value() for secret in values if isinstance(secret, SecretStr)]


def salt(chosen: Settings) -> str:
    """The secret behind voters' pseudonyms: the settings', or one that is made once and kept in the data folder."""
    if chosen.vote_salt is not None:
        return chosen.vote_salt.get_secret_value()
    path = chosen.data_dir / "vote.salt"
    if not path.is_file():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text(encoding="utf-8")


def webhook_secrets(chosen: Settings) -> Secrets:
    """What GitLab's webhooks prove themselves with.

    Raises:
        SettingsError: the signing key cannot be one.
    """
    try:
        return Secrets(value(chosen.webhook_secret), value(chosen.webhook_signing_key))
    except ValueError as error:
        raise SettingsError([f"APPRENTICE_WEBHOOK_SIGNING_KEY: {error}"]) from None


# --- the database


def on_server(chosen: Settings) -> bool:
    """Whether the database is a server's."""
    url = chosen.database_url
    return url is not None and not url.get_secret_value().startswith("sqlite")


def open_store(chosen: Settings) -> Store:
    """The store that the settings name.

    Raises:
        StoreError: the URL cannot be understood.
    """
    chosen.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _store(chosen)


def ready_store(chosen: Settings) -> Store:
    """The store with its tables; SQLite's are brought to what this program needs.

    Raises:
        StoreError: the database cannot be used, or a server's has not been migrated.
    """
    store = open_store(chosen)
    if on_server(chosen):
        store.check()
    else:
        store.migrate()
    return store


def existing_store(chosen: Settings) -> Store | None:
    """The store, where there is one already; nothing is made. None: SQLite's file is not there yet.

    Raises:
        StoreError: the URL cannot be understood.
    """
    store = _store(chosen)
    return store if store.exists() else None


def _store(chosen: Settings) -> Store:
    return Store(chosen.database)


# --- GitLab


def open_forge(chosen: Settings, heard: Callable[[str, str], None] = lambda _method, _status: None) -> GitLabForge:
    """The GitLab that the settings name; `lacks_gitlab` has seen to it that they do.

    `heard` is called for each request (`bot.gitlab.GitLabForge`).

    Raises:
        ForgeError: the CA file or the token cannot be used.
    """
    url, token = _gitlab(chosen)
    return GitLabForge(url, token, ca_file=chosen.gitlab_ca_file, heard=heard)


def open_admin(chosen: Settings) -> GitLabAdmin:
    """The same, as an operator's commands need it.

    Raises:
        ForgeError: the CA file or the token cannot be used.
    """
    url, token = _gitlab(chosen)
    return GitLabAdmin(url, token, ca_file=chosen.gitlab_ca_file)


def wanted_hook(chosen: Settings, url: str, verify: bool) -> Wanted:  # noqa: FBT001 -- it is what the store remembers
    """What a webhook of the bot's shall be that goes to this address, by the settings."""
    return Wanted(url, value(chosen.webhook_secret), value(chosen.webhook_signing_key), verify)


def _gitlab(chosen: Settings) -> tuple[str, str]:
    assert chosen.gitlab_url is not None  # noqa: S101 -- see above
    assert chosen.gitlab_token is not None  # noqa: S101 -- see above
    return chosen.gitlab_url, chosen.gitlab_token.get_secret_value()
