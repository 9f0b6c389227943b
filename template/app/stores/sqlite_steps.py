"""What a SQLite transaction does: the steps of `Store`, each on one connection at one instant."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date
from zoneinfo import ZoneInfo

from app.stores import sqlite_counts, sqlite_entries
from app.stores.base import (
    IN_PROGRESS_SECONDS,
    KEEP_DAYS,
    KEEP_EXPIRED_SECONDS,
    REAP_LEASES,
    REAP_ROWS,
    UNKNOWN,
    WARN_AT_PERCENT,
    Admission,
    Admitted,
    CapWarning,
    Claim,
    Count,
    Decision,
    Entry,
    Reaped,
    Refusal,
    Refused,
    Replay,
    Settlement,
    Spending,
    StoredAnswer,
)
from app.stores.day import day_of, seconds_to_midnight
from app.stores.sqlite_rates import RateCounter


class Steps:
    """The steps of one transaction. The caller begins it, and commits or rolls it back."""

    def __init__(self, connection: sqlite3.Connection, now: float, timezone: ZoneInfo) -> None:
        self._db = connection
        self._now = now
        self._day = day_of(now, timezone)
        self._timezone = timezone

    def ping(self) -> None:
        self.remember("ping", b"", 60)  # a write: a disk that is full can still be read

    def admit(self, admission: Admission) -> Decision:
        # Check everything, then write everything: a refusal leaves no trace.
        if admission.claim is not None:
            decided = self._check_claim(admission.claim)
            if decided is not None:
                return decided
        rates = [RateCounter(self._db, rate, self._now) for rate in admission.rates]
        states = tuple(rate.state for rate in rates)
        waits = [rate.wait for rate in rates]
        if any(waits):
            longest = max(waits)
            return Refused("rate", longest, states, admission.rates[waits.index(longest)])
        subjects = json.dumps([cap.subject for cap in admission.caps])
        committed = self._committed(subjects)
        for cap in admission.caps:
            if committed.get(cap.subject, 0) + admission.amount_nano > cap.limit_nano:
                reason: Refusal = "app_cap" if cap.name == "app" else "caller_cap"
                return Refused(reason, seconds_to_midnight(self._now, self._timezone), states)
        self._write(admission, subjects)
        return Admitted(tuple(rate.count() for rate in rates))

    def _check_claim(self, claim: Claim) -> Decision | None:
        row = self._db.execute(
            "SELECT fingerprint, i.reservation, status, media_type, body, complete, i.expires_at,"
            " keep_seconds, dispatched, r.expires_at FROM idempotency AS i"
            " LEFT JOIN reservations AS r ON r.id = i.reservation AND r.state = 'active'"
            " WHERE i.key = ?",
            (claim.key,),
        ).fetchone()
        if row is None:
            return None
        fingerprint, reservation, status, media_type, body, complete, expires_at = row[:7]
        keep_seconds, dispatched, lease_ends = row[7:]
        answer = None if status is None else StoredAnswer(status, media_type, body, bool(complete))
        if answer is None and lease_ends <= self._now:
            # Its owner is dead. Nothing was done, or nobody knows and it is not run again; only
            # `reap` books that charge, since only `reap` can give the warning that it may cause.
            if not dispatched:
                self._expire(reservation)
                return None
            answer, expires_at = UNKNOWN, self._now + keep_seconds
        elif answer is not None and expires_at <= self._now:
            self._db.execute("DELETE FROM idempotency WHERE key = ?", (claim.key,))
            return None
        if fingerprint != claim.fingerprint:
            return Refused("key_reused", 0.0)
        if answer is None:
            return Refused("in_progress", IN_PROGRESS_SECONDS)
        return Replay(answer, expires_at - self._now)

    def _committed(self, subjects: str) -> dict[str, int]:
        """What each of a JSON list has spent and holds, of those that have done either today."""
        return dict(
            self._db.execute(
                "SELECT subject, settled_nano + reserved_nano FROM spend"
                " WHERE day = ? AND subject IN (SELECT value FROM json_each(?))",
                (self._day.isoformat(), subjects),
            )
        )

    def _write(self, admission: Admission, subjects: str) -> None:
        claim = admission.claim
        limit = next(cap.limit_nano for cap in admission.caps if cap.name == "app")
        self._db.execute(
            "INSERT INTO spend (day, subject, reserved_nano)"
            " SELECT ?, value, ? FROM json_each(?) WHERE true"  # or ON would belong to a join
            " ON CONFLICT DO UPDATE SET reserved_nano = reserved_nano + excluded.reserved_nano",
            (self._day.isoformat(), admission.amount_nano, subjects),
        )
        self._db.execute(
            "INSERT INTO reservations"
            " (id, day, subjects, amount_nano, app_limit_nano, claim, lease_seconds, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                admission.reservation,
                self._day.isoformat(),
                subjects,
                admission.amount_nano,
                limit,
                claim.key if claim else None,
                admission.lease_seconds,
                self._now + admission.lease_seconds,
            ),
        )
        if claim is not None:
            self._db.execute(
                "INSERT INTO idempotency (key, fingerprint, reservation, keep_seconds, expires_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    claim.key,
                    claim.fingerprint,
                    admission.reservation,
                    claim.keep_seconds,
                    self._now + claim.keep_seconds,
                ),
            )

    def dispatch(self, reservation: str) -> bool:
        changed = self._db.execute(
            "UPDATE reservations SET dispatched = 1"
            " WHERE id = ? AND state = 'active' AND expires_at > ?",
            (reservation, self._now),
        )
        return changed.rowcount == 1

    def renew(self, reservation: str, lease_seconds: float) -> bool:
        changed = self._db.execute(
            "UPDATE reservations SET expires_at = ?, lease_seconds = ?"
            " WHERE id = ? AND state = 'active' AND expires_at > ?",
            (self._now + lease_seconds, lease_seconds, reservation, self._now),
        )
        return changed.rowcount == 1

    def settle(self, settlement: Settlement) -> CapWarning | None:
        row = self._db.execute(
            "SELECT day, subjects, amount_nano, app_limit_nano, state, charged_nano, dispatched,"
            " expires_at FROM reservations WHERE id = ?",
            (settlement.reservation,),
        ).fetchone()
        if row is None:
            return None
        day, subjects, amount, limit, state, charged, dispatched, expires_at = row
        answer = settlement.answer
        if state == "expired":
            # Late: the charge was kept. It may grow, and never shrinks.
            released, added = 0, max(0, settlement.cost_nano - charged)
        elif expires_at > self._now:
            released, added = amount, settlement.cost_nano
        else:
            # As late, though `reap` has not noticed: the clock decides, not who came first.
            released, added = amount, max(settlement.cost_nano, amount if dispatched else 0)
            answer = answer if dispatched else None
        self._move(day, subjects, released, added)
        self._db.execute("DELETE FROM reservations WHERE id = ?", (settlement.reservation,))
        self._finish_claim(settlement.claim, settlement.reservation, answer)
        return self._warning(day, limit)

    def _move(self, day: str, subjects: str, released: int, added: int) -> None:
        self._db.execute(
            "UPDATE spend SET reserved_nano = reserved_nano - ?, settled_nano = settled_nano + ?"
            " WHERE day = ? AND subject IN (SELECT value FROM json_each(?))",
            (released, added, day, subjects),
        )

    def _finish_claim(self, key: str | None, reservation: str, answer: StoredAnswer | None) -> None:
        if answer is None:
            self._db.execute(
                "DELETE FROM idempotency WHERE key = ? AND reservation = ?", (key, reservation)
            )
            return
        self._db.execute(
            "UPDATE idempotency SET status = ?, media_type = ?, body = ?, complete = ?,"
            " expires_at = ? + keep_seconds WHERE key = ? AND reservation = ?",
            (
                answer.status,
                answer.media_type,
                answer.body,
                answer.complete,
                self._now,
                key,
                reservation,
            ),
        )

    def _warning(self, day: str, limit: int) -> CapWarning | None:
        row = self._db.execute(
            "UPDATE spend SET warned = 1 WHERE day = ? AND subject = 'app' AND warned = 0"
            " AND settled_nano * 100 >= ? RETURNING settled_nano",
            (day, limit * WARN_AT_PERCENT),
        ).fetchone()
        return CapWarning(date.fromisoformat(day), row[0], limit) if row else None

    def reap(self) -> Reaped:
        # A lease from before the clock was set back would hold money and key for too long.
        self._db.execute(
            "UPDATE reservations SET expires_at = ? + lease_seconds"
            " WHERE state = 'active' AND expires_at > ? + lease_seconds",
            (self._now, self._now),
        )
        over = self._db.execute(
            "SELECT id, day, app_limit_nano FROM reservations"
            " WHERE state = 'active' AND expires_at <= ? LIMIT ?",
            (self._now, REAP_LEASES),
        ).fetchall()
        warnings = []
        for reservation, day, limit in over:
            self._expire(reservation)
            warnings.append(self._warning(day, limit))
        more = self._forget() or len(over) == REAP_LEASES
        return Reaped(tuple(filter(None, warnings)), more)

    def _expire(self, reservation: str) -> None:
        """End a lease whose time is over; one that still runs is left as it is."""
        row = self._db.execute(
            "SELECT day, subjects, amount_nano, claim, dispatched FROM reservations"
            " WHERE id = ? AND state = 'active' AND expires_at <= ?",
            (reservation, self._now),
        ).fetchone()
        if row is None:
            return
        day, subjects, amount, claim, dispatched = row
        # Once a provider may have been called the outcome is unknown: the charge is kept.
        charged = amount if dispatched else 0
        self._move(day, subjects, amount, charged)
        self._db.execute(
            "UPDATE reservations SET state = 'expired', charged_nano = ? WHERE id = ?",
            (charged, reservation),
        )
        self._finish_claim(claim, reservation, UNKNOWN if dispatched else None)

    def _forget(self) -> bool:
        """Delete what has expired, at most `REAP_ROWS` of a table; True when more may be left."""
        oldest = date.fromordinal(self._day.toordinal() - KEEP_DAYS).isoformat()
        gone = [
            self._delete("rates", "subject, expires_at", "expires_at <= ?", self._now),
            self._delete("idempotency", "key", "status IS NOT NULL AND expires_at <= ?", self._now),
            self._delete("memos", "key", "expires_at <= ?", self._now),
            self._delete(
                "reservations",
                "id",
                "state = 'expired' AND expires_at <= ?",
                self._now - KEEP_EXPIRED_SECONDS,
            ),
            self._delete("spend", "day, subject", "day < ?", oldest),
            sqlite_counts.forget(self._db, self._now),
            self._delete("entries", "rowid", "expires_at <= ?", self._now),
        ]
        return max(gone) == REAP_ROWS

    def _delete(self, table: str, key: str, condition: str, bound: float | str) -> int:
        return self._db.execute(
            f"DELETE FROM {table} WHERE ({key}) IN"  # noqa: S608 (names from this module)
            f" (SELECT {key} FROM {table} WHERE {condition} LIMIT ?)",
            (bound, REAP_ROWS),
        ).rowcount

    def spending(self, subject: str) -> Spending:
        row = self._db.execute(
            "SELECT settled_nano, reserved_nano FROM spend WHERE day = ? AND subject = ?",
            (self._day.isoformat(), subject),
        ).fetchone()
        settled, reserved = row or (0, 0)
        left = seconds_to_midnight(self._now, self._timezone)
        return Spending(self._day, settled, reserved, left)

    def remember(self, key: str, value: bytes, keep_seconds: int) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO memos VALUES (?, ?, ?)", (key, value, self._now + keep_seconds)
        )

    def recall(self, key: str) -> bytes | None:
        row = self._db.execute(
            "SELECT value FROM memos WHERE key = ? AND expires_at > ?", (key, self._now)
        ).fetchone()
        return bytes(row[0]) if row else None

    def open_incident(self, key: str, remind_seconds: float) -> bool:
        changed = self._db.execute(
            "INSERT INTO incidents VALUES (?, ?) ON CONFLICT DO UPDATE"
            # Due, or noted by a clock that was set back since.
            " SET remind_at = excluded.remind_at"
            " WHERE remind_at <= ? OR remind_at > excluded.remind_at",
            (key, self._now + remind_seconds, self._now),
        )
        return changed.rowcount == 1

    def close_incident(self, key: str) -> bool:
        return self._db.execute("DELETE FROM incidents WHERE key = ?", (key,)).rowcount == 1

    def count(self, name: str, added: Mapping[str, int]) -> None:
        sqlite_counts.count(self._db, self._now, name, added)

    def counted(self, name: str, span: int, spans: int) -> tuple[Count, ...]:
        return sqlite_counts.counted(self._db, self._now, name, span, spans)

    def collect(
        self, name: str, entries: Sequence[Entry], keep: int, at_most: int, gone: Sequence[str]
    ) -> None:
        sqlite_entries.collect(self._db, self._now, name, entries, keep, at_most, gone)

    def collected(self, name: str, at_most: int, key: str | None) -> tuple[Entry, ...]:
        return sqlite_entries.collected(self._db, self._now, name, at_most, key)
