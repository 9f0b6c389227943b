"""SQLite: the embedded store, for one host and any number of processes on it.

What it promises: a committed step survives the death of any process (write-ahead log). When the
machine loses power the last steps may be lost but the file stays whole (`synchronous=NORMAL`): a
few settled requests may then be missing from the day's sum, and idempotency keys with them. The
file must lie on a local disk, since network file systems do not lock it reliably.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from app.stores import sqlite_schema
from app.stores.base import (
    Admission,
    CapWarning,
    Concern,
    Connection,
    Count,
    Decision,
    Entry,
    Reaped,
    Settlement,
    Spending,
    StoreSetupError,
    StoreUnavailableError,
)
from app.stores.sqlite_steps import Steps

T = TypeVar("T")

# Someone else is at work on the file: that passes. Anything else at the start is for a person.
_PASSES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def connect(connection: Connection) -> "SqliteStore":
    """The store of one file, not yet opened."""
    return SqliteStore(connection)


class SqliteStore:
    """`Store` over one file; see `stores/base.py` for what each method promises.

    One thread owns the connection; a step is one transaction on it. The timeout bounds a whole
    call: waiting for the thread, for the file's lock and for the disk.
    """

    def __init__(self, connection: Connection) -> None:
        self.path = Path(connection.url.removeprefix("sqlite:///"))
        self._timeout = connection.timeout
        self._timezone = connection.timezone
        self._clock = connection.clock or time.time
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    @property
    def address(self) -> str:
        return str(self.path)

    async def open(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) in _PASSES:
                raise StoreUnavailableError("SQLite: locked") from error
            facts = {"path": self.address, "reason": str(error)}
            raise StoreSetupError("store_file", **facts) from error

    async def concerns(self) -> tuple[Concern, ...]:
        return ()  # the app makes the file's settings itself

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def ping(self) -> None:
        await self._step(lambda steps: steps.ping())

    async def admit(self, admission: Admission) -> Decision:
        return await self._step(lambda steps: steps.admit(admission))

    async def dispatch(self, reservation: str) -> bool:
        return await self._step(lambda steps: steps.dispatch(reservation))

    async def settle(self, settlement: Settlement) -> CapWarning | None:
        return await self._step(lambda steps: steps.settle(settlement))

    async def renew(self, reservation: str, lease_seconds: float) -> bool:
        return await self._step(lambda steps: steps.renew(reservation, lease_seconds))

    async def reap(self) -> Reaped:
        return await self._step(lambda steps: steps.reap())

    async def spending(self, subject: str = "app") -> Spending:
        return await self._step(lambda steps: steps.spending(subject))

    async def remember(self, key: str, value: bytes, keep_seconds: int) -> None:
        await self._step(lambda steps: steps.remember(key, value, keep_seconds))

    async def recall(self, key: str) -> bytes | None:
        return await self._step(lambda steps: steps.recall(key))

    async def open_incident(self, key: str, remind_seconds: float) -> bool:
        return await self._step(lambda steps: steps.open_incident(key, remind_seconds))

    async def close_incident(self, key: str) -> bool:
        return await self._step(lambda steps: steps.close_incident(key))

    async def count(self, name: str, added: Mapping[str, int]) -> None:
        await self._step(lambda steps: steps.count(name, added))

    async def counted(self, name: str, span: Literal[60, 3600], spans: int) -> tuple[Count, ...]:
        return await self._step(lambda steps: steps.counted(name, span, spans))

    async def collect(
        self,
        name: str,
        entries: Sequence[Entry],
        keep_seconds: int,
        at_most: int,
        gone: Sequence[str] = (),
    ) -> None:
        await self._step(lambda steps: steps.collect(name, entries, keep_seconds, at_most, gone))

    async def collected(self, name: str, at_most: int, key: str | None = None) -> tuple[Entry, ...]:
        return await self._step(lambda steps: steps.collected(name, at_most, key))

    async def _step(self, step: Callable[[Steps], T]) -> T:
        """Run one transaction in the store's thread, within the timeout."""
        deadline = time.monotonic() + self._timeout
        job = asyncio.get_running_loop().run_in_executor(
            self._thread, self._transaction, step, deadline
        )
        try:
            return await asyncio.wait_for(job, self._timeout)
        except (TimeoutError, sqlite3.Error, OSError, OverflowError, RuntimeError) as error:
            raise StoreUnavailableError(f"SQLite: {type(error).__name__}") from error

    def _transaction(self, step: Callable[[Steps], T], deadline: float) -> T:
        if self._connection is None:
            self._connect()
        connection = self._connection
        if connection is None or time.monotonic() >= deadline:
            raise TimeoutError
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = step(Steps(connection, self._clock(), self._timezone))
            if time.monotonic() >= deadline:
                # The caller has already been told that the store is down: undo it.
                raise TimeoutError
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result

    def _connect(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
        )
        try:
            sqlite_schema.prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
