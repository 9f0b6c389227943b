"""Closed entries on their way to the store, in steps that it can take in its time.

Counts go first, then failures, then exchanges; a collection that cannot be written does not hold
up the others. Where the store works but does not take a step, the next one is half as large; an
entry that it does not take at all is dropped, counted and logged.
"""

from collections import Counter
from collections.abc import Callable

from loguru import logger

from app.stores.base import Entry, Store, StoreUnavailableError

# All causes, each with how often it was met; examples lie in a collection for each cause.
CAUSES = "failures"
EXCHANGES = "exchanges"
MOST_CAUSES = 300
# Different examples of one cause, so that an outage pushes out nothing but its own.
MOST_OF_A_CAUSE = 50
MOST_EXCHANGES = 1_000
# What one step of the store has at most: entries, and bytes of theirs.
BATCH = 200
STEP_BYTES = 256_000
# How often an entry that is alone in its step is tried.
TRIES = 3


class Outbox:
    """What waits to be written. `dropped` is told of each entry that the store never took."""

    def __init__(
        self, store: Store, keep_failures: int, keep_exchanges: int, dropped: Callable[[], None]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._keep_failures = keep_failures
        self._keep_exchanges = keep_exchanges
        self._dropped = dropped
        # By collection and key.
        self._waiting: dict[str, dict[str, Entry]] = {}
        # By collection, where steps failed: the entries of the next, and how often one alone did.
        self._smaller: dict[str, int] = {}
        self._tried: Counter[str] = Counter()

    def bounds(self, name: str) -> tuple[int, int]:
        """For how many seconds a collection keeps its entries, and how many there are at most."""
        if name == EXCHANGES:
            return self._keep_exchanges, MOST_EXCHANGES
        return self._keep_failures, MOST_OF_A_CAUSE

    def add(self, name: str, entry: Entry) -> None:
        """Have an entry written. Its `times` add up; where there are too many, the first go."""
        waiting = self._waiting.setdefault(name, {})
        known = waiting.pop(entry.key, None)
        times = entry.times + (known.times if known is not None else 0)
        waiting[entry.key] = Entry(entry.key, entry.value, times)
        while len(waiting) > self.bounds(name)[1]:
            del waiting[next(iter(waiting))]

    async def write(self) -> bool:
        """Write what waits. False where some of it still does; it is tried again next time."""
        try:
            await self._write_counts()
        except StoreUnavailableError:
            return False
        for name in sorted(self._waiting, key=lambda name: name == EXCHANGES):
            try:
                await self._write_all_of(name)
            except StoreUnavailableError:
                if not await self._store_works(name):
                    return False
                self._blame_the_step(name)
        return not self._waiting

    async def _write_counts(self) -> None:
        if not self.counts:
            return
        counts = [Entry(cause, b"", times) for cause, times in self.counts.items()]
        self.counts.clear()
        try:
            await self._store.collect(CAUSES, counts, self._keep_failures, MOST_CAUSES)
        except BaseException:
            self.counts.update({entry.key: entry.times for entry in counts})
            raise

    async def _write_all_of(self, name: str) -> None:
        waiting = self._waiting[name]
        while waiting:
            some = self._step(name)
            await self._store.collect(name, some, *self.bounds(name))
            for entry in some:
                del waiting[entry.key]
            self._tried.pop(name, None)
            if name in self._smaller:
                self._smaller[name] += 1
        del self._waiting[name]

    def _step(self, name: str) -> list[Entry]:
        some: list[Entry] = []
        size, most = 0, min(BATCH, self._smaller.get(name, BATCH))
        for entry in self._waiting[name].values():
            size += len(entry.value)
            if some and (len(some) >= most or size > STEP_BYTES):
                break
            some.append(entry)
        return some

    async def _store_works(self, name: str) -> bool:
        try:
            await self._store.collect(name, [], *self.bounds(name))
        except StoreUnavailableError:
            return False
        return True

    def _blame_the_step(self, name: str) -> None:
        some = self._step(name)
        self._smaller[name] = max(1, len(some) // 2)
        if len(some) > 1:
            return
        self._tried[name] += 1
        if self._tried[name] >= TRIES:
            del self._waiting[name][some[0].key]
            del self._tried[name]
            self._dropped()
            logger.warning("the store did not take a failure", bytes=len(some[0].value))
