"""Asking an app on the OpenAI wire."""

import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from checklist.messages import seen_as
from tests.running import RunningApp

CHAT = "/v1/chat/completions"
PATIENCE_SECONDS = 15.0
NO_ANSWER = 0


def question(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


def ask(app: RunningApp, text: str | None = None, **fields: Any) -> httpx2.Response:
    """Ask once, as alice; by default something that nobody has asked before."""
    with app.http() as http:
        return http.post(CHAT, json=question(text or new_text(), **fields))


def timed(app: RunningApp, text: str | None = None, **fields: Any) -> tuple[httpx2.Response, float]:
    """Ask once; the answer (of status 0 where none came), and how many seconds it took."""
    started = time.monotonic()
    with app.http() as http:
        try:
            body = question(text or new_text(), **fields)
            answer = http.post(CHAT, json=body, timeout=PATIENCE_SECONDS)
        except httpx2.TransportError:
            answer = httpx2.Response(NO_ANSWER)
    return answer, time.monotonic() - started


def ask_many(
    app: RunningApp,
    count: int,
    caller: str = "alice",
    *,
    at_once: int = 16,
    text: str | None = None,
    headers: Sequence[dict[str, str]] = ({},),
    **fields: Any,
) -> list[httpx2.Response]:
    """Ask `count` times, so many at once; `headers` are taken in turn."""
    with app.http(caller) as http, ThreadPoolExecutor(at_once) as pool:

        def one(number: int) -> httpx2.Response:
            body = question(text or new_text(), **fields)
            return http.post(CHAT, json=body, headers=headers[number % len(headers)])

        return list(pool.map(one, range(count)))


def new_text() -> str:
    """A question that nobody has asked before, so that no cache knows its answer."""
    return f"Hello {uuid.uuid4().hex[:8]}"


def operations(app: RunningApp) -> dict[str, Any]:
    """What the operations page shows; nothing where there is no such page."""
    with app.http("admin") as http:
        answer = http.get("/ops/state")
    try:
        found = answer.json() if answer.status_code == 200 else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


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
    status = answer.status_code
    return f"{seen_as('no_answer') if status == NO_ANSWER else status}, {seconds:.1f} s"
