"""How the SQLite store counts rates: one row per subject and second, so few rows at any quota."""

import math
import sqlite3

from app.stores.base import Rate, RateState


class RateCounter:
    """One rate, as it stands at one instant of a transaction."""

    def __init__(self, connection: sqlite3.Connection, rate: Rate, now: float) -> None:
        self._db = connection
        self._rate = rate
        self._now = now
        # Beyond this lies what was counted before the clock was set back: it is forgotten.
        self._horizon = now + 2 * rate.window_seconds
        self._ends: list[tuple[float, int]] = connection.execute(
            "SELECT expires_at, hits FROM rates"
            " WHERE subject = ? AND expires_at > ? AND expires_at <= ? ORDER BY expires_at",
            (rate.subject, now, self._horizon),
        ).fetchall()
        self._used = sum(hits for _, hits in self._ends)

    @property
    def state(self) -> RateState:
        """What is left, and when the next place is free."""
        oldest = self._ends[0][0] if self._ends else self._now
        reset = self.wait or oldest - self._now
        return RateState(self._rate, max(self._rate.quota - self._used, 0), reset)

    @property
    def wait(self) -> float:
        """Seconds until one more may pass; 0 when it may now."""
        wait, used = 0.0, self._used
        for expires_at, hits in self._ends:
            if used < self._rate.quota:
                break
            wait = expires_at - self._now
            used -= hits
        return wait

    def count(self) -> RateState:
        """Count one admission; what is left after it."""
        subject, expires_at = self._rate.subject, self._now + self._rate.window_seconds
        self._db.execute(
            "DELETE FROM rates WHERE subject = ? AND (expires_at <= ? OR expires_at > ?)",
            (subject, self._now, self._horizon),
        )
        self._db.execute(
            "INSERT INTO rates VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
            " SET hits = hits + 1, expires_at = max(expires_at, excluded.expires_at)",
            (subject, math.floor(expires_at), expires_at),
        )
        ends = {math.floor(end): end for end, _ in self._ends}
        second = math.floor(expires_at)
        ends[second] = max(ends.get(second, expires_at), expires_at)
        reset = min(ends.values()) - self._now
        return RateState(self._rate, self._rate.quota - self._used - 1, reset)
