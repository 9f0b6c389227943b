"""Asking an app on the OpenAI wire."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from checklist.messages import seen_as
from tests.running import RunningApp

CHAT = "/v1/chat/completions"


def question(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


def ask(app: RunningApp, text: str = "Hello", **fields: Any) -> httpx2.Response:
    """Ask once, as alice."""
    with app.http() as http:
        return http.post(CHAT, json=question(text, **fields))


def timed(app: RunningApp, text: str = "Hello", **fields: Any) -> tuple[httpx2.Response, float]:
    """Ask once; the answer, and how many seconds it took."""
    started = time.monotonic()
    answer = ask(app, text, **fields)
    return answer, time.monotonic() - started


def ask_many(
    app: RunningApp,
    count: int,
    caller: str = "alice",
    *,
    at_once: int = 16,
    headers: Sequence[dict[str, str]] = ({},),
    **fields: Any,
) -> list[httpx2.Response]:
    """Ask `count` times, so many at once; `headers` are taken in turn."""
    with app.http(caller) as http, ThreadPoolExecutor(at_once) as pool:
        return list(
            pool.map(
                lambda n: http.post(
                    CHAT, json=question(**fields), headers=headers[n % len(headers)]
                ),
                range(count),
            )
        )


def code_of(answer: httpx2.Response) -> str:
    """The error's stable code; "ok" for an answer, "" where there is no such code."""
    if answer.status_code == 200:
        return "ok"
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""


def tally(answers: list[httpx2.Response]) -> str:
    """How many answers had which status: `200 x 20, 429 x 6`."""
    statuses = [answer.status_code for answer in answers]
    return ", ".join(f"{status} x {statuses.count(status)}" for status in sorted(set(statuses)))


def calls_seen(count: int) -> str:
    """How many calls reached the provider, in words."""
    return seen_as("calls", count=count)


def status_after(answer: httpx2.Response, seconds: float) -> str:
    """An answer's status and how long it took."""
    return f"{answer.status_code}, {seconds:.1f} s"
