"""The cap under fire: what the provider bills stays below it, whatever dies meanwhile."""

import asyncio
import contextlib
import random
from collections import Counter

import httpx2
import pytest

from app.foundation.project import load_project
from tests.conftest import StartApp
from tests.fake_provider import (
    Behaviour,
    Drip,
    ErrorInside,
    FakeProvider,
    Garbage,
    Hang,
    Reply,
    Reset,
    Status,
    Truncate,
    Usage,
)
from tests.fire.crowd import Ask, Heard, billed, crowd, until
from tests.running import RunningApp

pytestmark = pytest.mark.fire

FIRST = load_project().providers[0]
REQUESTS = 1200
MAX_ATTEMPTS = 2
KILLS = 8
CAP_USD = 0.2
EXPECTED = {
    *("ok", "left", "cut", "broken", "daily_cost_cap", "providers_unavailable"),
    *("time_budget_exceeded", "invalid_request_error", "store_unavailable"),
}
# The lease is the time budget, four store timeouts and five seconds; the reaper comes every five.
# And workers take a while to start.
QUICK = {"time_budget_seconds": 2, "store_timeout_seconds": 1, "read_timeout_seconds": 1}
LEASES_OVER_SECONDS = 2 + 4 * 1 + 5 + 5 + 30


def a_behaviour(chance: random.Random) -> Behaviour:
    """What the provider does with one call: seven of ten answer well."""
    words = chance.randrange(1, 80)
    reply = Reply(chunks=words, delay_between=chance.choice((0.0, 0.0, 0.005)))
    after = chance.randrange(1, words + 1)
    # Lies that can be seen through: no usage, none for a long answer, far more than is possible.
    # A believable lie is beyond any guard.
    true = Usage(prompt=30, completion=words)
    trouble: tuple[Behaviour, ...] = (
        Status(chance.choice((400, 429, 500, 503))),
        Hang(chance.choice(("connect", "headers", "chunk")), after, reply),
        Garbage(after_chunks=after, reply=reply),
        ErrorInside(after_chunks=after, reply=reply),
        Truncate(after, reply),
        Reset(chance.choice(("connect", "headers", "chunk")), after, reply),
        Drip(0.05, 40, reply),
        Reply(chunks=words, omit_usage=True),
        Reply(chunks=words, usage=Usage(), billed=true),
        Reply(chunks=words, usage=Usage(10**9, 10**9), billed=true),
    )
    return chance.choice(trouble) if chance.random() < 0.3 else reply


def an_ask(chance: random.Random, number: int) -> Ask:
    """A request of random size, whose client may leave."""
    stream = chance.random() < 0.5
    return Ask(
        content=f"{number} " + "word " * chance.randrange(1, 300),
        caller=chance.choice(("alice", "bob")),
        stream=stream,
        max_tokens=chance.choice((None, 10, 100, 300)),
        key=f"key-{number}" if chance.random() < 0.3 else None,
        leave_after=chance.randrange(0, 20) if stream and chance.random() < 0.3 else None,
        patience=0.2 if not stream and chance.random() < 0.1 else 30.0,
    )


async def a_killing(app: RunningApp, chance: random.Random, asked: list[Ask]) -> list[Heard]:
    """Let them ask, and kill a random worker in the middle of it."""
    asking = asyncio.create_task(crowd(app, asked))
    await asyncio.sleep(chance.uniform(0.02, 0.12))  # on an idle machine a portion is soon over
    assert not asking.done()
    chance.choice(app.workers()).kill()
    return await asking


async def watch_money(app: RunningApp, seen: list[tuple[float, float]]) -> None:
    """Note what the app says is settled and reserved, for ever."""
    while True:
        await asyncio.sleep(0.2)
        with contextlib.suppress(httpx2.TransportError, KeyError):  # its worker was killed
            seen.append(await asyncio.to_thread(_money, app))


def _money(app: RunningApp) -> tuple[float, float]:
    with app.http("admin") as http:
        lines = http.get("/metrics").text.splitlines()
    values = dict(
        line.split() for line in lines if line.startswith(("llm_app_daily", "llm_app_cost_res"))
    )
    return float(values["llm_app_daily_cost_usd"]), float(values["llm_app_cost_reserved_usd"])


async def test_the_bill_stays_below_the_cap(
    start_app: StartApp, fake: FakeProvider, chance: random.Random
) -> None:
    fake.next(*(a_behaviour(chance) for _ in range(MAX_ATTEMPTS * REQUESTS)))
    app = start_app(
        workers=4, daily_cost_cap_usd=CAP_USD, max_attempts=MAX_ATTEMPTS, providers=FIRST, **QUICK
    )
    seen: list[tuple[float, float]] = []
    watching = asyncio.create_task(watch_money(app, seen))
    heard: list[Heard] = []
    for number in range(0, REQUESTS, REQUESTS // KILLS):
        asked = [an_ask(chance, number + n) for n in range(REQUESTS // KILLS)]
        heard += await a_killing(app, chance, asked)
    assert not watching.done()
    watching.cancel()
    await asyncio.to_thread(fake.ledger.idle, 10)
    told = Counter(answer.code for answer in heard)
    print(f"{told}\n{len(fake.ledger.calls)} calls, {len(seen)} looks")
    print(f"billed {billed(fake) / 1e9:.6f} USD; {max(map(sum, seen)):.6f} USD held at most")
    assert billed(fake) <= CAP_USD * 1e9
    assert all(settled + reserved <= CAP_USD + 1e-9 for settled, reserved in seen)
    assert not told.keys() - EXPECTED
    calls = Counter(call.messages[-1][1].split()[0] for call in fake.ledger.calls)
    assert max(calls.values()) <= MAX_ATTEMPTS
    # Otherwise it was no fire.
    assert min(told["ok"], told["daily_cost_cap"]) >= 100
    assert told["cut"] >= KILLS / 2
    assert billed(fake) >= CAP_USD * 1e9 / 10

    async def is_quiet() -> bool:
        with contextlib.suppress(httpx2.TransportError, KeyError):
            return (await asyncio.to_thread(_money, app))[1] == 0
        return False

    await until(is_quiet, LEASES_OVER_SECONDS, "every reservation to end", pause=0.5)
    settled, _ = _money(app)
    print(f"settled {settled:.6f} USD")
    assert billed(fake) <= settled * 1e9 + 1 <= CAP_USD * 1e9 + 1
