"""The fake provider as a test sees it."""

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from .behaviours import Behaviour, Reply
from .ledger import Call, Ledger, WireName
from .server import Connection

T = TypeVar("T")
Predicate = Callable[[Call], bool]


class Script:
    """Which behaviour a call meets. Thread-safe.

    In this order: what `next` queued, the latest matching `when`, the most specific `always`
    (model and wire, model, wire, any), and a plain `Reply()`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[tuple[WireName | None, Behaviour]] = deque()
        self._rules: list[tuple[Predicate, Behaviour]] = []
        self._standing: dict[tuple[str | None, WireName | None], Behaviour] = {}

    def always(
        self, behaviour: Behaviour, wire: WireName | None = None, model: str | None = None
    ) -> None:
        """From now on, for every call to this wire and model (by default any)."""
        with self._lock:
            self._standing[model, wire] = behaviour

    def next(self, *behaviours: Behaviour, wire: WireName | None = None) -> None:
        """For the next calls (to this wire), one behaviour a call, in order."""
        with self._lock:
            self._queue.extend((wire, behaviour) for behaviour in behaviours)

    def when(self, predicate: Predicate, behaviour: Behaviour) -> None:
        """For every call that the predicate accepts. It runs on the server's thread."""
        with self._lock:
            self._rules.insert(0, (predicate, behaviour))

    def forget(self) -> None:
        """Drop everything that was scripted."""
        with self._lock:
            self._queue.clear()
            self._rules.clear()
            self._standing.clear()

    def choose(self, call: Call) -> Behaviour:
        """For the server: the behaviour of this call."""
        with self._lock:
            for entry in self._queue:
                if entry[0] in (None, call.wire):
                    self._queue.remove(entry)
                    return entry[1]
            rules = list(self._rules)
            specific = [(call.model, call.wire), (call.model, None), (None, call.wire)]
            standing = [self._standing.get(key) for key in [*specific, (None, None)]]
        for predicate, behaviour in rules:
            if predicate(call):
                return behaviour
        return next((behaviour for behaviour in standing if behaviour), Reply())


class FakeProvider(Script):
    """A provider of all three wires on one port, in a thread of its own.

    `port`: 0 takes a free one. Use it as a context manager, or call `start` and `stop`. Any key
    is accepted, and none is kept.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__()
        self.host = host
        self.port = port
        self.ledger = Ledger()
        self.connections: set[Connection] = set()
        self.accepting = False
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event
        self._server: asyncio.Server
        self._reserved: socket.socket  # bound, and listening while `accepting`

    @property
    def url(self) -> str:
        """The root of all three APIs, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def openai_base_url(self) -> str:
        """As the OpenAI SDK takes it: it ends in /v1."""
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """As the Anthropic SDK takes it: bare."""
        return self.url

    @property
    def gemini_base_url(self) -> str:
        """As the Google SDK takes it: bare."""
        return self.url

    def start(self) -> Self:
        """Listen. Raises `OSError` where the port is taken."""
        ready: Future[None] = Future()
        run = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="fake-provider", daemon=True
        )
        run.start()
        ready.result()
        self._thread = run
        return self

    def stop(self) -> None:
        """Close the port and every connection. Calls in flight end as `stopped`."""
        if self._thread:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Back to the beginning: nothing scripted, an empty ledger, an open port."""
        self.forget()
        self.ledger.clear()
        self.accept_connections()

    def refuse_connections(self) -> None:
        """Close the port. Idle connections close too, busy ones once they have answered."""
        self._on_loop(self._refuse())

    def accept_connections(self) -> None:
        """Open the same port again; no-op where it is open."""
        self._on_loop(self._accept())

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, ready: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            self._reserve()
            await self._accept()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._stopping.wait()
        self.accepting = False
        self._server.close()
        self._reserved.close()
        for connection in list(self.connections):
            connection.stop()
        await asyncio.sleep(0)  # for the transports to close

    async def _accept(self) -> None:
        if self.accepting:
            return
        self._server = await self._loop.create_server(
            lambda: Connection(self), sock=self._reserved, backlog=1024
        )
        self.accepting = True

    async def _refuse(self) -> None:
        if not self.accepting:
            return
        self.accepting = False
        self._server.close()
        for connection in list(self.connections):
            if not connection.busy:
                connection.stop()
        self._reserve()

    def _reserve(self) -> None:
        """Bind the port without listening on it: connections are refused, nobody else takes it."""
        # With the protocol named, or asyncio does not set TCP_NODELAY and each answer waits 40 ms.
        self._reserved = socket.socket(proto=socket.IPPROTO_TCP)
        if os.name == "posix":
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._reserved.bind((self.host, self.port))
        except OSError:
            self._reserved.close()
            raise
        self.port = self._reserved.getsockname()[1]
