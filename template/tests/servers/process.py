"""A server process of the tests: started, frozen, killed, and gone when the tests are."""

import atexit
import os
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import Any, TypeVar

import psutil

from tests.servers.clock import Clock
from tests.servers.ports import free_port
from tests.servers.proxy import Proxy

Process = TypeVar("Process", bound="ServerProcess")

_TELLING = threading.Lock()

START_SECONDS = 120.0
STOP_SECONDS = 60.0


class ServerProcess(ABC):
    """A server on a port of its own, with data of its own that outlive a restart.

    `user` is the user it runs as, where that is not the tests' own. `environment` is added to its
    environment at each start, and may be changed in between.
    """

    stop_signal: Signals = SIGTERM

    def __init__(self, name: str, user: str | None = None) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=data_root()))
        self.user = user
        self.environment: Mapping[str, str] = {}
        self.app_environment: Mapping[str, str] = {}  # its clock is not the app's
        self._process: subprocess.Popen[bytes] | None = None
        self._family: psutil.Process | None = None

    @cached_property
    def proxy(self) -> Proxy:
        """A proxy in front of the server, started when it is first asked for."""
        return Proxy(self.port)

    @property
    def proxied_url(self) -> str:
        """Where the app finds it behind its proxy."""
        return self.url.replace(f":{self.port}/", f":{self.proxy.port}/")

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the app finds it."""

    @abstractmethod
    def command(self) -> list[str]:
        """What starts the server in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers."""

    @property
    def pid(self) -> int:
        """The process that was started; it may have children."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same port and the same data, and wait until it answers."""
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._identity(),
            )
        self._family = psutil.Process(self.pid)
        _tell_guardian(f"watch {self.pid}")
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace")
                self.kill()
                raise AssertionError(f"{self.command()[0]} did not start:\n{said}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut it down in good order."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            self._gone(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL, to all of it: it has no time to say goodbye."""
        if self._process is not None:
            self._signal(SIGSTOP)  # so that it starts no child meanwhile
            self._signal(SIGKILL)
            self._gone(STOP_SECONDS)

    def end(self) -> None:
        """Kill it, and close its proxy: no test needs it any longer."""
        self.kill()
        if "proxy" in self.__dict__:
            self.proxy.close()

    def freeze(self) -> None:
        """SIGSTOP, to all of it: connections stay open, new ones are accepted by the kernel."""
        self._signal(SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, to all of it."""
        self._signal(SIGCONT)

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        import pwd  # there is none on Windows

        account = pwd.getpwnam(self.user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _signal(self, number: Signals) -> None:
        if self._family is None:
            return
        # psutil signals no stranger that has taken over the number of a process that is gone.
        with suppress(psutil.NoSuchProcess):
            if number == SIGSTOP:
                self._family.suspend()  # first, so that its children are all there are
            # They may lead sessions of their own, as PostgreSQL's do.
            for process in (*self._family.children(recursive=True), self._family):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def _gone(self, seconds: float) -> None:
        assert self._process is not None
        self._process.wait(seconds)
        _tell_guardian(f"forget {self._process.pid}")
        self._process = self._family = None


@contextmanager
def started(server: Process, clock: Clock | None) -> Iterator[Process]:
    """The server, started with this clock; it is gone afterwards."""
    server.environment = clock.environment if clock else {}
    server.start()
    try:
        yield server
    finally:
        server.end()


@cache
def _guardian() -> "tuple[subprocess.Popen[str], Path]":
    """The process that cleans up after this one, and the folder that it will remove."""
    folder = Path(tempfile.mkdtemp(prefix="test-servers-"))
    folder.chmod(0o755)  # servers may run as another user
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("guardian.py")), str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    atexit.register(process.communicate)  # end its input, and wait until it has cleaned up
    return process, folder


def data_root() -> Path:
    """Where servers keep their data: gone with this process."""
    return _guardian()[1]


def _tell_guardian(line: str) -> None:
    process = _guardian()[0]
    assert process.stdin is not None
    with _TELLING:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
