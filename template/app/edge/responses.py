"""Sending a live stream, and noticing that the client has left."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.standards.availability.deadline import Deadline

T = TypeVar("T")

# How long the end of a stream may take to leave once the time budget is over.
LAST_WORDS_SECONDS = 1.0
# Events that may wait for a slow client before the provider has to wait as well.
MOST_WAITING = 64


class EventStream(Response):
    """Server-sent events from an iterator of bytes.

    Plain asyncio on purpose: when the client leaves, the iterator is closed in the open, so what
    it must still do (settle the money) is awaited. Starlette's own streaming response would be
    cancelled again at every await.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], deadline: Deadline) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # The length of a stream is not known.
        del self.headers["content-length"]
        self._events = events
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait(
                {sending, leaving},
                timeout=self._deadline.remaining + LAST_WORDS_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not sending.done():
                # It has left; or it reads so slowly that its time is over, which is the same.
                raise ClientDisconnect
            sending.result()
        finally:
            await _cancel(leaving)
            await _cancel(sending)
            await self._events.aclose()

    async def _send_all(self, send: Send) -> None:
        """Events that are there at the same moment leave in one packet; none waits for another."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        waiting: list[bytes] = []

        async def send_waiting() -> None:
            while waiting:
                packet = b"".join(waiting)
                waiting.clear()
                await send({"type": "http.response.body", "body": packet, "more_body": True})

        sending: asyncio.Future[None] | None = None
        try:
            async for data in self._events:
                waiting.append(data)
                if sending is not None and (sending.done() or len(waiting) >= MOST_WAITING):
                    await sending
                    sending = None
                if sending is None:
                    # It runs when nothing more is there, and this task waits for the provider.
                    sending = asyncio.ensure_future(send_waiting())
            if sending is not None:
                await sending
        finally:
            if sending is not None:
                await _cancel(sending)
                if not sending.cancelled():
                    sending.exception()  # seen: a connection that broke is reported as such
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work; cancel it and raise `ClientDisconnect` when the client leaves.

    Call it only after the request's body has been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await _cancel(leaving)
        await _cancel(working)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: "asyncio.Future[Any]") -> None:
    """Cancel a task and wait until it has ended; its own clean-up included."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
