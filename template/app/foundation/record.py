"""What is known about one request. Every standard notes its facts here; visibility writes them."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

# `none`: the model was not asked; `replay`: an idempotency key's answer, sent again.
CacheState = Literal["none", "hit", "miss", "bypass", "replay"]
# What a request's time is spent on.
Phase = Literal["guard", "store", "provider", "shadow"]
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
class Said:
    """What was asked (role and text of each message), and what a provider answered, in pieces.

    It stays in memory: no log line and no trace has it. Of the answer `room` characters are kept.
    """

    question: tuple[tuple[str, str], ...]
    answer: list[str] = field(default_factory=list)
    room: int = 8_000

    def more(self, text: str) -> None:
        """The answer goes on."""
        if text and self.room > 0:
            self.answer.append(text[: self.room])
            self.room -= len(text)


@dataclass(slots=True)
class EvidenceFacts:
    """What the app's knowledge held on a request's question, and what the answer made of it.

    `score` is the best passage's, 0 to 1. `invalid_citations` were of passages that the model was
    not given. `grounded`: the answer cited one that it was given; None: there was none to judge.
    """

    passages: int = 0
    score: float = 0.0
    citations: int = 0
    invalid_citations: int = 0
    grounded: bool | None = None


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
    # Why the app gave no answer of its own: a rule's name, or `zero_hit` and the like.
    abstained: str | None = None
    finish_reason: str | None = None  # the provider's, in OpenAI's words
    said: Said | None = None
    evidence: EvidenceFacts | None = None  # None: the knowledge was not asked
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
    # What begins when the response has left, where all went well.
    afterwards: list[Callable[[], None]] = field(default_factory=list)

    @property
    def slow_client(self) -> bool:
        """True where the time was up before any provider was asked: nobody need wake up."""
        return self.error_code == "time_budget_exceeded" and self.attempts == 0

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
