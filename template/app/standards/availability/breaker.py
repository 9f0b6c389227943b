"""A circuit breaker: after several failures in a row a target is spared for a while.

Closed, it lets calls pass. Open, it refuses them until the cooldown is over; then one call at a
time probes the target, and its end always decides: success closes the breaker, failure opens it
again, a cancelled probe makes room for the next.
"""

import time
from collections.abc import Callable

FAILURES_TO_OPEN = 5
COOLDOWN_SECONDS = 10.0


class Breaker:
    """One target's breaker in one process. `on_change` hears when it opens (True) or closes."""

    def __init__(
        self,
        on_change: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """True from the failure that opened it to the success that closes it."""
        return self._opened_at is not None

    @property
    def opens_in(self) -> float:
        """Seconds until a call may pass again; 0 when one may pass now."""
        if self._opened_at is None:
            return 0.0
        return max(self._opened_at + COOLDOWN_SECONDS - self._clock(), 0.0)

    def allow(self) -> bool:
        """True when a call may pass. Every allowed call must end in one of the three below."""
        if self._opened_at is None:
            return True
        if self._probing or self.opens_in > 0:
            return False
        self._probing = True
        return True

    def began(self) -> None:
        """The target began a stream: that ends a probe, but its end decides about the rest."""
        if self.is_open:
            self.succeeded()

    def succeeded(self) -> None:
        """The target answered (a refusal of the caller's own mistake is an answer too)."""
        was_open = self.is_open
        self._failures, self._opened_at, self._probing = 0, None, False
        if was_open:
            self._on_change(False)

    def failed(self) -> None:
        """The target failed."""
        if self.is_open and not self._probing:
            return  # a call from before it opened tells nothing new
        was_open = self.is_open
        self._failures += 1
        self._probing = False
        if was_open or self._failures >= FAILURES_TO_OPEN:
            self._opened_at = self._clock()
        if self.is_open and not was_open:
            self._on_change(True)

    def abandoned(self) -> None:
        """The call was cancelled: nothing was learned."""
        self._probing = False
