"""The records of a SQLite file, for a move."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

from app.stores.moving import STEP_SECONDS, VERSION, DayMoney, Lease, MoveError, Under
from app.stores.moving_sql import SqlRecords


def open_records(url: str, namespace: str) -> "SqliteRecords":
    """The records of one file, which must be there. A file holds one app: it has no namespace."""
    path = Path(url.removeprefix("sqlite:///"))
    if not path.is_file():
        raise MoveError("no_file", path=path)
    return SqliteRecords(path)


class SqliteRecords(SqlRecords):
    """`Records` of one file."""

    def __init__(self, path: Path) -> None:
        self._address = str(path)
        with self.failures():
            # `rw`: a file that has gone meanwhile is not made anew.
            place = f"{path.resolve().as_uri()}?mode=rw"
            self._db = sqlite3.connect(place, uri=True, timeout=STEP_SECONDS, isolation_level=None)

    @contextmanager
    def failures(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise MoveError("failed", address=self._address, reason=error) from error

    def identity(self, proposed: str) -> str:
        version = self.rows("PRAGMA user_version")[0][0]
        if version != VERSION:
            raise MoveError("other_version" if version else "not_ours", address=self._address)
        return self.named(proposed)

    def leases(self) -> list[Lease]:
        return [
            Lease(date.fromisoformat(day), tuple(json.loads(subjects)), *rest)
            for day, subjects, *rest in self.rows(
                "SELECT day, subjects, amount_nano, claim, dispatched, expires_at - @now"
                " FROM reservations WHERE state = 'active'"
            )
        ]

    def days(self) -> Iterator[DayMoney]:
        rows = self._db.execute("SELECT day, subject, settled_nano, warned FROM spend ORDER BY day")
        for day, group in groupby(rows, key=lambda row: row[0]):
            money = list(group)
            settled = {subject: nano for _, subject, nano, _ in money}
            yield DayMoney(date.fromisoformat(day), settled, any(row[3] for row in money))

    def close(self) -> None:
        self._db.close()

    def rows(self, statement: str, *values: object) -> list[Any]:
        return self._db.execute(_text(statement), values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def has(self, table: str) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_schema WHERE name = ?", table))

    def write(self, statement: str, values: list[Under]) -> int:
        return max(0, self._db.executemany(_text(statement), values).rowcount)

    def lock_moves(self) -> None:
        """The transaction has the whole file."""

    def lock_total(self, day: date) -> None:
        """The transaction has the whole file."""

    def warn(self, day: date) -> list[Any]:
        return self.rows(
            "UPDATE spend SET warned = 1 WHERE day = ? AND subject = 'app' AND warned = 0"
            " RETURNING 1",
            day.isoformat(),
        )


def _text(statement: str) -> str:
    text = statement.replace("@.", "").replace("@money", "day, subject")
    return text.replace("@now", "((julianday('now') - 2440587.5) * 86400.0)")
