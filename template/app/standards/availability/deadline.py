"""One deadline per request: every attempt, pause and fallback lives on what is left of it."""

import asyncio


class Deadline:
    """An instant on the event loop's clock, `seconds` after it was made."""

    def __init__(self, seconds: float) -> None:
        self._at = asyncio.get_running_loop().time() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(self._at - asyncio.get_running_loop().time(), 0.0)

    @property
    def over(self) -> bool:
        """True when no time is left."""
        return self.remaining == 0.0

    def share(self, parts: int) -> "Deadline":
        """A nearer deadline: an equal part of what is left, so that the others get theirs."""
        return Deadline(self.remaining / max(parts, 1))

    def limit(self, at_most: float | None = None) -> asyncio.Timeout:
        """A block that is cancelled, with `TimeoutError`, when the time (or `at_most`) is over."""
        seconds = self.remaining if at_most is None else min(self.remaining, at_most)
        return asyncio.timeout(seconds)
