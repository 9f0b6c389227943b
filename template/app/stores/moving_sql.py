"""What SQLite and PostgreSQL have in common for a move: most of their tables, and the words."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import date
from typing import Any

from app.stores.base import KEEP_COUNTS, Entry, StoredAnswer
from app.stores.moving import (
    BATCH,
    IDENTITY,
    KEEP_IDENTITY_SECONDS,
    Collected,
    DayMoney,
    Key,
    Memo,
    Under,
    subject_of,
)


class SqlRecords(ABC):
    """The part of `Records` that is the same; a step is one transaction.

    In a statement `?` is a gap, `@.` what stands before a table's name, `@now` the store's clock,
    and `@money` the columns that tell a day's rows of money apart.
    """

    @abstractmethod
    def rows(self, statement: str, *values: object) -> list[Any]:
        """Run a statement that gives rows."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """Everything in it happens, or nothing."""

    @abstractmethod
    def has(self, table: str) -> bool:
        """False where an earlier release has made the tables."""

    @abstractmethod
    def write(self, statement: str, values: list[Under]) -> int:
        """Run a statement that gives nothing, for many values; how many rows it has written."""

    @abstractmethod
    def lock_moves(self) -> None:
        """Keep other moves away until the transaction ends."""

    @abstractmethod
    def lock_total(self, day: date) -> None:
        """Get the app's money ready to be added to; after that no caller's is touched."""

    @abstractmethod
    def warn(self, day: date) -> list[Any]:
        """Note that the day was warned of; a row where that is new."""

    def named(self, proposed: str) -> str:
        """The store's identity, which is `proposed` when it has none yet."""
        self.rows(
            "INSERT INTO @.memos VALUES (?, ?, @now + ?) ON CONFLICT DO NOTHING RETURNING 1",
            *(IDENTITY, proposed.encode(), KEEP_IDENTITY_SECONDS),
        )
        row = self.rows("SELECT value FROM @.memos WHERE key = ?", IDENTITY)[0]
        return bytes(row[0]).decode()

    def keys(self) -> Iterator[list[Key]]:
        alive = "status IS NULL OR expires_at > @now"
        names = "fingerprint, keep_seconds, expires_at - @now, status, media_type, body, complete"
        for rows in self._pages(names, "idempotency", alive):
            found = []
            for key, fingerprint, keep, left, status, kind, body, complete in rows:
                answer = (
                    None if status is None else StoredAnswer(status, kind, body, bool(complete))
                )
                found.append(Key(key, fingerprint, answer, keep, left))
            yield found

    def memos(self) -> Iterator[list[Memo]]:
        for rows in self._pages("value, expires_at - @now", "memos", "expires_at > @now"):
            yield [Memo(key, bytes(value), left) for key, value, left in rows]

    def entries(self) -> Iterator[list[Collected]]:
        after = ("", "")
        while rows := self.has("entries") and self.rows(
            "SELECT name, key, value, times, @now - seen_at, expires_at - @now FROM @.entries"
            " WHERE (name, key) > (?, ?) AND expires_at > @now ORDER BY name, key LIMIT ?",
            *(*after, BATCH),
        ):
            yield [
                Collected(name, Entry(key, bytes(value), times, age), left)
                for name, key, value, times, age, left in rows
            ]
            after = rows[-1][:2]

    def merge_day(self, money: DayMoney) -> int:
        new, totals = 0, Counter[str]()
        with self.transaction():
            self.lock_moves()
            for counter, nano in money.settled_nano.items():
                known = self.rows(
                    "SELECT settled_nano FROM @.spend WHERE day = ? AND subject = ?",
                    *(money.day.isoformat(), counter),
                )
                more = nano - (known[0][0] if known else 0)
                if more > 0:
                    self._add(money.day, counter, more)
                    totals[subject_of(counter)] += more
                    new += 1
            total = totals.pop("app", 0)
            for subject in sorted(totals):
                self._add(money.day, subject, totals[subject])
            if total:
                self.lock_total(money.day)
                self._add(money.day, "app", total)
            if money.warned:
                new += len(self.warn(money.day))
        return new

    def counts(self) -> dict[Under, int]:
        found: dict[Under, int] = {}
        for span, keep in KEEP_COUNTS.items() if self.has("counts") else ():
            rows = self.rows(
                "SELECT name, number, label, value FROM @.counts"
                " WHERE span = ? AND number >= @now / span - ?",
                *(span, keep),
            )
            found |= {(name, span, number, label): n for name, number, label, n in rows}
        return found

    def merge_counts(self, counts: Mapping[Under, int]) -> int:
        with self.transaction():
            self.lock_moves()
            known = self.counts()
            more = {under: n - known.get(under, 0) for under, n in counts.items()}
            new = [(*under, n) for under, n in more.items() if n > 0]
            totals = [(subject_of(name), *rest) for name, *rest in new]
            self.write(_ADD_COUNT, sorted(new + totals))
        return len(new)

    def merge_keys(self, keys: list[Key]) -> int:
        rows = [
            (
                *(key.key, key.fingerprint, key.keep_seconds, key.expires_in),
                *(answer.status, answer.media_type, answer.body, answer.complete),
            )
            for key in keys
            if (answer := key.answer) is not None
        ]
        with self.transaction():
            return self.write(_MERGE_KEY, sorted(rows, key=lambda row: row[0]))

    def merge_memos(self, memos: list[Memo]) -> int:
        rows = sorted((memo.key, memo.value, memo.expires_in) for memo in memos)
        with self.transaction():
            return self.write(_MERGE_MEMO, rows)

    def merge_entries(self, entries: list[Collected]) -> int:
        rows = sorted(
            (one.name, entry.key, entry.value, entry.times, entry.age, one.expires_in)
            for one in entries
            for entry in (one.entry,)
        )
        with self.transaction():
            return self.write(_MERGE_ENTRY, rows)

    def _add(self, day: date, subject: str, nano: int) -> None:
        self.rows(
            "INSERT INTO @.spend AS s (day, subject, settled_nano) VALUES (?, ?, ?) ON CONFLICT"
            " (@money) DO UPDATE SET settled_nano = s.settled_nano + excluded.settled_nano"
            " RETURNING 1",
            *(day.isoformat(), subject, nano),
        )

    def _pages(self, columns: str, table: str, condition: str) -> Iterator[list[Any]]:
        after = ""
        while rows := self.rows(
            f"SELECT key, {columns} FROM @.{table} WHERE key > ? AND ({condition})"  # noqa: S608 (own names)
            " ORDER BY key LIMIT ?",
            *(after, BATCH),
        ):
            yield rows
            after = rows[-1][0]


_ADD_COUNT = """
INSERT INTO @.counts AS c (name, span, number, label, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name, span, number, label) DO UPDATE SET value = c.value + excluded.value"""
# Only what is not there, or no longer.
_MERGE_KEY = """
INSERT INTO @.idempotency AS i
    (key, fingerprint, reservation, keep_seconds, expires_at, status, media_type, body, complete)
VALUES (?, ?, '', ?, @now + ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE
SET fingerprint = excluded.fingerprint, reservation = '', keep_seconds = excluded.keep_seconds,
    expires_at = excluded.expires_at, status = excluded.status,
    media_type = excluded.media_type, body = excluded.body, complete = excluded.complete
WHERE i.status IS NOT NULL AND i.expires_at <= @now"""
_MERGE_MEMO = """
INSERT INTO @.memos AS m VALUES (?, ?, @now + ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
WHERE m.expires_at <= @now"""
_MERGE_ENTRY = """
INSERT INTO @.entries AS e VALUES (?, ?, ?, ?, @now - ?, @now + ?)
ON CONFLICT (name, key) DO UPDATE
SET value = excluded.value, times = excluded.times, seen_at = excluded.seen_at,
    expires_at = excluded.expires_at
WHERE e.expires_at <= @now"""
