"""Moving the records of one store into another, of the same kind or not.

What a store has spent on a day only grows, and each store has an identity. So the target keeps, for
every store whose money came to it, the most that it has seen of it (a row of the day's money, named
`from:<identity>:<subject>`), and adds what is more than that, in one step: a grow-only counter. A
move may be killed, repeated, or go back and forth between stores, and the target may have money of
its own: nothing is lost and nothing is counted twice. The objectives' counts move in the same way.
Everything else is copied where the target does not have it.

Rates and open incidents stay behind: they are a matter of minutes.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

from app.stores.base import UNKNOWN, Entry, StoredAnswer

# The memo in which a store keeps its identity.
IDENTITY = "store:identity"
KEEP_IDENTITY_SECONDS = 100 * 365 * 86400
# Memos that belong to the store that they lie in.
OWN_MEMOS = frozenset({IDENTITY, "ping"})
# Records that are held in memory at once; each may carry a whole answer.
BATCH = 100
# How long one step of a move may take (seconds): nobody waits behind it.
STEP_SECONDS = 30.0
# How often the source is read until a reading finds nothing new.
READINGS = 4
# What the stores' schemas are called; a test holds them to the stores' own modules.
VERSION = 1

T = TypeVar("T")
Kind = Literal["money", "counts", "answers", "memos", "entries"]
# What something is counted under: a name, and what tells it apart further. For `Store.count` that
# is the span (60 or 3600 seconds), its number since 1970, and the label.
Under = tuple[Any, ...]
Show = Callable[[Kind, int], None]


class MoveError(Exception):
    """The move cannot go on; `complaint` names the text (`move.<complaint>`), `facts` its gaps."""

    def __init__(self, complaint: str, **facts: object) -> None:
        super().__init__(complaint, facts)
        self.complaint = complaint
        self.facts = facts


class InFlightError(MoveError):
    """Requests of the source are still running; `ends_in` is in seconds."""

    def __init__(self, count: int, ends_in: float) -> None:
        super().__init__("in_flight", count=count, seconds=int(ends_in) + 1)
        self.ends_in = ends_in


@dataclass(frozen=True, slots=True)
class Lease:
    """A reservation that has not ended. `ends_in` is negative where its owner has died."""

    day: date
    subjects: tuple[str, ...]
    amount_nano: int
    claim: str | None
    dispatched: bool
    ends_in: float


@dataclass(frozen=True, slots=True)
class DayMoney:
    """The settled money of a day by subject, `from:…` among them, and whether it was warned of."""

    day: date
    settled_nano: Mapping[str, int]
    warned: bool


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key or a question of the answer cache; `answer` None: its owner is at work."""

    key: str
    fingerprint: str
    answer: StoredAnswer | None
    keep_seconds: int
    expires_in: float


@dataclass(frozen=True, slots=True)
class Memo:
    """A sealed value, such as a conversation's summary, or a kill switch."""

    key: str
    value: bytes
    expires_in: float


@dataclass(frozen=True, slots=True)
class Collected:
    """An entry of the collection `name`."""

    name: str
    entry: Entry
    expires_in: float


class Records(Protocol):
    """The records of a store, to be read and to be merged into.

    A `merge_…` is one atomic step, or one for each record, and says how many were new.
    """

    def failures(self) -> AbstractContextManager[None]:
        """Turns the driver's errors into `MoveError`."""
        ...

    def identity(self, proposed: str) -> str:
        """The store's identity, which is `proposed` when it has none yet.

        Raises `MoveError` where nothing of the app is in the store.
        """
        ...

    def leases(self) -> list[Lease]:
        """The reservations that have not ended."""
        ...

    def days(self) -> Iterator[DayMoney]:
        """The money, day by day."""
        ...

    def counts(self) -> dict[Under, int]:
        """All of them: labels come from closed sets, and `KEEP_COUNTS` bounds the rest."""
        ...

    def keys(self) -> Iterator[list[Key]]:
        """The keys that have not expired, `BATCH` at a time."""
        ...

    def memos(self) -> Iterator[list[Memo]]:
        """The memos that have not expired, `BATCH` at a time."""
        ...

    def entries(self) -> Iterator[list[Collected]]:
        """The entries of all collections that have not expired, `BATCH` at a time."""
        ...

    def merge_day(self, money: DayMoney) -> int:
        """Merge counters: all subjects are `from:…`."""
        ...

    def merge_counts(self, counts: Mapping[Under, int]) -> int:
        """Merge counters: all names are `from:…`."""
        ...

    def merge_keys(self, keys: list[Key]) -> int:
        """Keep the keys that are not there, or have expired; all of them have answers."""
        ...

    def merge_memos(self, memos: list[Memo]) -> int:
        """Keep the memos that are not there, or have expired."""
        ...

    def merge_entries(self, entries: list[Collected]) -> int:
        """Keep the entries that are not there, or have expired."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@dataclass(slots=True)
class Moved:
    """What a reading has met, and how much of it was new to the target."""

    met: Counter[Kind]
    new: Counter[Kind]


def subject_of(counter: str) -> str:
    """Whose money a counter `from:<identity>:<subject>` counts."""
    return counter.split(":", 2)[2]


def open_records(store: str, url: str, namespace: str) -> Records:
    """The records of a store: `sqlite`, `redis` or `postgres`. Raises `MoveError`."""
    records: Records = import_module(f"app.stores.moving_{store}").open_records(url, namespace)
    return records


def driver(module: str, package: str) -> ModuleType:
    """The driver of a store that this app may not have been generated for."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise MoveError("no_driver", package=package) from None


