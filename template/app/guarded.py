"""The request path: the one way from a question to a provider and back.

    tokens.gate ─ history ─ [ store.admit ] ─ summary ─ availability ─ [ store.settle ] ─ answer

The public route and the user's own features in `yours/` both come through here; there is no other
way to a provider. Nothing is spent before `admit`, and whatever happens after it ends in `settle`.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from loguru import logger

from app import wire
from app.answers import JSON, SSE, Answers, Keeping
from app.exchange import Context, Event, Live, Whole
from app.foundation.errors import AppError
from app.foundation.settings import Settings
from app.launch.caching import LOOK_AGAIN_SECONDS
from app.launch.switches import Switches
from app.providers.base import Message, Prompt, Usage
from app.standards.availability.bill import Bill
from app.standards.availability.deadline import Deadline
from app.standards.availability.relay import Call, Relay, Stream, Target
from app.standards.spending.guard import Guard, Reservation
from app.standards.tokens.counting import prompt_bound
from app.standards.tokens.gate import Gate, split
from app.standards.tokens.history import History, Plan
from app.stores.base import StoredAnswer
from app.summaries import Background, Summaries


@dataclass(slots=True)
class _Work:
    """A request inside the path."""

    request: wire.ChatRequest
    context: Context
    targets: tuple[Target, ...]
    background: Background
    keeping: Keeping
    bill: Bill


class RequestPath:
    """The standards, in the order in which a request meets them."""

    def __init__(
        self,
        *,
        settings: Settings,
        guard: Guard,
        relay: Relay,
        targets: tuple[Target, ...],
        gate: Gate,
        history: History,
        summaries: Summaries,
        answers: Answers,
        switches: Switches,
        instructions: str,
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._relay = relay
        self._targets = targets
        self._gate = gate
        self._history = history
        self._summaries = summaries
        self._answers = answers
        self._switches = switches
        self._instructions = instructions

    async def complete(self, request: wire.ChatRequest, context: Context) -> Whole:
        """Answer in one piece. Raises `AppError`."""
        work = await self._consider(request, context)
        reservation = await self._admit(work)
        if isinstance(reservation, Whole):
            return reservation
        try:
            call = await self._dispatch(work, reservation)
            answer = await self._relay.complete(call, work.targets)
        except BaseException as error:
            await self._give_up(work, reservation, error)
            raise
        cost = work.bill.close()
        work.keeping.judge(answer.finish_reason, context.record)
        body = wire.completion(answer, context.record)
        await reservation.settle(cost, work.keeping.kept(200, JSON, body))
        return Whole(200, JSON, body)

    async def stream(self, request: wire.ChatRequest, context: Context) -> Live | Whole:
        """Answer in events. A replay of an earlier stream comes whole. Raises `AppError`."""
        context.record.streamed = True
        work = await self._consider(request, context)
        reservation = await self._admit(work)
        if isinstance(reservation, Whole):
            return reservation
        try:
            call = await self._dispatch(work, reservation)
            stream = await self._relay.stream(call, work.targets)
        except BaseException as error:
            await self._give_up(work, reservation, error)
            raise
        events = self._events(work, reservation, stream)
        await anext(events)  # from here on closing it settles, even if nothing of it is read
        return Live(events, context.deadline)

    async def _consider(self, request: wire.ChatRequest, context: Context) -> _Work:
        """Everything that can be decided before anything is spent."""
        settings, record = self._settings, context.record
        record.caller = context.caller.name
        record.metadata = request.metadata
        record.end_user = _end_user(request, context)
        targets = await self._switches.left(self._order(request.model))
        keeping = self._answers.keeping(
            request,
            context,
            deterministic=self._temperature(request) == 0,
            question=lambda: self._question(request, targets),
        )
        with record.timed("guard"):
            plan = await self._plan(request, context.deadline)
        background = await self._summaries.background(plan, context.caller.name)
        if settings.log_prompts:
            logger.info("prompt", prompt=[m.model_dump() for m in request.messages])
        return _Work(request, context, targets, background, keeping, Bill(record))

    def _question(self, request: wire.ChatRequest, targets: tuple[Target, ...]) -> dict[str, Any]:
        """All that an answer depends on, beside the caller."""
        return {
            "request": request.model_dump(mode="json", exclude_unset=True, exclude={"metadata"}),
            "temperature": self._temperature(request),
            "seed": self._seed(request),
            "max_output_tokens": self._output_cap(request),
            "max_history_messages": self._settings.max_history_messages,
            "models": [(target.provider.name, target.provider.model) for target in targets],
            "instructions": self._instructions,
        }

    async def _plan(self, request: wire.ChatRequest, deadline: Deadline) -> Plan:
        """Count, refuse what is too long, and choose the turns that are sent."""
        conversation = split(self._with_instructions(request))
        try:
            async with deadline.limit():
                smallest = await self._gate.check(conversation, _schema(request))
                return await self._history.plan(conversation, smallest)
        except TimeoutError:
            raise AppError("time_budget_exceeded") from None

    def _with_instructions(self, request: wire.ChatRequest) -> tuple[Message, ...]:
        asked = tuple(message.message() for message in request.messages)
        own = (Message("system", self._instructions),) if self._instructions else ()
        return (*own, *asked)

    def _order(self, model: str) -> tuple[Target, ...]:
        """The fallback order; a model that is asked for by name comes first."""
        if model == "auto":
            return self._targets
        named = [target for target in self._targets if target.provider.model == model]
        if not named:
            raise AppError("model_not_found", param="model", models=", ".join(self.models()))
        return (*named, *(target for target in self._targets if target not in named))

    def deadline(self) -> Deadline:
        """A new request's deadline."""
        return Deadline(self._settings.time_budget_seconds)

    def models(self) -> list[str]:
        """The allow-list: what `model` may say."""
        return ["auto", *dict.fromkeys(target.provider.model for target in self._targets)]

    async def _admit(self, work: _Work) -> Reservation | Whole:
        """Reserve the worst case of everything that may follow, or replay an earlier answer."""
        output = self._output_cap(work.request)
        amount = self._relay.worst_nano(work.targets, self._input_bound(work), output)
        amount += work.background.worst_nano(work.targets)
        context, keeping = work.context, work.keeping
        while True:
            try:
                claim = keeping.claim
                admitted = await self._guard.admit(context.caller, amount, claim, context.record)
            except AppError as error:
                if not (keeping.cached and error.code == "idempotency_in_progress"):
                    raise
                await _wait(context.deadline)
                continue
            if isinstance(admitted, Reservation):
                return admitted
            if (replayed := keeping.replayed(admitted, context)) is not None:
                return replayed
            keeping.give_up(context)

    def _input_bound(self, work: _Work) -> int:
        plan = work.background.plan
        messages = [*plan.system, *work.background.longest(), *plan.messages]
        return prompt_bound(messages, _schema(work.request))

    def _output_cap(self, request: wire.ChatRequest) -> int:
        asked = request.max_completion_tokens or request.max_tokens
        limit = self._settings.max_output_tokens
        return min(asked, limit) if asked else limit

    def _temperature(self, request: wire.ChatRequest) -> float | None:
        return self._settings.temperature if request.temperature is None else request.temperature

    def _seed(self, request: wire.ChatRequest) -> int | None:
        return self._settings.seed if request.seed is None else request.seed

    async def _dispatch(self, work: _Work, reservation: Reservation) -> Call:
        """From here on a provider may be called, and money may be owed."""
        await reservation.dispatch()
        request, record, plan = work.request, work.context.record, work.background.plan
        background = await self._summaries.messages(
            work.background,
            work.targets,
            caller=work.context.caller.name,
            deadline=work.context.deadline.share(3),
            bill=work.bill,
            record=record,
        )
        record.summarised = bool(background)
        stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
        asked_format = request.response_format
        prompt = Prompt(
            messages=(*plan.system, *background, *plan.messages),
            max_output_tokens=self._output_cap(request),
            temperature=self._temperature(request),
            top_p=request.top_p,
            stop=stop,
            seed=self._seed(request),
            response_format=asked_format.response_format() if asked_format else None,
            end_user=record.end_user,
        )
        bound = prompt_bound(prompt.messages, _schema(request))
        return Call(prompt, bound, work.context.deadline, work.bill, record)

    async def _events(
        self, work: _Work, reservation: Reservation, stream: Stream
    ) -> AsyncGenerator[Event, None]:
        record = work.context.record
        writer = wire.ChunkWriter(record)
        sent: list[bytes] = []
        keep = sent.append if work.keeping.execution else _forget
        try:
            yield Event(b"")
            async with aclosing(self._answer_events(work, writer, stream)) as events:
                async for event in events:
                    keep(event.data)
                    yield event
            keep(wire.DONE)
            # Before the end mark leaves: who reads it may ask again with the same key.
            body = b"".join(sent)
            await reservation.settle(work.bill.close(), work.keeping.kept(200, SSE, body))
            yield Event(wire.DONE)
        except AppError as error:
            record.error_code = error.code
            event_bytes = wire.error_event(error.body(work.context.messages, record.request_id))
            keep(event_bytes)
            body = b"".join(sent)
            await reservation.settle(work.bill.close(), work.keeping.kept(200, SSE, body))
            yield Event(event_bytes, error=error)
        finally:
            # The client left, or the worker stops: what was sent so far is kept as incomplete.
            await stream.pieces.aclose()
            if not reservation.ended:
                partial = work.keeping.kept(200, SSE, b"".join(sent), complete=False)
                await reservation.settle(work.bill.close(), partial)

    async def _answer_events(
        self, work: _Work, writer: wire.ChunkWriter, stream: Stream
    ) -> AsyncGenerator[Event, None]:
        usage: Usage | None = None
        reason = "stop"
        yield Event(writer.role())
        async for piece in stream.pieces:
            usage = piece.usage or usage
            reason = piece.finish_reason or reason
            if piece.text:
                yield Event(writer.text(piece.text), piece.text)
        work.keeping.judge(reason, work.context.record)
        yield Event(writer.finish(reason))
        options = work.request.stream_options
        if options is not None and options.include_usage and usage is not None:
            yield Event(writer.usage(usage, work.context.record))

    async def _give_up(self, work: _Work, reservation: Reservation, error: BaseException) -> None:
        """End a reservation whose request failed before anything was sent to the client."""
        bill, record = work.bill, work.context.record
        answer: StoredAnswer | None = None
        if isinstance(error, AppError) and (bill.reached or error.status < 500):
            if work.keeping.keyed:
                error.headers["x-should-retry"] = "false"  # the key now stands for this error
            body = json.dumps(error.body(work.context.messages, record.request_id))
            answer = work.keeping.kept(error.status, JSON, body.encode())
        elif bill.reached and work.keeping.keyed:
            # Cancelled in mid-call: nobody knows what the provider did with it.
            answer = StoredAnswer(504, JSON, None, complete=False)
        await reservation.settle(bill.close(), answer)


async def _wait(deadline: Deadline) -> None:
    """Wait a little for the answer to an equal question. Raises `AppError` when time is up."""
    try:
        async with deadline.limit():
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
    except TimeoutError:
        raise AppError("time_budget_exceeded") from None


def _forget(_: bytes) -> None:
    """Nothing of a stream is kept that stands for no key and no cached question."""


def _schema(request: wire.ChatRequest) -> str:
    """The part of a request that is sent beside the messages, as text."""
    asked = request.response_format
    if asked is None or asked.type == "text":
        return ""
    # With room for the sentence that asks for JSON where a provider has no field for it.
    return asked.model_dump_json(by_alias=True) + " Answer with one JSON object and nothing else."


def _end_user(request: wire.ChatRequest, context: Context) -> str | None:
    """A hash that lets a provider tell end users apart without knowing them."""
    if request.user is None:
        return None
    return hashlib.sha256(f"{context.caller.name}\0{request.user}".encode()).hexdigest()[:32]
