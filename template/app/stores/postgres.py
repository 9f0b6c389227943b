"""PostgreSQL 14 or newer: the store for several hosts, where a server is kept anyway.

What it promises: a committed step survives the death of any process, and a power failure of the
server, as long as the server runs with `fsync`, `full_page_writes` and `synchronous_commit` on, as
it does by default (with `synchronous_commit` off a crash loses up to the last 0.6 seconds of
settlements and keys; `concerns` says so). After a failover to a standby the last steps are there
only when the standby is synchronous (`synchronous_standby_names`); an asynchronous one may lack
what was written in the moments before: the cap, the quotas and the keys then forget it.

The app has a schema of its own, named after it, which it creates itself: the user needs the right
to create one in the database, or owns a schema of that name. It works behind PgBouncer in
transaction mode. A process keeps at most `POOL_SIZE` connections.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import Any

import psycopg

from app.stores.base import (
    IN_PROGRESS_SECONDS,
    Admission,
    Admitted,
    CapWarning,
    Concern,
    Connection,
    Decision,
    RateState,
    Reaped,
    Refused,
    Replay,
    Settlement,
    Spending,
    Store,
    StoredAnswer,
    StoreSetupError,
    StoreUnavailableError,
)
from app.stores.day import day_of
from app.stores.postgres_pool import Pool
from app.stores.postgres_setup import (
    Schema,
    address_of,
    complaint_of,
    concerns_of,
    conninfo_of,
    database_of,
    schema_name,
)

# Ten steps at a time are thousands a second, and PostgreSQL's default of 100 connections then
# serves nine processes.
POOL_SIZE = 10
# The server gives a step up this much before the caller does, so that its word still arrives.
SERVER_SHARE = 0.9
# How often a step is tried: it may lose a race, meet a dead owner's key, or mistake the time.
TRIES = 5

TOO_LATE = "SK001"
LOST_RACE = "SK002"
# The schema or its functions are gone, as after a restored backup: they are made anew.
GONE = frozenset({"3F000", "42P01", "42883"})


def connect(connection: Connection) -> Store:
    """The store behind a `postgresql://` URL, as libpq reads it; `open` connects."""
    return PostgresStore(connection)


class PostgresStore:
    """`Store` over one PostgreSQL database; see `stores/base.py` for what each method promises."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._schema = Schema(schema_name(connection.namespace))
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        # The server's clock less the event loop's, at most: it errs on the early side.
        self._ahead: float | None = None
        self._day = (date.min, 0.0, 0.0)
        self._closed = False

    @property
    def address(self) -> str:
        return address_of(self._connection.url)

    async def open(self) -> None:
        try:
            async with asyncio.timeout(self._connection.timeout):
                await self._prepared()
        except (TimeoutError, OSError, psycopg.Error) as error:
            raise complaint_of(error, self.address, database_of(self._connection.url)) from error

    async def concerns(self) -> tuple[Concern, ...]:
        async with self._in_time():
            pool = await self._prepared()
            async with pool.connection() as connection:
                return await concerns_of(connection)

    async def close(self) -> None:
        self._closed = True
        if self._pool is not None:
            await self._pool.close()

    async def ping(self) -> None:
        await self.remember("ping", b"", 60)

    async def admit(self, admission: Admission) -> Decision:
        rates = sorted(admission.rates, key=lambda rate: rate.subject)
        callers = sorted(
            (cap for cap in admission.caps if cap.name == "caller"), key=lambda cap: cap.subject
        )
        claim = admission.claim
        exact = False
        async with self._in_time() as deadline:
            for _ in range(TRIES):
                answer = await self._step(
                    deadline,
                    "admit",
                    exact,
                    admission.reservation,
                    admission.amount_nano,
                    admission.lease_seconds,
                    [rate.subject for rate in rates],
                    [rate.quota for rate in rates],
                    [rate.window_seconds for rate in rates],
                    next(cap.limit_nano for cap in admission.caps if cap.name == "app"),
                    [cap.subject for cap in callers],
                    [cap.limit_nano for cap in callers],
                    claim.key if claim else None,
                    claim.fingerprint if claim else None,
                    claim.keep_seconds if claim else None,
                    of_day=True,
                )
                at, verdict, used, resets, *stored, reservation = answer
                if verdict == "over":
                    await self._step(deadline, "expire", reservation)
                elif verdict == "again":
                    exact = True
                else:
                    break
            else:
                raise StoreUnavailableError("PostgreSQL: no decision")
        left = {
            rate.subject: RateState(rate, max(rate.quota - count, 0), reset)
            for rate, count, reset in zip(rates, used or (), resets or (), strict=False)
        }
        states = tuple(left[rate.subject] for rate in admission.rates if rate.subject in left)
        return self._decision(at, verdict, states, stored)

    def _decision(
        self, at: float, verdict: str, rates: tuple[RateState, ...], stored: list[Any]
    ) -> Decision:
        match verdict:
            case "admitted":
                return Admitted(rates)
            case "replay":
                *answer, expires_in = stored
                return Replay(StoredAnswer(*answer), expires_in)
            case "rate":
                full = [state for state in rates if state.remaining == 0]
                worst = max(full, key=lambda state: state.reset_seconds)
                return Refused("rate", worst.reset_seconds, rates, worst.rate)
            case "app_cap" | "caller_cap":
                return Refused(verdict, self._day[2] - self._now(at), rates)
            case "in_progress":
                return Refused("in_progress", IN_PROGRESS_SECONDS)
            case _:
                return Refused("key_reused", 0.0)

    async def dispatch(self, reservation: str) -> bool:
        return bool((await self._one_step("dispatch", reservation))[1])

    async def settle(self, settlement: Settlement) -> CapWarning | None:
        answer = settlement.answer
        _, due, day, settled, limit = await self._one_step(
            "settle",
            settlement.reservation,
            settlement.cost_nano,
            answer.status if answer else None,
            answer.media_type if answer else None,
            answer.body if answer else None,
            answer.complete if answer else None,
        )
        return CapWarning(day, settled, limit) if due else None

    async def renew(self, reservation: str, lease_seconds: float) -> bool:
        return bool((await self._one_step("renew", reservation, lease_seconds))[1])

    async def reap(self) -> Reaped:
        async with self._in_time() as deadline:
            _, overdue = await self._step(deadline, "overdue")
            for reservation in overdue:
                await self._step(deadline, "expire", reservation)
            _, more, *found = await self._step(deadline, "forget", of_day=True)
        warnings = tuple(
            CapWarning(*due) for due in zip(*(part or () for part in found), strict=True)
        )
        return Reaped(warnings, more)

    async def spending(self, subject: str = "app") -> Spending:
        async with self._in_time() as deadline:
            at, settled, reserved = await self._step(deadline, "spending", subject, of_day=True)
            day, _, ends = self._day
            return Spending(day, settled, reserved, ends - self._now(at))

    async def remember(self, key: str, value: bytes, keep_seconds: int) -> None:
        await self._one_step("remember", key, value, float(keep_seconds))

    async def recall(self, key: str) -> bytes | None:
        value: bytes | None = (await self._one_step("recall", key))[1]
        return value

    async def open_incident(self, key: str, remind_seconds: float) -> bool:
        return bool((await self._one_step("open_incident", key, remind_seconds))[1])

    async def close_incident(self, key: str) -> bool:
        return bool((await self._one_step("close_incident", key))[1])

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[float]:
        """Bound a whole call; its deadline is on the event loop's clock."""
        timeout = self._connection.timeout
        try:
            async with asyncio.timeout(timeout):
                yield asyncio.get_running_loop().time() + timeout * SERVER_SHARE
        except StoreSetupError as error:
            raise StoreUnavailableError(f"PostgreSQL: {error.complaint}") from error
        except (TimeoutError, OSError, psycopg.Error) as error:
            raise StoreUnavailableError(f"PostgreSQL: {type(error).__name__}") from error

    async def _one_step(self, name: str, *arguments: object) -> tuple[Any, ...]:
        async with self._in_time() as deadline:
            return await self._step(deadline, name, *arguments)

    async def _step(
        self, deadline: float, name: str, *arguments: object, of_day: bool = False
    ) -> tuple[Any, ...]:
        """Call one function of postgres_steps.sql; again where it was mistaken or out of luck."""
        loop = asyncio.get_running_loop()
        for _ in range(TRIES):
            pool = await self._prepared()
            day = self._today() if of_day else ()
            async with pool.connection() as connection:
                sent = loop.time()
                clock = self._connection.clock
                values = [
                    deadline + (self._ahead or 0.0),
                    clock() if clock else None,
                    *day,
                    *arguments,
                ]
                try:
                    cursor = await connection.execute(self._schema.step(name, len(values)), values)
                    row = await cursor.fetchone() or ()
                except psycopg.Error as error:
                    if error.sqlstate in GONE:
                        self._ahead = None
                    elif error.sqlstate == TOO_LATE:
                        self._synchronise(float(error.diag.message_detail or 0), sent)
                        continue
                    elif error.sqlstate == LOST_RACE:
                        continue
                    raise
                self._synchronise(row[0], sent)
                return row
        raise StoreUnavailableError("PostgreSQL: no decision")

    async def _prepared(self) -> Pool:
        """The pool, after the server was checked and the schema was found or made."""
        if self._pool is not None and self._ahead is not None:
            return self._pool
        async with self._opening:
            if self._pool is None:
                conninfo = conninfo_of(self._connection.url, self._connection.namespace)
                self._pool = Pool(conninfo, POOL_SIZE)
            if self._ahead is None:
                async with self._pool.connection() as connection:
                    clock = await self._schema.prepare(connection, self.address)
                    self._ahead = clock - asyncio.get_running_loop().time()
            return self._pool

    def _synchronise(self, at: float, sent: float) -> None:
        # The server read its clock after `sent` and before now; keep what agrees with that.
        earliest, latest = at - asyncio.get_running_loop().time(), at - sent
        if self._ahead is None or not earliest <= self._ahead <= latest:
            self._ahead = earliest

    def _now(self, at: float) -> float:
        """The clock of quotas and days, where the server's is `at`."""
        return self._connection.clock() if self._connection.clock else at

    def _today(self) -> tuple[date, float, float]:
        """The day that the server should be in, and when it begins and ends."""
        now = self._now(asyncio.get_running_loop().time() + (self._ahead or 0.0))
        _, begins, ends = self._day
        if not begins <= now < ends:
            day = day_of(now, self._connection.timezone)
            self._day = (day, self._midnight(day), self._midnight(day + timedelta(days=1)))
        return self._day

    def _midnight(self, day: date) -> float:
        zone = self._connection.timezone
        return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
