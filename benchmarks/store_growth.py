"""A month of requests: the store's size and the time of its steps must stay flat.

    python benchmarks/store_growth.py [--stores sqlite,redis,postgres] [--keys 1000000]

So many requests, each with an idempotency key of its own that is kept for a day, are spread evenly
over 30 days of the store's clock, which the benchmark sets; one owner in a hundred dies. In between
the store is reaped as the app does it: in bounded steps, until nothing is left to do. The first
three days fill the store; after them nothing may grow.

Redis forgets keys by its own clock, which nobody can set: there a key is kept for a few real
seconds instead of a day, at least as long as a day of the benchmark takes.

It runs in the Python of an app generated for the store, which this command installs first.
"""

import argparse
import asyncio
import hashlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.stores import STORES

DAYS = 30
DAY = 86400
FIRST_DAY = 1_767_225_600.0  # 2026-01-01, UTC
FILLED_AFTER = 3
TICKS_A_DAY = 96  # the store is reaped every 15 minutes of its clock
CLIENTS = 16
CALLERS = 50
DEAD_OWNER_IN = 100
BODY = b"x" * 500
# What may differ between the day after which the store is full and the last one.
MOST_GROWTH = 1.25
MOST_SLOWER = 1.5

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'spend'"

# It is about growth, not about what survives a power failure: nothing is flushed to the disk.
SERVER: dict[str, dict[str, Any]] = {
    # The tests' server has thousands of databases, and expires the keys of one after another.
    "redis": {"appendonly": "no", "databases": 16},
    # A minute between two vacuums would be days of the benchmark.
    "postgres": {
        "autovacuum_naptime": "1s",
        "autovacuum_vacuum_cost_delay": 0,
        "fsync": "off",
        "synchronous_commit": "off",
    },
}

