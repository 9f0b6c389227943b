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
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import psycopg

from app.stores.base import (
    IN_PROGRESS_SECONDS,
    REAP_LEASES,
    Admission,
    Admitted,
    CapWarning,
    Concern,
    Connection,
    Count,
    Decision,
    Entry,
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
from app.stores.day import days_around
from app.stores.postgres_pool import Pool
from app.stores.postgres_setup import (
    Schema,
    address_of,
    complaint_of,
    concerns_of,
    conninfo_of,
    kind_of,
    schema_name,
)
from app.stores.server_clock import ServerClock

# Ten steps at a time are thousands a second, and PostgreSQL's default of 100 connections then
# serves nine processes.
POOL_SIZE = 10
# The server gives a step up this much before the caller does, so that its word still arrives.
SERVER_SHARE = 0.9
# How often a step is tried: it may lose a race, meet a dead owner's key, or mistake the time.
TRIES = 5

MISTAKEN = "SK001"
LOST_RACE = "SK002"
# A primary that was made a replica: the new one is found with the next connection.
READ_ONLY = "25006"
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
        self._opened = False
        self._server_clock = ServerClock(connection.timeout * SERVER_SHARE)
        self._day = days_around(self._now(time.time()), connection.timezone)[1]

    @property
    def address(self) -> str:
        return address_of(self._connection.url)

    async def open(self) -> None:
        try:
            async with asyncio.timeout(self._connection.timeout):
                await self._prepared()
        except (OSError, psycopg.Error) as error:
            raise complaint_of(error, self._connection.url) from error

    async def concerns(self) -> tuple[Concern, ...]:
        async with self._in_time():
            pool = await self._prepared()
            async with pool.connection() as connection:
                return await concerns_of(connection)

    async def close(self) -> None:
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
        async with self._in_time() as started:
            for _ in range(TRIES):
                answer = await self._step(
                    started,
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
                    by_day=True,
                )
                at, verdict, used, resets, *stored, dead = answer
                if verdict == "over":
                    await self._step(started, "expire", dead)
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
                return Refused(verdict, self._day.ends - self._now(at), rates)
            case "in_progress":
                return Refused("in_progress", IN_PROGRESS_SECONDS)
            case _:
                return Refused("key_reused", 0.0)

    async def dispatch(self, reservation: str) -> bool:
        return bool((await self._one_step("dispatch", reservation))[1])

    async def settle(self, settlement: Settlement) -> CapWarning | None:
        answer = settlement.answer
        return _warning(
            await self._one_step(
                "settle",
                settlement.reservation,
                settlement.cost_nano,
                answer.status if answer else None,
                answer.media_type if answer else None,
                answer.body if answer else None,
                answer.complete if answer else None,
            )
        )

    async def renew(self, reservation: str, lease_seconds: float) -> bool:
        return bool((await self._one_step("renew", reservation, lease_seconds))[1])

    async def reap(self) -> Reaped:
        warnings = []
        async with self._in_time() as started:
            _, overdue = await self._step(started, "overdue")
            for reservation in overdue:
                warnings.append(_warning(await self._step(started, "expire", reservation)))
            _, more, *found = await self._step(started, "forget", by_day=True)
        missed = zip(*(part or () for part in found), strict=True)
        return Reaped(
            (*filter(None, warnings), *(CapWarning(*due) for due in missed)),
            more or len(overdue) == REAP_LEASES,
        )

    async def spending(self, subject: str = "app") -> Spending:
        async with self._in_time() as started:
            at, settled, reserved = await self._step(started, "spending", subject, by_day=True)
            return Spending(self._day.date, settled, reserved, self._day.ends - self._now(at))

    async def remember(self, key: str, value: bytes, keep_seconds: int) -> None:
        await self._one_step("remember", key, value, float(keep_seconds))

    async def recall(self, key: str) -> bytes | None:
        value: bytes | None = (await self._one_step("recall", key))[1]
        return value

    async def open_incident(self, key: str, remind_seconds: float) -> bool:
        return bool((await self._one_step("open_incident", key, remind_seconds))[1])

    async def close_incident(self, key: str) -> bool:
        return bool((await self._one_step("close_incident", key))[1])

    async def count(self, name: str, added: Mapping[str, int]) -> None:
        await self._one_step("count", name, list(added), list(added.values()))

    async def counted(self, name: str, span: Literal[60, 3600], spans: int) -> tuple[Count, ...]:
        _, *found = await self._one_step("counted", name, span, spans)
        return tuple(Count(*row) for row in zip(*(part or () for part in found), strict=True))

    async def collect(
        self,
        name: str,
        entries: Sequence[Entry],
        keep_seconds: int,
        at_most: int,
        gone: Sequence[str] = (),
    ) -> None:
        await self._one_step(
            "collect",
            name,
            [entry.key for entry in entries],
            [entry.value for entry in entries],
            [entry.times for entry in entries],
            float(keep_seconds),
            at_most,
            list(gone),
        )

    async def collected(self, name: str, at_most: int, key: str | None = None) -> tuple[Entry, ...]:
        _, *found = await self._one_step("collected", name, at_most, key)
        return tuple(Entry(*row) for row in zip(*(part or () for part in found), strict=True))

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[float]:
        """Bound a whole call of the store; when it began, in monotonic time."""
        try:
            async with asyncio.timeout(self._connection.timeout):
                yield time.monotonic()
        except StoreSetupError as error:
            raise StoreUnavailableError(f"PostgreSQL: {error.complaint}") from error
        except (OSError, psycopg.Error) as error:
            raise StoreUnavailableError(kind_of(error)) from error

    async def _one_step(self, name: str, *arguments: object) -> tuple[Any, ...]:
        async with self._in_time() as started:
            return await self._step(started, name, *arguments)

    async def _step(
        self, started: float, name: str, *arguments: object, by_day: bool = False
    ) -> tuple[Any, ...]:
        """Call one function of postgres_steps.sql; again where it was mistaken or out of luck."""
        tries = TRIES
        while True:
            tries -= 1
            pool = await self._prepared()
            day = (self._day.date, self._day.begins, self._day.ends) if by_day else ()
            clock = self._connection.clock
            values = [
                self._server_clock.deadline(started),
                clock() if clock else None,
                *day,
                *arguments,
            ]
            async with pool.connection() as connection:
                try:
                    cursor = await connection.execute(self._schema.step(name, len(values)), values)
                    row = await cursor.fetchone() or ()
                except psycopg.Error as error:
                    if error.sqlstate == READ_ONLY:
                        await connection.close()
                    if not (tries and self._worth_another_try(error)):
                        raise
                else:
                    self._server_clock.saw(row[0])
                    return row

    def _worth_another_try(self, error: psycopg.Error) -> bool:
        """True where the step changed nothing, and may now go better."""
        if error.sqlstate == MISTAKEN:
            self._meet(float(error.diag.message_detail or 0))
        elif error.sqlstate in GONE:
            self._opened = False
        return error.sqlstate in {MISTAKEN, LOST_RACE, *GONE}

    async def _prepared(self) -> Pool:
        """The pool, after the server was checked and the schema was found or made."""
        if self._pool is not None and self._opened:
            return self._pool
        async with self._opening:
            if self._pool is None:
                conninfo = conninfo_of(self._connection.url, self._connection.namespace)
                self._pool = Pool(conninfo, POOL_SIZE)
            if not self._opened:
                async with self._pool.connection() as connection:
                    self._meet(await self._schema.prepare(connection, self.address))
                self._opened = True
            return self._pool

    def _meet(self, server_now: float) -> None:
        """Learn what time and which day it is for the server."""
        self._server_clock.saw(server_now)
        now = self._now(server_now)
        self._day = days_around(now, self._connection.timezone)[1]

    def _now(self, at: float) -> float:
        """The clock of quotas and days, where the server's is `at`."""
        return self._connection.clock() if self._connection.clock else at


def _warning(row: tuple[Any, ...]) -> CapWarning | None:
    _, due, day, settled, limit = row
    return CapWarning(day, settled, limit) if due else None
