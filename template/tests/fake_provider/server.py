"""HTTP/1.1 on a socket: reads a request, finds its behaviour, lets it play."""

import asyncio
import socket
import struct
import sys
from typing import Protocol, cast
from urllib.parse import parse_qsl, urlsplit

import h11

from .behaviours import Behaviour
from .ledger import Call, Ledger, Outcome
from .play import Play
from .wire import Incoming, Refusal, Wire
from .wire_anthropic import Anthropic
from .wire_gemini import Gemini
from .wire_openai import OpenAI

WIRES: tuple[Wire, ...] = (Gemini(), Anthropic(), OpenAI())  # OpenAI takes what is left
NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Host(Protocol):
    """What a connection needs of the server it belongs to."""

    ledger: Ledger
    connections: "set[Connection]"
    accepting: bool

    def choose(self, call: Call) -> Behaviour: ...


class Connection(asyncio.Protocol):
    """One client connection, kept alive from call to call. It is the `Stage` of each `Play`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._http = h11.Connection(h11.SERVER)
        self._body: list[bytes] = []
        self._request: h11.Request
        self._task: asyncio.Task[None] | None = None
        self._play: Play | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._host.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self)
        self._leave("client_left")

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._advance()

    # What a play does with its stage

    def head(self, status: int, headers: dict[str, str], size: int | None = None) -> None:
        framing = (
            ("transfer-encoding", "chunked") if size is None else ("content-length", f"{size}")
        )
        response = h11.Response(status_code=status, headers=[*headers.items(), framing])
        self._send(response)

    def data(self, data: bytes) -> None:
        self._send(h11.Data(data=data))

    def end(self, data: bytes = b"") -> None:
        self._send(h11.Data(data=data), h11.EndOfMessage())

    def reset(self) -> None:
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._transport.abort()

    # What the server does with a connection

    @property
    def busy(self) -> bool:
        """Whether a call is being answered."""
        return self._task is not None

    def stop(self) -> None:
        """Close at once, whatever is going on."""
        self._leave("stopped")
        self._transport.abort()

    def _advance(self) -> None:
        """Take what has arrived as far as the end of one request, and start to answer it."""
        try:
            while not self.busy:
                match self._http.next_event():
                    case h11.Request() as request:
                        self._request = request
                        self._body.clear()
                        if self._http.they_are_waiting_for_100_continue:
                            self._send(h11.InformationalResponse(status_code=100, headers=[]))
                    case h11.Data(data=data):
                        self._body.append(bytes(data))
                    case h11.EndOfMessage():
                        self._start()
                    case h11.ConnectionClosed():
                        self._transport.close()
                        return
                    case _:
                        return
        except h11.RemoteProtocolError:
            self._transport.close()

    def _start(self) -> None:
        url = urlsplit(self._request.target.decode("latin-1"))
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in self._request.headers}
        incoming = Incoming(url.path, dict(parse_qsl(url.query)), headers, b"".join(self._body))
        wire = next(wire for wire in WIRES if wire.serves(url.path))
        call = Call(wire.name, url.path, traceparent=headers.get("traceparent"))
        refusal = None
        if self._request.method == b"POST":
            try:
                wire.accept(call, incoming)
            except Refusal as error:
                refusal = error
            self._host.ledger.add(call)
        else:  # a probe, not a call
            refusal = Refusal(404, "The fake provider answers POST only.")
        self._play = Play(self, wire, call, self._host.ledger)
        self._task = asyncio.create_task(self._answer(self._play, call, refusal))

    async def _answer(self, play: Play, call: Call, refusal: Refusal | None) -> None:
        try:
            if refusal:
                play.refuse(refusal)
            else:
                await play.run(self._host.choose(call))
        except Exception as error:
            play.end("failed")
            self._transport.abort()
            failure = {"message": "The fake provider failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(failure)
            return
        self._task = None
        if self._host.accepting and self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._advance()
        else:
            self._transport.close()

    def _send(self, *events: h11.Event) -> None:
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))

    def _leave(self, outcome: Outcome) -> None:
        if self._play and self._task:
            self._play.end(outcome)
            self._task.cancel()
