"""The bounds of a request's head, which the server itself takes without an end.

httptools keeps a head in memory however long it is, and uvicorn waits for its end for ever: one
client without a key could fill the memory, and many could hold all connections.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536


class HeadLimit(HttpToolsProtocol):
    """uvicorn's protocol, within bounds.

    A head of more than `MAX_HEAD_BYTES` gets a 400. A connection with as much that is no body
    (trailers, what stands between chunks) is closed, and so is one that has asked for nothing, or
    not to the end of its head, after `timeout_keep_alive` seconds.
    """

    _beside_body = 0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._waiting is None:  # its request is being answered
                self.transport.close()
            else:
                self.send_400_response("The request's head is too large.")

    def on_headers_complete(self) -> None:
        self._wait_no_longer()
        self._beside_body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_body = 0
        super().on_body(body)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
