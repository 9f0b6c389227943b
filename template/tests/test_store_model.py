"""Random ways through the store, step by step against the model of `store_model.py`.

    STORE_MODEL_EXAMPLES=2000 uv run pytest tests/test_store_model.py

takes that many new ways instead of the usual ones. A failure is printed as a short program.
"""

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.foundation.project import load_project
from app.stores.base import (
    KEEP_DAYS,
    KEEP_EXPIRED_SECONDS,
    REAP_LEASES,
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
DEEP = int(os.environ.get("STORE_MODEL_EXAMPLES", "0"))
# Every store has the same seconds to spend: the slower its steps, the fewer they are.
EXAMPLES = {"sqlite": 150, "redis": 100, "postgres": 50}[STORE]
SETTINGS = settings(
    max_examples=DEEP or EXAMPLES,
    stateful_step_count=50,
    derandomize=not DEEP,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

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
# A tick is a number in binary and in decimal: no store has to round it.
TICK = 0.125
TICKS = st.sampled_from([-1, 0, 1])
# Not too short: what Redis need not keep, it forgets by a clock of its own.
KEEPS = [60, 90]
SUBJECTS = ("app", "caller:alice", "caller:bob")

callers = st.sampled_from(["caller:alice", "caller:bob"])
claims = st.builds(
    Claim,
    key=st.sampled_from(["key-1", "key-2"]),
    fingerprint=st.sampled_from(["payload-1", "payload-1", "payload-2"]),
    keep_seconds=st.sampled_from(KEEPS),
)
leases = st.sampled_from([2.0, 30.0])
names = st.sampled_from(["one", "two"])
# Nothing, little, much, or what is left of the app's day and one nano-dollar more.
amounts = st.one_of(st.integers(0, 70), st.sampled_from(["rest", "rest + 1"]))
answers = st.sampled_from(
    [
        StoredAnswer(200, "application/json", b"sealed", complete=True),
        StoredAnswer(200, "text/event-stream", b"\x00half", complete=False),
        StoredAnswer(504, "application/json", None, complete=False),
        None,
    ]
)


class StoreMachine(RuleBasedStateMachine):
    """Takes every step in the store and in the model, and wants the same answer of both."""

    folder: Path
    places = count()
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.now = 0.0
        self.names = count()
        self.warned: set[date] = set()

    @initialize(beginning=st.sampled_from(BEGINNINGS))
    def begin(self, beginning: tuple[str, str]) -> None:
        name, local = beginning
        timezone = ZoneInfo(name)
        self.now = datetime.fromisoformat(local).replace(tzinfo=timezone).timestamp()
        self.model = ModelStore(timezone, lambda: self.now)
        self.place = self.fresh_place(timezone)
        self.connect()

    def fresh_place(self, timezone: ZoneInfo) -> Connection:
        """A file of its own for SQLite; for the others, a namespace on their one server."""
        number = next(self.places)
        folder = self.folder / str(number) if STORE == "sqlite" else self.folder
        return Connection(
            url=store_url(folder),
            namespace=f"model-{number}",
            timeout=10.0,
            timezone=timezone,
            clock=lambda: self.now,
        )

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
        self.agree(step, answered, expected)
        return expected

    def agree(self, step: str, answered: object, expected: object) -> None:
        assert comparable(answered) == comparable(expected), (
            f"{step}\n  the store: {answered}\n  the model: {expected}"
        )

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
        self.loop.close()

    # ------------------------------------------------------------------------ steps

    @rule(
        target=requests,
        caller=callers,
        limited=st.sampled_from(["", "caller", "caller and ip"]),
        quota=st.sampled_from([1, 3, 3]),
        amount=amounts,
        cap=st.sampled_from([100, 100, 40]),
        caller_cap=st.sampled_from([None, 60]),
        lease=leases,
        claim=st.none() | claims,
        dispatched=st.booleans(),
    )
    def admit(
        self,
        caller: str,
        limited: str,
        quota: int,
        amount: int | str,
        cap: int,
        caller_cap: int | None,
        lease: float,
        claim: Claim | None,
        dispatched: bool,
    ) -> Any:
        rates: tuple[Rate, ...] = (
            Rate("caller", caller, quota, 60),
            Rate("ip", "ip:192.0.2.1", 4, 9),
        )
        caps = [Cap("app", "app", cap)]
        if caller_cap is not None:
            caps.append(Cap("caller", caller, caller_cap))
        if isinstance(amount, str):
            amount = max(cap - self.committed("app"), 0) + amount.count("1")
        rates = rates[: {"": 0, "caller": 1, "caller and ip": 2}[limited]]
        return self.ask(amount, lease, rates, tuple(caps), claim, dispatched)

    @rule(target=requests, lease=leases, claim=claims, dispatched=st.booleans())
    def ask_with_a_key(self, lease: float, claim: Claim, dispatched: bool) -> Any:
        """Nothing but the key can stand in its way."""
        return self.ask(1, lease, (), (Cap("app", "app", 1000),), claim, dispatched)

    def ask(
        self,
        amount: int,
        lease: float,
        rates: tuple[Rate, ...],
        caps: tuple[Cap, ...],
        claim: Claim | None,
        dispatched: bool,
    ) -> Any:
        name = f"r{next(self.names):04}"
        admission = Admission(name, amount, lease, rates, caps, claim)
        busy = self.model.keys.get(claim.key) if claim else None
        decision = self.both("admit", admission)
        if not isinstance(decision, Admitted):
            return multiple()
        for limit in caps:
            assert self.committed(limit.subject) <= limit.limit_nano
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

    @rule(amount=st.integers(0, 2), dispatched=st.booleans())
    def a_crowd_dies(self, amount: int, dispatched: bool) -> None:
        """More leases than one reaping step ends, and nobody is left to settle them."""
        self.reap()
        for _ in range(REAP_LEASES + 2):
            name = f"r{next(self.names):04}"
            self.both("admit", Admission(name, amount, 2.0, (), (Cap("app", "app", 100),)))
            if dispatched:
                self.both("dispatch", name)
        self.now += 2
        self.reap()

    @rule(request=requests)
    def dispatch(self, request: Admission) -> None:
        self.both("dispatch", request.reservation)

    @rule(request=requests, lease=leases)
    def renew(self, request: Admission, lease: float) -> None:
        self.both("renew", request.reservation, lease)

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

    def is_later_than_its_key(self, request: Admission) -> bool:
        """The outcome of its key was kept, and is over: whether an answer is still is not said."""
        lease = self.model.leases.get(request.reservation)
        if not (request.claim and lease and lease.dispatched and lease.charged is not None):
            return False
        key = self.model.keys.get(request.claim.key)
        return key is None or key.owner != request.reservation or key.ends <= self.now

    @rule(cost=st.integers(0, 99), answer=answers)
    def settle_what_nobody_knows(self, cost: int, answer: StoredAnswer | None) -> None:
        self.both("settle", Settlement("unknown", cost, "key-1", answer))

    @rule(request=requests, ticks=TICKS, step=st.sampled_from(["dispatch", "renew", "settle"]))
    def be_in_time_or_not(self, request: Admission, ticks: int, step: str) -> None:
        """At the end of its lease, to the tick."""
        lease = self.model.leases.get(request.reservation)
        if lease is not None:
            self.now = max(self.now, lease.ends + ticks * TICK)
        if step == "settle":
            self.settle_again(request, request.amount_nano // 2, None)
        else:
            self.both(step, request.reservation, *([30.0] if step == "renew" else []))

    @rule(request=consumes(requests))
    def crash(self, request: Admission) -> None:
        """The owner dies: nothing more is heard of the request."""

    @rule()
    def reap(self) -> None:
        warnings, quiet = [], 0
        # Once more at the end: what one step has ended, only the next one may forget.
        for _ in range(100):
            reaped = self.run(self.store.reap())
            warnings += reaped.warnings
            quiet = 0 if reaped.more else quiet + 1
            if quiet == 2:
                break
        else:
            raise AssertionError("reaping never ends")
        expected = self.model.reap()
        self.agree("reap", tuple(warnings), expected)
        self.note(*expected)

    def note(self, *warnings: CapWarning | None) -> None:
        for warning in filter(None, warnings):
            assert warning.day not in self.warned, "a day is warned of once"
            self.warned.add(warning.day)

    @rule(key=names, value=st.binary(max_size=3), keep=st.sampled_from(KEEPS))
    def remember(self, key: str, value: bytes, keep: int) -> None:
        self.both("remember", key, value, keep)

    @rule(key=names)
    def recall(self, key: str) -> None:
        self.both("recall", key)

    @rule(key=names, remind=st.sampled_from([1.0, 60.0]))
    def open_incident(self, key: str, remind: float) -> None:
        self.both("open_incident", key, remind)

    @rule(key=names)
    def close_incident(self, key: str) -> None:
        self.both("close_incident", key)

    @rule()
    def close_and_open(self) -> None:
        self.run(self.store.close())
        self.connect()

    # ------------------------------------------------------------------------- time

    @rule(seconds=st.sampled_from([TICK, 0.5, 1, 2, 10, 30, 60]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([3600, 86400, 86400 * 2]))
    def wait_long(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def wait_more_than_a_year(self) -> None:
        """Longer than money is kept. No lease lasts that long: reaping is a matter of seconds."""
        self.reap()
        self.now += 3600
        self.reap()
        self.now += (KEEP_DAYS + 1) * 86400

    @precondition(lambda self: self.edges())
    @rule(number=st.integers(0, 9), ticks=TICKS)
    def wait_for_an_edge(self, number: int, ticks: int) -> None:
        """Until something ends, to the tick: just before it, at it, just after it."""
        edges = self.edges()
        self.now = max(self.now, edges[number % len(edges)] + ticks * TICK)

    def edges(self) -> list[float]:
        model = self.model
        edges = {lease.ends for lease in model.leases.values()}
        edges |= {end + KEEP_EXPIRED_SECONDS for end in edges}
        edges |= {key.ends for key in model.keys.values() if key.answer is not None}
        edges |= {end for ends in model.counted.values() for end in ends}
        edges |= {end for _, end in model.memos.values()} | set(model.incidents.values())
        edges.add(self.now + model.seconds_to_midnight())
        return sorted(edge for edge in edges if edge > self.now)

    @rule(seconds=st.sampled_from([TICK, 1, 10, 60, 3600, 86400]))
    def set_the_clock_back(self, seconds: float) -> None:
        self.now = max(self.now - seconds, min(self.now, self.model.forgotten))

    # ------------------------------------------------------------- what always holds

    @invariant()
    def money_is_what_the_model_says(self) -> None:
        if hasattr(self, "store"):
            self.both("spending", "app")

    @rule()
    def look_at_every_day(self) -> None:
        """Money is in its own day, of every subject, and none is reserved without a lease."""
        now = self.now
        days = {day for day, _ in self.model.settled} | {x.day for x in self.model.leases.values()}
        for day in sorted(days):
            self.now = datetime(
                day.year, day.month, day.day, 12, tzinfo=self.place.timezone
            ).timestamp()
            for subject in SUBJECTS:
                self.both("spending", subject)
        self.now = now


def comparable(value: Any) -> Any:
    """An answer as plain data, its times to the millisecond."""
    if is_dataclass(value):
        return type(value).__name__, [comparable(getattr(value, x.name)) for x in fields(value)]
    if isinstance(value, tuple):
        return [comparable(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def test_the_store_answers_as_the_model_does(tmp_path: Path) -> None:
    class Machine(StoreMachine):
        folder = tmp_path

    run_state_machine_as_test(Machine, settings=SETTINGS)
