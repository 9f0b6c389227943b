"""The store's interface: one atomic step that admits a request, one that settles it.

Money is in integer nano-dollars, durations are in seconds, and every instant is read from the
store's own clock, so that all processes agree on the time of day.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

# 80 % of the app's daily cap: from here on the day's warning is due.
WARN_AT_PERCENT = 80
# Bounds of one reaping step, so that no request ever waits for a long clean-up.
REAP_LEASES = 20
REAP_ROWS = 500
# How long an expired reservation waits for a late settlement (seconds), and a day's money is kept.
KEEP_EXPIRED_SECONDS = 86400
KEEP_DAYS = 400
# Counts are added up by minute and by hour (in seconds), and so many of each are kept.
KEEP_COUNTS = {60: 26 * 60, 3600: 35 * 24}
# What a client is told to wait while its idempotency key is being worked on (seconds).
IN_PROGRESS_SECONDS = 1.0


class StoreUnavailableError(Exception):
    """The store did not answer in time, or not at all. Nothing may be spent without it.

    The message names the kind of trouble, never an address or a password.
    """


class StoreSetupError(Exception):
    """The store cannot be used as configured, and only a person can mend that.

    `complaint` names the text (`setting.<complaint>` in `texts/`), `facts` fill its gaps.
    """

    def __init__(self, complaint: str, **facts: str | int) -> None:
        super().__init__(complaint, facts)
        self.complaint = complaint
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Connection:
    """What a store needs to know; each store's module has a `connect` that takes it.

    Two apps share a server by their `namespace` (lower-case letters, digits and dashes). `timeout`
    bounds every call, in seconds. `clock` (Unix time) stands in for the store's own, in tests.
    """

    url: str
    namespace: str
    timeout: float
    timezone: ZoneInfo
    clock: Callable[[], float] | None = None


@dataclass(frozen=True, slots=True)
class Concern:
    """A setting of the server that weakens a promise: the store works, and the operator is told.

    `name` names the text (`store.<name>` in `texts/`), `facts` fill its gaps.
    """

    name: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `quota` admissions of `subject` in any `window_seconds` (a sliding window).

    Admissions whose windows end in the same second of the clock are counted together, and end with
    the last of them: so a store keeps one entry a second, however large the quota, and never
    admits one too many.
    """

    name: Literal["caller", "ip"]
    subject: str
    quota: int
    window_seconds: int


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit_nano` a day. `subject` is `app`; or `caller:<name>` or `shadow`, which both
    have the name `caller`.
    """

    name: Literal["app", "caller"]
    subject: str
    limit_nano: int


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key. `key` already contains caller and route; both are digests."""

    key: str
    fingerprint: str
    keep_seconds: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What a request asks of the store: all of it is granted, or none of it.

    `caps` always holds the app's own, so every dollar is counted. `amount_nano` is the worst case;
    it is reserved until settled or until the lease ends.
    """

    reservation: str
    amount_nano: int
    lease_seconds: float
    rates: tuple[Rate, ...]
    caps: tuple[Cap, ...]
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class RateState:
    """What is left of a rate: `remaining` requests now, the next one more in `reset_seconds`."""

    rate: Rate
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The outcome of an idempotency key: what was sent, and whether it was all of it.

    `body` is sealed by the request that made it (see `foundation/sealing.py`). None means that the
    owner died after the request had reached a provider: nobody knows the outcome.
    """

    status: int
    media_type: str
    body: bytes | None
    complete: bool


# What a key stands for whose owner died after the request had reached a provider.
UNKNOWN = StoredAnswer(504, "application/json", None, complete=False)


@dataclass(frozen=True, slots=True)
class Admitted:
    """Go ahead: the money is reserved, the rates are counted, the key is claimed."""

    rates: tuple[RateState, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """The key has an outcome already."""

    answer: StoredAnswer
    expires_in: float


Refusal = Literal["rate", "app_cap", "caller_cap", "in_progress", "key_reused"]


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was consumed. `retry_after` is the time until the same request could pass."""

    reason: Refusal
    retry_after: float
    rates: tuple[RateState, ...] = ()
    rate: Rate | None = None


Decision = Admitted | Replay | Refused


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a reservation.

    `cost_nano` replaces the reserved amount. `claim` is the key of the admission's claim. `answer`
    is kept for that key; None releases it, for a request of which nothing was done.
    """

    reservation: str
    cost_nano: int
    claim: str | None = None
    answer: StoredAnswer | None = None


@dataclass(frozen=True, slots=True)
class CapWarning:
    """80 % of the app's daily cap is spent: reported once a day, to one process."""

    day: date
    settled_nano: int
    limit_nano: int


@dataclass(frozen=True, slots=True)
class Spending:
    """Today's money, over all processes. `resets_in` is in seconds."""

    day: date
    settled_nano: int
    reserved_nano: int
    resets_in: float


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one reaping step found: warnings that are due, and whether more is left to do."""

    warnings: tuple[CapWarning, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Count:
    """What a counter's label added up to in one minute or hour: `age` of them ago, 0 is now."""

    age: int
    label: str
    value: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What a collection holds under a key: met so many `times`, the last `age` seconds ago."""

    key: str
    value: bytes
    times: int = 1
    age: float = 0.0


class Store(Protocol):
    """All of it may raise `StoreUnavailableError`, within the store timeout.

    A store that was down is used again as soon as it answers. A step that was given up changes
    nothing, or ends with its lease: in the worst case a reservation is held until then.
    """

    @property
    def address(self) -> str:
        """Where the store is, for a person: never with a password."""
        ...

    async def open(self) -> None:
        """Connect, create or migrate the schema, check the server.

        Raises `StoreSetupError` for what a person must mend, and `StoreUnavailableError` for a
        server that does not answer; in that case the first step that reaches it does this work.
        """
        ...

    async def concerns(self) -> tuple[Concern, ...]:
        """The server's settings that weaken what the store's docstring promises."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def ping(self) -> None:
        """Prove that the store can write."""
        ...

    async def admit(self, admission: Admission) -> Decision:
        """Claim the key, count the rates and reserve the money: all or nothing."""
        ...

    async def dispatch(self, reservation: str) -> bool:
        """Note that a provider is about to be called; False when the lease is already over."""
        ...

    async def settle(self, settlement: Settlement) -> CapWarning | None:
        """End a reservation. After its lease this may add to the charge, and never refunds.

        An unknown reservation, or one that was settled before, is left as it is.
        """
        ...

    async def renew(self, reservation: str, lease_seconds: float) -> bool:
        """Prolong a lease; False when it is already over."""
        ...

    async def reap(self) -> Reaped:
        """End leases whose owner died, and forget what has expired, in one small bounded step.

        A lease that ends later than its length from now on (the clock was set back) is shortened.
        """
        ...

    async def spending(self, subject: str = "app") -> Spending:
        """Read today's money of a cap's subject."""
        ...

    async def remember(self, key: str, value: bytes, keep_seconds: int) -> None:
        """Keep a sealed value, replacing an older one."""
        ...

    async def recall(self, key: str) -> bytes | None:
        """Read a sealed value that has not expired."""
        ...

    async def open_incident(self, key: str, remind_seconds: float) -> bool:
        """True for the one process that should report it: it is new, or due for a reminder."""
        ...

    async def close_incident(self, key: str) -> bool:
        """True for the one process that should report the recovery."""
        ...

    async def count(self, name: str, added: Mapping[str, int]) -> None:
        """Add to a counter, by label, in the minute and in the hour that it is now.

        Unlike the other steps, one that was given up may have been counted all the same.
        """
        ...

    async def counted(self, name: str, span: Literal[60, 3600], spans: int) -> tuple[Count, ...]:
        """A counter's last `spans` minutes or hours, this one included, by age and label."""
        ...

    async def collect(
        self,
        name: str,
        entries: Sequence[Entry],
        keep_seconds: int,
        at_most: int,
        gone: Sequence[str] = (),
    ) -> None:
        """Keep sealed entries, their keys all different, in a collection that forgets.

        A key that is there gets the newer value, and `times` adds up. An entry is kept for
        `keep_seconds` from now on; beyond `at_most` the first to expire go, a bounded number in a
        step. The keys in `gone` go first. One that was given up may have been done all the same.
        """
        ...

    async def collected(self, name: str, at_most: int, key: str | None = None) -> tuple[Entry, ...]:
        """The entries of a collection, the last to expire first; of one key where it is given."""
        ...
