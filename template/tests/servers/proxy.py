"""A TCP proxy between the app and its store that misbehaves on demand."""

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from tests.servers.ports import free_port

T = TypeVar("T")

# pass: as if it were not there. refuse: nobody listens, and what was connected is reset. hold:
# bytes are taken and lie there until the mode changes; then all of them arrive, late. delay: each
# portion takes `seconds`. cut: the connection is reset in the middle of the client's next portion.
Mode = Literal["pass", "refuse", "hold", "delay", "cut"]
PORTION = 65536
CUT_AFTER = 20  # bytes: no command of a store is as short


class Proxy:
    """Listens on a port of its own, in a thread of its own; what it is told counts at once.

    `tls`: clients speak TLS to it. It speaks plainly to the server at `port`.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._seconds = 0.0
        self._mode: Mode = "pass"
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = free_port()  # its own also while it refuses
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True).start()
        self.set("pass")

    def set(self, mode: Mode, seconds: float = 0.0) -> None:
        """Behave like this from now on."""
        self._run(self._set(mode, seconds))

    def lead_to(self, port: int) -> None:
        """New connections go to another server; those that are open stay with theirs."""
        self._target = port

    def close(self) -> None:
        """Close the port and every connection."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _set(self, mode: Mode, seconds: float) -> None:
        self._mode, self._seconds = mode, seconds
        self._changed.set()
        self._changed = asyncio.Event()
        if mode == "refuse":
            if self._server is not None:
                self._server.close()
                self._server = None
            for writer in tuple(self._writers):
                writer.transport.abort()
        elif self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, ssl=self._tls
            )

    async def _close(self) -> None:
        await self._set("refuse", 0.0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, to_server}
        self._writers |= ends
        pumps = [
            asyncio.create_task(self._pump(reader, to_server, asks=True)),
            asyncio.create_task(self._pump(from_server, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for end in ends:
            end.transport.abort()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._writers -= ends

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asks: bool = False
    ) -> None:
        while data := await reader.read(PORTION):
            while self._mode == "hold":
                await self._changed.wait()
            if self._mode == "delay":
                await asyncio.sleep(self._seconds)
            if self._mode == "cut" and asks:
                writer.write(data[:CUT_AFTER])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()
