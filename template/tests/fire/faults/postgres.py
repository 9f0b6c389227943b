"""What can happen to PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg

from tests.fire.faults.base import Fault, repeated
from tests.fire.faults.server import SERVER_FAULTS
from tests.running import RunningApp
from tests.servers.postgres import PostgresServer


@contextmanager
def _crowded(server: PostgresServer, app: RunningApp) -> Iterator[None]:
    """Take every connection there is, those that the app has too."""
    with ExitStack() as taken:
        first = taken.enter_context(psycopg.connect(server.url, autocommit=True))
        others: list[Any] = [True]
        while others:
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(psycopg.connect(server.url, application_name="crowd"))
            others = first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ="
                " 'client backend' AND application_name <> 'crowd' AND pid <> pg_backend_pid()"
            ).fetchall()
        yield


@contextmanager
def _read_only(server: PostgresServer, app: RunningApp) -> Iterator[None]:
    server.make_standby()
    yield
    server.promote()


@contextmanager
def _tidied(server: PostgresServer, app: RunningApp) -> Iterator[None]:
    with repeated(lambda: server.sql("VACUUM FULL")):
        yield


FAULTS = {
    **SERVER_FAULTS,
    "out of connections": Fault(
        _crowded, configuration={"max_connections": 12, "superuser_reserved_connections": 0}
    ),
    "a read-only standby": Fault(_read_only),
}
NUISANCES = {"its tables are rewritten": Fault(_tidied)}
