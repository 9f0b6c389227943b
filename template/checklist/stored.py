"""The one place where the checklist knows which store the app was generated for.

Everything else takes the store as `production()` sets it up, and looks at it through the app.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.foundation.project import load_project

# The setting without which an app of this store cannot start; SQLite has a default.
REQUIRED_SETTINGS = {"postgres": ("DATABASE_URL",), "redis": ("REDIS_URL",)}.get(
    load_project().store, ()
)


def stored_bytes(environment: dict[str, str]) -> bytes:
    """Every byte that the store of an app with this environment holds."""
    database = _file(environment)
    return b"".join(path.read_bytes() for path in sorted(database.parent.glob(f"{database.name}*")))


@contextmanager
def hanging_store(environment: dict[str, str]) -> Iterator[None]:
    """The store takes calls and does not answer them, for as long as the block runs."""
    with closing(sqlite3.connect(_file(environment), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


def _file(environment: dict[str, str]) -> Path:
    return Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))
