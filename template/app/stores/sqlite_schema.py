"""The SQLite file's tables, and their version (`PRAGMA user_version`).

A change that an older release can live with (a table, a column with a default) keeps the version,
so that a rollback finds a file it can read; any other change raises it.
"""

import sqlite3
import time

from app.stores.base import StoreSetupError

VERSION = 1

TABLES = """
-- One row per day and subject ("app", "caller:<name>"): the money of that day.
CREATE TABLE spend (
    day TEXT NOT NULL,
    subject TEXT NOT NULL,
    settled_nano INTEGER NOT NULL DEFAULT 0,
    reserved_nano INTEGER NOT NULL DEFAULT 0,
    warned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, subject)
) WITHOUT ROWID;

-- One row per request in flight. `state` is active, or expired: its owner died, and
-- `charged_nano` was kept. `subjects` is a JSON list of the spend rows it counts in.
CREATE TABLE reservations (
    id TEXT PRIMARY KEY,
    day TEXT NOT NULL,
    subjects TEXT NOT NULL,
    amount_nano INTEGER NOT NULL,
    app_limit_nano INTEGER NOT NULL,
    claim TEXT,
    state TEXT NOT NULL DEFAULT 'active',
    dispatched INTEGER NOT NULL DEFAULT 0,
    charged_nano INTEGER NOT NULL DEFAULT 0,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX reservations_expiry ON reservations (state, expires_at);

-- Where release 0.1.0 counted rates: still there for the day that it is rolled back to.
CREATE TABLE rate_events (subject TEXT NOT NULL, expires_at REAL NOT NULL);
CREATE INDEX rate_events_subject ON rate_events (subject, expires_at);
CREATE INDEX rate_events_expiry ON rate_events (expires_at);

-- One row per idempotency key; `status` is NULL while its owner is at work;
-- it is kept for `keep_seconds` from its answer on.
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    reservation TEXT NOT NULL,
    status INTEGER,
    media_type TEXT NOT NULL DEFAULT '',
    body BLOB,
    complete INTEGER NOT NULL DEFAULT 0,
    keep_seconds INTEGER NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- Sealed values, such as summaries of conversations.
CREATE TABLE memos (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX memos_expiry ON memos (expires_at);

CREATE TABLE incidents (key TEXT PRIMARY KEY, remind_at REAL NOT NULL) WITHOUT ROWID;
"""

# Since release 0.2.0.
_MORE_TABLES = """
-- One row per subject and second: admissions whose windows end in it, the last at `expires_at`.
CREATE TABLE rates (
    subject TEXT NOT NULL,
    second INTEGER NOT NULL,
    expires_at REAL NOT NULL,
    hits INTEGER NOT NULL,
    PRIMARY KEY (subject, second)
) WITHOUT ROWID;
CREATE INDEX rates_second ON rates (second);

-- How long the lease is, so that one from before the clock was set back can be told.
ALTER TABLE reservations ADD COLUMN lease_seconds REAL NOT NULL DEFAULT 900;
"""


# Counters by minute and hour (`span` in seconds); `number` is that of the span since 1970.
_COUNTS = """
CREATE TABLE counts (
    name TEXT NOT NULL,
    span INTEGER NOT NULL,
    number INTEGER NOT NULL,
    label TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (name, span, number, label)
) WITHOUT ROWID;
CREATE INDEX counts_age ON counts (span, number);
"""

# Since release 0.3.0: sealed values in collections that forget.
_ENTRIES = """
CREATE TABLE entries (
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    times INTEGER NOT NULL,
    seen_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (name, key)
);
CREATE INDEX entries_order ON entries (name, expires_at, key);
CREATE INDEX entries_expiry ON entries (expires_at);
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Create the tables, once, however many processes start together.

    Raises `StoreSetupError` for a file that a newer release of the app has written.
    """
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StoreSetupError("store_newer", found=version, known=VERSION)
        if version == 0:
            _run(connection, TABLES)
            connection.execute(f"PRAGMA user_version={VERSION}")
        more = {"rates": _MORE_TABLES, "counts": _COUNTS, "entries": _ENTRIES}
        for table, statements in more.items():
            found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,))
            if not found.fetchone():
                _run(connection, statements)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, statements: str) -> None:
    # Not `executescript`: it would commit the transaction that all of this is one step of.
    for statement in statements.split(";\n"):
        connection.execute(statement)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # The switch ignores the busy timeout while another process is making the same switch.
    for _ in range(50):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            time.sleep(0.02)
        else:
            return
    connection.execute("PRAGMA journal_mode=WAL")
