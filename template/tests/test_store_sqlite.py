"""What is SQLite's own: the file, its lock, its schema, and what an earlier release left in it."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from app.stores import sqlite_schema
from app.stores.base import (
    Admitted,
    Claim,
    Entry,
    Settlement,
    StoreSetupError,
    StoreUnavailableError,
)
from tests.stores import ANSWER, CLAIM, Clock, admission, make_store


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'app.db'}"


async def test_what_has_expired_goes_away(tmp_path: Path) -> None:
    clock = Clock()
    store = make_store(url(tmp_path), clock)
    await store.open()
    for number in range(50):
        claim = Claim(str(number), "f", 10)
        await store.admit(admission(str(number), 1, 1000, 1000, claim))
        await store.settle(Settlement(str(number), 1, str(number), ANSWER))
    clock.now += 1000
    await store.reap()
    clock.now += 401 * 86400
    await store.reap()
    await store.close()
    with sqlite3.connect(tmp_path / "app.db") as file:
        for table in ("reservations", "rates", "idempotency", "spend"):
            assert file.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table  # noqa: S608


async def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as file:
        file.execute("PRAGMA user_version=99")
    with pytest.raises(StoreSetupError) as caught:
        await make_store(url(tmp_path), None).open()
    assert caught.value.complaint == "store_newer"
    assert caught.value.facts == {"found": 99, "known": 1}


async def test_a_file_of_release_0_1_0_is_taken_over_and_can_be_given_back(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as file:
        file.executescript(sqlite_schema.TABLES)
        file.execute("PRAGMA user_version=1")
        file.execute("INSERT INTO spend VALUES ('2026-03-01', 'app', 30, 10, 0)")
        file.execute(
            "INSERT INTO reservations (id, day, subjects, amount_nano, app_limit_nano, expires_at)"
            " VALUES ('old', '2026-03-01', '[\"app\"]', 10, 100, ?)",
            (Clock().now + 30,),
        )
    clock = Clock()
    store = make_store(url(tmp_path), clock)
    await store.open()
    await store.settle(Settlement("old", 7))
    assert (await store.spending()).settled_nano == 37
    await store.collect("bad", [Entry("a", b"sealed")], 100, 10)
    assert [entry.key for entry in await store.collected("bad", 10)] == ["a"]
    assert isinstance(await store.admit(admission("new", claim=CLAIM)), Admitted)
    await store.close()
    # What 0.1.0 does with the file after a rollback.
    with sqlite3.connect(tmp_path / "app.db") as file:
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
        file.execute("INSERT INTO rate_events VALUES ('caller:alice', 1.5)")
        file.execute(
            "INSERT INTO reservations"
            " (id, day, subjects, amount_nano, app_limit_nano, claim, expires_at)"
            " VALUES ('older', '2026-03-01', '[\"app\"]', 10, 100, NULL, 0)"
        )


async def test_a_locked_file_is_reported_in_time(tmp_path: Path) -> None:
    store = make_store(url(tmp_path), Clock(), timeout=0.3)
    await store.open()
    holder = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(StoreUnavailableError):
        await store.admit(admission("a"))
    with pytest.raises(StoreUnavailableError):
        await make_store(url(tmp_path), None, timeout=0.3).open()
    assert loop.time() - started < 2
    holder.execute("ROLLBACK")
    holder.close()
    assert isinstance(await store.admit(admission("b")), Admitted)
    await store.close()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "app.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreSetupError) as caught:
        await make_store(url(tmp_path), None).open()
    assert caught.value.complaint == "store_file"


@pytest.mark.parametrize("path", ["/proc/nowhere/app.db", "/dev/null/app.db"])
async def test_a_path_that_cannot_be_written_is_named(path: str) -> None:
    with pytest.raises(StoreSetupError) as caught:
        await make_store(f"sqlite:///{path}", None).open()
    assert caught.value.complaint == "store_file"
    assert caught.value.facts["path"] == path