Size = Callable[[], Awaitable[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Row:
    """The store at the end of a day: entries, bytes, and the median steps of that day in ms."""

    day: int
    keys: int
    entries: int
    size: int
    admit: float
    reap: float


class Month:
    """Requests on a clock that this class sets."""

    def __init__(self, kind: str, url: str, keys: int) -> None:
        self._base: Any = import_module("app.stores.base")
        self._keys = keys
        self._keep = DAY
        if kind == "redis":
            # A day of the benchmark takes keys / 30 requests; half of what one process manages.
            self._keep = max(2, keys // DAYS // 1000)
        self.now = FIRST_DAY
        connection = self._base.Connection(url, "bench", 5.0, ZoneInfo("UTC"), lambda: self.now)
        self.store: Any = import_module(f"app.stores.{kind}").connect(connection)
        self._count = 0

    async def live(self, size: Size) -> list[Row]:
        """All days, and what each has left."""
        await self.store.open()
        rows: list[Row] = []
        admits: list[float] = []
        reaps: list[float] = []
        for tick in range(DAYS * TICKS_A_DAY):
            self.now = FIRST_DAY + tick * DAY / TICKS_A_DAY
            due = self._keys * (tick + 1) // (DAYS * TICKS_A_DAY)
            await self._requests(due - self._count, admits)
            await self._reap(reaps)
            if (tick + 1) % TICKS_A_DAY == 0:
                day = (tick + 1) // TICKS_A_DAY
                entries, bytes_ = await size()
                medians = (statistics.median(times) * 1000 for times in (admits, reaps))
                rows.append(Row(day, self._count, entries, bytes_, *medians))
                _show(rows[-1])
                admits.clear()
                reaps.clear()
        await self.store.close()
        return rows

    async def _requests(self, count: int, admits: list[float]) -> None:
        """So many requests, 16 at a time; adds the time of one step to `admits`."""
        numbers = iter(range(self._count, self._count + count))
        self._count += count

        async def client() -> None:
            for number in numbers:
                await self._request(number)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        # One alone is timed: a step, not a queue.
        admits.append(await self._request(self._count))
        self._count += 1

    async def _request(self, number: int) -> float:
        """One request; the seconds that its `admit` took."""
        base, store = self._base, self.store
        key = hashlib.sha256(str(number).encode()).hexdigest()
        caller = f"caller:{number % CALLERS}"
        admission = base.Admission(
            reservation=key[:32],
            amount_nano=1_000_000,
            lease_seconds=69.0,
            rates=(base.Rate("caller", caller, 1_000_000, 60),),
            caps=(base.Cap("app", "app", 10**15), base.Cap("caller", caller, 10**15)),
            claim=base.Claim(key, key, self._keep),
        )
        started = time.perf_counter()
        decision = await store.admit(admission)
        spent = time.perf_counter() - started
        if not isinstance(decision, base.Admitted):
            raise RuntimeError(f"not admitted: {decision}")
        if number % DEAD_OWNER_IN:
            answer = base.StoredAnswer(200, "application/json", BODY, complete=True)
            await store.settle(base.Settlement(key[:32], 100_000, key, answer))
        return spent

    async def _reap(self, reaps: list[float]) -> None:
        more = True
        while more:
            started = time.perf_counter()
            more = (await self.store.reap()).more
            reaps.append(time.perf_counter() - started)


@contextmanager
def sized(kind: str, url: str) -> Iterator[Size]:
    """How large a store is: its entries (rows or keys) and its bytes.

    The days' money is not among them: a row for each day and caller is kept, for 400 days.
    """
    if kind == "redis":
        client: Any = import_module("redis").Redis.from_url(url)

        async def redis_size() -> tuple[int, int]:
            return client.dbsize(), client.info("memory")["used_memory"]

        yield redis_size
        client.close()
    elif kind == "postgres":
        connection = import_module("psycopg").connect(url, autocommit=True)

        async def postgres_size() -> tuple[int, int]:
            tables = "FROM pg_stat_user_tables WHERE relname <> 'spend'"
            connection.execute("ANALYZE")
            rows = connection.execute(f"SELECT sum(n_live_tup) {tables}").fetchone()[0]
            size = connection.execute("SELECT pg_database_size(current_database())").fetchone()[0]
            return int(rows), int(size)

        yield postgres_size
        connection.close()
    else:
        import sqlite3

        path = Path(url.removeprefix("sqlite:///"))
        reader = sqlite3.connect(path, timeout=30)

        async def sqlite_size() -> tuple[int, int]:
            names = reader.execute(TABLES).fetchall()
            rows = sum(
                reader.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608
                for (name,) in names
            )
            files = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
            return rows, files

        yield sqlite_size
        reader.close()


def _show(row: Row) -> None:
    if row.day in (1, 2) or row.day % 3 == 0:
        print(
            f"{row.day:4}{row.keys:11}{row.entries:11}{row.size / 2**20:9.1f}"
            f"{row.admit:12.3f}{row.reap:12.3f}",
            flush=True,
        )


async def measure(kind: str, keys: int) -> bool:
    """Print the table of one store; True when it stays flat."""
    started = time.perf_counter()
    print(f"\n{kind}: {keys} keys in {DAYS} days\n")
    print(f"{'day':>4}{'keys':>11}{'entries':>11}{'MiB':>9}{'admit ms':>12}{'reap ms':>12}")
    with import_module("tests.servers").own_server(**SERVER.get(kind, {})) as server:
        month = Month(kind, server.url, keys)
        with sized(kind, server.url) as size:
            rows = await month.live(size)
    full = rows[FILLED_AFTER - 1 : FILLED_AFTER + 4]
    last = rows[-5:]

    def grown(value: Callable[[Row], float]) -> float:
        return statistics.median(map(value, last)) / statistics.median(map(value, full))

    ratios = {
        "entries": (grown(lambda row: row.entries), MOST_GROWTH),
        "bytes": (grown(lambda row: row.size), MOST_GROWTH),
        "admit": (grown(lambda row: row.admit), MOST_SLOWER),
        "reap": (grown(lambda row: row.reap), MOST_SLOWER),
    }
    flat = all(ratio <= most for ratio, most in ratios.values())
    told = ", ".join(f"{name} {ratio:.2f} x" for name, (ratio, _) in ratios.items())
    print(f"last days against the first full ones: {told}: {'flat' if flat else 'not flat'}")
    print(f"{time.perf_counter() - started:.0f} s")
    return flat


def main() -> int:
    """Measure every store that was asked for, each in an app of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        sys.path.insert(0, "")
        return int(not asyncio.run(measure(options.stores, options.keys)))
    from benchmarks.apps import run_inside

    arguments = ["--keys", str(options.keys)]
    return max(run_inside(store, __file__, arguments) for store in options.stores.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
