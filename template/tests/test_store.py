"""The store's atomic steps, on a real SQLite file, from several processes."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.stores.base import (
    Admission,
    Admitted,
    Cap,
    Claim,
    Decision,
    Rate,
    Refused,
    Replay,
    Settlement,
    StoredAnswer,
    StoreSetupError,
    StoreUnavailableError,
)
from app.stores.sqlite import SqliteStore

ANSWER = StoredAnswer(200, "application/json", b"sealed", complete=True)
CLAIM = Claim("key", "fingerprint", keep_seconds=100)


class Clock:
    """The store's clock, under the test's control."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def admission(
    name: str, amount: int = 10, cap: int = 100, quota: int = 100, claim: Claim | None = None
) -> Admission:
    return Admission(
        reservation=name,
        amount_nano=amount,
        lease_seconds=30,
        rates=(Rate("caller", "caller:alice", quota, 60),),
        caps=(Cap("app", "app", cap),),
        claim=claim,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    opened = make_store(tmp_path / "app.db", clock)
    await opened.open()
    yield opened
    await opened.close()


def make_store(path: Path, clock: Callable[[], float], timezone: str = "UTC") -> SqliteStore:
    return SqliteStore(f"sqlite:///{path}", timeout=5, timezone=ZoneInfo(timezone), clock=clock)


async def test_a_reservation_holds_money_until_it_is_settled(store: SqliteStore) -> None:
    assert isinstance(await store.admit(admission("a", amount=60)), Admitted)
    refused = await store.admit(admission("b", amount=60))
    assert isinstance(refused, Refused)
    assert refused.reason == "app_cap"
    await store.settle(Settlement("a", 5))
    spending = await store.spending()
    assert (spending.settled_nano, spending.reserved_nano) == (5, 0)
    assert isinstance(await store.admit(admission("b", amount=60)), Admitted)


async def test_a_refusal_consumes_nothing(store: SqliteStore) -> None:
    await store.admit(admission("a", amount=100))
    for _ in range(5):
        assert isinstance(await store.admit(admission("b", claim=CLAIM)), Refused)
    await store.settle(Settlement("a", 0))
    admitted = await store.admit(admission("b", claim=CLAIM))
    assert isinstance(admitted, Admitted)
    assert admitted.rates[0].remaining == 98


async def test_a_rate_is_exact_in_any_window(store: SqliteStore, clock: Clock) -> None:
    for number in range(3):
        assert isinstance(await store.admit(admission(f"a{number}", 1, quota=3)), Admitted)
        clock.now += 10
    refused = await store.admit(admission("late", 1, quota=3))
    assert isinstance(refused, Refused)
    assert refused.retry_after == pytest.approx(30)
    clock.now += 29.9
    assert isinstance(await store.admit(admission("late", 1, quota=3)), Refused)
    clock.now += 0.2
    assert isinstance(await store.admit(admission("late", 1, quota=3)), Admitted)


async def test_a_key_is_claimed_replayed_and_forgotten(store: SqliteStore, clock: Clock) -> None:
    await store.admit(admission("a", claim=CLAIM))
    waiting = await store.admit(admission("b", claim=CLAIM))
    assert isinstance(waiting, Refused)
    assert waiting.reason == "in_progress"
    other = await store.admit(admission("c", claim=Claim("key", "another payload", 100)))
    assert isinstance(other, Refused)
    assert other.reason == "key_reused"
    await store.settle(Settlement("a", 1, ANSWER))
    replay = await store.admit(admission("d", claim=CLAIM))
    assert isinstance(replay, Replay)
    assert replay.answer == ANSWER
    clock.now += 101
    assert isinstance(await store.admit(admission("e", claim=CLAIM)), Admitted)


async def test_a_released_key_can_be_claimed_again(store: SqliteStore) -> None:
    await store.admit(admission("a", claim=CLAIM))
    await store.settle(Settlement("a", 0, None))
    assert isinstance(await store.admit(admission("b", claim=CLAIM)), Admitted)


async def test_an_owner_that_died_before_the_call_leaves_nothing(
    store: SqliteStore, clock: Clock
) -> None:
    await store.admit(admission("dead", claim=CLAIM))
    clock.now += 31
    assert isinstance(await store.admit(admission("b", claim=CLAIM)), Admitted)
    spending = await store.spending()
    assert (spending.settled_nano, spending.reserved_nano) == (0, 10)


async def test_an_owner_that_died_after_the_call_keeps_the_charge(
    store: SqliteStore, clock: Clock
) -> None:
    await store.admit(admission("dead", claim=CLAIM))
    assert await store.dispatch("dead")
    clock.now += 31
    await store.reap()
    replay = await store.admit(admission("b", claim=CLAIM))
    assert isinstance(replay, Replay)
    assert replay.answer.body is None
    spending = await store.spending()
    assert (spending.settled_nano, spending.reserved_nano) == (10, 0)


async def test_a_late_settlement_may_add_and_never_refunds(
    store: SqliteStore, clock: Clock
) -> None:
    for name, cost in (("cheap", 3), ("dear", 25)):
        await store.admit(admission(name))
        await store.dispatch(name)
        clock.now += 31
        await store.reap()
        await store.settle(Settlement(name, cost))
    assert (await store.spending()).settled_nano == 10 + 25


async def test_a_lease_that_is_over_cannot_be_dispatched_or_renewed(
    store: SqliteStore, clock: Clock
) -> None:
    await store.admit(admission("a"))
    clock.now += 20
    assert await store.renew("a", 30)
    clock.now += 20
    assert await store.dispatch("a")
    clock.now += 20
    assert not await store.dispatch("a")
    assert not await store.renew("a", 30)


async def test_the_warning_comes_once_a_day(store: SqliteStore, clock: Clock) -> None:
    warnings = []
    for number in range(10):
        await store.admit(admission(str(number)))
        warnings.append(await store.settle(Settlement(str(number), 10)))
    assert [bool(warning) for warning in warnings] == [False] * 7 + [True] + [False] * 2
    clock.now += 86400
    assert (await store.spending()).settled_nano == 0


@pytest.mark.parametrize(
    ("moment", "hours"), [("2026-03-29T00:30", 22.5), ("2026-10-25T00:30", 24.5)]
)
async def test_days_of_23_and_25_hours(tmp_path: Path, moment: str, hours: float) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = datetime.fromisoformat(moment).replace(tzinfo=zone).timestamp()
    store = make_store(tmp_path / "app.db", lambda: start, "Europe/Berlin")
    await store.open()
    assert (await store.spending()).resets_in == pytest.approx(hours * 3600)
    await store.close()


async def test_incidents_open_and_close_once(store: SqliteStore, clock: Clock) -> None:
    assert await store.open_incident("store", 100)
    assert not await store.open_incident("store", 100)
    clock.now += 101
    assert await store.open_incident("store", 100)
    assert await store.close_incident("store")
    assert not await store.close_incident("store")


async def test_memos_expire(store: SqliteStore, clock: Clock) -> None:
    await store.remember("key", b"value", 10)
    assert await store.recall("key") == b"value"
    clock.now += 11
    assert await store.recall("key") is None


async def test_what_has_expired_goes_away(store: SqliteStore, clock: Clock, tmp_path: Path) -> None:
    for number in range(50):
        claim = Claim(str(number), "f", 10)
        await store.admit(admission(str(number), 1, 1000, 1000, claim))
        await store.settle(Settlement(str(number), 1, ANSWER))
    clock.now += 1000
    await store.reap()
    clock.now += 401 * 86400
    await store.reap()
    await store.close()
    import sqlite3

    with sqlite3.connect(tmp_path / "app.db") as file:
        for table in ("reservations", "rate_events", "idempotency", "spend"):
            assert file.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table  # noqa: S608


async def test_a_file_of_a_newer_release_is_refused(tmp_path: Path, clock: Clock) -> None:
    import sqlite3

    path = tmp_path / "app.db"
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version=99")
    with pytest.raises(StoreSetupError, match="99"):
        await make_store(path, clock).open()


async def test_a_locked_file_is_reported_in_time(tmp_path: Path, clock: Clock) -> None:
    import sqlite3

    path = tmp_path / "app.db"
    store = SqliteStore(f"sqlite:///{path}", timeout=0.3, timezone=ZoneInfo("UTC"), clock=clock)
    await store.open()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(StoreUnavailableError):
        await store.admit(admission("a"))
    assert loop.time() - started < 1
    holder.execute("ROLLBACK")
    holder.close()
    assert isinstance(await store.admit(admission("b")), Admitted)
    await store.close()


def _spend_it_all(path: str, worker: int) -> int:
    """Admit as often as the cap allows; how often that was. Runs in a process of its own."""

    async def run() -> int:
        store = make_store(Path(path), lambda: 1_770_000_000.0)
        await store.open()
        decisions: list[Decision] = [
            await store.admit(admission(f"{worker}-{n}", 10, 1000, 10_000)) for n in range(60)
        ]
        await store.close()
        return sum(isinstance(decision, Admitted) for decision in decisions)

    return asyncio.run(run())


def test_processes_share_one_cap_exactly(tmp_path: Path) -> None:
    path = str(tmp_path / "app.db")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        admitted = sum(pool.map(_spend_it_all, [path] * 4, range(4)))
    assert admitted == 100


async def test_a_key_is_kept_from_its_answer_on(store: SqliteStore, clock: Clock) -> None:
    short = Claim("short", "f", keep_seconds=5)
    await store.admit(admission("a", claim=short))
    await store.dispatch("a")
    clock.now += 20
    await store.settle(Settlement("a", 1, ANSWER))
    clock.now += 4
    assert isinstance(await store.admit(admission("b", claim=short)), Replay)


async def test_a_clock_that_steps_back_locks_nobody_out(store: SqliteStore, clock: Clock) -> None:
    await store.admit(admission("a", 1, quota=1))
    clock.now -= 86400
    assert isinstance(await store.admit(admission("b", 1, quota=1)), Admitted)


async def test_a_cost_beyond_all_bounds_is_reported(store: SqliteStore) -> None:
    await store.admit(admission("a"))
    with pytest.raises(StoreUnavailableError):
        await store.settle(Settlement("a", 2**70))
