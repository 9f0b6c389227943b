"""What the providers over HTTP share: one call, and the events of a streamed answer."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar

import httpx2
from pydantic_core import from_json

from app.providers.base import (
    Answer,
    Connection,
    Message,
    Piece,
    Prompt,
    ProviderError,
    Role,
    Usage,
)
from app.providers.failures import error_inside, not_transported, refused

MAX_ANSWER_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 0.1
# TLS that breaks in mid-answer surfaces as a bare ssl.SSLError, an OSError (httpx2 issue 854).
TRANSPORT_ERRORS = (httpx2.HTTPError, OSError)
Turn = tuple[Role, str]
_NOT_THE_WIRE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Reader(ABC):
    """Reads one streamed answer. `usage` is what the provider has reported so far."""

    usage: Usage | None = None
    complete = False  # the answer may end here
    ended = False  # the end marker came: whatever follows is ignored

    @abstractmethod
    def read(self, event: Any) -> Piece | None:
        """Translate one event. One that is not in the wire's format may raise anything."""

    def end(self) -> None:
        """Note OpenAI's end marker, `[DONE]`."""
        self.ended = True


class HttpProvider(ABC):
    """A provider over HTTP. A subclass writes the request, sends it, and reads what comes back."""

    name: ClassVar[str]
    sdk_errors: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, model: str) -> None:
        self.model = model

    @abstractmethod
    def request(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        """The body of the call, in the provider's words."""

    @abstractmethod
    async def post(self, body: dict[str, Any], *, stream: bool) -> httpx2.Response:
        """Send it with the SDK's client, and return a successful response, unread."""

    @abstractmethod
    def answer(self, data: Any) -> Answer:
        """Translate a whole answer. One that is not in the wire's format may raise anything."""

    @abstractmethod
    def reader(self) -> Reader:
        """A reader for one streamed answer."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    async def complete(self, prompt: Prompt) -> Answer:
        """Ask for the whole answer. Raises `ProviderError`."""
        return await self._whole(await self._send(prompt, stream=False))

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """Ask for the answer in pieces. Raises `ProviderError`; closing it ends the call."""
        response = await self._send(prompt, stream=True)
        if "json" in (kind := response.headers.get("content-type", "")) or "html" in kind:
            answer = await self._whole(response)
            yield Piece(answer.text, answer.finish_reason, answer.usage)
            return
        reader, decoder, failure = self.reader(), EventDecoder(), None
        try:
            chunks = response.aiter_bytes()
            async for chunk in chunks:
                for data in decoder.feed(chunk):
                    if (piece := self._piece(reader, data)) is not None:
                        yield piece
                if reader.ended:
                    await _drain(chunks)
                    break
        except TRANSPORT_ERRORS as error:
            failure = not_transported(self.name, error, reader.usage)
        finally:
            await response.aclose()
        if not reader.complete:  # raised out here, it has no exception of the SDK as its context
            raise failure or ProviderError("broken", self.name, usage=reader.usage)

    async def _send(self, prompt: Prompt, *, stream: bool) -> httpx2.Response:
        try:
            return await self.post(self.request(prompt, stream=stream), stream=stream)
        except TRANSPORT_ERRORS as error:
            failure = not_transported(self.name, error)
        except self.sdk_errors as error:
            response = getattr(error, "response", None)
            if response is None:
                failure = not_transported(self.name, error.__cause__)
            else:
                failure = refused(self.name, response)
        raise failure

    def _piece(self, reader: Reader, data: bytes) -> Piece | None:
        if reader.ended:
            return None
        if data == b"[DONE]":
            reader.end()
            return None
        try:
            event = parse(data)
            failure = error_inside(self.name, event, reader.usage)
            if failure is None:
                return reader.read(event)
        except _NOT_THE_WIRE:
            failure = ProviderError("garbage", self.name, usage=reader.usage)
        raise failure

    async def _whole(self, response: httpx2.Response) -> Answer:
        content = await self._content(response)
        try:
            data = parse(content)
            failure = error_inside(self.name, data)
            if failure is None:
                return self.answer(data)
        except _NOT_THE_WIRE:
            failure = ProviderError("garbage", self.name)
        raise failure

    async def _content(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                _check_size(len(content))
            return bytes(content)
        except TRANSPORT_ERRORS as error:
            failure = not_transported(self.name, error)
        finally:
            await response.aclose()
        raise failure


class EventDecoder:
    """Cuts a stream of bytes into the data of server-sent events.

    It works on bytes, so that neither a character cut in two nor a U+2028 inside a text matters.
    Comments and the names of events are skipped: on our wires the data says everything.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes."""
        lines = (self._rest + chunk).splitlines(keepends=True)
        # A line that ends in CR stays back as well: its LF may come with the next chunk.
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
            elif self._data and line in (b"\n", b"\r\n", b"\r"):
                events.append(b"\n".join(self._data))
                self._data.clear()
        _check_size(len(self._rest) + sum(map(len, self._data)))
        return events


def encode(body: dict[str, Any]) -> bytes:
    """JSON as it is sent. A lone surrogate becomes a question mark: UTF-8 cannot carry it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def parse(data: bytes) -> Any:
    """The value of a JSON text. Raises `ValueError` or `RecursionError`."""
    try:
        return from_json(data)  # three times as fast, but it refuses half of a surrogate pair
    except ValueError:
        return json.loads(data)


def client_options(connection: Connection) -> dict[str, Any]:
    """How every SDK's HTTP client is set up. A redirect could carry the key to another host."""
    timeout = httpx2.Timeout(**asdict(connection.timeouts))
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
    return {"timeout": timeout, "limits": limits, "follow_redirects": False}


def clean(text: Any) -> str:
    """Text that UTF-8 can carry: JSON lets a provider send half of a surrogate pair."""
    if not isinstance(text, str):
        raise TypeError
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def conversation(messages: tuple[Message, ...]) -> tuple[str, list[Turn]]:
    """The system's text and the turns, for the wires that keep the two apart.

    Turns alternate and the user has the first one, as those wires demand: neighbours of one role
    become one turn, with a blank line between them, and a conversation that the assistant (or only
    the system) opens gets a user's turn of "." before it. Empty texts, which those wires refuse,
    are left out.
    """
    turns: list[Turn] = []
    for item in messages:
        if item.role == "system" or not item.text:
            continue
        if turns and turns[-1][0] == item.role:
            turns[-1] = (item.role, f"{turns[-1][1]}\n\n{item.text}")
        else:
            turns.append((item.role, item.text))
    if not turns or turns[0][0] != "user":
        turns.insert(0, ("user", "."))
    system = (item.text for item in messages if item.role == "system" and item.text)
    return "\n\n".join(system), turns


def section(stated: Any, name: str) -> dict[str, Any]:
    """`stated[name]` where both are objects, otherwise an empty one."""
    found = stated.get(name) if isinstance(stated, dict) else None
    return found if isinstance(found, dict) else {}


def count(value: Any) -> int:
    """A number of tokens; what is absent or no such number counts as 0."""
    return value if type(value) is int and value > 0 else 0


def _check_size(size: int) -> None:
    if size > MAX_ANSWER_BYTES:
        raise httpx2.DecodingError("an answer without an end")


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    # A connection can be used again only when its response was read to the end, which is one
    # packet away unless the provider misbehaves.
    with suppress(*TRANSPORT_ERRORS):  # OSError covers TimeoutError
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in chunks:
                pass
