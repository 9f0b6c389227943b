"""What a fault is."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.running import RunningApp


@dataclass(frozen=True)
class Fault:
    """It happens to a server, and to the app on it, for as long as its block lasts.

    `proxied`: the app must reach the server through its proxy. `configuration` is the server's.
    """

    happens: Callable[[Any, RunningApp], AbstractContextManager[None]]
    proxied: bool = False
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def url(self, server: Any) -> str:
        """Where the app must look for the server."""
        return str(server.proxied_url if self.proxied else server.url)


@contextmanager
def frozen(server: Any, app: RunningApp) -> Iterator[None]:
    """It answers nothing, and what was asked meanwhile is done later."""
    server.freeze()
    yield
    server.thaw()


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
