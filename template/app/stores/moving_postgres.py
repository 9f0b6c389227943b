"""The records of a PostgreSQL database, for a move."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from typing import Any

from app.stores.moving import STEP_SECONDS, VERSION, DayMoney, Lease, MoveError, Under, driver
from app.stores.moving_sql import SqlRecords

SLOTS = 16  # of the app's money: see postgres_schema.sql


def open_records(url: str, namespace: str) -> "PostgresRecords":
    """The records of one app in a database. Raises `MoveError` where it cannot be reached."""
    return PostgresRecords(url, namespace)


class PostgresRecords(SqlRecords):
    """`Records` of one app.

    Rows are locked in the order of postgres_steps.sql: callers' money by subject, the app's slots,
    the warning, the keys. Counters are a move's own, and moves keep each other away.
    """

    def __init__(self, url: str, namespace: str) -> None:
        package = driver("psycopg", "psycopg[binary]")
        self._error: type[Exception] = package.Error
        name = namespace.replace("-", "_")
        self._schema = f"app_{name}" if name.startswith("pg_") else name
        self._address = "PostgreSQL"
        try:
            with self.failures():
                self._db: Any = package.connect(
                    url,
                    autocommit=True,
                    prepare_threshold=None,  # it may stand behind PgBouncer
                    connect_timeout=int(STEP_SECONDS),
                    fallback_application_name=namespace,
                )
        except MoveError as error:
            # libpq quotes a URL that it cannot read, password included.
            if isinstance(error.__cause__, package.ProgrammingError):
                raise MoveError("wrong_url", names="postgresql://") from None
            raise
        facts = self._db.info
        self._address = f"{facts.host}:{facts.port}/{facts.dbname}"

    @contextmanager
    def failures(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            reason = str(error).partition("\n")[0]
            raise MoveError("failed", address=self._address, reason=reason) from error

    def identity(self, proposed: str) -> str:
        if not self.rows("SELECT to_regclass(?)", f'"{self._schema}".schema_version')[0][0]:
            raise MoveError("not_ours", address=self._address)
        if self.rows("SELECT version FROM @.schema_version")[0][0] != VERSION:
            raise MoveError("other_version", address=self._address)
        return self.named(proposed)

    def leases(self) -> list[Lease]:
        return [
            Lease(day, ("app", *callers), *rest)
            for day, callers, *rest in self.rows(
                "SELECT day, callers, amount_nano, claim, dispatched, expires_at - @now"
                " FROM @.reservations WHERE NOT expired"
            )
        ]

    def days(self) -> Iterator[DayMoney]:
        for (day,) in self.rows("SELECT DISTINCT day FROM @.spend ORDER BY day"):
            settled = self.rows(
                "SELECT subject, sum(settled_nano)::int8 FROM @.spend WHERE day = ?"
                " GROUP BY subject",
                day,
            )
            warned = self.rows("SELECT 1 FROM @.warnings WHERE day = ?", day)
            yield DayMoney(day, dict(settled), bool(warned))

    def close(self) -> None:
        self._db.close()

    def rows(self, statement: str, *values: object) -> list[Any]:
        found: list[Any] = self._db.execute(self._text(statement), values).fetchall()
        return found

    def transaction(self) -> AbstractContextManager[Any]:
        transaction: AbstractContextManager[Any] = self._db.transaction()
        return transaction

    def has(self, table: str) -> bool:
        return bool(self.rows("SELECT to_regclass(?)", f'"{self._schema}".{table}')[0][0])

    def write(self, statement: str, values: list[Under]) -> int:
        with self._db.cursor() as cursor:
            cursor.executemany(self._text(statement), values)
            return max(0, int(cursor.rowcount))

    def lock_moves(self) -> None:
        self.rows("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", f"move {self._schema}")

    def lock_total(self, day: date) -> None:
        self.rows(
            "INSERT INTO @.spend (day, subject, slot)"
            " SELECT ?, 'app', n FROM generate_series(0, ?) AS n"
            " ON CONFLICT DO NOTHING RETURNING 1",
            *(day, SLOTS - 1),
        )
        whole = "FROM @.spend WHERE day = ? AND subject = 'app'"
        self.rows(f"SELECT 1 {whole} ORDER BY slot FOR UPDATE", day)
        # No share is right any longer: the next request divides them anew.
        self.rows(
            "UPDATE @.spend SET limit_nano = 0, share_nano = -1"
            " WHERE day = ? AND subject = 'app' RETURNING 1",
            day,
        )

    def warn(self, day: date) -> list[Any]:
        return self.rows(
            "INSERT INTO @.warnings VALUES (?) ON CONFLICT DO NOTHING RETURNING 1", day
        )

    def _text(self, statement: str) -> str:
        text = statement.replace("@.", f'"{self._schema}".').replace("?", "%s")
        text = text.replace("@now", "date_part('epoch', clock_timestamp())")
        return text.replace("@money", "day, subject, slot")
