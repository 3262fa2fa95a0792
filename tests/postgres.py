"""A private PostgreSQL for the tests, from Debian's packages: no Docker, no service, gone when the tests end.

`postgres_url` gives each test a fresh, empty database of one cluster that serves the whole session; `database_url`
does so for SQLite and for PostgreSQL in turn. The cluster listens on 127.0.0.1 and on a socket in its own temporary
folder, with a password. It does not wait for the disk (fsync off): it is for tests only.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

PASSWORD = "p@ss/wörd%41"  # what an operator's generator makes: it must come through the URL, and into no message
QUOTED = "p%40ss%2Fw%C3%B6rd%2541"


class MissingError(RuntimeError):
    """There is no PostgreSQL here and none can be installed. The message says why."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server; its one role is `apprentice`."""

    port: int
    folder: Path
    programs: Path
    runner: str | None

    def url(self, database: str) -> str:
        """Where a database is, for SQLAlchemy."""
        return f"postgresql+psycopg://apprentice:{QUOTED}@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the user that owns the cluster (it refuses to run as root)."""
        call = [str(self.programs / program), *arguments]
        if self.runner:
            call = ["runuser", "-u", self.runner, "--", *call]
        done = subprocess.run(call, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode:
            log = self.folder / "log"
            told = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}{told}")


def programs() -> Path:
    """Find the newest PostgreSQL; installs Debian's where there is none and we may."""
    if found := _newest():
        return found
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or apt is None:
        raise MissingError("no /usr/lib/postgresql/*/bin/pg_ctl; `apt-get install postgresql` as root brings it")
    # Without this, the package makes and starts a cluster of its own.
    Path("/etc/postgresql-common").mkdir(exist_ok=True)
    settings = Path("/etc/postgresql-common/createcluster.conf")
    if not settings.exists():
        settings.write_text("create_main_cluster = false\n")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    keep = ["-o", "Dpkg::Options::=--force-confold"]  # that file, without a question
    install = [apt, "install", "--yes", "--no-install-recommends", *keep, "postgresql"]
    for call in (install, [apt, "update"], install):  # the lists may be old, or not there
        done = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=quiet, check=False)
        if done.returncode == 0 and (found := _newest()):
            return found
    raise MissingError(f"apt-get install postgresql failed: {done.stderr.strip()[-500:]}")


def _newest() -> Path | None:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


def start() -> Cluster:
    """Make a cluster in a temporary folder and start it."""
    runner = _runner()
    folder = Path(tempfile.mkdtemp(prefix="apprentice-postgres-"))
    if runner:
        shutil.chown(folder, runner, runner)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    cluster = Cluster(port, folder, programs(), runner)
    password = folder / "password"
    password.write_text(PASSWORD)
    if runner:
        shutil.chown(password, runner, runner)
    data = str(folder / "data")
    auth = ["--auth=scram-sha-256", "--username=apprentice", f"--pwfile={password}"]
    cluster.run("initdb", f"--pgdata={data}", *auth, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
    options = f"-p {cluster.port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off -c synchronous_commit=off"
    options += " -c full_page_writes=off -c max_connections=200 -c shared_buffers=64MB -c TimeZone=Asia/Kolkata"
    cluster.run("pg_ctl", f"--pgdata={data}", f"--log={folder / 'log'}", "--wait", "-o", options, "start")
    return cluster


def stop(cluster: Cluster) -> None:
    """End a cluster and remove it."""
    with contextlib.suppress(RuntimeError):
        cluster.run("pg_ctl", f"--pgdata={cluster.folder / 'data'}", "--mode=immediate", "--wait", "stop")
    shutil.rmtree(cluster.folder, ignore_errors=True)


def _runner() -> str | None:
    """Name who shall run the server when we are root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running PostgreSQL. A test that wants it skips where there is none."""
    try:
        cluster = start()
    except MissingError as error:
        pytest.skip(str(error))
    yield cluster
    stop(cluster)


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """The URL of an empty database; it is dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(_plain(postgres), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield postgres.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; a test that wants it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'apprentice.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


def _plain(cluster: Cluster) -> str:
    return cluster.url("postgres").replace("+psycopg", "")
