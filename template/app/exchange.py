"""What goes into the request path, and what comes out of it."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from app.foundation.errors import AppError
from app.foundation.messages import Messages
from app.foundation.record import RequestRecord
from app.standards.availability.deadline import Deadline
from app.standards.spending.identity import Caller


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, from where, and in which language they are answered.

    `route` is the idempotency key's scope; `deadline` is the whole HTTP request's. With `no_store`
    the answer is neither taken from the cache nor kept in it. With `knowledge` it rests on the
    app's knowledge, where the app has any.
    """

    caller: Caller
    route: str
    record: RequestRecord
    messages: Messages
    deadline: Deadline
    idempotency_key: str | None = None
    no_store: bool = False
    knowledge: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole response: its bytes on the OpenAI wire (JSON, or all of a stream's events)."""

    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a live stream: its bytes on the wire, and what they say."""

    data: bytes
    text: str = ""
    error: AppError | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """A stream that has begun. Close `events` when the client leaves or `deadline` is over."""

    events: AsyncGenerator[Event, None]
    deadline: Deadline
