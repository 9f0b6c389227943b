"""What is kept of exchanges and failures has bounds that no caller moves."""

import asyncio
import os
import time
from base64 import b85encode
from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from pydantic import SecretStr

from app.foundation.record import RequestRecord, Said
from app.foundation.settings import Settings
from app.launch.failures.collection import FailureCollection, collection_of
from app.launch.failures.extent import OF_A_FAILURE, OF_AN_EXCHANGE
from app.launch.failures.outbox import (
    EXCHANGES,
    MOST_EXCHANGES,
    MOST_OF_A_CAUSE,
    STEP_BYTES,
    TRIES,
)
from app.launch.failures.reading import totals
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.redaction import Redactor
from app.standards.visibility.request_log import RequestEnd
from app.stores.base import Entry, Store, StoreUnavailableError
from tests.kept import SEALED
from tests.running import ADMIN_TOKEN

CHAT = "/v1/chat/completions"
MEGABYTE = 1_000_000


def collection_on(store: Store) -> FailureCollection:
    settings = Settings.model_construct(admin_token=SecretStr(ADMIN_TOKEN))
    return FailureCollection(settings, store, Metrics(Decimal(1)), Redactor())


def end(number: int, said: Said, code: str | None = None) -> RequestEnd:
    record = RequestRecord(f"request-{number}", caller="alice", said=said, error_code=code)
    if code is not None:
        return RequestEnd(record, "POST", CHAT, 503, 0.1, "failed", None)
    return RequestEnd(record, "POST", CHAT, 200, 0.1, "ok", None)


def random_text() -> str:
    return b85encode(os.urandom(9_000)).decode()


# Texts that do not shrink, or grow, on their way to the store; and many turns of nothing.
FLOODS: dict[str, Callable[[], Said]] = {
    "random": lambda: Said((("user", random_text()), ("user", "hi")), [random_text()[:8000]]),
    "wide": lambda: Said((("user", "\U0001f600" * 9_000),), ["한" * 8_000]),
    "escaped": lambda: Said((("user", "\x01" * 9_000),), ["\x00" * 8_000]),
    "empty": lambda: Said((("assistant", ""),) * 9_000, ["\ud800" * 8_000]),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_big_conversations_stays_within_its_bytes(
    store: Store, flood: str
) -> None:
    collection = collection_on(store)
    many = MOST_EXCHANGES + 20 if flood == "random" else 10
    for number in range(many):
        collection.request_ended(end(number, FLOODS[flood]()))
        if number < MOST_OF_A_CAUSE + 5:
            collection.request_ended(end(number, FLOODS[flood](), "providers_unavailable"))
        if number % 100 == 99:
            await collection.catch_up()
    await collection.catch_up()
    exchanges = await store.collected(EXCHANGES, 2 * many)
    assert len(exchanges) == min(many, MOST_EXCHANGES)
    failures = await store.collected(collection_of("error:providers_unavailable"), 2 * many)
    assert len(failures) <= MOST_OF_A_CAUSE
    for entries, extent, megabytes in (
        (exchanges, OF_AN_EXCHANGE, 6),
        (failures, OF_A_FAILURE, 1),
    ):
        sizes = [len(entry.value) for entry in entries]
        assert max(sizes) <= extent.entry
        assert sum(sizes) <= megabytes * MEGABYTE
    assert MOST_EXCHANGES * OF_AN_EXCHANGE.entry <= 6 * MEGABYTE
    assert MOST_OF_A_CAUSE * OF_A_FAILURE.entry <= MEGABYTE
    # What is kept is the newest of what was written, and the answer's beginning.
    facts, text = SEALED.open(exchanges[0].value)
    assert facts.caller == "alice"
    assert text is not None
    assert text.question
    assert text.answer
    if flood == "random":
        assert text.question[-1] == ("user", "hi")
        assert len(text.question[0][1]) > 2_000


class Narrow:
    """A store's connection on which steps take time, and that takes few bytes, and some never."""

    def __init__(self, store: Store, most: int = STEP_BYTES, seconds: float = 0.0) -> None:
        self._store = store
        self._most = most
        self._seconds = seconds
        self.never: str | None = None
        self.steps: list[int] = []

    async def collect(self, name: str, entries: Sequence[Entry], keep: int, most: int) -> None:
        size = sum(len(entry.value) for entry in entries)
        self.steps.append(size)
        await asyncio.sleep(self._seconds)
        if size > self._most or self.never in {entry.key for entry in entries}:
            raise StoreUnavailableError("too slow")
        await self._store.collect(name, entries, keep, most)


async def test_a_step_that_the_store_does_not_take_holds_up_nothing_else(store: Store) -> None:
    line = Narrow(store, most=100_000)
    collection = collection_on(line)  # type: ignore[arg-type]
    for number in range(150):
        collection.request_ended(end(number, FLOODS["random"]()))
    line.never = collection.mark("alice", "request-20")
    collection.request_ended(end(150, Said((("user", "Hello"),)), "providers_unavailable"))
    assert not await collection.catch_up()
    assert await totals(store) == {"error:providers_unavailable": 1}
    assert len(await store.collected(collection_of("error:providers_unavailable"), 9)) == 1
    assert max(line.steps) <= STEP_BYTES
    tries = 0
    while not await collection.catch_up():
        tries += 1
        assert tries < 8 + TRIES + 8
    # The one that was never taken is dropped, and counted.
    kept = {entry.key for entry in await store.collected(EXCHANGES, 200)}
    assert kept == {collection.mark("alice", f"request-{number}") for number in range(150)} - {
        line.never
    }
    text, _ = await collection.metrics.render(None)
    assert b"llm_app_failures_dropped_total 1.0" in text


async def test_whoever_waits_for_what_is_written_shares_one_run(store: Store) -> None:
    line = Narrow(store, seconds=0.2)
    collection = collection_on(line)  # type: ignore[arg-type]
    collection.request_ended(end(1, Said((("user", "Hello"),))))
    begun = time.monotonic()
    assert not await collection.catch_up(0.05)
    collection.request_ended(end(2, Said((("user", "Hello"),))))
    assert all(await asyncio.gather(*(collection.catch_up() for _ in range(15))))
    assert len(line.steps) == 2
    assert time.monotonic() - begun < 15 * 0.2
    assert len(await store.collected(EXCHANGES, 9)) == 2
