"""What every store promises (`stores/base.py`), on a real one, from several processes."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.stores.base import (
    Admission,
    Admitted,
    Cap,
    Claim,
    Count,
    Decision,
    Entry,
    Refused,
    Replay,
    Settlement,
    Store,
    StoreUnavailableError,
)
from tests.servers import store_url
from tests.stores import ANSWER, CLAIM, Clock, admission, make_store


async def test_a_reservation_holds_money_until_it_is_settled(store: Store) -> None:
    assert isinstance(await store.admit(admission("a", amount=60)), Admitted)
    refused = await store.admit(admission("b", amount=60))
    assert isinstance(refused, Refused)
    assert refused.reason == "app_cap"
    await store.settle(Settlement("a", 5))
    spending = await store.spending()
    assert (spending.settled_nano, spending.reserved_nano) == (5, 0)
    assert isinstance(await store.admit(admission("b", amount=60)), Admitted)


async def test_a_refusal_consumes_nothing(store: Store) -> None:
    await store.admit(admission("a", amount=100))
    for _ in range(5):
        assert isinstance(await store.admit(admission("b", claim=CLAIM)), Refused)
    await store.settle(Settlement("a", 0))
    admitted = await store.admit(admission("b", claim=CLAIM))
    assert isinstance(admitted, Admitted)
    assert admitted.rates[0].remaining == 98


async def test_a_rate_is_exact_in_any_window(store: Store, clock: Clock) -> None:
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


async def test_a_key_is_claimed_replayed_and_forgotten(store: Store, clock: Clock) -> None:
    await store.admit(admission("a", claim=CLAIM))
    waiting = await store.admit(admission("b", claim=CLAIM))
    assert isinstance(waiting, Refused)
    assert waiting.reason == "in_progress"
    other = await store.admit(admission("c", claim=Claim("key", "another payload", 100)))
    assert isinstance(other, Refused)
    assert other.reason == "key_reused"
    await store.settle(Settlement("a", 1, "key", ANSWER))
    replay = await store.admit(admission("d", claim=CLAIM))
    assert isinstance(replay, Replay)
    assert replay.answer == ANSWER
    clock.now += 101
    assert isinstance(await store.admit(admission("e", claim=CLAIM)), Admitted)


async def test_a_released_key_can_be_claimed_again(store: Store) -> None:
    await store.admit(admission("a", claim=CLAIM))
    await store.settle(Settlement("a", 0, "key"))
    assert isinstance(await store.admit(admission("b", claim=CLAIM)), Admitted)


async def test_an_owner_that_died_before_the_call_leaves_nothing(
    store: Store, clock: Clock
) -> None:
    await store.admit(admission("dead", claim=CLAIM))
    clock.now += 31
    assert isinstance(await store.admit(admission("b", claim=CLAIM)), Admitted)
    spending = await store.spending()
    assert (spending.settled_nano, spending.reserved_nano) == (0, 10)


async def test_an_owner_that_died_after_the_call_keeps_the_charge(
    store: Store, clock: Clock
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


async def test_a_late_settlement_may_add_and_never_refunds(store: Store, clock: Clock) -> None:
    for name, cost in (("cheap", 3), ("dear", 25)):
        await store.admit(admission(name))
        await store.dispatch(name)
        clock.now += 31
        await store.reap()
        await store.settle(Settlement(name, cost))
    assert (await store.spending()).settled_nano == 10 + 25


async def test_a_lease_that_is_over_cannot_be_dispatched_or_renewed(
    store: Store, clock: Clock
) -> None:
    await store.admit(admission("a"))
    clock.now += 20
    assert await store.renew("a", 30)
    clock.now += 20
    assert await store.dispatch("a")
    clock.now += 20
    assert not await store.dispatch("a")
    assert not await store.renew("a", 30)


async def test_the_warning_comes_once_a_day(store: Store, clock: Clock) -> None:
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
    store = make_store(store_url(tmp_path), lambda: start, "Europe/Berlin")
    await store.open()
    assert (await store.spending()).resets_in == pytest.approx(hours * 3600)
    await store.close()


async def test_incidents_open_and_close_once(store: Store, clock: Clock) -> None:
    assert await store.open_incident("store", 100)
    assert not await store.open_incident("store", 100)
    clock.now += 101
    assert await store.open_incident("store", 100)
    assert await store.close_incident("store")
    assert not await store.close_incident("store")


async def test_counts_add_up_by_minute_and_by_hour(store: Store, clock: Clock) -> None:
    clock.now += 30 * 60
    await store.count("slo", {"latency good": 3, "latency bad": 1})
    await store.count("slo", {"latency good": 2})
    await store.count("other", {"latency good": 9})
    clock.now += 60
    await store.count("slo", {"latency good": 1, "": 2})
    clock.now += 59
    now = (Count(0, "", 2), Count(0, "latency good", 1))
    before = (Count(1, "latency bad", 1), Count(1, "latency good", 5))
    assert await store.counted("slo", 60, 1) == now
    assert await store.counted("slo", 60, 2) == now + before
    hour = (Count(0, "", 2), Count(0, "latency bad", 1), Count(0, "latency good", 6))
    assert await store.counted("slo", 3600, 5) == hour
    clock.now += 3600
    assert await store.counted("slo", 60, 60) == ()
    assert [count.age for count in await store.counted("slo", 3600, 5)] == [1, 1, 1]


async def test_old_counts_are_forgotten(store: Store, clock: Clock) -> None:
    start = clock.now
    await store.count("slo", {f"label {number}": 1 for number in range(600)})
    clock.now = start + 27 * 3600
    await store.count("slo", {"good": 1})
    for _ in range(10):
        await store.reap()
        await store.count("slo", {"good": 1})
    clock.now = start  # a look into the past: the minute is gone, the hour is still there
    assert await store.counted("slo", 60, 1) == ()
    assert len(await store.counted("slo", 3600, 1)) == 600
    clock.now = start + 36 * 86400
    for _ in range(10):
        await store.reap()
        await store.count("slo", {"good": 1})
    clock.now = start
    assert await store.counted("slo", 3600, 1) == ()


async def test_a_collection_adds_up_and_forgets(store: Store, clock: Clock) -> None:
    sealed = bytes(range(256))
    await store.collect("bad", [Entry("b", b"1"), Entry("a", sealed, 3)], 100, 10)
    await store.collect("other", [Entry("a", b"another's")], 100, 10)
    clock.now += 10
    await store.collect("bad", [Entry("b", b"2", 2)], 100, 10)
    found = await store.collected("bad", 10)
    assert found == (Entry("b", b"2", 3, 0.0), Entry("a", sealed, 3, 10.0))
    assert await store.collected("bad", 1) == found[:1]
    assert await store.collected("bad", 10, "a") == found[1:]
    assert await store.collected("bad", 10, "c") == ()
    clock.now += 90  # the older one has expired: what comes now is met anew
    await store.collect("bad", [Entry("a", b"3")], 100, 10)
    assert [(x.key, x.times) for x in await store.collected("bad", 10)] == [("a", 1), ("b", 3)]
    await store.collect("bad", (), 100, 10, ["a", "c"])
    assert [x.key for x in await store.collected("bad", 10)] == ["b"]
    assert [x.key for x in await store.collected("other", 10)] == []


async def test_a_collection_is_bounded(store: Store, clock: Clock) -> None:
    for number in range(40):
        clock.now += 1
        batch = [Entry(f"{number:02} {letter}", b"x") for letter in "abc"]
        await store.collect("many", batch, 1000, 10)
    found = [entry.key for entry in await store.collected("many", 1000)]
    kept = [f"{number} {letter}" for number in range(39, 36, -1) for letter in "cba"]
    assert found == [*kept, "36 c"]
    await store.collect("many", [], 1000, 2)  # the setting was lowered
    assert [entry.key for entry in await store.collected("many", 1000)] == found[:2]


async def test_what_a_collection_has_forgotten_is_gone(store: Store, clock: Clock) -> None:
    start = clock.now
    for batch in range(4):
        entries = [Entry(f"{batch} {number}", b"x") for number in range(150)]
        await store.collect("old", entries, 100, 1000)
    clock.now = start + 100
    while (await store.reap()).more:
        pass
    for _ in range(2):
        await store.collect("old", [Entry("new", b"x")], 100, 1000)
    clock.now = start  # a look into the past
    assert [entry.key for entry in await store.collected("old", 1000)] == ["new"]


async def test_processes_collect_together(tmp_path: Path, clock: Clock) -> None:
    stores = [make_store(store_url(tmp_path), clock, timeout=20) for _ in range(4)]
    for store in stores:
        await store.open()
    keys = [f"key {number}" for number in range(20)]
    for _ in range(5):
        orders = (keys, keys[::-1], keys[10:] + keys[:10], keys)
        batches = [[Entry(key, b"x") for key in order] for order in orders]
        await asyncio.gather(
            *(s.collect("bad", batch, 100, 50) for s, batch in zip(stores, batches, strict=True))
        )
    found = await stores[0].collected("bad", 50)
    assert {entry.key: entry.times for entry in found} == dict.fromkeys(keys, 20)
    for store in stores:
        await store.close()


async def test_processes_count_together(tmp_path: Path, clock: Clock) -> None:
    stores = [make_store(store_url(tmp_path), clock, timeout=20) for _ in range(4)]
    for store in stores:
        await store.open()
    labels = [f"label {number}" for number in range(20)]
    for _ in range(5):
        orders = (labels, labels[::-1], labels[10:] + labels[:10], labels)
        await asyncio.gather(
            *(s.count("slo", dict.fromkeys(o, 1)) for s, o in zip(stores, orders, strict=True))
        )
    found = await stores[0].counted("slo", 60, 1)
    assert found == tuple(Count(0, label, 20) for label in sorted(labels))
    for store in stores:
        await store.close()


async def test_memos_expire(store: Store, clock: Clock) -> None:
    await store.remember("key", b"value", 10)
    assert await store.recall("key") == b"value"
    clock.now += 11
    assert await store.recall("key") is None


def _spend_it_all(url: str, worker: int) -> int:
    """Admit as often as the cap allows; how often that was. Runs in a process of its own."""

    async def run() -> int:
        store = make_store(url, lambda: 1_770_000_000.0)
        await store.open()
        decisions: list[Decision] = [
            await store.admit(admission(f"{worker}-{n}", 10, 1000, 10_000)) for n in range(60)
        ]
        await store.close()
        return sum(isinstance(decision, Admitted) for decision in decisions)

    return asyncio.run(run())


def test_processes_share_one_cap_exactly(tmp_path: Path) -> None:
    url = store_url(tmp_path)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        admitted = sum(pool.map(_spend_it_all, [url] * 4, range(4)))
    assert admitted == 100


async def test_a_key_is_kept_from_its_answer_on(store: Store, clock: Clock) -> None:
    short = Claim("short", "f", keep_seconds=5)
    await store.admit(admission("a", claim=short))
    await store.dispatch("a")
    clock.now += 20
    await store.settle(Settlement("a", 1, "short", ANSWER))
    clock.now += 4
    assert isinstance(await store.admit(admission("b", claim=short)), Replay)


async def test_a_clock_that_steps_back_locks_nobody_out(store: Store, clock: Clock) -> None:
    await store.admit(admission("a", 1, quota=1))
    clock.now -= 86400
    assert isinstance(await store.admit(admission("b", 1, quota=1)), Admitted)


async def test_a_cost_beyond_all_bounds_is_reported(store: Store) -> None:
    await store.admit(admission("a"))
    with pytest.raises(StoreUnavailableError):
        await store.settle(Settlement("a", 2**70))


async def test_the_wait_is_exact_when_a_quota_was_lowered(store: Store, clock: Clock) -> None:
    for number in range(4):
        await store.admit(admission(f"a{number}", 1, quota=4))
        clock.now += 5
    refused = await store.admit(admission("b", 1, quota=2))
    assert isinstance(refused, Refused)
    # Three of the four must end before the second place is free: the third ends 50 s from now.
    assert refused.retry_after == pytest.approx(50)
    clock.now += 49.9
    assert isinstance(await store.admit(admission("b", 1, quota=2)), Refused)
    clock.now += 0.1
    assert isinstance(await store.admit(admission("b", 1, quota=2)), Admitted)


async def test_admissions_of_one_second_end_together(store: Store, clock: Clock) -> None:
    for _ in range(2):
        clock.now += 0.4
        await store.admit(admission(str(clock.now), 1, quota=2))
    refused = await store.admit(admission("b", 1, quota=2))
    assert isinstance(refused, Refused)
    assert refused.retry_after == pytest.approx(60)
    clock.now += 59.9
    assert isinstance(await store.admit(admission("b", 1, quota=2)), Refused)
    clock.now += 0.2
    admitted = await store.admit(admission("b", 1, quota=2))
    assert isinstance(admitted, Admitted)
    assert admitted.rates[0].remaining == 1


async def test_a_lease_from_before_the_clock_was_set_back_is_shortened(
    store: Store, clock: Clock
) -> None:
    await store.admit(admission("dead", claim=CLAIM))
    clock.now -= 7200
    assert not (await store.reap()).more
    clock.now += 31
    await store.reap()
    assert isinstance(await store.admit(admission("b", claim=CLAIM)), Admitted)


async def test_a_second_settlement_changes_nothing(store: Store) -> None:
    await store.admit(admission("a", claim=CLAIM))
    await store.settle(Settlement("a", 5, "key", ANSWER))
    await store.settle(Settlement("a", 9, "key"))
    assert (await store.spending()).settled_nano == 5
    assert isinstance(await store.admit(admission("b", claim=CLAIM)), Replay)


async def test_a_callers_cap_and_the_apps_are_both_kept(store: Store) -> None:
    def both(name: str, amount: int) -> Admission:
        caps = (Cap("caller", "caller:alice", 50), Cap("app", "app", 80))
        return Admission(name, amount, 30, (), caps)

    assert isinstance(await store.admit(both("a", 40)), Admitted)
    refused = await store.admit(both("b", 20))
    assert isinstance(refused, Refused)
    assert refused.reason == "caller_cap"
    await store.settle(Settlement("a", 40))
    assert (await store.spending("caller:alice")).settled_nano == 40
    assert (await store.spending()).settled_nano == 40


async def test_everything_survives_a_new_start(tmp_path: Path, clock: Clock) -> None:
    first = make_store(store_url(tmp_path), clock)
    await first.open()
    await first.admit(admission("a", 10, quota=3, claim=CLAIM))
    await first.settle(Settlement("a", 10, "key", ANSWER))
    await first.close()
    second = make_store(store_url(tmp_path), clock)
    await second.open()
    assert (await second.spending()).settled_nano == 10
    assert isinstance(await second.admit(admission("b", claim=CLAIM)), Replay)
    admitted = await second.admit(admission("c", quota=3))
    assert isinstance(admitted, Admitted)
    assert admitted.rates[0].remaining == 1
    await second.close()


async def test_the_stores_own_clock_is_the_time(tmp_path: Path) -> None:
    store = make_store(store_url(tmp_path), None, "Asia/Seoul")
    await store.open()
    before = datetime.now(ZoneInfo("Asia/Seoul")).date()
    spending = await store.spending()
    assert before <= spending.day <= datetime.now(ZoneInfo("Asia/Seoul")).date()
    assert 0 < spending.resets_in <= 86400
    assert store.address
    await store.close()


async def test_many_leases_are_ended_in_small_steps(store: Store, clock: Clock) -> None:
    for number in range(50):
        await store.admit(admission(str(number), 1))
        await store.dispatch(str(number))
    clock.now += 31
    steps = 1
    while (await store.reap()).more:
        steps += 1
    assert steps > 1
    spending = await store.spending()
    assert (spending.settled_nano, spending.reserved_nano) == (50, 0)


def test_threads_that_start_apps_share_a_folders_place(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(store_url, [tmp_path] * 8))) == 1
        folders = [tmp_path / str(number) for number in range(8)]
        assert len(set(pool.map(store_url, folders))) == 8
