"""Moves between all kinds of stores, on real servers.

It runs as a test of a generated app that was given the modules of every store (`test_moving.py`).
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

moving: Any = import_module("app.stores.moving")
base: Any = import_module("app.stores.base")
NAMESPACE = "moving-test"
KINDS = ("sqlite", "redis", "postgres")
ANSWERS = {
    "whole": base.StoredAnswer(200, "application/json", bytes(range(256)), complete=True),
    "cut": base.StoredAnswer(200, "text/event-stream", b"", complete=False),
    "failed": base.StoredAnswer(503, "application/json", None, complete=True),
}
MUCH = 9_007_199_254_740_000  # nearly all that Redis counts exactly
CAP = MUCH + 50


class Place:
    """A place of one kind: its store, and its records."""

    def __init__(self, kind: str, folder: Path) -> None:
        folder.mkdir()
        self.kind = kind
        self.url: str = import_module(f"tests.servers.{kind}").place(folder)
        connection = base.Connection(self.url, NAMESPACE, 5, ZoneInfo("UTC"))
        self.store: Any = import_module(f"app.stores.{kind}").connect(connection)

    def records(self) -> Any:
        return moving.open_records(self.kind, self.url, NAMESPACE)

    async def ask(self, name: str, caller: str = "alice", amount: int = 1) -> Any:
        whose = f"caller:{caller}"
        caps = (base.Cap("app", "app", CAP), base.Cap("caller", whose, CAP))
        rates = (base.Rate("caller", whose, 1000, 60),)
        claim = base.Claim(name, f"fingerprint of {name}", keep_seconds=1000)
        return await self.store.admit(base.Admission(name, amount, 60, rates, caps, claim))

    async def serve(self, name: str, caller: str, cost: int, answer: Any) -> None:
        assert isinstance(await self.ask(name, caller), base.Admitted)
        assert await self.store.dispatch(name)
        await self.store.settle(base.Settlement(name, cost, name, answer))

    async def counted(self, name: str) -> dict[str, int]:
        """What was counted in the last two hours, and the last two minutes: it is the same."""
        by_hour, by_minute = [await self.store.counted(name, span, 2) for span in (3600, 60)]
        totals = [Counter[str](), Counter[str]()]
        for total, counts in zip(totals, (by_hour, by_minute), strict=True):
            for count in counts:
                total[count.label] += count.value
        assert totals[0] == totals[1]
        return dict(totals[0])

    async def spent(self, subject: str) -> int:
        spending = await self.store.spending(subject)
        assert spending.reserved_nano == 0
        return int(spending.settled_nano)


Opener = Callable[[str], Awaitable[Place]]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens an empty place of a kind; `redis` and `redis again` are two of them."""
    found = []

    async def open_one(name: str) -> Place:
        found.append(Place(name.split()[0], tmp_path / name.replace(" ", "-")))
        await found[-1].store.open()
        return found[-1]

    yield open_one
    for one in found:
        await one.store.close()


def carry(source: Place, target: Place) -> Any:
    """One move."""
    old, new = source.records(), target.records()
    try:
        return moving.move(old, new, lambda kind, met: None)
    finally:
        old.close()
        new.close()


