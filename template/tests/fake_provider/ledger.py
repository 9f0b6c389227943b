"""The provider's own books: what was asked of it, how each call ended, and what it bills."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Literal

WireName = Literal["openai", "anthropic", "gemini"]
Outcome = Literal[
    "open",  # still being worked on
    "answered",  # the whole answer was sent
    "status",  # a scripted HTTP error
    "refused",  # the request broke a rule of the wire: no key, a missing field, an unknown path
    "client_left",  # the client hung up before the answer was complete
    "cut",  # the fake reset the connection
    "garbage",
    "error_inside",
    "truncated",
    "stopped",  # the fake was stopped meanwhile
    "failed",  # a bug in the fake, or in a predicate given to it
]


@dataclass(frozen=True)
class Usage:
    """Tokens. `prompt` includes `cached` and `cache_written`; `completion` includes `reasoning`."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_written: int = 0
    reasoning: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass
class Call:
    """One call, as the wire's request said it. Times are `time.monotonic()`, in seconds."""

    wire: WireName
    path: str  # without its query, which may carry a key
    number: int = 0  # 1, 2, … in the order of arrival; never reused
    model: str = ""
    stream: bool = False
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    messages: list[tuple[str, str]] = field(default_factory=list, repr=False)  # (role, text)
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    response_format: Any = None  # a JSON schema, {} for any JSON object, None for plain text
    key: str = ""  # the first 12 hex digits of the SHA-256 of the key: never the key itself
    traceparent: str | None = None  # W3C trace context, where the app sends one
    arrived: float = field(default_factory=time.monotonic)
    finished: float | None = None
    outcome: Outcome = "open"
    status: int | None = None  # None until response headers are sent
    chunks_sent: int = 0  # pieces of text of a stream
    usage: Usage = field(default_factory=Usage)  # billed; settled when the call ends


class Ledger:
    """Every call in the order of arrival. Thread-safe; calls are added, never changed by users."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self._open: set[int] = set()
        self._last = 0

    @property
    def calls(self) -> list[Call]:
        """All calls so far, those in flight included. A copy of the list, not of the calls."""
        with self._changed:
            return list(self._calls)

    def wait_for(self, n: int, timeout: float = 20.0) -> list[Call]:
        """Wait until `n` calls have arrived, and return all calls.

        Raises `TimeoutError` after `timeout` seconds.
        """
        self._wait(lambda: len(self._calls) >= n, timeout, f"{n} calls to arrive")
        return self.calls

    def idle(self, timeout: float = 20.0) -> None:
        """Wait until no call is in flight. Raises `TimeoutError` after `timeout` seconds."""
        self._wait(lambda: not self._open, timeout, "every call to end")

    def usage_by_model(self) -> dict[str, Usage]:
        """What was billed so far, by model. Calls in flight count once they have ended."""
        totals: dict[str, Usage] = {}
        for call in self.calls:
            totals[call.model] = totals.get(call.model, Usage()) + call.usage
        return totals

    def cost_nano(self, prices: Mapping[str, tuple[int, int]]) -> int:
        """The bill in nano-units, from `{model: (per input token, per output token)}`.

        Cached tokens cost what input tokens cost. Raises `KeyError` where a model that was
        billed has no price.
        """
        total = 0
        for model, usage in self.usage_by_model().items():
            if usage != Usage():
                price_in, price_out = prices[model]
                total += usage.prompt * price_in + usage.completion * price_out
        return total

    def clear(self) -> None:
        """Forget all calls; those in flight end unrecorded, and `idle` still waits for them."""
        with self._changed:
            self._calls.clear()

    def add(self, call: Call) -> None:
        """For the server: record an arrival."""
        with self._changed:
            self._last += 1
            call.number = self._last
            self._calls.append(call)
            self._open.add(call.number)
            self._changed.notify_all()

    def end(self, call: Call, outcome: Outcome, usage: Usage) -> None:
        """For the server: record how a call ended and what it bills. Only the first time counts."""
        with self._changed:
            if call.outcome != "open":
                return
            call.usage = usage
            call.finished = time.monotonic()
            call.outcome = outcome
            self._open.discard(call.number)
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(ready, timeout):
                raise TimeoutError(
                    f"waited {timeout} s for {what}: "
                    f"{len(self._calls)} arrived, {len(self._open)} in flight"
                )
