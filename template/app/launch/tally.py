"""Counts on their way to the store: added up in memory, written by every process once in a while.

Nothing of it lies on a request's path. A process that dies takes the last seconds with it; while
the store is down, counts wait in memory and are dated to when they arrive.
"""

import asyncio
from collections import Counter

from loguru import logger

from app.stores.base import Store, StoreUnavailableError

# What every store keeps exactly (Redis: a double). More would hold up all that waits beside it.
MOST = 2**53 - 1


class Tally:
    """What this process has counted and not yet written. Labels come from closed sets."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, Counter[str]] = {}
        self._writing = asyncio.Lock()

    def add(self, name: str, label: str, amount: int = 1) -> None:
        """Count something. Never waits; what not every store can hold is dropped."""
        before = self._waiting.get(name, Counter())[label]
        if before + amount > MOST:
            logger.error("too large to be counted", counter=name, label=label)
            return
        self._waiting.setdefault(name, Counter())[label] += amount

    async def write(self) -> bool:
        """Write what waits; False where the store does not take it, and it waits on.

        One step a counter. Where the store did take it and could not say so it is counted twice:
        shares and rates hardly move, and no money hangs on it.
        """
        async with self._writing:
            waiting, self._waiting = self._waiting, {}
            while waiting:
                name, added = waiting.popitem()
                try:
                    await self._store.count(name, added)
                except BaseException as error:
                    for back, counts in {**waiting, name: added}.items():
                        self._waiting.setdefault(back, Counter()).update(counts)
                    if isinstance(error, StoreUnavailableError):
                        return False
                    raise
        return True
