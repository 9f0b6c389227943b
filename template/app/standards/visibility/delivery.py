"""Delivery of alerts through apprise: in threads, bounded in time, and nobody waits for it."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from loguru import logger

from app.foundation.settings import Settings
from app.standards.visibility.threads import in_thread

# One attempt, all of it: a server that answers a byte at a time gains nothing.
ATTEMPT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 3.0)
MAX_WAITING = 50


def alert_url_problems(settings: Settings) -> list[int]:
    """Which of ALERT_URLS, from 1 on, apprise does not know. They hold tokens: none is repeated."""
    found = enumerate(_plugins(settings), 1)
    return [place for place, plugin in found if plugin is None]


def load_targets(settings: Settings) -> list["Target"]:
    """One target per URL."""
    found = enumerate(_plugins(settings), 1)
    return [Target(place, plugin.notify) for place, plugin in found if plugin is not None]


def _plugins(settings: Settings) -> list[Any]:
    if not settings.alert_urls:
        return []  # apprise takes a second to load
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it names URLs
    urls = [url.get_secret_value() for url in settings.alert_urls]
    return [apprise.Apprise.instantiate(url) for url in urls]


class Target:
    """One URL. Each attempt has a thread of its own, which is left behind when it hangs."""

    def __init__(self, place: int, notify: Callable[..., bool | None]) -> None:
        self._place = place
        self._notify = notify
        self._waiting: asyncio.Queue[tuple[str, str]] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._failing = False

    def send(self, title: str, body: str) -> None:
        """Queue a notification, or drop it when too many wait."""
        if self._waiting.full():
            self._failed()
            return
        self._waiting.put_nowait((title, body))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._deliver())

    async def drained(self) -> None:
        """Wait until everything in the queue was tried."""
        await self._waiting.join()

    def stop(self) -> None:
        """Give up what still waits."""
        if self._task is not None:
            self._task.cancel()

    async def _deliver(self) -> None:
        while True:
            title, body = await self._waiting.get()
            for pause in (*PAUSES_SECONDS, 0):
                if await self._attempt(title, body):
                    self._failing = False
                    break
                await asyncio.sleep(pause)
            else:
                self._failed()
            self._waiting.task_done()

    async def _attempt(self, title: str, body: str) -> bool:
        if self._thread is not None and self._thread.is_alive():
            return False  # the attempt before still hangs: threads must not pile up
        thread, delivered = in_thread("alert", lambda: self._notify(title=title, body=body))
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return bool(await delivered)
        except Exception:  # too late, or whatever a plugin of apprise raises
            return False
        finally:
            # One that has said how it ended hangs no longer, even if it is still about to end.
            self._thread = thread if delivered.cancelled() else None

    def _failed(self) -> None:
        if not self._failing:
            logger.error("an alert could not be delivered", entry=self._place)
        self._failing = True
