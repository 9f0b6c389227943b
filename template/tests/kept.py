"""What a running app has collected, read from the store of its folder."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from app.foundation.project import load_project
from app.launch.failures.envelope import Envelopes
from app.launch.failures.reading import Failure, failures, totals
from app.stores.base import Connection, Store
from tests.running import ADMIN_TOKEN
from tests.servers import store_url

PROJECT = load_project()
SEALED = Envelopes(SecretStr(ADMIN_TOKEN))
# It is written a moment after an answer has left.
PATIENCE_SECONDS = 20.0

T = TypeVar("T")


def kept(folder: Path, count: int) -> list[Failure]:
    """The failures, once there are so many."""
    return _read(folder, lambda store: failures(store, SEALED), lambda found: len(found) >= count)


def counted(folder: Path, wanted: dict[str, int]) -> dict[str, int]:
    """How often each cause was met, once that is as `wanted`."""
    return _read(folder, totals, lambda found: found == wanted)


def _read(folder: Path, read: Callable[[Store], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    async def look() -> T:
        connection = Connection(store_url(folder), PROJECT.slug, 5, ZoneInfo("UTC"))
        store: Store = import_module(f"app.stores.{PROJECT.store}").connect(connection)
        await store.open()
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not enough(found := await read(store)) and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            return found
        finally:
            await store.close()

    return asyncio.run(look())
