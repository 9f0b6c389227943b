"""The atomic step of each store, beside a bare step of the same server, in one run.

    python benchmarks/store_step.py [--stores sqlite,redis,postgres] [--rounds 3] [--seconds 2]

`admit` claims an idempotency key, counts two rates whose windows are full, and reserves money
under two caps. `cycle` is what one request asks of the store: admit, dispatch and settle with an
answer. Both are called as the app calls them, by 1 and by 16 tasks of one process, as one caller
and as sixteen. The floor is the least that a durable (SQLite, PostgreSQL) or atomic (Redis) step
can be on that server, through the same driver. Each store has a throwaway server of its own.

It runs in the Python of an app generated for the store, which this command installs first.
"""

import argparse
import asyncio
import hashlib
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.floors import FLOORS
from benchmarks.stores import STORES, Target

TIMEOUT = 5.0  # long: a benchmark on a busy machine is slow, not broken
WINDOW = 60
QUOTA = 1_000_000
LIMIT = 10**15
AMOUNT = 1_000_000
SETTLED = 100_000
BODY = b"x" * 1600
WARM_UP = 0.3

Step = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: steps a second, and the times of one in milliseconds."""

    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured: a step, by so many clients, and whose place it takes in the table."""

    name: str
    clients: int
    step: Step
    target: Target | None = None


class Steps:
    """A store's steps as a request makes them. The client's number is its caller's, or 0."""

    def __init__(self, store: Any, *, one_caller: bool) -> None:
        self._base: Any = import_module("app.stores.base")
        self._store = store
        self._one_caller = one_caller

    def admission(self, client: int) -> Any:
        """A request with an idempotency key of its own."""
        base, caller = self._base, 0 if self._one_caller else client
        name = uuid.uuid4().hex
        digest = hashlib.sha256(name.encode()).hexdigest()
        return base.Admission(
            reservation=name,
            amount_nano=AMOUNT,
            lease_seconds=69.0,
            rates=(
                base.Rate("caller", f"caller:{caller}", QUOTA, WINDOW),
                base.Rate("ip", f"ip:10.0.0.{caller}", QUOTA, WINDOW),
            ),
            caps=(
                base.Cap("app", "app", LIMIT),
                base.Cap("caller", f"caller:{caller}", LIMIT),
            ),
            claim=base.Claim(digest, digest, 86400),
        )

    async def admit(self, client: int) -> None:
        """The atomic step alone."""
        decision = await self._store.admit(self.admission(client))
        if not isinstance(decision, self._base.Admitted):
            raise RuntimeError(f"not admitted: {decision}")

    async def cycle(self, client: int) -> None:
        """All that a request asks of the store."""
        base, asked = self._base, self.admission(client)
        await self._store.admit(asked)
        if not await self._store.dispatch(asked.reservation):
            raise RuntimeError("the lease is over")
        answer = base.StoredAnswer(200, "application/json", BODY, complete=True)
        await self._store.settle(
            base.Settlement(asked.reservation, SETTLED, asked.claim.key, answer)
        )


async def measure(step: Step, clients: int, seconds: float) -> Sample:
    """Let so many clients repeat a step, each one after its last."""
    times: list[float] = []
    begun = time.perf_counter() + WARM_UP
    end = begun + seconds

    async def client(number: int) -> None:
        while (started := time.perf_counter()) < end:
            await step(number)
            if started >= begun:
                times.append(time.perf_counter() - started)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return _sample(times, seconds)


def _sample(times: list[float], seconds: float) -> Sample:
    cuts = statistics.quantiles(times, n=100)
    return Sample(len(times) / seconds, cuts[49] * 1000, cuts[98] * 1000)


