"""An answer as it is streamed: what leaves, and what it comes to."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from app import wire
from app.answers import SSE, in_words
from app.exchange import Event
from app.foundation.errors import AppError
from app.launch.policy.screen import AbstainedError
from app.providers.base import Usage
from app.standards.availability.relay import Stream
from app.standards.spending.guard import Reservation
from app.work import Work


async def streamed(
    work: Work, reservation: Reservation, stream: Stream
) -> AsyncGenerator[Event, None]:
    """The events of an answer. The first is empty: from there on, closing settles.

    It settles once, however it ends: with the answer, with an error, or with a client that left.
    """
    record = work.context.record
    writer = wire.ChunkWriter(record)
    sent: list[bytes] = []
    keep = sent.append if work.keeping.execution else _forget
    try:
        yield Event(b"")
        async with aclosing(_answer_events(work, writer, stream)) as events:
            async for event in events:
                keep(event.data)
                yield event
        keep(wire.DONE)
        # Before the end mark leaves: who reads it may ask again with the same key.
        body = b"".join(sent)
        await reservation.settle(work.bill.close(), work.keeping.kept(200, SSE, body))
        work.given()
        yield Event(wire.DONE)
    except AppError as error:
        record.error_code = error.code
        event_bytes = wire.error_event(error.body(work.context.messages, record))
        keep(event_bytes)
        body = b"".join(sent)
        await reservation.settle(work.bill.close(), work.keeping.kept(200, SSE, body))
        yield Event(event_bytes, error=error)
    finally:
        # The client left, or the worker stops: what was sent so far is kept as incomplete.
        await stream.close()
        if not reservation.ended:
            partial = work.keeping.kept(200, SSE, b"".join(sent), complete=False)
            await reservation.settle(work.bill.close(), partial)


async def _answer_events(
    work: Work, writer: wire.ChunkWriter, stream: Stream
) -> AsyncGenerator[Event, None]:
    usage: Usage | None = None
    reason = "stop"
    begun = ""
    yield Event(writer.role())
    try:
        async for piece in stream.pieces:
            usage = piece.usage or usage
            reason = piece.finish_reason or reason
            work.heard(piece)
            if text := work.push(piece.text):
                begun = "\n\n"
                yield Event(writer.text(text), text)
            work.screen.verdict()
        if text := work.rest():
            begun = "\n\n"
            yield Event(writer.text(text), text)
        work.screen.verdict()
    except AbstainedError as error:
        await stream.close()  # nobody will read what else it would say
        text, reason = begun + in_words(error, work.context), "stop"
        yield Event(writer.text(text), text)
    yield Event(writer.finish(reason, work.judge(reason)))
    options = work.request.stream_options
    if options is not None and options.include_usage and usage is not None:
        yield Event(writer.usage(usage, work.context.record))


def _forget(_: bytes) -> None:
    """Nothing of a stream is kept that stands for no key and no cached question."""
