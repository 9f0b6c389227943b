"""How many wrong admin tokens came from an address, over all processes and instances.

The store counts them, in a rate that ends by itself: a right token is let in if, at one instant of
the store, fewer than so many wrong ones came before it, however many come at once. Each process
counts them too. So while the store is down the admin is still let in, and who guesses still waits,
in every process for itself.
"""

import time
import uuid

from limits import parse
from limits.strategies import FixedWindowRateLimiter

from app.foundation.settings import NANO_PER_USD, Settings
from app.standards.spending.guard import Guard
from app.standards.spending.shield import Counts
from app.stores.base import (
    Admission,
    Admitted,
    Cap,
    Rate,
    Refused,
    Settlement,
    Store,
    StoreUnavailableError,
)

WRONG_TOKENS = 5
WINDOW_SECONDS = 60


class Tries:
    """Counts the wrong tokens of each address (of an IPv6 client: of its /64)."""

    def __init__(self, settings: Settings, store: Store, guard: Guard) -> None:
        self._store = store
        self._guard = guard
        self._cap = int(settings.daily_cost_cap_usd * NANO_PER_USD)
        self._lease_seconds = settings.lease_seconds
        self._limit = parse(f"{WRONG_TOKENS} per {WINDOW_SECONDS} seconds")
        self._here = FixedWindowRateLimiter(Counts())

    async def wait(self, network: str) -> float:
        """Seconds until a right token is let in from this address; 0 when it may now."""
        # Asks for money where none may be spent: what is refused counts in no rate.
        return self._wait_here(network) or await self._ask(network, amount_nano=1, cap_nano=0)

    async def count(self, network: str) -> float:
        """Count a wrong token. 0, or where too many came before it, the seconds to wait."""
        if wait := self._wait_here(network):
            return wait  # who goes on guessing costs no step of the store
        self._here.hit(self._limit, network)
        return await self._ask(network, amount_nano=0, cap_nano=self._cap)

    def _wait_here(self, network: str) -> float:
        if self._here.test(self._limit, network):
            return 0.0
        ends = self._here.get_window_stats(self._limit, network).reset_time
        return max(ends - time.time(), 1.0)

    async def _ask(self, network: str, *, amount_nano: int, cap_nano: int) -> float:
        admission = Admission(
            reservation=uuid.uuid4().hex,
            amount_nano=amount_nano,
            lease_seconds=self._lease_seconds,
            rates=(Rate("ip", f"wrong-token:{network}", WRONG_TOKENS, WINDOW_SECONDS),),
            caps=(Cap("app", "app", cap_nano),),
        )
        try:
            decided = await self._store.admit(admission)
        except StoreUnavailableError:
            return 0.0
        if isinstance(decided, Refused) and decided.reason == "rate":
            return decided.retry_after
        if isinstance(decided, Admitted):
            self._guard.in_background(self._guard.settle(Settlement(admission.reservation, 0)))
        return 0.0