def move(source: Records, target: Records, show: Show) -> Moved:
    """Move everything, and read the source again until the target lacks nothing of it.

    Raises `InFlightError` while requests run on the source, and `MoveError` where it never rests.
    """
    with source.failures():
        here = source.identity(secrets.token_hex(8))
    with target.failures():
        there = target.identity(secrets.token_hex(8))
    if here == there:
        raise MoveError("same_store")
    first: Moved | None = None
    for _ in range(READINGS):
        found = _read_once(source, target, here, there, show if first is None else _silent)
        if first is not None and not found.new:
            return first
        first = first or found
    raise MoveError("still_written")


def _read_once(source: Records, target: Records, here: str, there: str, show: Show) -> Moved:
    with source.failures():
        leases = source.leases()
    running = [lease.ends_in for lease in leases if lease.ends_in > 0]
    if running:
        raise InFlightError(len(running), max(running))
    # Whose owner died after a provider may have been called: the charge is kept, the outcome is
    # unknown. The source's own processes would book it, and none is there.
    lost = [lease for lease in leases if lease.dispatched]
    unknown = {lease.claim for lease in lost}
    moved = Moved(Counter(), Counter())

    def note(kind: Kind, met: int, new: int) -> None:
        moved.met[kind] += met
        if new:
            moved.new[kind] += new
        show(kind, moved.met[kind])

    for money in _guarded(source, source.days()):
        settled: Counter[Under] = Counter()
        settled.update({(subject,): nano for subject, nano in money.settled_nano.items()})
        for lease in lost:
            if lease.day == money.day:
                settled.update({(subject,): lease.amount_nano for subject in lease.subjects})
        counters = {name: nano for (name,), nano in _counters(settled, here, there).items()}
        with target.failures():
            merged = target.merge_day(DayMoney(money.day, counters, money.warned))
        note("money", 1, int(merged > 0))
    with source.failures():
        counted = source.counts()
    with target.failures():
        note("counts", len(counted), target.merge_counts(_counters(counted, here, there)))
    for keys in _guarded(source, source.keys()):
        ended = [_ended(key) for key in keys if key.answer or key.key in unknown]
        with target.failures():
            note("answers", len(ended), target.merge_keys(ended))
    for memos in _guarded(source, source.memos()):
        shared = [memo for memo in memos if memo.key not in OWN_MEMOS]
        with target.failures():
            note("memos", len(shared), target.merge_memos(shared))
    for entries in _guarded(source, source.entries()):
        with target.failures():
            note("entries", len(entries), target.merge_entries(entries))
    return moved


def _guarded(source: Records, items: Iterator[T]) -> Iterator[T]:
    """The source's items, its driver's errors turned into `MoveError`, and no one else's."""
    while True:
        with source.failures():
            item = next(items, None)
        if item is None:
            return
        yield item


def _counters(totals: Mapping[Under, int], here: str, there: str) -> dict[Under, int]:
    """How much of the totals comes from which store, but for the target: it knows that itself."""
    own: Counter[Under] = Counter()
    counters: dict[Under, int] = {}
    for (name, *rest), value in totals.items():
        if not name.startswith("from:"):
            own[(name, *rest)] += value
            continue
        own[(subject_of(name), *rest)] -= value
        if name.split(":", 2)[1] != there:
            counters[(name, *rest)] = value
    new = {(f"from:{here}:{name}", *rest): value for (name, *rest), value in own.items()}
    return counters | {under: value for under, value in new.items() if value > 0}


def _ended(key: Key) -> Key:
    if key.answer is not None:
        return key
    return Key(key.key, key.fingerprint, UNKNOWN, key.keep_seconds, key.keep_seconds)


def _silent(kind: Kind, met: int) -> None:
    """Show nothing of a reading that only looks."""
