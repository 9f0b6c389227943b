"""The store's clock under fire: the day turns at local midnight, and time jumps."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from threading import Event
from zoneinfo import ZoneInfo

import pytest

from app.foundation.project import load_project
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Hang, Reply, Usage
from tests.fire.crowd import Ask, crowd, until
from tests.servers import Clock, Server, own_server

pytestmark = pytest.mark.fire

FIRST = load_project().providers[0]
BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600
QUICK = {"time_budget_seconds": 3, "store_timeout_seconds": 1}
# The lease is the time budget, four store timeouts and five seconds. The reaper comes every five;
# after a step back it begins a lease anew. And workers take a while to start.
LEASES_OVER_SECONDS = 2 * (3 + 4 * 1 + 5 + 5) + 30


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    """A store whose clock jumps."""
    with own_server(clock) as started:
        yield started


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 22.5), ("2026-10-25", 24.5), ("2026-12-31", 23.5)],
    ids=["23 hours", "25 hours", "24 hours"],
)
async def test_the_money_is_new_at_local_midnight(
    start_app: StartApp, fake: FakeProvider, clock: Clock, server: Server, day: str, hours: float
) -> None:
    fake.always(Reply("word", usage=Usage(prompt=50, completion=500)))
    clock.set(datetime.fromisoformat(f"{day}T00:30").replace(tzinfo=BERLIN))
    app = start_app(
        workers=2,
        providers=FIRST,
        max_attempts=1,
        app_timezone="Europe/Berlin",
        daily_cost_cap_usd=0.003,
        store_timeout_seconds=5,
        store_url=server.url,
        **server.app_environment,
    )

    async def refused_for() -> int:
        heard = await crowd(app, [Ask()] * 4)
        assert heard[-1].code == "daily_cost_cap"
        return int(heard[-1].headers["retry-after"])

    await crowd(app, [Ask()])
    assert hours * HOUR - 300 <= await refused_for() <= hours * HOUR
    next_day = datetime.fromisoformat(day) + timedelta(days=1)
    midnight = next_day.replace(tzinfo=BERLIN).timestamp()
    clock.jump(midnight - 10 - clock.now())
    assert 1 <= await refused_for() <= 10
    clock.jump(midnight - clock.now())
    assert app.metric("daily_cost_usd") == 0
    assert (await crowd(app, [Ask()]))[0].code == "ok"
    assert await refused_for() >= 22 * HOUR


@pytest.mark.parametrize("hours", [-30, -1, 30])
async def test_a_jump_loses_no_key_and_no_money(
    start_app: StartApp, fake: FakeProvider, clock: Clock, server: Server, hours: float
) -> None:
    clock.set(datetime.fromisoformat("2026-10-24T12:00").replace(tzinfo=BERLIN))
    app = start_app(
        workers=2,
        providers=FIRST,
        max_attempts=1,
        requests_per_minute=20,
        store_url=server.url,
        **QUICK,
        **server.app_environment,
    )
    await crowd(app, [Ask()] * 4)  # what a first request loads takes its time
    fake.reset()
    jumped = Event()
    fake.next(Reply("slow", until=jumped), Hang("connect"))
    living, dying = Ask("living", key="living"), Ask("dying", key="dying")
    first = asyncio.create_task(crowd(app, [living]))
    await asyncio.to_thread(fake.ledger.wait_for, 1)
    second = asyncio.create_task(crowd(app, [dying]))
    await asyncio.to_thread(fake.ledger.wait_for, 2)
    clock.jump(hours * HOUR)
    jumped.set()
    (answer,) = await first
    assert answer.code == "ok"
    for worker in app.workers():
        worker.kill()
    await second
    calls = len(fake.ledger.calls)

    async def are_decided() -> bool:
        heard = await crowd(app, [living, dying])
        return all(answer.replayed for answer in heard)

    await until(are_decided, LEASES_OVER_SECONDS, "the keys to be decided")
    assert len(fake.ledger.calls) == calls == 2

    async def is_quiet() -> bool:
        return await asyncio.to_thread(app.metric, "cost_reserved_usd") == 0

    await until(is_quiet, LEASES_OVER_SECONDS, "every reservation to end", pause=0.5)
    heard = await crowd(app, [Ask(caller="bob")] * 30)
    assert [each.code for each in heard].count("ok") == 20
