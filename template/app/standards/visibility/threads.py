"""Work that blocks, in threads that nobody has to wait for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(name: str, work: Callable[[], T]) -> tuple[threading.Thread, asyncio.Future[T]]:
    """Run `work` in a thread of its own; give up on it by cancelling the future.

    The loop's own threads would not do: the app waits for those when it stops.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(work())
        except Exception as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, daemon=True, name=name)
    waiting = asyncio.wrap_future(outcome)
    thread.start()
    return thread, waiting