def in_thread(store: Any, steps: Steps, seconds: float) -> Sample:
    """SQLite's transaction where it runs, without the way there and back."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        asked = steps.admission(0)
        started = time.perf_counter()
        store._transaction(lambda run, asked=asked: run.admit(asked), time.monotonic() + TIMEOUT)
        times.append(time.perf_counter() - started)
    return _sample(times, seconds)


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncIterator[Any]:
    """A store over `url` whose rates have counted in every second of their windows."""
    base: Any = import_module("app.stores.base")
    connect: Any = import_module(f"app.stores.{kind}").connect
    now = time.time()

    def store(clock: Callable[[], float] | None) -> Any:
        return connect(base.Connection(url, "bench", TIMEOUT, ZoneInfo("UTC"), clock))

    past = store(lambda: now)
    await past.open()
    steps, start = Steps(past, one_caller=False), now
    for second in range(WINDOW - 1):
        now = start - WINDOW + 1 + second
        for client in range(16):
            await steps.cycle(client)
    await past.close()
    found = store(None)
    await found.open()
    try:
        yield found
    finally:
        await found.close()


async def measure_store(kind: str, rounds: int, seconds: float) -> bool:
    """Print the table of one store; True when its targets are reached."""
    servers: Any = import_module("tests.servers")
    with servers.own_server() as server, tempfile.TemporaryDirectory() as folder:
        async with opened(kind, server.url) as store, FLOORS[kind](server.url, folder) as floor:
            one, many = Steps(store, one_caller=True), Steps(store, one_caller=False)
            targets = {target.clients: target for target in STORES[kind]}
            rows = [
                Row(floor.name, 1, floor.step),
                Row("admit", 1, one.admit, targets.get(1)),
                Row("cycle", 1, one.cycle),
                Row(floor.name, 16, floor.step),
                Row("admit, 16 callers", 16, many.admit, targets.get(16)),
                Row("admit, one caller", 16, one.admit, targets.get(16)),
                Row("cycle, 16 callers", 16, many.cycle),
            ]
            samples: dict[Row, list[Sample]] = {row: [] for row in rows}
            extra: list[Sample] = []
            for _ in range(rounds):
                for row in rows:
                    samples[row].append(await measure(row.step, row.clients, seconds))
                if kind == "sqlite":
                    extra.append(in_thread(store, one, seconds))
    return report(kind, floor.name, samples, extra)


def report(
    kind: str, floor: str, samples: dict[Row, list[Sample]], in_its_thread: list[Sample]
) -> bool:
    """Print medians, how many floors each step takes, and whether the targets are reached."""
    print(f"\n{kind} (medians of {len(next(iter(samples.values())))} rounds)\n")
    print(f"{'step':34}{'clients':>8}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}{'floors':>8}")
    base: dict[int, float] = {}
    reached = True
    for row, taken in samples.items():
        found = _median(taken)
        if row.name == floor:
            base[row.clients] = found.per_second
        reached &= _line(row.name, row.clients, found, base[row.clients], row.target)
    if in_its_thread:
        target = STORES[kind][0]
        reached &= _line("admit, in the store's thread", 1, _median(in_its_thread), base[1], target)
    return reached


def _median(taken: list[Sample]) -> Sample:
    columns = [(one.per_second, one.p50, one.p99) for one in taken]
    return Sample(*(statistics.median(column) for column in zip(*columns, strict=True)))


def _line(name: str, clients: int, found: Sample, floor: float, target: Target | None) -> bool:
    told, reached = "", True
    if target is not None:
        checks: list[tuple[str, bool]] = []
        if target.per_second is not None:
            checks.append((f">= {target.per_second:.0f}/s", found.per_second >= target.per_second))
        if target.p50_ms is not None:
            checks.append((f"p50 <= {target.p50_ms:g} ms", found.p50 <= target.p50_ms))
        if target.p99_ms is not None:
            checks.append((f"p99 <= {target.p99_ms:g} ms", found.p99 <= target.p99_ms))
        reached = all(met for _, met in checks)
        told = "  " + ", ".join(f"{text}: {'reached' if met else 'missed'}" for text, met in checks)
    print(
        f"{name:34}{clients:8}{found.per_second:12.0f}{found.p50:9.3f}{found.p99:9.2f}"
        f"{floor / found.per_second:8.1f}{told}"
    )
    return reached


def main() -> int:
    """Measure every store that was asked for, each in an app of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        sys.path.insert(0, "")
        return int(not asyncio.run(measure_store(options.stores, options.rounds, options.seconds)))
    from benchmarks.apps import run_inside

    arguments = ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
    return max(run_inside(store, __file__, arguments) for store in options.stores.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
