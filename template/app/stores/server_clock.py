"""What is known of a server's clock: enough to tell it when an answer comes too late."""

import time


class ServerClock:
    """The server's Unix time, estimated from its own answers. It may be set, and jump, at will.

    A step that a frozen server executes after its caller was told 503 must not take effect. So a
    step carries its deadline in the server's own time, and the server compares.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._ahead: float | None = None

    def saw(self, server_now: float) -> None:
        """The server has just said what time it is there."""
        ahead = server_now - time.monotonic()
        # An answer that took long makes the server look slow: the fastest one counts, until the
        # difference can only mean that the clock was set back.
        if self._ahead is None or not self._ahead - 2 * self._timeout < ahead < self._ahead:
            self._ahead = ahead

    def deadline(self, started: float) -> float | None:
        """When a call that `started` (monotonic time) is given up; None while nothing is known."""
        return None if self._ahead is None else started + self._ahead + self._timeout
