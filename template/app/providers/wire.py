"""What the providers over HTTP share: one call, and the events of a streamed answer."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar

import httpx2
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.providers.base import (
    Answer,
    Connection,
    Piece,
    Prompt,
    ProviderError,
    Usage,
)
from app.providers.failures import error_inside, not_transported, refused
from app.providers.formats import EventDecoder, encode, parse, read_body

DRAIN_SECONDS = 0.1
_TRACE_CONTEXT = TraceContextTextMapPropagator()
# TLS that breaks in mid-answer surfaces as a bare ssl.SSLError, an OSError (httpx2 issue 854).
TRANSPORT_ERRORS = (httpx2.HTTPError, OSError)
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
    """A provider over HTTP. A subclass writes the request, and reads what comes back.

    The SDK says where to call and with which headers, once, at start. The calls themselves go
    through httpx2: what the SDKs do around each of them takes longer than the call.
    """

    name: ClassVar[str]

    def __init__(self, connection: Connection) -> None:
        self.model = connection.model
        self._client = httpx2.AsyncClient(**client_options(connection))

    @abstractmethod
    def request(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        """The body of the call, in the provider's words."""

    @abstractmethod
    def call(self, body: dict[str, Any], *, stream: bool) -> tuple[httpx2.URL, httpx2.Headers]:
        """Where it is sent, and with which headers; both are the SDK's."""

    @abstractmethod
    def answer(self, data: Any) -> Answer:
        """Translate a whole answer. One that is not in the wire's format may raise anything."""

    @abstractmethod
    def reader(self) -> Reader:
        """A reader for one streamed answer."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

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
        """Send the call, and return a successful response, unread."""
        body = self.request(prompt, stream=stream)
        url, headers = self.call(body, stream=stream)
        request = self._client.build_request("POST", url, headers=headers, content=encode(body))
        _TRACE_CONTEXT.inject(request.headers)  # nothing where there is no trace
        try:
            response = await self._client.send(request, stream=True)
            if response.is_success:
                return response
            failure = refused(self.name, response, await read_body(response))
        except TRANSPORT_ERRORS as error:
            failure = not_transported(self.name, error)
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
        try:
            data = parse(await read_body(response))
            failure = error_inside(self.name, data)
            if failure is None:
                return self.answer(data)
        except TRANSPORT_ERRORS as error:
            failure = not_transported(self.name, error)
        except _NOT_THE_WIRE:
            failure = ProviderError("garbage", self.name)
        raise failure


def static_headers(*stated: Mapping[str, Any]) -> httpx2.Headers:
    """The SDK's headers without those that it leaves out by a marker."""
    headers = {name: value for part in stated for name, value in part.items()}
    return httpx2.Headers(
        {name: value for name, value in headers.items() if isinstance(value, str)}
    )


def client_options(connection: Connection) -> dict[str, Any]:
    """How every HTTP client is set up. A redirect could carry the key to another host."""
    timeout = httpx2.Timeout(**asdict(connection.timeouts))
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
    return {"timeout": timeout, "limits": limits, "follow_redirects": False}


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    # A connection can be used again only when its response was read to the end, which is one
    # packet away unless the provider misbehaves.
    with suppress(*TRANSPORT_ERRORS):  # OSError covers TimeoutError
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in chunks:
                pass
