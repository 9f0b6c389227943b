"""The outer shield: slowapi's limiter, per address, in this process's memory, without any I/O.

It sheds floods before a body is read. It counts per process and forgets at a restart: the exact
limits are in the store's atomic step (`guard.py`).
"""

import time
from collections.abc import Callable

from limits import parse
from limits.storage import MemoryStorage
from slowapi import Limiter
from slowapi.util import get_remote_address
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import AppError
from app.standards.spending.identity import Identity

# The shield is wider than the exact limit, so it never refuses what the store would admit.
HEADROOM = 4
SCHEME = "memory-without-threads"
# Touches nothing, and must answer while a flood is shed.
EXEMPT_PATHS = frozenset({"/healthz"})


class Counts(MemoryStorage):
    """Forgets what has expired once in a window, in passing.

    The library's own storage starts a thread for that a hundred times a second, each of which
    looks at every address: the more there are, the less the flood is shed.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 (the library looks it up)  # slowapi finds it by this name
    _sweep_at = 0.0

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; the number so far in this key's window, which lasts `expiry` seconds."""
        now = time.time()
        if now >= self._sweep_at:
            self._sweep_at = now + expiry
            for old in [name for name, end in self.expirations.items() if end <= now]:
                self.clear(old)
        if self.expirations.get(key, 0.0) <= now:
            self.storage[key], self.expirations[key] = 0, now + expiry
        self.storage[key] += amount
        return self.storage[key]


class Shield:
    """Pure ASGI middleware: at most `HEADROOM` times the exact limit, for each address.

    A middleware sees every path, those of included routers and mounts too, which slowapi's own
    default limits miss; slowapi's middleware would break streams. So its `Limiter` keeps the
    counts, and this class asks it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        requests_per_minute: int,
        identity: Identity,
        refuse: Callable[[Scope, AppError], Response],
    ) -> None:
        self._app = app
        self._identity = identity
        self._refuse = refuse
        self._limit = parse(f"{requests_per_minute * HEADROOM} per minute")
        self._limiter = Limiter(key_func=get_remote_address, storage_uri=f"{SCHEME}://").limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in EXEMPT_PATHS:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        network = self._identity.network(Headers(scope=scope), client[0] if client else None)
        if self._limiter.hit(self._limit, network):
            await self._app(scope, receive, send)
            return
        reset_at = self._limiter.get_window_stats(self._limit, network).reset_time
        error = AppError("rate_limit_exceeded", retry_after=max(reset_at - time.time(), 1.0))
        await self._refuse(scope, error)(scope, receive, send)
