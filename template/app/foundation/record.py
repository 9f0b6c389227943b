"""What is known about one request. Every standard notes its facts here; visibility writes them."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

# `none`: the model was not asked; `replay`: an idempotency key's answer, sent again.
CacheState = Literal["none", "hit", "miss", "bypass", "replay"]
# What a request's time is spent on.
Phase = Literal["guard", "store", "provider"]
# Which model a request was given first while a canary runs: the candidate, or the proven one.
Arm = Literal["canary", "stable"]


@dataclass(frozen=True, slots=True)
class Charge:
    """What one attempt at a provider cost, in nano-dollars; its tokens, 0 where not known."""

    provider: str
    model: str
    nano: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class PolicyHit:
    """A rule of the policy found something, on a side: in the input or in the output."""

    rule: str
    action: Literal["block", "redact", "abstain"]
    side: Literal["input", "output"]


@dataclass(slots=True)
class RequestRecord:
    """The facts of one request, from its first byte to its last.

    Money is in integer nano-dollars, durations are in seconds. `headers` go out with the response,
    whatever its status. `trace_id` is that of the request's trace, where it has one; `span` makes
    a phase a part of it.
    """

    request_id: str
    trace_id: str | None = None
    span: Callable[[Phase], AbstractContextManager[object]] = nullcontext
    caller: str | None = None
    end_user: str | None = None  # a hash of the request's `user`
    metadata: dict[str, str] | None = None
    model: str | None = None
    provider: str | None = None
    streamed: bool = False
    attempts: int = 0
    retries: int = 0  # attempts at a target that had been asked already
    fallback: bool = False
    cache: CacheState = "none"
    arm: Arm | None = None
    candidate_failed: bool = False  # a proven model answered in its stead
    summarised: bool = False
    abstained: str | None = None  # why the app gave no answer of its own: a rule's name
    policy: dict[PolicyHit, int] = field(default_factory=dict)  # how often each was found
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int = 0
    error_code: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)

    def charge(self, charge: Charge) -> None:
        """Add what an attempt cost. The totals are over all attempts of the request."""
        self.charges.append(charge)
        self.cost_nano += charge.nano
        self.input_tokens += charge.input_tokens
        self.output_tokens += charge.output_tokens
        self.cached_tokens += charge.cached_tokens
        self.reasoning_tokens += charge.reasoning_tokens

    def policy_hit(self, hit: PolicyHit) -> None:
        """A rule found something once more."""
        self.policy[hit] = self.policy.get(hit, 0) + 1

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Add the time spent inside to `phase` (shown as `Server-Timing`)."""
        started = time.perf_counter()
        try:
            with self.span(phase):
                yield
        finally:
            spent = time.perf_counter() - started
            self.timings[phase] = self.timings.get(phase, 0.0) + spent
