"""The newest failures as the log names them: no text of a question or an answer is read."""

import asyncio
from dataclasses import asdict
from typing import Any

from app.launch.failures.causes import RATED_DOWN
from app.launch.failures.collection import collection_of
from app.launch.failures.envelope import facts_in
from app.launch.failures.outbox import CAUSES
from app.stores.base import Store

# The causes that were met last, and of each the last examples.
MOST_CAUSES = 8
MOST_SHOWN = 10
_SHOWN = ("request_id", "at", "route", "status", "code", "provider", "model")


async def recent_failures(store: Store) -> list[dict[str, Any]]:
    """The newest first; an equal one was met so many `times`. Raises `StoreUnavailableError`."""
    met = await store.collected(CAUSES, MOST_CAUSES)
    causes = [*(entry.key for entry in met), RATED_DOWN]
    found = await asyncio.gather(
        *(store.collected(collection_of(cause), MOST_SHOWN) for cause in causes)
    )
    newest = [
        (cause, entry) for cause, entries in zip(causes, found, strict=True) for entry in entries
    ]
    newest.sort(key=lambda item: item[1].age)
    return [
        {
            "cause": cause,
            "times": entry.times,
            "age_seconds": round(entry.age),
            **_facts(entry.value),
        }
        for cause, entry in newest[:MOST_SHOWN]
    ]


def _facts(value: bytes) -> dict[str, Any]:
    facts = asdict(facts_in(value))
    return {name: facts[name] for name in _SHOWN}
