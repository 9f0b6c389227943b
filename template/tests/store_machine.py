"""A machine that takes random steps in a store and in its model, and wants the same answers."""

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
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from app.foundation.project import load_project
from app.stores.base import (
    KEEP_DAYS,
    KEEP_EXPIRED_SECONDS,
    REAP_LEASES,
    WARN_AT_PERCENT,
    Admission,
    Admitted,
    Cap,
    CapWarning,
    Claim,
    Connection,
    Rate,
    Settlement,
    Store,
    StoredAnswer,
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

callers = st.sampled_from(CALLERS)
claims = st.builds(
    Claim,
    key=st.sampled_from(KEYS),
    fingerprint=st.sampled_from([*FINGERPRINTS, FINGERPRINTS[0]]),
    keep_seconds=st.sampled_from(KEEPS),
)
# Shorter and longer than a key is kept.
leases = st.sampled_from([2.0, 30.0, 100.0])
names = st.sampled_from(NAMES)
flags = st.booleans()
ticks = st.sampled_from([-TICK, 0, TICK])
answers = st.sampled_from(
    [
        StoredAnswer(200, "application/json", b"sealed", complete=True),
        StoredAnswer(200, "text/event-stream", b"\x00half", complete=False),
        StoredAnswer(504, "application/json", None, complete=False),
        None,
    ]
)


class StoreMachine(RuleBasedStateMachine):
    """Every rule is a step, or a few that belong together. `folder` is where its store may lie."""

    folder: Path
    places = count()
    requests = Bundle("requests")

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

    # -------------------------------------------------------------------- admissions

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
            assert self.committed(cap.subject) <= cap.limit_nano
        assert busy is None or not self.still_owned(busy.owner)
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

    @rule(
        target=requests,
        amount=st.integers(0, 50),
        caller=callers,
        lease=leases,
        claim=claims,
        dispatched=flags,
    )
    def ask_with_everything(
        self, amount: int, caller: str, lease: float, claim: Claim, dispatched: bool
    ) -> Any:
        caps = (*CAP, Cap("caller", caller, 60))
        rates = self.rates(caller, 3)
        return self.ask(
            amount, lease=lease, rates=rates, caps=caps, claim=claim, dispatched=dispatched
        )

    @rule(target=requests, claim=claims, lease=leases, dispatched=flags)
    def ask_with_a_key(self, claim: Claim, lease: float, dispatched: bool) -> Any:
        return self.ask(1, lease=lease, claim=claim, dispatched=dispatched)

    @rule(target=requests, claim=claims)
    def a_key_changes_hands(self, claim: Claim) -> Any:
        """Its first owner is too slow to begin, and may be heard of again."""
        first = self.ask(1, lease=2.0, claim=claim)
        self.now += 2
        second = self.ask(1, claim=claim)
        return multiple(*(x for x in (first, second) if isinstance(x, Admission)))

    @rule(caller=callers, quota=st.sampled_from([1, 3, 3]), times=st.integers(1, 4), both=flags)
    def ask_within_rates(self, caller: str, quota: int, times: int, both: bool) -> None:
        """Some in a row; their owners die at once."""
        for _ in range(times):
            self.ask(0, rates=self.rates(caller, quota)[: 2 if both else 1])

    def rates(self, caller: str, quota: int) -> tuple[Rate, ...]:
        return Rate("caller", caller, quota, 60), Rate("ip", "ip:192.0.2.1", 4, 9)

    @rule(
        target=requests,
        caller=callers,
        limit=st.sampled_from([100, 100, 40]),
        caller_limit=st.sampled_from([None, 60]),
        amount=st.integers(0, 50),
        rest=st.sampled_from([None, 0, 1]),
        dispatched=flags,
    )
    def ask_within_caps(
        self,
        caller: str,
        limit: int,
        caller_limit: int | None,
        amount: int,
        rest: int | None,
        dispatched: bool,
    ) -> Any:
        """For an amount, or for what is left of the app's day, or for one nano-dollar more."""
        if rest is not None:
            amount = max(limit - self.committed("app"), 0) + rest
        caps: tuple[Cap, ...] = (Cap("app", "app", limit),)
        if caller_limit is not None:
            caps += (Cap("caller", caller, caller_limit),)
        return self.ask(amount, caps=caps, dispatched=dispatched)

    @rule(amount=st.integers(0, 2), dispatched=flags)
    def a_crowd_dies(self, amount: int, dispatched: bool) -> None:
        """More leases than one reaping step ends, and nobody is left to settle them."""
        self.reap()
        for _ in range(REAP_LEASES + 2):
            self.ask(amount, lease=2.0, dispatched=dispatched)
        self.now += 2
        self.reap()

    # -------------------------------------------------------------- a request's life

    @rule(request=requests, step=st.sampled_from(["dispatch", "renew"]), lease=leases)
    def go_on(self, request: Admission, step: str, lease: float) -> None:
        self.both(step, request.reservation, *([lease] if step == "renew" else []))

    @rule(request=requests, ticks=ticks, step=st.sampled_from(["dispatch", "renew", "settle"]))
    def be_in_time_or_not(self, request: Admission, ticks: float, step: str) -> None:
        """At the end of its lease, to the tick."""
        lease = self.model.leases.get(request.reservation)
        if lease is not None:
            self.now = max(self.now, lease.ends + ticks)
        if step == "settle":
            self.settle_again(request, request.amount_nano // 2, None)
        else:
            self.go_on(request, step, 30.0)

    @rule(request=consumes(requests), percent=st.sampled_from([0, 30, 100, 150]), answer=answers)
    def settle(self, request: Admission, percent: int, answer: StoredAnswer | None) -> None:
        self.settle_again(request, request.amount_nano * percent // 100, answer)

    @rule(request=requests, cost=st.integers(0, 99), answer=answers)
    def settle_again(self, request: Admission, cost: int, answer: StoredAnswer | None) -> None:
        """Its request stays in the bundle, so that what has ended is settled once more."""
        if self.is_later_than_its_key(request):
            return
        claim = request.claim.key if request.claim else None
        self.note(self.both("settle", Settlement(request.reservation, cost, claim, answer)))

    @rule(request=requests, more=st.sampled_from([-1, 0]))
    def settle_to_the_warning(self, request: Admission, more: int) -> None:
        lease = self.model.leases.get(request.reservation)
        if lease is not None:
            due = self.model.limit(request) * WARN_AT_PERCENT // 100
            cost = due - self.model.settled[lease.day, "app"] + more
            self.settle_again(request, max(cost, 0), None)

    def is_later_than_its_key(self, request: Admission) -> bool:
        """The outcome of its key was kept, and is over: whether an answer is still is not said."""
        lease = self.model.leases.get(request.reservation)
        if not (request.claim and lease and lease.dispatched and lease.charged is not None):
            return False
        key = self.model.keys.get(request.claim.key)
        return key is None or key.owner != request.reservation or key.ends <= self.now

    @rule(cost=st.integers(0, 99), answer=answers)
    def settle_what_nobody_knows(self, cost: int, answer: StoredAnswer | None) -> None:
        self.both("settle", Settlement("unknown", cost, KEYS[0], answer))

    @rule(request=consumes(requests))
    def crash(self, request: Admission) -> None:
        """The owner dies: nothing more is heard of the request."""

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
        assert days >= self.model.must_be_warned_of()
        self.model.warned |= days
        self.note(*warnings)
        self.look()

    def note(self, *warnings: CapWarning | None) -> None:
        for warning in filter(None, warnings):
            assert warning.day not in self.warned, "a day is warned of once"
            self.warned.add(warning.day)

    # ------------------------------------------------------------------ the other steps

    @rule(key=names, value=st.binary(max_size=3), keep=st.sampled_from(KEEPS))
    def remember(self, key: str, value: bytes, keep: int) -> None:
        self.both("remember", key, value, keep)

    @rule(key=names, opens=flags)
    def incident(self, key: str, opens: bool) -> None:
        if opens:
            self.both("open_incident", key, 60.0)
        else:
            self.both("close_incident", key)

    @rule()
    def close_and_open(self) -> None:
        self.run(self.store.close())
        self.connect()

    # ------------------------------------------------------------------------- time

    @rule(seconds=st.sampled_from([TICK, 0.5, 1, 2, 10, 30, 60, 3600, 86400 * 2]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def wait_more_than_a_year(self) -> None:
        """Longer than money is kept. No lease lasts that long: reaping is a matter of seconds."""
        self.reap()
        self.now += 3600
        self.reap()
        self.now += (KEEP_DAYS + 1) * 86400
        self.both("spending", "app")  # a store may learn here, and not in `reap`, what day it is
        self.reap()
        self.look_at_every_day()

    @rule(what=st.sampled_from(["lease", "key", "rate", "name", "day"]), ticks=ticks, reaped=flags)
    def wait_for_an_edge(self, what: str, ticks: float, reaped: bool) -> None:
        """Until something ends, to the tick: just before it, at it, just after it."""
        edges = [edge for edge in self.edges(what) if edge > self.now]
        if edges:
            self.now = max(self.now, min(edges) + ticks)
        if reaped:
            self.reap()
        self.look()
        if what == "name":
            for name in NAMES:
                self.both("open_incident", name, 60.0)

    def edges(self, what: str) -> list[float]:
        model = self.model
        match what:
            case "lease":
                ends = [lease.ends for lease in model.leases.values()]
                return ends + [end + KEEP_EXPIRED_SECONDS for end in ends]
            case "key":
                return [key.ends for key in model.keys.values() if key.answer is not None]
            case "rate":
                return [end for ends in model.counted.values() for end in ends]
            case "name":
                return [end for _, end in model.memos.values()] + [*model.incidents.values()]
            case _:
                return [self.now + model.seconds_to_midnight()]

    @rule(seconds=st.sampled_from([TICK, 1, 9, 10, 60, 3600, 86400]))
    def set_the_clock_back(self, seconds: float) -> None:
        self.now = max(self.now - seconds, min(self.now, self.model.forgotten))
        self.look()

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
