"""Stores for tests: the one that this app was generated for, with a clock that the test sets."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from zoneinfo import ZoneInfo

from app.foundation.project import load_project
from app.stores.base import Admission, Cap, Claim, Connection, Rate, Store, StoredAnswer

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


def make_store(
    url: str, clock: Callable[[], float] | None, timezone: str = "UTC", timeout: float = 5
) -> Store:
    """The store that this app was generated for, not yet opened."""
    connection = Connection(url, "contract-test", timeout, ZoneInfo(timezone), clock)
    store: Store = import_module(f"app.stores.{load_project().store}").connect(connection)
    return store
