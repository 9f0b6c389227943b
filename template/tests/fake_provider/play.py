"""How each behaviour is acted out on the client's connection."""

import asyncio
from dataclasses import replace
from typing import Protocol

from .answers import Answer, compose
from .behaviours import (
    Behaviour,
    Drip,
    ErrorInside,
    Garbage,
    Hang,
    Reply,
    Reset,
    Status,
    Truncate,
    Where,
)
from .ledger import Call, Ledger, Outcome, Usage
from .wire import Frames, Refusal, Wire, dump

STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"
SETTLE = 0.02  # a reset overtakes what was sent just before it; on loopback this is plenty


class Stage(Protocol):
    """The client's connection, as a behaviour sees it. A body of unknown `size` is chunked."""

    def head(self, status: int, headers: dict[str, str], size: int | None = None) -> None: ...
    def data(self, data: bytes) -> None: ...
    def end(self, data: bytes = b"") -> None: ...
    def reset(self) -> None: ...


class Play:
    """One call being answered. It is cancelled when the client leaves or the fake stops."""

    def __init__(self, stage: Stage, wire: Wire, call: Call, ledger: Ledger) -> None:
        self._stage = stage
        self._wire = wire
        self._call = call
        self._ledger = ledger
        self._answer: Answer | None = None  # from the moment the model works on it
        self._generated = 0

    def end(self, outcome: Outcome) -> None:
        """Close the books on the call, unless they are closed already.

        Done before the last byte leaves, so that a client that has its answer finds it there.
        What was generated is billed, and the prompt as soon as the model works on it.
        """
        usage = self._answer.billed if self._answer else Usage()
        if self._answer and self._generated < len(self._answer.chunks):
            so_far = usage.reasoning + self._generated
            usage = replace(usage, completion=min(usage.completion, so_far))
        self._ledger.end(self._call, outcome, usage)

    def refuse(self, refusal: Refusal) -> None:
        """Answer a request that broke a rule of its wire."""
        self._error("refused", refusal.answer)

    async def run(self, behaviour: Behaviour) -> None:
        """Act it out to its end."""
        match behaviour:
            case Reply():
                self._close("answered", await self._send(behaviour))
            case Status():
                await asyncio.sleep(behaviour.delay_before)
                self._error("status", behaviour)
            case Drip(interval, size, reply):
                await self._drip(interval, size, await self._begin(reply))
            case Hang(where, after, reply):
                await self._send(reply, where, after)
                await asyncio.get_running_loop().create_future()
            case Reset(where, after, reply):
                await self._send(reply, where, after)
                await asyncio.sleep(SETTLE)
                self.end("cut")
                self._stage.reset()
            case Truncate(after, reply):
                await self._send(reply, "chunk", after, honest=False)
                self._close("truncated")
            case ErrorInside(code, message, kind, after, reply):
                status = Status(code, message, kind=kind)
                event = self._wire.error_frame(self._call, status)
                body = dump(self._wire.error(self._call, status))
                await self._break("error_inside", after, reply, event, body)
            case Garbage(body, after, reply):
                await self._break("garbage", after or None, reply, self._wire.frame(body), body)

    async def _begin(self, reply: Reply) -> Frames:
        """Let the model work. Its answer is in frames, even one that is not streamed."""
        self._answer = answer = compose(self._call, reply)
        while reply.until is not None and not reply.until.is_set():
            await asyncio.sleep(0.01)
        if reply.delay_before:
            await asyncio.sleep(reply.delay_before)
        if self._call.stream:
            return self._wire.frames(self._call, answer)
        while reply.delay_between and self._generated + 1 < len(answer.chunks):
            self._generated += 1
            await asyncio.sleep(reply.delay_between)
        self._generated = len(answer.chunks)
        body = self._wire.whole(self._call, answer)
        return Frames(body[: len(body) // 2], [], body[len(body) // 2 :])

    async def _send(
        self, reply: Reply, where: Where = "chunk", after: int | None = None, honest: bool = True
    ) -> bytes:
        """Send an answer as far as `where`: all its pieces, or the first `after` of them.

        Returns what then remains to be sent. `honest`: the headers state the true length.
        """
        if where == "connect":
            return b""
        frames = await self._begin(reply)
        self._head_of(frames, honest)
        pieces = frames.chunks[:after]
        if where == "headers":
            return b""
        if not reply.delay_between:
            self._count(len(pieces))
            sent = frames.opening + b"".join(pieces)
            if after is None:
                return sent + frames.closing
            self._stage.data(sent)
            return frames.closing
        self._stage.data(frames.opening)
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(reply.delay_between)
            self._stage.data(piece)
            self._count(1)
        return frames.closing

    async def _drip(self, interval: float, size: int, frames: Frames) -> None:
        self._head_of(frames)
        last = max(0, len(frames.closing) - size)
        for number, frame in enumerate([frames.opening, *frames.chunks, frames.closing[:last]]):
            for start in range(0, len(frame), size):
                self._stage.data(frame[start : start + size])
                await asyncio.sleep(interval)
            if 0 < number <= len(frames.chunks):
                self._count(1)
        self._close("answered", frames.closing[last:])

    async def _break(
        self, outcome: Outcome, after: int | None, reply: Reply, event: bytes, body: bytes
    ) -> None:
        """End a stream with `event` after some pieces; or answer with nothing but `body`."""
        if self._call.stream and after is not None:
            await self._send(reply, "chunk", after)
            self._close(outcome, event)
        else:
            await asyncio.sleep(reply.delay_before)
            html = body.lstrip().startswith(b"<")
            self._head(200, "text/html" if html else JSON, len(body))
            self._close(outcome, body)

    def _error(self, outcome: Outcome, status: Status) -> None:
        body = dump(self._wire.error(self._call, status))
        headers = {**self._wire.headers(self._call, status.retry_after), **status.headers}
        self._head(status.code, JSON, len(body), headers)
        self._close(outcome, body)

    def _count(self, pieces: int) -> None:
        self._generated += pieces
        self._call.chunks_sent += pieces

    def _head_of(self, frames: Frames, honest: bool = True) -> None:
        if self._call.stream:
            self._head(200, STREAM)
        else:
            size = len(frames.opening) + len(frames.closing)
            self._head(200, JSON, size if honest else None)

    def _head(
        self, status: int, kind: str, size: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        headers = self._wire.headers(self._call) if headers is None else headers
        self._call.status = status
        self._stage.head(status, {"content-type": kind, **headers}, size)

    def _close(self, outcome: Outcome, data: bytes = b"") -> None:
        self.end(outcome)
        self._stage.end(data)
