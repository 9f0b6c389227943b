"""What can happen to every store that is a server."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.fire.faults.base import Fault, frozen
from tests.running import RunningApp
from tests.servers.process import ServerProcess
from tests.servers.proxy import Mode


@contextmanager
def killed(server: ServerProcess, app: RunningApp) -> Iterator[None]:
    """It is gone, and its port refuses connections; then it is started on the same data."""
    server.kill()
    yield
    server.start()


def behind_a_proxy(mode: Mode, seconds: float = 0.0) -> Fault:
    """The network between the app and the server misbehaves."""

    @contextmanager
    def happens(server: ServerProcess, app: RunningApp) -> Iterator[None]:
        server.proxy.set(mode, seconds)
        yield
        server.proxy.set("pass")

    return Fault(happens, proxied=True)


# A delay is longer than the app waits for its store.
SERVER_FAULTS = {
    "frozen": Fault(frozen),
    "killed": Fault(killed),
    "unreachable": behind_a_proxy("refuse"),
    "held up": behind_a_proxy("hold"),
    "slow": behind_a_proxy("delay", 3.0),
    "cut off in mid-command": behind_a_proxy("cut"),
}
