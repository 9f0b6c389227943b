"""What the server asks of each wire, and what the three have in common."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .answers import Answer
from .behaviours import Status
from .ledger import Call, WireName


class Refusal(Exception):
    """The request breaks a rule of its wire."""

    def __init__(self, code: int, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.answer = Status(code, message, kind=kind)


@dataclass(frozen=True)
class Incoming:
    """A request as it came over HTTP. Header names are in lower case."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def bearer(self) -> str | None:
        """The token of `Authorization: Bearer …`."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


@dataclass(frozen=True)
class Frames:
    """The SSE body of an answer, encoded: what opens it, one frame a piece, what closes it."""

    opening: bytes
    chunks: list[bytes]
    closing: bytes


class Wire(ABC):
    """One provider's API. Stateless."""

    name: ClassVar[WireName]
    request_id: ClassVar[str]  # the response header that carries it
    line_end: ClassVar[bytes] = b"\n"

    @abstractmethod
    def serves(self, path: str) -> bool:
        """Whether this path is the wire's; it may still be unknown to `read`."""

    @abstractmethod
    def key(self, incoming: Incoming) -> str:
        """The caller's key. Raises `Refusal` as the provider does when there is none."""

    @abstractmethod
    def read(self, call: Call, incoming: Incoming) -> None:
        """Fill in `call` from `call.body`. Any `LookupError`, `TypeError` … is the client's."""

    @abstractmethod
    def whole(self, call: Call, answer: Answer) -> bytes:
        """The JSON body of an answer."""

    @abstractmethod
    def frames(self, call: Call, answer: Answer) -> Frames:
        """The SSE body of an answer."""

    @abstractmethod
    def error(self, call: Call, status: Status) -> dict[str, Any]:
        """The body of an error."""

    def error_frame(self, call: Call, status: Status) -> bytes:
        """An error in mid-stream."""
        return self.frame(dump(self.error(call, status)))

    def frame(self, data: bytes) -> bytes:
        """One SSE event."""
        return b"data: " + data + self.line_end * 2

    def headers(self, call: Call, wait: float | None = None) -> dict[str, str]:
        """The response headers of the wire. `wait`: seconds until a retry makes sense."""
        headers = {self.request_id: f"req_fake{call.number:08}"}
        return headers if wait is None else {**headers, "retry-after": f"{wait:g}"}

    def accept(self, call: Call, incoming: Incoming) -> None:
        """Check the key and read the request into `call`. Raises `Refusal`."""
        call.key = hashlib.sha256(self.key(incoming).encode()).hexdigest()[:12]
        try:
            call.body = dict(json.loads(incoming.body))
            self.read(call, incoming)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Refusal(400, f"Invalid request: {error!r}") from error
        if not call.messages:
            raise Refusal(400, "Invalid request: there are no messages.")


def dump(value: object) -> bytes:
    """Compact JSON in UTF-8, without \\u escapes, as the providers send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def text_of(content: object) -> str:
    """The text of a message, whether a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return ""
