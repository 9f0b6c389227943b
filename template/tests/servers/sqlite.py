"""SQLite for tests: a file in the test's own folder."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.clock import Clock


class SqliteFile:
    """A database file. There is no server: it is frozen by a lock that another process holds."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = path
        self.app_environment = clock.environment if clock else {}
        self._lock: sqlite3.Connection | None = None

    @property
    def url(self) -> str:
        """Where the app finds it."""
        return f"sqlite:///{self.path}"

    def freeze(self) -> None:
        """Lock the file as a writer that never ends would."""
        self._lock = sqlite3.connect(
            self.path, timeout=30, isolation_level=None, check_same_thread=False
        )
        self._lock.execute("BEGIN IMMEDIATE")

    def thaw(self) -> None:
        """Let go of the file."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def place(folder: Path) -> str:
    """The folder's own file."""
    return SqliteFile(folder / "app.db").url


def contents(folder: Path) -> bytes:
    """The bytes of the file and of its write-ahead log."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("app.db*")))


@contextmanager
def own(clock: Clock | None = None) -> Iterator[SqliteFile]:
    """A file in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="sqlite-", ignore_cleanup_errors=True) as folder:
        server = SqliteFile(Path(folder) / "app.db", clock)
        try:
            yield server
        finally:
            server.thaw()
