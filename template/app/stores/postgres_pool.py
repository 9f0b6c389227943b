"""Connections to PostgreSQL: few, kept open, and given up at once when they do not answer."""

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from psycopg import AsyncConnection, waiting
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

T = TypeVar("T")


class PooledConnection(AsyncConnection[TupleRow]):
    """A connection that is closed as soon as its step is given up.

    psycopg itself would ask the server to cancel, and wait up to ten seconds for its word. The
    server needs no asking: a step that comes too late changes nothing.
    """

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=timeout
            )
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


class Pool:
    """At most `size` connections, opened when needed; who finds none free waits for one.

    It keeps no session state and prepares nothing on the server, so it may stand before a pooler
    such as PgBouncer in transaction mode. Each connection is opened by the step that needs it: a
    server that is back is used by the very next step.
    """

    def __init__(self, conninfo: str, size: int) -> None:
        self._conninfo = conninfo
        self._free = asyncio.Semaphore(size)
        self._idle: list[PooledConnection] = []
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PooledConnection]:
        """A connection for one step. It has no timeout of its own: cancel it."""
        async with self._free:
            connection = await self._take()
            try:
                yield connection
            finally:
                await self._give_back(connection)

    async def _take(self) -> PooledConnection:
        while self._idle:
            connection = self._idle.pop()
            if _silent(connection):
                return connection
            await connection.close()
        return await PooledConnection.connect(
            self._conninfo, autocommit=True, prepare_threshold=None
        )

    async def _give_back(self, connection: PooledConnection) -> None:
        if connection.pgconn.transaction_status == TransactionStatus.IDLE and not self._closed:
            self._idle.append(connection)
            return
        await connection.close()
        # Nobody knows what state the server is in: the idle connections may be as dead as this one.
        await self.close_idle()

    async def close_idle(self) -> None:
        """Close the connections that no step is using."""
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        """Close the idle connections now, and the others when their steps end."""
        self._closed = True
        await self.close_idle()


def _silent(connection: PooledConnection) -> bool:
    """False when the server has said something to an idle connection: it can only be farewell."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
