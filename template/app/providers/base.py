"""What the app asks of a provider, and what a provider answers: the same for all of them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn's half. OpenAI's `developer` role arrives here as `system`."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """OpenAI's `response_format`: any JSON object, or JSON that obeys `schema`."""

    type: Literal["json_object", "json_schema"]
    name: str = "answer"
    schema: dict[str, Any] | None = None
    strict: bool = True
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call's content. `max_output_tokens` is always sent: it bounds the price of the call.

    `None` means that the provider's own default holds. `end_user` is a hash, never a name.
    """

    messages: tuple[Message, ...]
    max_output_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: ResponseFormat | None = None
    end_user: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them.

    `input_tokens` includes `cached_tokens` (read from the provider's prompt cache) and
    `cache_write_tokens`; `output_tokens` includes `reasoning_tokens`.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `usage` is None when the provider did not state it."""

    text: str
    finish_reason: FinishReason
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a streamed answer: some text, the reason why it ended, the usage, or several."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


ErrorKind = Literal[
    "connect",  # nothing reached the provider: refused, unresolvable, no free connection
    "timeout",  # sent, and no answer in time
    "broken",  # the connection broke after the request was sent
    "garbage",  # an answer that is not in the provider's wire format
    "rate_limited",  # 429
    "overloaded",  # 408, 409, 5xx
    "quota",  # 429 or 402 that waiting does not mend: the account is out of money
    "rejected_key",  # 401, 403: the operator's key
    "unknown_model",  # 404, or an address that redirects or takes no POST
    "invalid",  # any other 4xx: the request itself
]

_RETRYABLE: frozenset[ErrorKind] = frozenset(
    {"connect", "timeout", "broken", "garbage", "rate_limited", "overloaded"}
)
_PERHAPS_BILLED: frozenset[ErrorKind] = frozenset({"timeout", "broken", "garbage"})
# A gateway's word on a server that took the request: it lost the answer, or waited no longer.
# 520 and 524 are Cloudflare's, which stands before most providers.
_ANSWER_LOST = frozenset({502, 504, 520, 524})


class ProviderError(Exception):
    """A provider's failure, translated.

    Never chained to the SDK's exception (`raise … from None`): that one carries the request's
    headers, and with them the key. `retry_after` is in seconds, a day at most: clients are told it.
    `usage` is what a broken stream had reported so far: a lower bound.
    """

    def __init__(
        self,
        kind: ErrorKind,
        provider: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(f"{provider}: {kind}" + (f" (status {status})" if status else ""))
        self.kind = kind
        self.provider = provider
        self.status = status
        self.retry_after = None if retry_after is None else min(retry_after, 86_400)
        self.usage = usage

    @property
    def retryable(self) -> bool:
        """True where the same call may succeed a moment later."""
        return self.kind in _RETRYABLE

    @property
    def perhaps_billed(self) -> bool:
        """True where the provider may have done the work: the charge is then kept."""
        return self.kind in _PERHAPS_BILLED or self.status in _ANSWER_LOST or self.usage is not None

    @property
    def callers_fault(self) -> bool:
        """True where another provider would refuse as well, and no breaker may open."""
        return self.kind == "invalid"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, per phase. `read` also bounds the gap between two chunks of a stream."""

    connect: float
    read: float
    write: float
    pool: float


@dataclass(frozen=True, slots=True)
class Connection:
    """What a provider module needs to reach its server. `base_url` None: the SDK's own default."""

    api_key: str = field(repr=False)
    model: str
    base_url: str | None
    timeouts: Timeouts


class Provider(Protocol):
    """One provider and one model. Implementations retry nothing and log nothing."""

    @property
    def name(self) -> str:
        """The provider's name, as in PROVIDERS."""
        ...

    @property
    def model(self) -> str:
        """The model's name, as the provider knows it."""
        ...

    async def complete(self, prompt: Prompt) -> Answer:
        """Ask for the whole answer. Raises `ProviderError`, and nothing else of its own."""
        ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """Ask for the answer in pieces; closing the generator ends the call at the provider.

        The last pieces carry the finish reason and the usage. Raises `ProviderError`, also when
        the stream ends without its end marker.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
