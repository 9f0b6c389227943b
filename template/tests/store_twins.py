"""A store and its model, side by side: every step is taken in both, and must have one answer."""

import asyncio
from collections.abc import Awaitable
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, multiple, rule

from app.foundation.project import load_project
from app.stores.base import (
    KEEP_EXPIRED_SECONDS,
    Admission,
    Admitted,
    Cap,
    CapWarning,
    Claim,
    Connection,
    Rate,
    Store,
)
from tests.servers import store_url
from tests.store_model import ModelStore

STORE = load_project().store
# Where a day begins in another way: summer time begins and ends in the night, or at midnight.
BEGINNINGS = [
    ("Asia/Seoul", "2026-06-30T23:59:30"),
    ("Europe/Berlin", "2026-03-28T23:59:30"),
    ("Europe/Berlin", "2026-03-29T01:59:30"),
    ("Europe/Berlin", "2026-10-25T02:59:30"),
    ("America/Havana", "2026-03-07T23:59:30"),
    ("America/Havana", "2026-10-31T23:59:30"),
    ("Africa/Cairo", "2026-10-29T22:59:30"),
]
# A number in binary and in decimal: no store has to round it.
TICK = 0.125
# Not too short: what Redis need not keep, it forgets by a clock of its own.
KEEPS = [60, 90]
CALLERS = ["caller:alice", "caller:bob"]
FINGERPRINTS = ["payload-1", "payload-2"]
KEYS = ["key-1", "key-2"]
NAMES = ["one", "two"]
CAP = (Cap("app", "app", 100),)


class Twins(RuleBasedStateMachine):
    """What the rules of `StoreMachine` are made of. `folder` is where the store may lie."""

    folder: Path
    places = count()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.now = 0.0
        self.names = count()
        self.days: set[date] = set()
        self.warned: set[date] = set()

    @initialize(beginning=st.sampled_from(BEGINNINGS))
    def begin(self, beginning: tuple[str, str]) -> None:
        name, local = beginning
        timezone = ZoneInfo(name)
        self.now = datetime.fromisoformat(local).replace(tzinfo=timezone).timestamp()
        self.model = ModelStore(timezone, lambda: self.now)
        number = next(self.places)
        # A file of its own for SQLite; for the others, a namespace on their one server.
        folder = self.folder / str(number) if STORE == "sqlite" else self.folder
        self.place = Connection(
            url=store_url(folder),
            namespace=f"model-{number}",
            timeout=10.0,
            timezone=timezone,
            clock=lambda: self.now,
        )
        self.connect()

    def connect(self) -> None:
        self.store: Store = import_module(f"app.stores.{STORE}").connect(self.place)
        self.run(self.store.open())

    def run(self, step: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await step

        return self.loop.run(awaited())

    def both(self, step: str, *arguments: object) -> Any:
        """Take a step in both; what they answered."""
        expected = getattr(self.model, step)(*arguments)
        answered = self.run(getattr(self.store, step)(*arguments))
        assert comparable(answered) == comparable(expected), (
            f"{step}\n  the store: {answered}\n  the model: {expected}"
        )
        return expected

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
        self.loop.close()

    # ------------------------------------------------------------------ longer steps

    def ask(
        self,
        amount: int,
        *,
        lease: float = 30.0,
        rates: tuple[Rate, ...] = (),
        caps: tuple[Cap, ...] = CAP,
        claim: Claim | None = None,
        dispatched: bool = False,
    ) -> Any:
        """Admit a request, and perhaps begin it: what is owned then, for the bundle."""
        name = f"r{next(self.names):04}"
        admission = Admission(name, amount, lease, rates, caps, claim)
        busy = self.model.keys.get(claim.key) if claim else None
        self.days.add(self.model.today)
        if not isinstance(self.both("admit", admission), Admitted):
            return multiple()
        for cap in caps:
            assert self.committed(cap.subject) <= cap.limit_nano, "more than the cap"
        assert busy is None or not self.still_owned(busy.owner), "a key is run twice"
        if dispatched:
            self.both("dispatch", name)
        return admission

    def committed(self, subject: str) -> int:
        money = self.model.spending(subject)
        return money.settled_nano + money.reserved_nano

    def still_owned(self, reservation: str) -> bool:
        """True where letting another request have this one's key would run it twice."""
        lease = self.model.leases.get(reservation)
        if lease is None or lease.charged is not None:
            return False
        return lease.dispatched or lease.ends > self.now

    def rates(self, caller: str, quota: int) -> tuple[Rate, ...]:
        return Rate("caller", caller, quota, 60), Rate("ip", "ip:192.0.2.1", 4, 9)

    @rule()
    def reap(self) -> None:
        """Until nothing more is left to do."""
        # A store may forget only in its next step what it has ended in this one.
        old = [x.ends for x in self.model.leases.values() if x.charged is None]
        steps = 2 if any(end <= self.now - KEEP_EXPIRED_SECONDS for end in old) else 1
        warnings: list[CapWarning] = []
        for _ in range(steps):
            for _ in range(100):
                reaped = self.run(self.store.reap())
                warnings += reaped.warnings
                if not reaped.more:
                    break
            else:
                raise AssertionError("reaping never ends")
        self.model.reap()
        days = {warning.day for warning in warnings}
        assert all(self.model.may_be_warned_of(warning) for warning in warnings), warnings
        assert days >= self.model.must_be_warned_of(), "a warning was lost"
        self.model.warned |= days
        self.note(*warnings)
        self.look()

    def note(self, *warnings: CapWarning | None) -> None:
        for warning in filter(None, warnings):
            assert warning.day not in self.warned, "a day is warned of once"
            self.warned.add(warning.day)

    # ------------------------------------------------------------- what always holds

    @invariant()
    def money_is_what_the_model_says(self) -> None:
        if hasattr(self, "store"):
            self.both("spending", "app")

    @rule()
    def look(self) -> None:
        """What can be seen without a change: an admission that costs too much is refused."""
        for name in NAMES:
            self.both("recall", name)
            self.both("collected", name, 9)
            self.both("collected", name, 9, "a")
            self.both("counted", name, 60, 3)
            self.both("counted", name, 3600, 2)
        for key in KEYS:
            for fingerprint in FINGERPRINTS:
                self.ask(10**9, claim=Claim(key, fingerprint, KEEPS[0]))
        for caller in CALLERS:
            self.ask(10**9, rates=self.rates(caller, 3))

    @rule()
    def look_at_every_day(self) -> None:
        """Money is in its own day, of every subject, and none is reserved without a lease."""
        now = self.now
        for day in sorted(self.days):
            noon = datetime(day.year, day.month, day.day, 12, tzinfo=self.place.timezone)
            self.now = noon.timestamp()
            for subject in ["app", *CALLERS]:
                self.both("spending", subject)
        self.now = now


def comparable(value: Any) -> Any:
    """An answer as plain data, its times to the millisecond."""
    if is_dataclass(value):
        return type(value).__name__, [comparable(getattr(value, x.name)) for x in fields(value)]
    if isinstance(value, tuple):
        return [comparable(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value
