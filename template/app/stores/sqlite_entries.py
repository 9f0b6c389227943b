"""How the SQLite store keeps collections: one row per collection and key."""

import sqlite3
from collections.abc import Sequence

from app.stores.base import REAP_ROWS, Entry


def collect(
    db: sqlite3.Connection,
    now: float,
    name: str,
    entries: Sequence[Entry],
    keep_seconds: int,
    at_most: int,
    gone: Sequence[str],
) -> None:
    """Add to a collection; what has expired or is too much goes, at most `REAP_ROWS` of it."""
    db.executemany("DELETE FROM entries WHERE name = ? AND key = ?", [(name, key) for key in gone])
    db.executemany(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " value = excluded.value, seen_at = excluded.seen_at, expires_at = excluded.expires_at,"
        " times = excluded.times + CASE WHEN expires_at > excluded.seen_at THEN times ELSE 0 END",
        [(name, entry.key, entry.value, entry.times, now, now + keep_seconds) for entry in entries],
    )
    db.execute(
        "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE name = ?"
        " ORDER BY expires_at DESC, key DESC LIMIT ? OFFSET ?)",
        (name, REAP_ROWS, at_most),
    )


def collected(
    db: sqlite3.Connection, now: float, name: str, at_most: int, key: str | None
) -> tuple[Entry, ...]:
    """The entries that have not expired, the last to expire first."""
    of_one, keys = ("", ()) if key is None else (" AND key = ?", (key,))
    rows = db.execute(
        "SELECT key, value, times, max(0, ? - seen_at) FROM entries"  # noqa: S608 (own words)
        f" WHERE name = ? AND expires_at > ?{of_one} ORDER BY expires_at DESC, key DESC LIMIT ?",
        (now, name, now, *keys, at_most),
    )
    return tuple(Entry(key, bytes(value), times, age) for key, value, times, age in rows)
