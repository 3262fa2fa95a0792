"""A connection to SQLite or PostgreSQL: pragmas, transactions, and errors that a person can read."""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from bot.store.rows import Base

BUSY_MS = 10_000
"""How long SQLite waits for another process that writes."""
CONNECT_SECONDS = 5
"""How long PostgreSQL may take to answer the first call."""

# In WAL mode NORMAL leaves out the fsync of each commit. A killed process, which is what happens, loses nothing: the
# pages are with the kernel. A machine that loses power may lose the last moments' commits, though never the file's
# consistency. That is borne because GitLab is the truth behind most rows: a lost delivery or emoji is found by the
# sweeps, a posted note by its marker. Whoever wants every acknowledged delivery on the platter takes PostgreSQL.
_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_MS}",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # what was forgotten shall not stand in the file's free pages
)

_MIGRATION_LOCK = 0x6170_706D  # PostgreSQL's number of "only one migration at a time"

Insert = postgresql.Insert | sqlite.Insert


class StoreError(RuntimeError):
    """The database cannot be used. The message says which, why, and what to do; it never holds a password."""


class Database:
    """One database, and transactions on it. Made without connecting: the first query does.

    Args:
        url: `sqlite:////absolute/path/apprentice.sqlite` or `postgresql://user:password@host/name`.

    Raises:
        StoreError: the URL cannot be understood.
    """

    def __init__(self, url: str) -> None:
        self._url = _understood(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self.name = _described(self._url)
        self._engine = self._connected()
        # Within a process writers queue here. SQLite's own way to wait is to sleep and try again: unfair, and slow
        # at the tail. PostgreSQL needs no queue.
        self._turn = threading.Lock() if self._sqlite else nullcontext()
        self._writer = self._engine.execution_options(writes=True)

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    def exists(self) -> bool:
        """Whether there is a database; the first query makes SQLite's. That of a server only a query can tell."""
        return not self._sqlite or Path(self._url.database or "").is_file()

    def _connected(self) -> Engine:
        if not self._sqlite:
            return create_engine(
                self._url,
                hide_parameters=True,
                pool_pre_ping=True,  # a restarted PostgreSQL is not noticed
                connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "apprentice"},
            )
        engine = create_engine(self._url, hide_parameters=True)
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)
        return engine

    @contextmanager
    def _read(self) -> Iterator[Session]:
        """Run one reading transaction."""
        with self._readable_errors(), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        """Run one writing transaction."""
        with self._readable_errors(), self._turn, Session(self._writer) as session, session.begin():
            yield session

    @contextmanager
    def _write_fast(self) -> Iterator[Connection]:
        """Run one writing transaction, without the object mapper."""
        with self._readable_errors(), self._turn, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _migration(self) -> Iterator[Connection]:
        """Run one transaction that may change tables; one process at a time."""
        with self._readable_errors(), self._turn, self._writer.connect() as connection:
            if self._sqlite:
                # Tables that are made anew are dropped first, and rows that refer to them would go with them.
                driver = connection.connection.driver_connection
                assert driver is not None  # noqa: S101 -- it is connected
                driver.execute("PRAGMA foreign_keys = OFF")
                connection.detach()  # it is not given back to the pool
            with connection.begin():
                if not self._sqlite:
                    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                yield connection

    def hold(self, purpose: str) -> Callable[[], None] | None:
        """Be the only process that has this purpose, as long as the returned function is not called.

        None: another one has it. On SQLite everybody gets it: those of one machine can hold a lock of its own.
        """
        if self._sqlite:
            return lambda: None
        number = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big", signed=True)
        with self._readable_errors():
            connection = self._engine.connect()
            connection.detach()  # the lock is the session's: closed, and not given back to the pool, it ends with it
            mine = bool(connection.scalar(select(func.pg_try_advisory_lock(number))))
            connection.commit()
        if not mine:
            connection.close()
        return connection.close if mine else None

    def _scrub(self) -> None:
        """Take what was just removed out of SQLite's log as well. If somebody reads meanwhile, a later commit does."""
        if self._sqlite:
            with self._readable_errors(), self._turn, closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _insert(self, rows: type[Base]) -> Insert:
        """Begin an INSERT that knows ON CONFLICT."""
        table = rows.__table__
        assert isinstance(table, Table)  # noqa: S101 -- it could be a join, by its type
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            problem = str(error.orig)
            missing = "no such table" in problem or type(error.orig).__name__ == "UndefinedTable"
            raise StoreError(self._explain(problem) + ("; run `apprentice migrate`" if missing else "")) from error
        except (SQLAlchemyError, OverflowError) as error:
            raise StoreError(self._explain(str(error))) from error

    def _explain(self, problem: str) -> str:
        """Say which database has the problem, and what may help."""
        if self._url.password:
            problem = problem.replace(str(self._url.password), "***")
        words = f"{self.name}: {' '.join(problem.split())}"
        folder = Path(self._url.database or "").parent
        if "unable to open" in problem and not folder.is_dir():
            return f"{words}; the folder {folder} does not exist"
        if "unable to open" in problem or "readonly" in problem:
            return f"{words}; may this user write to the file and to its folder?"
        if "is locked" in problem:
            return f"{words}; another process has been writing for more than {BUSY_MS // 1000} s"
        return words


def _understood(url: str) -> URL:
    """Parse a URL. Its text goes into no message: what cannot be parsed may hold a password anywhere."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (SQLAlchemyError, ValueError):
        raise StoreError(
            "the database URL cannot be understood: write sqlite:////absolute/path/apprentice.sqlite or "
            "postgresql://user:password@host:5432/name, with %40 for an @ in the password (it is not shown here)"
        ) from None
    if backend in {"postgresql", "postgres"}:
        if "@" in (parsed.host or ""):
            raise StoreError("the database URL has several @: write %40 for one in the password (it is not shown here)")
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(f"a database of the kind {backend} is not known: use SQLite or PostgreSQL")
    if parsed.database in {None, "", ":memory:"}:
        raise StoreError("the database URL names no file: write sqlite:////absolute/path/apprentice.sqlite")
    return parsed.set(drivername="sqlite")


def _described(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return f"SQLite file {url.database}"
    host = url.host or "the local socket"
    return f"PostgreSQL at {host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def _set_pragmas(connection: DBAPIConnection, record: object) -> None:  # noqa: ARG001
    # The driver shall not begin transactions by itself: it would begin too late, and never IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    _write_ahead(cursor)
    cursor.close()


def _write_ahead(cursor: DBAPICursor) -> None:
    """Let readers read while somebody writes. Of those who come to a new file at once, SQLite lets nobody wait here."""
    patience = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    """Take the write lock at once: a reader that turns writer half-way cannot wait for its turn."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
