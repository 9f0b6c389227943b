"""How the SQLite store counts: one row per counter, span (a minute, an hour), number of the span
since 1970, and label.
"""

import sqlite3
from collections.abc import Mapping

from app.stores.base import KEEP_COUNTS, REAP_ROWS, Count


def count(db: sqlite3.Connection, now: float, name: str, added: Mapping[str, int]) -> None:
    """Add to a counter, in the minute and in the hour of `now`."""
    db.executemany(
        "INSERT INTO counts VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET value = value + excluded.value",
        [
            (name, span, now // span, label, amount)
            for span in KEEP_COUNTS
            for label, amount in added.items()
        ],
    )


def counted(
    db: sqlite3.Connection, now: float, name: str, span: int, spans: int
) -> tuple[Count, ...]:
    """A counter's last `spans`, that of `now` included."""
    number = int(now // span)
    rows = db.execute(
        "SELECT ? - number, label, value FROM counts"
        " WHERE name = ? AND span = ? AND number > ? AND number <= ? ORDER BY number DESC, label",
        (number, name, span, number - spans, number),
    )
    return tuple(Count(*row) for row in rows)


def forget(db: sqlite3.Connection, now: float) -> int:
    """Delete what is too old, at most `REAP_ROWS` of each span; the most that went of one."""
    return max(
        db.execute(
            "DELETE FROM counts WHERE (name, span, number, label) IN (SELECT name, span, number,"
            " label FROM counts WHERE span = ? AND number < ? LIMIT ?)",
            (span, now // span - keep, REAP_ROWS),
        ).rowcount
        for span, keep in KEEP_COUNTS.items()
    )
