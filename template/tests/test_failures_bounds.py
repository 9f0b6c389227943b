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
from app.launch.failures.envelope import Facts, Text
from app.launch.failures.extent import OF_A_FAILURE, OF_AN_EXCHANGE, Extent
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


# Put together here: in one piece they would look like keys that lie in the code.
SECRETS = (
    "4111 1111 1111 1111",
    "900101-1234568",
    "kim.minji@example.com",
    "sk-" + "proj-AbCdEf0123456789AbCdEf0123456789AbCdEf01",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" * 20 + ".SflKxwRJSMeKKF2QT4fw",
    "-----BEGIN "
    + "PRIVATE KEY-----\n"
    + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKB\n" * 12
    + "-----END PRIVATE KEY-----",
)
FACTS = Facts("id", "2026-11-27T12:00:00Z", CHAT, 503)


def parts_of(secret: str, text: str) -> list[str]:
    parts = {secret[place : place + 6] for place in range(len(secret) - 5)}
    return [part for part in parts if part in text]


@pytest.mark.parametrize(
    "secret", SECRETS, ids=["card", "number", "email", "key", "token", "lines"]
)
@pytest.mark.parametrize("extent", [OF_A_FAILURE, OF_AN_EXCHANGE], ids=["failure", "exchange"])
async def test_a_cut_through_a_secret_leaves_no_part_of_it(
    store: Store, secret: str, extent: Extent
) -> None:
    collection = collection_on(store)
    room = extent.question - 24
    for kept in range(1, len(secret), max(1, len(secret) // 12)):
        # The question's cut leaves the secret's end, the answer's its beginning.
        end, beginning = secret[-kept:], secret[:kept]
        tail = room - kept - end.count("\n")  # a line's end has two bytes
        question = secret + (" is mine" + " so" * 9_000)[:tail]
        said = Said((("user", question),))
        before = extent.answer - kept - 1 - beginning.count("\n")
        for piece in ("so " * before)[:before], " ", secret, " so" * 9_000:
            said.more(piece)
        text = extent.of(Text(said.question, "".join(said.answer), cut_after=said.room <= 0))
        assert text.question[0][1].startswith(end)
        assert text.answer.endswith(beginning)
        _, told = SEALED.open(collection.failure("rating:down", FACTS, text).value)
        assert told is not None
        assert parts_of(secret, told.question[0][1] + told.answer) == []
        assert len(told.question[0][1]) > room - len(secret) - 300
        assert len(told.answer) > extent.answer - len(secret) - 300
    # One that no cut went through is hidden, and nothing beside it is lost.
    _, told = SEALED.open(
        collection.failure(
            "rating:down", FACTS, extent.of(Text((("user", f"a {secret} b"),), "c"))
        ).value
    )
    assert told is not None
    assert told.question[0][1].startswith("a [")
    assert told.question[0][1].endswith("] b")
    assert told.answer == "c"
