"""Many clients at once, some of whom leave in the middle."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.fake_provider import FakeProvider
from tests.running import CALLERS, RunningApp

PATH = "/v1/chat/completions"
PRICES = (1_000, 2_000)  # nano-dollars for a token of input and of output, as `production` says


@dataclass(frozen=True)
class Ask:
    """One request. `leave_after`: the client hangs up after so many chunks of its stream.

    `patience` is in seconds: then it hangs up whatever it has got.
    """

    content: str = "Hello"
    caller: str = "alice"
    stream: bool = False
    max_tokens: int | None = None
    key: str | None = None
    leave_after: int | None = None
    patience: float = 30.0

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        body: dict[str, Any] = {
            "model": "auto",
            "messages": [{"role": "user", "content": self.content}],
        }
        if self.stream:
            body["stream"] = True
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return body


@dataclass(frozen=True)
class Heard:
    """What a client heard: `code` is "ok", the error's code, "left" or "cut"."""

    code: str
    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def replayed(self) -> bool:
        """Whether it is the answer of an earlier request."""
        return self.headers.get("idempotency-replayed") == "true"


async def ask(client: httpx2.AsyncClient, asked: Ask) -> Heard:
    """Send one request and hear it out, or leave."""
    headers = {"Authorization": f"Bearer {CALLERS[asked.caller]}"}
    if asked.key is not None:
        headers["Idempotency-Key"] = asked.key
    try:
        async with (
            asyncio.timeout(asked.patience),
            client.stream("POST", PATH, json=asked.body, headers=headers) as response,
        ):
            parts = []
            async for part in response.aiter_bytes():
                parts.append(part)
                if asked.leave_after is not None and len(parts) > asked.leave_after:
                    return Heard("left", response.status_code)
    except (TimeoutError, httpx2.TimeoutException):
        return Heard("left")
    except httpx2.TransportError:
        return Heard("cut")
    return _heard(response.status_code, b"".join(parts), dict(response.headers))


def _heard(status: int, body: bytes, headers: dict[str, str]) -> Heard:
    code = "ok"
    if status != 200:
        code = json.loads(body)["error"]["code"]
    elif b'data: {"error"' in body:
        code = "broken"
    return Heard(code, status, body, headers)


async def crowd(app: RunningApp, asked: Iterable[Ask], at_once: int = 48) -> list[Heard]:
    """Send them all, `at_once` at a time; what each of them heard, in order."""
    limit = asyncio.Semaphore(at_once)
    async with httpx2.AsyncClient(base_url=app.url, timeout=None, trust_env=False) as client:

        async def one(wish: Ask) -> Heard:
            async with limit:
                return await ask(client, wish)

        return list(await asyncio.gather(*map(one, asked)))


async def until(
    ready: Callable[[], Awaitable[bool]], seconds: float, what: str, pause: float = 0.1
) -> None:
    """Wait until something holds. Raises `AssertionError` after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await ready():
        assert asyncio.get_running_loop().time() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(pause)


def billed(fake: FakeProvider) -> int:
    """The provider's bill in nano-dollars."""
    models = {call.model for call in fake.ledger.calls}
    return fake.ledger.cost_nano(dict.fromkeys(models, PRICES))
