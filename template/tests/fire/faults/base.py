"""The faults that several stores share."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.running import RunningApp
from tests.servers.process import ServerProcess
from tests.servers.proxy import Mode


@dataclass(frozen=True)
class Fault:
    """It happens to a server, and to the app on it, for as long as its block lasts.

    `proxied`: the app must reach the server through its proxy. `configuration` is the server's.
    """

    happens: Callable[[Any, RunningApp], AbstractContextManager[None]]
    proxied: bool = False
    configuration: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def frozen(server: Any, app: RunningApp) -> Iterator[None]:
    """It answers nothing, and what was asked meanwhile is done later."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def killed(server: ServerProcess, app: RunningApp) -> Iterator[None]:
    """It is gone, and its port refuses connections; then it is started on the same data."""
    server.kill()
    yield
    server.start()


@contextmanager
def repeated(deed: Callable[[], object], seconds: float = 0.02) -> Iterator[None]:
    """Do something again and again, as long as the block lasts."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            deed()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        yield
        over.set()
        working.result()


def behind_a_proxy(mode: Mode, seconds: float = 0.0) -> Fault:
    """The network between the app and the server misbehaves."""

    @contextmanager
    def happens(server: ServerProcess, app: RunningApp) -> Iterator[None]:
        server.proxy.set(mode, seconds)
        yield
        server.proxy.set("pass")

    return Fault(happens, proxied=True)


# What every store with a server knows. A delay is longer than the app waits for its store.
SERVER_FAULTS = {
    "frozen": Fault(frozen),
    "killed": Fault(killed),
    "unreachable": behind_a_proxy("refuse"),
    "held up": behind_a_proxy("hold"),
    "slow": behind_a_proxy("delay", 3.0),
    "cut off in mid-command": behind_a_proxy("cut"),
}
