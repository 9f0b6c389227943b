"""The least that a step can be on each store's server, through the driver that the store uses."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Floor:
    """A bare step; its client's number is of no matter to it."""

    name: str
    step: Callable[[int], Awaitable[object]]


@asynccontextmanager
async def _sqlite(_: str, folder: str) -> AsyncIterator[Floor]:
    """One row in a transaction of its own, in a thread that owns the connection."""
    thread = ThreadPoolExecutor(max_workers=1)
    loop = asyncio.get_running_loop()
    connection = sqlite3.connect(
        Path(folder) / "floor.db", isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE floor (number INTEGER)")

    def insert() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO floor VALUES (1)")
        connection.execute("COMMIT")

    async def step(_: int) -> None:
        await loop.run_in_executor(thread, insert)

    yield Floor("floor: BEGIN IMMEDIATE, INSERT, COMMIT", step)
    thread.shutdown()
    connection.close()


@asynccontextmanager
async def _redis(url: str, _: str) -> AsyncIterator[Floor]:
    """A script that sets one key."""
    asyncio_redis: Any = import_module("redis.asyncio")
    pool = asyncio_redis.BlockingConnectionPool.from_url(url, max_connections=16, timeout=5)
    client = asyncio_redis.Redis(connection_pool=pool)
    script = "return redis.call('SET', KEYS[1], ARGV[1])"
    name = await client.script_load(script)

    async def step(number: int) -> None:
        await client.evalsha(name, 1, "floor", str(number))

    yield Floor("floor: EVALSHA of one SET", step)
    await client.aclose()
    await pool.disconnect()


@asynccontextmanager
async def _postgres(url: str, _: str) -> AsyncIterator[Floor]:
    """One row's update, a transaction of its own; each client has its own row."""
    pool = import_module("app.stores.postgres_pool").Pool(url, 10)
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE floor (id integer PRIMARY KEY, number integer)")
        await connection.execute("INSERT INTO floor SELECT n, 0 FROM generate_series(0, 15) AS n")

    async def step(number: int) -> None:
        async with pool.connection() as connection:
            await connection.execute("UPDATE floor SET number = number + 1 WHERE id = %s", [number])

    yield Floor("floor: UPDATE of one row", step)
    await pool.close()


FLOORS: dict[str, Callable[[str, str], AbstractAsyncContextManager[Floor]]] = {
    "sqlite": _sqlite,
    "redis": _redis,
    "postgres": _postgres,
}
