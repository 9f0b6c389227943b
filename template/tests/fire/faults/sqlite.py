"""What can happen to a SQLite file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil

from tests.fire.faults.base import Fault, frozen, repeated
from tests.running import RunningApp
from tests.servers.sqlite import SqliteFile


@contextmanager
def _full(server: SqliteFile, app: RunningApp) -> Iterator[None]:
    """The app may write to no file beyond its first kilobyte: a disk without room, to SQLite."""
    workers = app.workers()
    limits = [worker.rlimit(psutil.RLIMIT_FSIZE) for worker in workers]
    for worker, (_, most) in zip(workers, limits, strict=True):
        worker.rlimit(psutil.RLIMIT_FSIZE, (1024, most))
    yield
    for worker, limit in zip(workers, limits, strict=True):
        worker.rlimit(psutil.RLIMIT_FSIZE, limit)


@contextmanager
def _tidied(server: SqliteFile, app: RunningApp) -> Iterator[None]:
    def checkpoint() -> None:
        with closing(sqlite3.connect(server.path)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    with repeated(checkpoint):
        yield


FAULTS = {"locked": Fault(frozen), "a full disk": Fault(_full)}
NUISANCES = {"its log is written back": Fault(_tidied)}