@pytest.mark.parametrize(("old", "new"), list(itertools.product(KINDS, KINDS)))
async def test_every_kind_moves_to_every_kind(place: Opener, old: str, new: str) -> None:
    source, target = await place(old), await place(f"{new} again")
    for number, (name, answer) in enumerate(ANSWERS.items()):
        await source.serve(name, ("alice", "이 름:x")[number % 2], MUCH // 3, answer)
    await source.store.remember("summary", b"\0sealed\xff", 1000)
    await source.store.count("slo", {"good one": 40, "bad": 2})
    await target.store.count("slo", {"good one": 3})
    for entry in (base.Entry("a b", b"\0sealed\xff", 3), base.Entry("c", b"old")):
        await source.store.collect("bad: one", [entry], 1000, 10)
    await target.store.collect("bad: one", [base.Entry("c", b"newer")], 1000, 10)
    await target.serve("here before", "bob", 7, ANSWERS["whole"])
    first, again = carry(source, target), carry(source, target)
    # Two labels, by minute and by hour.
    kinds = {"money": 1, "counts": 4, "answers": 3, "memos": 1}
    assert first.met == {**kinds, "entries": 2}
    assert first.new == {**kinds, "entries": 1}
    assert not again.new
    total = 3 * (MUCH // 3)
    assert await target.spent("app") == total + 7
    assert await target.spent("caller:alice") == 2 * (MUCH // 3)
    assert await target.spent("caller:이 름:x") == MUCH // 3
    assert await target.spent("caller:bob") == 7
    for name, answer in ANSWERS.items():
        replay = await target.ask(name)
        assert isinstance(replay, base.Replay)
        assert replay.answer == answer
        assert 950 < replay.expires_in <= 1000
    assert await target.counted("slo") == {"good one": 43, "bad": 2}
    assert await target.store.recall("summary") == b"\0sealed\xff"
    kept = {entry.key: entry for entry in await target.store.collected("bad: one", 10)}
    assert (kept["a b"].value, kept["a b"].times, kept["c"].value) == (b"\0sealed\xff", 3, b"newer")
    assert 0 <= kept["a b"].age < 50
    left = CAP - total - 7
    refused = await target.ask("one too many", "carol", left + 1)
    assert isinstance(refused, base.Refused)
    assert refused.reason == "app_cap"
    assert isinstance(await target.ask("just enough", "carol", left), base.Admitted)
    assert await source.spent("app") == total


async def test_a_round_trip_over_all_kinds_counts_nothing_twice(place: Opener) -> None:
    ring = [await place(kind) for kind in KINDS]
    for number, one in enumerate(ring):
        await one.serve(f"of {one.kind}", "alice", 10**number, ANSWERS["whole"])
        await one.store.count("slo", {"good": 10**number})
    for _ in range(2):
        for source, target in zip(ring, [*ring[1:], ring[0]], strict=True):
            carry(source, target)
    assert [await one.spent("app") for one in ring] == [111] * 3
    assert [await one.spent("caller:alice") for one in ring] == [111] * 3
    assert [await one.counted("slo") for one in ring] == [{"good": 111}] * 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_target_at_work_keeps_its_cap(place: Opener, kind: str) -> None:
    """Requests are admitted while money arrives: all of it counts, and the cap knows at once."""
    source, target = await place("sqlite again"), await place(kind)
    for number in range(5):
        await source.serve(f"old {number}", f"caller-{number}", MUCH // 10, ANSWERS["whole"])
    carrying = asyncio.create_task(asyncio.to_thread(carry, source, target))
    admitted = 0
    for number in itertools.count():
        decision = await target.ask(f"new {number}", "alice", MUCH // 20)
        admitted += isinstance(decision, base.Admitted)
        if isinstance(decision, base.Refused):
            assert decision.reason == "app_cap"
            break
    await carrying
    assert isinstance(await target.ask("the last", "bob", MUCH // 20), base.Refused)
    spending = await target.store.spending()
    assert spending.settled_nano == 5 * (MUCH // 10)
    assert spending.reserved_nano == admitted * (MUCH // 20)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schemas_are_those_that_a_move_knows(kind: str) -> None:
    names = {
        "sqlite": ("sqlite_schema", "VERSION"),
        "redis": ("redis_checks", "SCHEMA_VERSION"),
        "postgres": ("postgres_setup", "VERSION"),
    }
    module, name = names[kind]
    assert getattr(import_module(f"app.stores.{module}"), name) == moving.VERSION


def test_the_slots_are_those_of_the_store() -> None:
    slots = import_module("app.stores.postgres_setup").SLOTS
    assert slots == import_module("app.stores.moving_postgres").SLOTS


def test_a_place_without_the_app_is_refused(tmp_path: Path) -> None:
    for kind in ("redis", "postgres"):
        place = Place(kind, tmp_path / kind)
        records = place.records()
        with pytest.raises(moving.MoveError) as caught:
            moving.move(records, records, lambda kind, met: None)
        assert caught.value.complaint == "not_ours"
        records.close()
