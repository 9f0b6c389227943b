"""What can happen to Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.fire.faults.base import Fault, repeated
from tests.fire.faults.server import SERVER_FAULTS
from tests.running import RunningApp
from tests.servers.ports import free_port
from tests.servers.redis import RedisServer


@contextmanager
def _set(server: RedisServer, name: str, value: str) -> Iterator[Any]:
    """Change a directive of the running server for a while; gives a client of it."""
    with server.client() as client:
        before = str(client.config_get(name)[name])
        client.config_set(name, value)
        yield client
        client.config_set(name, before)


@contextmanager
def _crowded(server: RedisServer, app: RunningApp) -> Iterator[None]:
    with _set(server, "maxclients", "1") as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield


@contextmanager
def _full(server: RedisServer, app: RunningApp) -> Iterator[None]:
    with _set(server, "maxmemory", "1"):
        yield


@contextmanager
def _read_only(server: RedisServer, app: RunningApp) -> Iterator[None]:
    with server.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))  # of a primary that is gone
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def _forgetful(server: RedisServer, app: RunningApp) -> Iterator[None]:
    with server.client() as client, repeated(client.script_flush):
        yield


_faults = {
    **SERVER_FAULTS,
    "out of connections": Fault(_crowded),
    "out of memory": Fault(_full),
    "a read-only replica": Fault(_read_only),
}
# With a password, which must not get out.
_locked = {"requirepass": "redis-0123456789"}
FAULTS = {name: replace(fault, configuration=_locked) for name, fault in _faults.items()}
NUISANCES = {"its scripts are flushed": Fault(_forgetful)}
