"""What travels in a request's ASGI scope: its record, and the language of its messages."""

from starlette.datastructures import Headers
from starlette.types import Scope

from app.foundation.messages import Messages, choose_language, load_messages
from app.foundation.project import load_project
from app.foundation.record import RequestRecord


def record_of(scope: Scope) -> RequestRecord:
    """The request's record; visibility's `RequestLog` put it there."""
    record = scope["state"]["record"]
    if not isinstance(record, RequestRecord):
        raise TypeError("RequestLog is not installed")
    return record


def messages_of(scope: Scope) -> Messages:
    """The texts in the caller's language (`Accept-Language`), else in the project's."""
    accepted = Headers(scope=scope).get("accept-language")
    return load_messages(choose_language(accepted, load_project().language))


def peer_of(scope: Scope) -> str | None:
    """The address at the other end of the connection."""
    client = scope.get("client")
    return client[0] if client else None
