"""What a store promises, in plain Python: read this to learn what `stores/base.py` means.

The same steps as a store's, without a server, a file or a second process: dictionaries and a
clock. `test_store_model.py` takes thousands of random ways through both, and every store must
answer as this model does. Where `base.py` leaves a choice, the safer one is taken here: money is
never counted too low, and a key is never run twice.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from app.stores.base import (
    IN_PROGRESS_SECONDS,
    KEEP_COUNTS,
    KEEP_DAYS,
    KEEP_EXPIRED_SECONDS,
    WARN_AT_PERCENT,
    Admission,
    Admitted,
    CapWarning,
    Claim,
    Count,
    Entry,
    Rate,
    RateState,
    Refusal,
    Refused,
    Replay,
    Settlement,
    Spending,
    StoredAnswer,
)

# The owner died after the request had reached a provider: nobody knows what came of it.
UNKNOWN = StoredAnswer(504, "application/json", None, complete=False)


@dataclass
class Lease:
    """A reservation. It counts in the day of its admission, whenever it ends."""

    admission: Admission
    day: date
    seconds: float
    ends: float
    dispatched: bool = False
    # None while the worst case is reserved; once the lease has ended, what is kept of it.
    charged: int | None = None


@dataclass
class Key:
    """An idempotency key: at work (no answer yet), or answered and kept until `ends`."""

    claim: Claim
    owner: str
    answer: StoredAnswer | None = None
    ends: float = math.inf


class ModelStore:
    """The steps of `Store`. Each happens at one instant, and no two of them at once."""

    def __init__(self, timezone: ZoneInfo, clock: Callable[[], float]) -> None:
        self._timezone = timezone
        self._clock = clock
        self.leases: dict[str, Lease] = {}
        self.keys: dict[str, Key] = {}
        self.settled: Counter[tuple[date, str]] = Counter()
        # The app's caps of each day: there are several when the setting is changed.
        self.limits: defaultdict[date, set[int]] = defaultdict(set)
        self.warned: set[date] = set()
        # For each subject of a rate: until when each of its admissions counts.
        self.admitted: defaultdict[str, list[float]] = defaultdict(list)
        self.memos: dict[str, tuple[bytes, float]] = {}
        self.incidents: dict[str, float] = {}
        # By name, span, number of the span, label.
        self.counts: Counter[tuple[str, int, int, str]] = Counter()
        # By collection and key: an entry, and until when it is kept.
        self.entries: dict[tuple[str, str], tuple[Entry, float]] = {}
        self.seen: dict[tuple[str, str], float] = {}
        # The latest end of what was forgotten. Were the clock set back to before it, a store may
        # still know of it or not: nothing is promised.
        self.forgotten = -math.inf

    # ------------------------------------------------------------------------- time

    @property
    def now(self) -> float:
        return self._clock()

    @property
    def today(self) -> date:
        return self._day_of(self.now)

    def _day_of(self, moment: float) -> date:
        return datetime.fromtimestamp(moment, self._timezone).date()

    def seconds_to_midnight(self) -> float:
        """Until the calendar shows another day; found by search, since days have 23 to 25 hours."""
        today, start = self.today, math.floor(self.now)
        seconds = range(start, start + 26 * 3600)
        return seconds[bisect_left(seconds, True, key=lambda t: self._day_of(t) > today)] - self.now

    # ------------------------------------------------------------------------ admit

    def admit(self, admission: Admission) -> Admitted | Replay | Refused:
        """The key first, then the rates, then the caps; a refusal consumes nothing."""
        if admission.claim is not None:
            known = self._known(admission.claim)
            if known is not None:
                return known

        states = tuple(self._state(rate) for rate in admission.rates)
        waits = [self._wait(rate) for rate in admission.rates]
        if any(waits):
            longest = max(waits)
            return Refused("rate", longest, states, admission.rates[waits.index(longest)])

        today = self.today
        for cap in admission.caps:
            committed = self.settled[today, cap.subject] + self.reserved(today, cap.subject)
            if committed + admission.amount_nano > cap.limit_nano:
                reason: Refusal = "app_cap" if cap.name == "app" else "caller_cap"
                return Refused(reason, self.seconds_to_midnight(), states)

        for rate in admission.rates:
            self._count(rate)
        length = admission.lease_seconds
        self.leases[admission.reservation] = Lease(admission, today, length, self.now + length)
        self.limits[today].add(self.limit(admission))
        if admission.claim is not None:
            self.keys[admission.claim.key] = Key(admission.claim, admission.reservation)
        return Admitted(tuple(self._state(rate) for rate in admission.rates))

    def _known(self, claim: Claim) -> Replay | Refused | None:
        """What is known of a key already; None when it is free."""
        key = self.keys.get(claim.key)
        if key is None:
            return None
        answer, ends = key.answer, key.ends
        if answer is None:
            lease = self.leases[key.owner]
            if lease.ends <= self.now:
                # Its owner is dead. Either nothing was done, and the key is free at once, or
                # nobody knows, and it is not run again. Only `reap` books the charge, since only
                # `reap` can report the warning that may be due with it.
                if not lease.dispatched:
                    self._end(lease)
                    return None
                answer, ends = UNKNOWN, self.now + key.claim.keep_seconds
        elif ends <= self.now:
            self._forget_key(claim.key)
            return None
        if claim.fingerprint != key.claim.fingerprint:
            return Refused("key_reused", 0.0)
        if answer is None:
            return Refused("in_progress", IN_PROGRESS_SECONDS)
        return Replay(answer, ends - self.now)

    # ------------------------------------------------------------------------ rates

    def _counting(self, rate: Rate) -> list[float]:
        """When each of the admissions that count now stops to do so."""
        # What ends later than two windows from now was counted before the clock was set back. It
        # is forgotten, or a clock that was wrong for a moment would lock a caller out for good.
        horizon = self.now + 2 * rate.window_seconds
        return sorted(end for end in self.admitted[rate.subject] if self.now < end <= horizon)

    def _state(self, rate: Rate) -> RateState:
        counting = self._counting(rate)
        oldest = counting[0] - self.now if counting else 0.0
        return RateState(
            rate, max(rate.quota - len(counting), 0), reset_seconds=self._wait(rate) or oldest
        )

    def _wait(self, rate: Rate) -> float:
        """Until so many have stopped counting that one more may pass; 0 when it may now."""
        counting = self._counting(rate)
        too_many = len(counting) - rate.quota
        return counting[too_many] - self.now if too_many >= 0 else 0.0

    def _count(self, rate: Rate) -> None:
        ends = [*self._counting(rate), self.now + rate.window_seconds]
        # Those of one second end together, with the last of them.
        last = {math.floor(end): end for end in sorted(ends)}
        self.admitted[rate.subject] = [last[math.floor(end)] for end in ends]

    # ----------------------------------------------------------------------- leases

    def reserved(self, day: date, subject: str) -> int:
        """A lease holds its worst case until it is settled or `reap` has found that it is over."""
        return sum(
            lease.admission.amount_nano
            for lease in self.leases.values()
            if lease.charged is None
            and lease.day == day
            and subject in [cap.subject for cap in lease.admission.caps]
        )

    def _running(self, reservation: str) -> Lease | None:
        lease = self.leases.get(reservation)
        return lease if lease and lease.charged is None and lease.ends > self.now else None

    def dispatch(self, reservation: str) -> bool:
        lease = self._running(reservation)
        if lease:
            lease.dispatched = True
        return lease is not None

    def renew(self, reservation: str, lease_seconds: float) -> bool:
        lease = self._running(reservation)
        if lease:
            lease.seconds, lease.ends = lease_seconds, self.now + lease_seconds
        return lease is not None

    def settle(self, settlement: Settlement) -> CapWarning | None:
        lease = self.leases.get(settlement.reservation)
        if lease is None:
            return None
        if lease.ends <= self.now:
            # Late, whether `reap` has noticed or not: the clock decides, not who came first.
            self._end(lease)
        kept = lease.charged or 0
        self._charge(lease, max(settlement.cost_nano - kept, 0))
        del self.leases[settlement.reservation]
        self._answer(settlement.reservation, lease, settlement.answer)
        return self._warning(lease)

    def _end(self, lease: Lease) -> None:
        """A lease is over: the charge is kept if a provider may have been called."""
        if lease.charged is not None:
            return
        lease.charged = lease.admission.amount_nano if lease.dispatched else 0
        self._charge(lease, lease.charged)
        self._answer(lease.admission.reservation, lease, UNKNOWN if lease.dispatched else None)

    def _charge(self, lease: Lease, nano: int) -> None:
        for cap in lease.admission.caps:
            self.settled[lease.day, cap.subject] += nano

    def _answer(self, reservation: str, lease: Lease, answer: StoredAnswer | None) -> None:
        """Keep an answer from now on, or free the key; unless somebody else has it by now."""
        claim = lease.admission.claim
        if claim is None or claim.key not in self.keys or self.keys[claim.key].owner != reservation:
            return
        if answer is None:
            del self.keys[claim.key]
        else:
            self.keys[claim.key] = Key(claim, reservation, answer, self.now + claim.keep_seconds)

    @staticmethod
    def limit(admission: Admission) -> int:
        """The app's cap that it was admitted under."""
        return next(cap.limit_nano for cap in admission.caps if cap.name == "app")

    def _warning(self, lease: Lease) -> CapWarning | None:
        """The day's warning, measured by the cap that the lease was admitted under."""
        day, limit = lease.day, self.limit(lease.admission)
        if day in self.warned or not self._is_warning(day, limit):
            return None
        self.warned.add(day)
        return CapWarning(day, self.settled[day, "app"], limit)

    # ------------------------------------------------------------------------- reap

    def reap(self) -> None:
        """All the steps of `Store.reap` at once: those until nothing more is left to do."""
        for lease in self.leases.values():
            if lease.charged is None:
                lease.ends = min(lease.ends, self.now + lease.seconds)
                if lease.ends <= self.now:
                    self._end(lease)
        self._forget()

    def must_be_warned_of(self) -> set[date]:
        """The days that `reap` gives a warning of, by whichever of the day's caps it measures."""
        return {
            day
            for day in {self.today, self.today - timedelta(days=1)} - self.warned
            if self.limits[day] and self._is_warning(day, max(self.limits[day]))
        }

    def may_be_warned_of(self, warning: CapWarning) -> bool:
        """A warning of `reap` is true, and the first one of its day."""
        day, limit = warning.day, warning.limit_nano
        return day not in self.warned and limit in self.limits[day] and self._is_warning(day, limit)

    def _is_warning(self, day: date, limit: int) -> bool:
        return self.settled[day, "app"] * 100 >= limit * WARN_AT_PERCENT

    def _forget(self) -> None:
        now, oldest = self.now, self.today - timedelta(days=KEEP_DAYS)
        for name, lease in list(self.leases.items()):
            if lease.charged is not None and lease.ends <= now - KEEP_EXPIRED_SECONDS:
                del self.leases[name]
        for day, subject in list(self.settled):
            if day < oldest:
                del self.settled[day, subject]
                self.warned.discard(day)
        for name, key in list(self.keys.items()):
            if key.ends <= now:
                self._forget_key(name)
        for name, (_, ends) in list(self.memos.items()):
            if ends <= now:
                self.forgotten = max(self.forgotten, ends)
                del self.memos[name]
        self._forget_counts()
        self._forget_entries()
        for counted in self.admitted.values():
            self.forgotten = max([self.forgotten, *(end for end in counted if end <= now)])
            counted[:] = [end for end in counted if end > now]

    def _forget_counts(self) -> None:
        for key in list(self.counts):
            _, span, number, _ = key
            if number < self.now // span - KEEP_COUNTS[span]:
                self.forgotten = max(self.forgotten, (number + KEEP_COUNTS[span]) * span)
                del self.counts[key]

    def _forget_entries(self) -> None:
        for place, (_, ends) in list(self.entries.items()):
            if ends <= self.now:
                self.forgotten = max(self.forgotten, ends)
                del self.entries[place]

    def _forget_key(self, name: str) -> None:
        self.forgotten = max(self.forgotten, self.keys[name].ends)
        del self.keys[name]

    # ----------------------------------------------------------------- what is read

    def spending(self, subject: str = "app") -> Spending:
        today = self.today
        settled, reserved = self.settled[today, subject], self.reserved(today, subject)
        return Spending(today, settled, reserved, self.seconds_to_midnight())

    def remember(self, key: str, value: bytes, keep_seconds: int) -> None:
        self.memos[key] = (value, self.now + keep_seconds)

    def recall(self, key: str) -> bytes | None:
        value, ends = self.memos.get(key, (None, 0.0))
        return value if ends > self.now else None

    def open_incident(self, key: str, remind_seconds: float) -> bool:
        # A reminder that is further away than one can be was noted before the clock was set back.
        if self.now < self.incidents.get(key, -math.inf) <= self.now + remind_seconds:
            return False
        self.incidents[key] = self.now + remind_seconds
        return True

    def close_incident(self, key: str) -> bool:
        return self.incidents.pop(key, None) is not None

    def count(self, name: str, added: Mapping[str, int]) -> None:
        for span in KEEP_COUNTS:
            for label, amount in added.items():
                self.counts[name, span, int(self.now // span), label] += amount
        self._forget_counts()

    def counted(self, name: str, span: int, spans: int) -> tuple[Count, ...]:
        current = int(self.now // span)
        found = (
            Count(current - number, label, value)
            for (named, length, number, label), value in self.counts.items()
            if (named, length) == (name, span) and 0 <= current - number < spans
        )
        return tuple(sorted(found, key=lambda count: (count.age, count.label)))

    def collect(
        self,
        name: str,
        entries: Sequence[Entry],
        keep_seconds: int,
        at_most: int,
        gone: Sequence[str] = (),
    ) -> None:
        self._forget_entries()
        for key in gone:
            self.entries.pop((name, key), None)
        for entry in entries:
            before = self.entries.get((name, entry.key))
            times = entry.times + (before[0].times if before else 0)
            self.entries[name, entry.key] = replace(entry, times=times), self.now + keep_seconds
            self.seen[name, entry.key] = self.now
        for place in self._in_order(name)[at_most:]:
            del self.entries[place]

    def collected(self, name: str, at_most: int, key: str | None = None) -> tuple[Entry, ...]:
        found = [
            replace(self.entries[place][0], age=max(0.0, self.now - self.seen[place]))
            for place in self._in_order(name)
            if self.entries[place][1] > self.now and key in {None, place[1]}
        ]
        return tuple(found[:at_most])

    def _in_order(self, name: str) -> list[tuple[str, str]]:
        """The places of a collection, the last to expire first."""
        places = [place for place in self.entries if place[0] == name]
        return sorted(places, key=lambda place: (self.entries[place][1], place[1]), reverse=True)
