"""The machine that takes random steps in a store and in its model; the rules are its steps."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, multiple, rule

from app.stores.base import (
    KEEP_DAYS,
    KEEP_EXPIRED_SECONDS,
    REAP_LEASES,
    WARN_AT_PERCENT,
    Admission,
    Cap,
    Claim,
    Entry,
    Settlement,
    StoredAnswer,
)
from tests.store_twins import CALLERS, CAP, FINGERPRINTS, KEEPS, KEYS, NAMES, TICK, Twins

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


class StoreMachine(Twins):
    """Every rule is a step, or a few that belong together."""

    requests = Bundle("requests")

    # -------------------------------------------------------------------- admissions

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
        """Some in a row, at different parts of a second; their owners die at once."""
        for _ in range(times):
            self.ask(0, rates=self.rates(caller, quota)[: 2 if both else 1])
            self.now += TICK

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

    @rule(request=requests, ticks=ticks, begins=flags, settles=flags)
    def be_in_time_or_not(
        self, request: Admission, ticks: float, begins: bool, settles: bool
    ) -> None:
        """At the end of its lease, to the tick."""
        lease = self.model.leases.get(request.reservation)
        if lease is not None:
            self.now = max(self.now, lease.ends + ticks)
        if begins:
            self.go_on(request, "dispatch", 0.0)
        if settles:
            self.settle_again(request, request.amount_nano // 2, None)
        self.go_on(request, "renew", 30.0)

    @rule(target=requests, claim=claims, dispatched=flags)
    def work_for_long(self, claim: Claim, dispatched: bool) -> Any:
        """Longer than its key will be kept once it is answered."""
        request = self.ask(1, lease=50.0, claim=claim, dispatched=dispatched)
        if isinstance(request, Admission):
            for _ in range(2):
                self.now += 49
                self.go_on(request, "renew", 50.0)
                self.reap()
        return request

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

    @rule(
        name=names,
        added=st.dictionaries(st.sampled_from(["good", "bad one", ""]), st.integers(0, 99)),
    )
    def count(self, name: str, added: dict[str, int]) -> None:
        self.both("count", name, added)

    @rule(
        name=names,
        times=st.dictionaries(st.sampled_from(["a", "b c", ""]), st.integers(1, 9)),
        value=st.binary(max_size=3),
        keep=st.sampled_from(KEEPS),
        at_most=st.integers(1, 3),
        gone=st.sampled_from([(), ("a",)]),
    )
    def collect(
        self,
        name: str,
        times: dict[str, int],
        value: bytes,
        keep: int,
        at_most: int,
        gone: tuple[str, ...],
    ) -> None:
        entries = [Entry(key, value, n) for key, n in times.items() if key not in gone]
        self.both("collect", name, entries, keep, at_most, gone)

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

    @rule(number=st.integers(0, 59), which=st.sampled_from([min, max]), reaped=flags)
    def wait_for_an_edge(
        self, number: int, which: Callable[[list[float]], float], reaped: bool
    ) -> None:
        """Until something ends, to the tick: just before it, at it, just after it."""
        edges = self.edges()
        edge = which(edges[number % len(edges)])
        for ticks in (-TICK, 0, TICK):
            self.now = max(self.now, edge + ticks)
            if reaped:
                self.reap()
            self.look()
            for name in NAMES:
                self.both("open_incident", name, 60.0)

    def edges(self) -> list[list[float]]:
        """What ends from now on: by kind, so that each of them is met as often."""
        model = self.model
        leases = [lease.ends for lease in model.leases.values()]
        kinds = [
            [self.now + model.seconds_to_midnight()],
            leases,
            [end + KEEP_EXPIRED_SECONDS for end in leases],
            [key.ends for key in model.keys.values() if key.answer is not None],
            [end for ends in model.admitted.values() for end in ends],
            [end for _, end in model.memos.values()],
            [*model.incidents.values()],
            [end for _, end in model.entries.values()],
        ]
        later = [[end for end in kind if end > self.now] for kind in kinds]
        return [kind for kind in later if kind]

    @rule(seconds=st.sampled_from([TICK, 1, 9, 10, 60, 3600, 86400]), reaped=flags)
    def set_the_clock_back(self, seconds: float, reaped: bool) -> None:
        self.now = max(self.now - seconds, min(self.now, self.model.forgotten))
        if reaped:
            self.reap()
        self.look()
        for name in NAMES:
            self.both("open_incident", name, 60.0)
