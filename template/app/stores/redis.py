"""Redis (7 or newer) or Valkey: for any number of processes on any number of hosts.

A step is one Lua script (`redis_steps.lua`), which Redis runs alone and to its end. All keys carry
one hash tag, so they lie in one slot of a cluster, and every key that a step touches is named
beforehand. What survives depends on the server's settings, which the app checks at its start:

- `appendonly yes` with `appendfsync always`: every step that was answered survives a power
  failure. With `everysec` the last second may be lost, two when the disk is slow; with snapshots
  alone, everything since the last one.
- A failover loses what the new primary had not yet received: replication is asynchronous. Then a
  few settled requests are missing from the day's sum, and their idempotency keys with them.
- `maxmemory-policy noeviction`: with any other, Redis may drop a key that spending hangs on. When
  memory is full, requests are refused (503) and nothing is lost.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any, Literal

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.stores import redis_checks, redis_replies
from app.stores.base import (
    KEEP_COUNTS,
    KEEP_DAYS,
    KEEP_EXPIRED_SECONDS,
    REAP_LEASES,
    REAP_ROWS,
    WARN_AT_PERCENT,
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
from app.stores.day import Day, days_around
from app.stores.server_clock import ServerClock

# Of one process. A step takes a fraction of a millisecond; a burst waits for its turn.
MAX_CONNECTIONS = 16

_SCRIPT = (Path(__file__).parent / "redis_steps.lua").read_text(encoding="utf-8")
_SCRIPT_NAME = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_SHARED = ("reservations", "leases", "ended", "spend", "days")
# The steps that hang on the day.
_BY_DAY = frozenset({"admit", "due", "spending"})


def connect(connection: Connection) -> "RedisStore":
    """The store of one Redis database, not yet opened. Raises nothing: no byte is sent."""
    return RedisStore(connection)


class RedisStore:
    """`Store` over one Redis database; see `stores/base.py` for what each method promises."""

    def __init__(self, connection: Connection) -> None:
        self._tag = "{" + connection.namespace + "}"
        self._timeout = connection.timeout
        self._timezone = connection.timezone
        self._clock = connection.clock
        self._server_clock = ServerClock(connection.timeout)
        self._days = _as_facts(days_around(time.time(), connection.timezone))
        self._pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            connection.url,
            max_connections=MAX_CONNECTIONS,
            timeout=connection.timeout,
            socket_timeout=connection.timeout,
            socket_connect_timeout=connection.timeout,
            # One that was lost in mid-step may have been executed: it is never sent again.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._redis = Redis(connection_pool=self._pool)
        self._by_name = True
        self._opened = False

    @property
    def address(self) -> str:
        return redis_checks.address(self._redis)

    async def open(self) -> None:
        async with _reported(self._timeout):
            await self._open()

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()

    async def concerns(self) -> tuple[Concern, ...]:
        async with _reported(self._timeout):
            return await redis_checks.concerns(self._redis)

    async def ping(self) -> None:
        await self._step("ping", {}, self._key("ping"))

    async def admit(self, admission: Admission) -> Decision:
        claim = admission.claim
        keys = [self._key("rate", rate.subject) for rate in admission.rates]
        ask: dict[str, Any] = {
            "reservation": admission.reservation,
            "amount": _exact(admission.amount_nano),
            "lease": admission.lease_seconds,
            "rates": [{"quota": r.quota, "window": r.window_seconds} for r in admission.rates],
            "caps": [{"subject": c.subject, "limit": c.limit_nano} for c in admission.caps],
        }
        if claim is not None:
            keys.append(self._key("claim", claim.key))
            ask["claim"] = {
                "key": claim.key,
                "fingerprint": claim.fingerprint,
                "keep": claim.keep_seconds,
            }
        return redis_replies.decision(admission, await self._step("admit", ask, *keys))

    async def dispatch(self, reservation: str) -> bool:
        return bool(await self._step("dispatch", {"reservation": reservation}))

    async def renew(self, reservation: str, lease_seconds: float) -> bool:
        ask = {"reservation": reservation, "lease": lease_seconds}
        return bool(await self._step("renew", ask))

    async def settle(self, settlement: Settlement) -> CapWarning | None:
        answer = settlement.answer
        ask: dict[str, Any] = {
            "reservation": settlement.reservation,
            "cost": _exact(settlement.cost_nano),
            "warn_at": WARN_AT_PERCENT,
        }
        if answer is not None:
            ask["answer"] = {
                "status": answer.status,
                "media_type": answer.media_type,
                "complete": answer.complete,
            }
        keys = [] if settlement.claim is None else [self._key("claim", settlement.claim)]
        body = () if answer is None or answer.body is None else (answer.body,)
        return redis_replies.warning(await self._step("settle", ask, *keys, values=body))

    async def reap(self) -> Reaped:
        ask = {
            "leases": REAP_LEASES,
            "rows": REAP_ROWS,
            "keep_ended": KEEP_EXPIRED_SECONDS,
            "keep_days": KEEP_DAYS,
        }
        _, more, due = await self._step("due", ask)
        warnings = []
        for reservation, claim in due:
            keys = [self._key("claim", claim.decode())] if claim else []
            over = {"reservation": reservation.decode(), "warn_at": WARN_AT_PERCENT}
            warnings.append(redis_replies.warning(await self._step("expire", over, *keys)))
        return Reaped(tuple(filter(None, warnings)), bool(more))

    async def spending(self, subject: str = "app") -> Spending:
        _, day, settled, reserved, left = await self._step("spending", {"subject": subject})
        return Spending(date.fromisoformat(day.decode()), int(settled), int(reserved), float(left))

    async def remember(self, key: str, value: bytes, keep_seconds: int) -> None:
        await self._step(
            "remember", {"keep": keep_seconds}, self._key("memo", key), values=(value,)
        )

    async def recall(self, key: str) -> bytes | None:
        found: bytes | None = await self._step("recall", {}, self._key("memo", key))
        return found

    async def open_incident(self, key: str, remind_seconds: float) -> bool:
        ask = {"key": key, "remind": remind_seconds}
        return bool(await self._step("open_incident", ask, self._key("incidents")))

    async def close_incident(self, key: str) -> bool:
        return bool(await self._step("close_incident", {"key": key}, self._key("incidents")))

    async def count(self, name: str, added: Mapping[str, int]) -> None:
        spans = [{"seconds": span, "keep": keep} for span, keep in KEEP_COUNTS.items()]
        ask = {"added": {k: _exact(v) for k, v in added.items()}, "spans": spans, "rows": REAP_ROWS}
        keys = [key for span in KEEP_COUNTS for key in self._count_keys(name, span)]
        await self._step("count", ask, *keys)

    async def counted(self, name: str, span: Literal[60, 3600], spans: int) -> tuple[Count, ...]:
        ask = {"span": span, "spans": spans}
        found = await self._step("counted", ask, *self._count_keys(name, span))
        counts = (Count(age, label.decode(), int(value)) for age, label, value in found)
        return tuple(sorted(counts, key=lambda count: (count.age, count.label)))

    async def collect(
        self,
        name: str,
        entries: Sequence[Entry],
        keep_seconds: int,
        at_most: int,
        gone: Sequence[str] = (),
    ) -> None:
        ask: dict[str, Any] = {
            "entries": [{"key": entry.key, "times": entry.times} for entry in entries],
            "keep": keep_seconds,
            "at_most": at_most,
            "gone": list(gone),
            "rows": REAP_ROWS,
        }
        values = [entry.value for entry in entries]
        await self._step("collect", ask, *self._entry_keys(name), values=values)

    async def collected(self, name: str, at_most: int, key: str | None = None) -> tuple[Entry, ...]:
        ask = {"at_most": at_most, "key": key or False}
        found = await self._step("collected", ask, *self._entry_keys(name))
        return redis_replies.entries(found)

    def _entry_keys(self, name: str) -> tuple[str, str]:
        return self._key("entries", name), self._key("entry_ends", name)

    def _count_keys(self, name: str, span: int) -> tuple[str, str]:
        return self._key("counts", name, str(span)), self._key("counted", name, str(span))

    def _key(self, *parts: str) -> str:
        return ":".join((self._tag, *parts))

    async def _open(self) -> None:
        await redis_checks.check(self._redis, self._key("schema"))
        await self._run("ping", {}, [self._key("ping")])
        self._opened = True

    async def _open_late(self) -> None:
        try:
            await self._open()
        except StoreSetupError as error:
            raise StoreUnavailableError(f"Redis: {error.complaint}") from error

    async def _step(
        self, step: str, ask: dict[str, Any], *keys: str, values: Sequence[bytes] = ()
    ) -> Any:
        """Run one step of the script, within the timeout."""
        started = time.monotonic()
        async with _reported(self._timeout):
            if not self._opened:
                await self._open_late()
            while True:
                if step in _BY_DAY:
                    ask["days"] = self._days
                    ask["deadline"] = self._deadline(started)
                try:
                    reply = await self._run(step, ask, keys, values)
                except exceptions.ReadOnlyError:
                    # The primary became a replica: the new one is found with the next connection.
                    await self._pool.disconnect(inuse_connections=False)
                    raise
                match reply:
                    case [b"admitted", now, *_]:
                        self._server_clock.saw(float(now))
                    case [b"elsewhere" | b"late", now]:
                        # Its clock is not where it was thought to be, and nothing was done.
                        self._server_clock.saw(float(now))
                        self._days = _as_facts(days_around(float(now), self._timezone))
                        continue
                return reply

    def _deadline(self, started: float) -> float | bool:
        known = None if self._clock else self._server_clock.deadline(started)
        return False if known is None else known

    async def _run(
        self, step: str, ask: dict[str, Any], keys: Sequence[str], values: Sequence[bytes] = ()
    ) -> Any:
        names = [*(self._key(name) for name in _SHARED), *keys]
        now = "" if self._clock is None else repr(self._clock())
        arguments: list[Any] = [*names, step, now, json.dumps(ask), *values]
        if self._by_name:
            try:
                return await self._redis.evalsha(_SCRIPT_NAME, len(names), *arguments)
            except exceptions.NoScriptError:
                pass  # a new server, or its scripts were flushed: EVAL makes it known again
            except exceptions.NoPermissionError:
                self._by_name = False
        return await self._redis.eval(_SCRIPT, len(names), *arguments)


@asynccontextmanager
async def _reported(timeout: float) -> AsyncIterator[None]:
    """Bound it in time; whatever goes wrong with the server, the store is unavailable."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except (exceptions.RedisError, OSError) as error:
        raise StoreUnavailableError(f"Redis: {type(error).__name__}") from error


def _as_facts(days: tuple[Day, ...]) -> list[dict[str, str | int | float]]:
    return [
        {
            "name": day.date.isoformat(),
            "number": day.date.toordinal(),
            "begins": day.begins,
            "ends": day.ends,
        }
        for day in days
    ]


def _exact(amount_nano: int) -> int:
    """The amount, when Lua's numbers hold it exactly. Raises `StoreUnavailableError`."""
    if abs(amount_nano) >= 2**53:
        raise StoreUnavailableError("Redis: more nano-dollars than it can count")
    return amount_nano
