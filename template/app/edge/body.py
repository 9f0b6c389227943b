"""The body limit: at most MAX_BODY_BYTES are read, for at most TIME_BUDGET_SECONDS.

FastAPI's own `max_body_size` answers in plain text and closes the connection while the client
still sends, which many clients report as a network error.
"""

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import AppError

# A refused body is still read for a while, and thrown away, so that the client hears why.
DRAIN_FACTOR = 8
DRAIN_SECONDS = 2.0


class BodyLimit:
    """Pure ASGI middleware: refuses with 413 `request_too_large`, and 504 after `seconds`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        seconds: float,
        refuse: Callable[[Scope, AppError], Response],
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            await self._drain(receive)
            await self._refuse(scope, AppError("request_too_large"))(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        total, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def counted() -> Message:
            nonlocal total, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(504) from None
            complete = not message.get("more_body", False)
            if message["type"] == "http.request":
                total += len(message.get("body", b""))
                if total > self._max_bytes:
                    if message.get("more_body", False):
                        await self._drain(receive)
                    # FastAPI lets this pass where it reads a body; another error becomes a 400.
                    raise HTTPException(413)
            return message

        return counted

    async def _drain(self, receive: Receive) -> None:
        left = self._max_bytes * DRAIN_FACTOR
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0:
                    message = await receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return
