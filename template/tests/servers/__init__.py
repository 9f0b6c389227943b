"""Throwaway real servers for the store that this app was generated for, on free ports.

store_url(folder)             # a fresh, empty place; the same one for the same folder
with own_server() as server:  # a server of the test's own, to be frozen, killed and started again
    server.freeze()

They start when they are first asked for, keep their data below a temporary folder, and end with
the test process, however it ends. A server of yours is never used: DATABASE_URL and REDIS_URL are
not read.
"""

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from app.foundation.project import load_project
from tests.servers.clock import Clock

__all__ = [
    "Clock",
    "Server",
    "own_server",
    "store_contents",
    "store_environment",
    "store_url",
]


# Threads of a test that start apps at once share one server, and one place for a folder.
_ONE_AT_A_TIME = threading.RLock()


class Server(Protocol):
    """A store of a test's own. The stores with a server process can do more: see their modules."""

    @property
    def url(self) -> str:
        """Where the app finds it."""
        ...

    @property
    def app_environment(self) -> Mapping[str, str]:
        """What an app's environment needs so that its store has the server's clock."""
        ...

    def freeze(self) -> None:
        """From now on it accepts and answers nothing, and refuses nothing either."""
        ...

    def thaw(self) -> None:
        """It goes on where it was frozen."""
        ...


class _StoreModule(Protocol):
    def place(self, folder: Path) -> str: ...

    def contents(self, folder: Path) -> bytes: ...

    def own(self, clock: Clock | None, **configuration: Any) -> AbstractContextManager[Server]: ...


def store_url(folder: Path) -> str:
    """The URL of a place that is empty at first, and the same one for the same folder."""
    with _ONE_AT_A_TIME:
        return _module().place(folder.resolve())


def store_environment(folder: Path, url: str | None = None) -> dict[str, str]:
    """The setting that leads an app to `url`, by default to the folder's place."""
    name = "REDIS_URL" if load_project().store == "redis" else "DATABASE_URL"
    return {name: url or store_url(folder)}


def store_contents(folder: Path) -> bytes:
    """Every byte that the folder's place holds: keys, values, rows, as they were given to it."""
    with _ONE_AT_A_TIME:
        return _module().contents(folder.resolve())


def own_server(clock: Clock | None = None, **configuration: Any) -> AbstractContextManager[Server]:
    """Start a server for one test; `configuration` is the server's own, by name.

    `own_server(maxmemory="3mb")` on Redis, `own_server(max_connections=10)` on PostgreSQL.
    """
    with _ONE_AT_A_TIME:
        return _module().own(clock, **configuration)


def _module() -> _StoreModule:
    module: Any = import_module(f"tests.servers.{load_project().store}")
    return module  # type: ignore[no-any-return]
