"""How the SQLite store counts rates: one row per subject and second, so few rows at any quota."""

import math
import sqlite3
from functools import cached_property

from app.stores.base import Rate, RateState


class RateCounter:
    """One rate, as it stands at one instant of a transaction."""

    def __init__(self, connection: sqlite3.Connection, rate: Rate, now: float) -> None:
        self._db = connection
        self._rate = rate
        self._now = now
        # Beyond this lies what was counted before the clock was set back: it is forgotten.
        self._horizon = now + 2 * rate.window_seconds
        # Added up by SQLite: a window's rows are not carried into Python one by one.
        used, oldest, stale = connection.execute(
            "SELECT coalesce(sum(hits) FILTER (WHERE counts), 0),"
            " min(expires_at) FILTER (WHERE counts), count(*) FILTER (WHERE NOT counts)"
            " FROM (SELECT hits, expires_at, expires_at > ? AND expires_at <= ? AS counts"
            " FROM rates WHERE subject = ?)",
            (now, self._horizon, rate.subject),
        ).fetchone()
        self._used: int = used
        self._oldest: float | None = oldest
        self._stale: int = stale

    @property
    def state(self) -> RateState:
        """What is left, and when the next place is free."""
        oldest = self._now if self._oldest is None else self._oldest
        reset = self.wait or oldest - self._now
        return RateState(self._rate, max(self._rate.quota - self._used, 0), reset)

    @cached_property
    def wait(self) -> float:
        """Seconds until one more may pass; 0 when it may now."""
        wait, used = 0.0, self._used
        if used < self._rate.quota:
            return wait
        for expires_at, hits in self._db.execute(
            "SELECT expires_at, hits FROM rates"
            " WHERE subject = ? AND expires_at > ? AND expires_at <= ? ORDER BY expires_at",
            (self._rate.subject, self._now, self._horizon),
        ):
            if used < self._rate.quota:
                break
            wait = expires_at - self._now
            used -= hits
        return wait

    def count(self) -> RateState:
        """Count one admission; what is left after it."""
        subject, expires_at = self._rate.subject, self._now + self._rate.window_seconds
        if self._stale:
            self._db.execute(
                "DELETE FROM rates WHERE subject = ? AND (expires_at <= ? OR expires_at > ?)",
                (subject, self._now, self._horizon),
            )
        self._db.execute(
            "INSERT INTO rates VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
            " SET hits = hits + 1, expires_at = max(expires_at, excluded.expires_at)",
            (subject, math.floor(expires_at), expires_at),
        )
        oldest = expires_at if self._oldest is None else self._oldest
        if math.floor(oldest) == math.floor(expires_at):
            end = max(oldest, expires_at)  # counted together, until the later of the two
        else:
            end = min(oldest, expires_at)
        return RateState(self._rate, self._rate.quota - self._used - 1, end - self._now)
