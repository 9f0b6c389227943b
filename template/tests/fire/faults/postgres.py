"""What can happen to PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.fire.faults.base import SERVER_FAULTS, Fault, repeated
from tests.running import RunningApp
from tests.servers.postgres import PostgresServer


@contextmanager
def _crowded(server: PostgresServer, app: RunningApp) -> Iterator[None]:
    """Take every connection there is, those that the app has too."""
    with ExitStack() as taken:
        while server.take_connection(taken):
            pass
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
