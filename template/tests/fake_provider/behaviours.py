"""What the fake provider can be told to do with a call.

All times are seconds. `after_chunks` counts the pieces of text of a stream; in answer to a
request that is not streamed, the same behaviour stops half-way through the JSON body instead.
A behaviour that breaks an answer off takes the answer from its `reply`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Literal, TypeAlias

from .ledger import Usage

Finish = Literal["stop", "length", "content_filter"]
Where = Literal["connect", "headers", "body", "chunk"]


@dataclass(frozen=True)
class Reply:
    """Answer well. By default the answer depends on messages, temperature and seed alone.

    `text`: the answer, verbatim; by default an echo, or a JSON document where one is asked for.
    `chunks`: the pieces themselves; or how many pieces to send, repeating the words of the text;
    by default one a word. A piece is a token, and the request's token limit is obeyed.
    `until`: nothing is sent before this is set.
    `delay_before`, `delay_between`: before the first byte, and between two pieces (an answer
    that is not streamed takes as long as one that is). Without `delay_between` a stream leaves
    in a single write.
    `usage`: what the wire states and the ledger bills, instead of what was counted.
    `billed`: what the ledger bills where the wire lies. `omit_usage`: the wire states nothing.
    `finish`: why it ended; "length" whenever the token limit cut the answer.
    """

    text: str | None = None
    chunks: tuple[str, ...] | int | None = None
    until: Event | None = None
    delay_before: float = 0.0
    delay_between: float = 0.0
    usage: Usage | None = None
    billed: Usage | None = None
    omit_usage: bool = False
    finish: Finish = "stop"


@dataclass(frozen=True)
class Status:
    """Answer with an HTTP error in the wire's own shape; nothing is billed.

    `retry_after`: seconds, stated as the provider states it: the `Retry-After` header, and for
    Gemini, which sends none, a `RetryInfo` in the body. `headers` are added as they are.
    `kind`: the error's type in the body, where the status has several ("insufficient_quota").
    """

    code: int
    message: str = "The fake provider was told to fail."
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str | None = None
    delay_before: float = 0.0


@dataclass(frozen=True)
class Hang:
    """Go silent, and stay so until the client leaves.

    `where`: "connect": the connection is accepted and nothing is ever sent (the request is read,
    so that the ledger knows it; nothing is billed). "headers": the response headers are sent.
    "body", "chunk": in mid-answer.
    """

    where: Where = "connect"
    after_chunks: int = 1
    reply: Reply = Reply()


@dataclass(frozen=True)
class Drip:
    """Send the true answer `bytes` at a time, one portion every `interval` seconds."""

    interval: float
    bytes: int = 1
    reply: Reply = Reply()


@dataclass(frozen=True)
class Reset:
    """Reset the TCP connection (RST); `where` as in `Hang`."""

    where: Where = "connect"
    after_chunks: int = 1
    reply: Reply = Reply()


@dataclass(frozen=True)
class Garbage:
    """Answer 200 with a body that is not the wire's: a proxy's HTML page, or broken JSON.

    A stream breaks after `after_chunks` pieces with an event whose data is `body`; with
    `after_chunks=0` it is no stream at all but the bare body. Then the answer ends cleanly.
    """

    body: bytes = b"<html><body>502 Bad Gateway</body></html>"
    after_chunks: int = 1
    reply: Reply = Reply()


@dataclass(frozen=True)
class ErrorInside:
    """Answer 200, with the error of status `code` inside.

    In a stream it is an error event after `after_chunks` pieces, and the stream ends there;
    otherwise it is the whole JSON body.
    """

    code: int = 500
    message: str = "The fake provider failed in mid-answer."
    kind: str | None = None
    after_chunks: int = 1
    reply: Reply = Reply()


@dataclass(frozen=True)
class Truncate:
    """End the HTTP response cleanly in mid-answer: no finish reason, no usage, no end marker."""

    after_chunks: int = 1
    reply: Reply = Reply()


Behaviour: TypeAlias = Reply | Status | Hang | Drip | Reset | Garbage | ErrorInside | Truncate
