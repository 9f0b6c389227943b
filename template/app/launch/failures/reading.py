"""Reading what was collected, the newest first."""

from dataclasses import dataclass

from app.launch.failures.causes import RATED_DOWN
from app.launch.failures.collection import collection_of
from app.launch.failures.envelope import Envelopes, Facts, Text
from app.launch.failures.outbox import CAUSES, MOST_CAUSES, MOST_OF_A_CAUSE
from app.stores.base import Store


@dataclass(frozen=True, slots=True)
class Failure:
    """One example of a cause: met so many `times`, the last `age` seconds ago.

    `text` is None where none was kept, or where another ADMIN_TOKEN has sealed it (`locked`).
    """

    cause: str
    key: str
    times: int
    age: float
    facts: Facts
    text: Text | None
    locked: bool

    @property
    def name(self) -> str:
        """A name for a file: the same failure has the same name every time."""
        return f"{self.cause.replace(':', '-').replace('_', '-')}-{self.key[:8]}"


async def failures(store: Store, envelopes: Envelopes) -> list[Failure]:
    """All that is kept. Raises `StoreUnavailableError`."""
    found: list[Failure] = []
    for cause in [*await totals(store), RATED_DOWN]:
        for entry in await store.collected(collection_of(cause), MOST_OF_A_CAUSE):
            facts, text = envelopes.open(entry.value)
            locked = text is None and b"\0" in entry.value
            found.append(Failure(cause, entry.key, entry.times, entry.age, facts, text, locked))
    return sorted(found, key=lambda failure: (failure.age, failure.name))


async def totals(store: Store) -> dict[str, int]:
    """How often each cause was met, ratings aside: also of what is kept as one example."""
    return {entry.key: entry.times for entry in await store.collected(CAUSES, MOST_CAUSES)}
