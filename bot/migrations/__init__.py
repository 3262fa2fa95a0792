"""How the tables came to be, one revision a file in `versions/`. Run by `Store.migrate`; there is no alembic.ini.

To write the next one, change `bot/store/rows.py` and let Alembic draft it against a database at the newest revision:
`alembic.command.revision(configured(connection, Base.metadata), "What it does", autogenerate=True)`. Then read what it
wrote, and put SQLAlchemy's own types in the place of ours.
"""

import functools

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData


class UnknownRevisionError(ValueError):
    """A revision that this program does not have."""


def configured(connection: Connection | None = None, metadata: MetaData | None = None) -> Config:
    """Give what Alembic's commands want, for one connection; `metadata` only to draft a revision."""
    config = Config()
    config.set_main_option("script_location", "bot:migrations")
    config.attributes.update(connection=connection, metadata=metadata)
    return config


def head() -> str:
    """Name the revision that this program needs."""
    return _newest_first()[0]


def known(revision: str) -> bool:
    """Whether this program has that revision."""
    return revision in _newest_first()


def current(connection: Connection) -> str | None:
    """Name the revision of a database; None: it has no tables of ours."""
    return MigrationContext.configure(connection).get_current_revision()


def move(connection: Connection, to: str) -> None:
    """Bring a database to a revision (`head`, `base` or a name), up or down, in the connection's transaction.

    Raises:
        UnknownRevisionError: this program does not have that one, or not the one that the database is at.
    """
    path = [*_newest_first(), "base"]
    now = current(connection) or "base"
    goal = path[0] if to == "head" else to
    for revision in (now, goal):
        if revision not in path:
            raise UnknownRevisionError(f"this program has no revision {revision}; it has {', '.join(path)}")
    go = command.upgrade if path.index(goal) < path.index(now) else command.downgrade
    if goal != now:
        go(configured(connection), goal)


@functools.cache
def _newest_first() -> tuple[str, ...]:
    return tuple(script.revision for script in ScriptDirectory.from_config(configured()).walk_revisions())
