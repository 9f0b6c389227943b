"""The request path: the one way from a question to a provider and back.

    policy ─ evidence ─ tokens.gate ─ history ─ [ store.admit ] ─ summary ─ availability
                                        ─ evidence ─ policy ─ [ store.settle ] ─ answer

The public route and the user's own features in `yours/` both come through here; there is no other
way to a provider. Nothing is spent before `admit`, and whatever happens after it ends in `settle`.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from loguru import logger

from app import asked, wire
from app.answers import JSON, Answers, Keeping, abstention
from app.exchange import Context, Live, Whole
from app.foundation.errors import AppError
from app.foundation.record import Said
from app.foundation.settings import Settings
from app.launch.caching import LOOK_AGAIN_SECONDS
from app.launch.grounds import Evidence, Grounds
from app.launch.policy.screen import AbstainedError, Policy, Screen
from app.launch.rollout.rollout import Rollout
from app.providers.base import Message, Prompt
from app.standards.availability.bill import Bill
from app.standards.availability.deadline import Deadline
from app.standards.availability.relay import Call, Relay, Target
from app.standards.spending.guard import Guard, Reservation
from app.standards.tokens.counting import prompt_bound
from app.standards.tokens.gate import Gate, split
from app.standards.tokens.history import History, Plan
from app.stores.base import StoredAnswer
from app.streaming import streamed
from app.summaries import Summaries
from app.work import Work


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
        rollout: Rollout,
        policy: Policy,
        evidence: Evidence | None,
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
        self._canary = rollout.canary
        self._shadow = rollout.shadow
        self._policy = policy
        self._evidence = evidence
        self._instructions = instructions

    async def complete(self, request: wire.ChatRequest, context: Context) -> Whole:
        """Answer in one piece. Raises `AppError`."""
        try:
            work = await self._consider(request, context)
        except AbstainedError as error:
            return abstention(error, request, context)
        if isinstance(work, Whole):
            return work
        reservation = await self._admit(work)
        if isinstance(reservation, Whole):
            return reservation
        try:
            call = await self._dispatch(work, reservation)
            answer = await self._relay.complete(call, work.targets)
            work.heard(answer)
            answer = work.whole(answer)
            cost = work.bill.close()
            body = wire.completion(answer, context.record, work.judge(answer.finish_reason))
        except BaseException as error:
            await self._give_up(work, reservation, error)
            raise
        await reservation.settle(cost, work.keeping.kept(200, JSON, body))
        work.given()
        return Whole(200, JSON, body)

    async def stream(self, request: wire.ChatRequest, context: Context) -> Live | Whole:
        """Answer in events. A replay of an earlier stream comes whole. Raises `AppError`."""
        context.record.streamed = True
        try:
            work = await self._consider(request, context)
        except AbstainedError as error:
            return abstention(error, request, context)
        if isinstance(work, Whole):
            return work
        reservation = await self._admit(work)
        if isinstance(reservation, Whole):
            return reservation
        try:
            call = await self._dispatch(work, reservation)
            stream = await self._relay.stream(call, work.targets)
        except BaseException as error:
            await self._give_up(work, reservation, error)
            raise
        events = streamed(work, reservation, stream)
        await anext(events)  # from here on closing it settles, even if nothing of it is read
        return Live(events, context.deadline)

    async def _consider(self, request: wire.ChatRequest, context: Context) -> Work | Whole:
        """Everything that can be decided before anything is spent: some answers, too."""
        settings, record = self._settings, context.record
        record.caller = context.caller.name
        record.metadata = request.metadata
        record.end_user = asked.end_user(request, context.caller.name)
        given = tuple(message.message() for message in request.messages)
        record.said = Said(tuple((message.role, message.text) for message in given))
        order, free = self._order(request.model), request.model == "auto"
        targets = await self._canary.targets(order, record, free=free)
        evidence = self._evidence if context.knowledge else None
        keeping = self._answers.keeping(
            request,
            context,
            deterministic=asked.temperature(request, settings) == 0,
            question=lambda: self._question(request, targets, evidence),
        )
        language, schema = context.messages.language, asked.schema(request)
        screen = self._policy.screen(record, language, in_json=bool(schema))
        grounds, unfounded = Grounds(), None
        with record.timed("guard"):
            plan = await self._plan(given, schema, context.deadline)
            messages = await self._screened(given, request, screen, context.deadline)
            again = partial(self._plan, messages, schema, context.deadline)
            if evidence is not None:
                try:
                    grounds, plan = await evidence.ground(
                        messages,
                        again,
                        texts=context.messages,
                        record=record,
                        deadline=context.deadline,
                        in_json=bool(schema),
                    )
                except AbstainedError as error:
                    unfounded = error
            elif messages != given:
                plan = await again()
        if unfounded is not None:
            return await self._unfounded(unfounded, request, context, keeping)
        background = await self._summaries.background(plan, context.caller.name)
        if settings.log_prompts:
            logger.info("prompt", prompt=[asdict(message) for message in messages])
        return Work(request, context, targets, background, keeping, screen, Bill(record), grounds)

    async def _unfounded(
        self, error: AbstainedError, request: wire.ChatRequest, context: Context, keeping: Keeping
    ) -> Whole:
        """The answer to a question without evidence: it counts as a request, and costs nothing.

        One that is kept for the same question, or its key, was paid for and is given again, even
        if its evidence cannot be found any more. Raises `AppError` as every admission does.
        """
        record = context.record
        record.abstained = None  # not before it is admitted
        reservation = await self._reserve(0, keeping, context)
        if isinstance(reservation, Whole):
            return reservation
        await reservation.release()
        record.abstained = error.rule
        return abstention(error, request, context)

    def _question(
        self,
        request: wire.ChatRequest,
        targets: tuple[Target, ...],
        evidence: Evidence | None,
    ) -> dict[str, Any]:
        """All that an answer depends on, beside the caller."""
        return {
            "request": request.model_dump(mode="json", exclude_unset=True, exclude={"metadata"}),
            "temperature": asked.temperature(request, self._settings),
            "seed": asked.seed(request, self._settings),
            "max_output_tokens": asked.output_cap(request, self._settings),
            "max_history_messages": self._settings.max_history_messages,
            "models": [(target.provider.name, target.provider.model) for target in targets],
            "instructions": self._instructions,
            "policy": self._policy.version,
            "evidence": evidence.version if evidence else None,
        }

    async def _screened(
        self,
        messages: tuple[Message, ...],
        request: wire.ChatRequest,
        screen: Screen,
        deadline: Deadline,
    ) -> tuple[Message, ...]:
        """The messages as a provider may see them. Raises `AbstainedError` too."""
        schema, stop = asked.schema(request), asked.stop(request)
        async with _in_time(deadline):
            return await screen.messages(messages, schema, stop)

    async def _plan(
        self,
        messages: tuple[Message, ...],
        schema: str,
        deadline: Deadline,
        more: tuple[Message, ...] = (),
    ) -> Plan:
        """Count, refuse what is too long, and choose the turns that are sent.

        `more` are messages of the app's own, after all other instructions.
        """
        own = (Message("system", self._instructions),) if self._instructions else ()
        conversation = split((*own, *messages, *more))
        async with _in_time(deadline):
            smallest = await self._gate.check(conversation, schema)
            return await self._history.plan(conversation, smallest)

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

    async def _admit(self, work: Work) -> Reservation | Whole:
        """Reserve the worst case of everything that may follow, or replay an earlier answer."""
        output = asked.output_cap(work.request, self._settings)
        amount = self._relay.worst_nano(work.targets, self._input_bound(work), output)
        amount += work.background.worst_nano(work.targets)
        return await self._reserve(amount, work.keeping, work.context)

    async def _reserve(
        self, amount: int, keeping: Keeping, context: Context
    ) -> Reservation | Whole:
        """Of money `amount` (nano-dollars), and of a request; or what is kept for the question."""
        while True:
            try:
                claim = keeping.claim
                admitted = await self._guard.admit(context.caller, amount, claim, context.record)
            except AppError as error:
                if not (keeping.cached and error.code == "idempotency_in_progress"):
                    raise
                # Somebody asks an equal question: its answer will do.
                async with _in_time(context.deadline):
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            if isinstance(admitted, Reservation):
                return admitted
            if (replayed := keeping.replayed(admitted, context)) is not None:
                return replayed
            keeping.give_up(context)

    def _input_bound(self, work: Work) -> int:
        plan = work.background.plan
        messages = [*plan.system, *work.background.longest(), *plan.messages]
        return prompt_bound(messages, asked.schema(work.request))

    async def _dispatch(self, work: Work, reservation: Reservation) -> Call:
        """From here on a provider may be called, and money may be owed."""
        request, record, plan = work.request, work.context.record, work.background.plan
        turns = (*plan.dropped, *plan.kept)  # a summary carries what is dropped
        said = tuple(message for turn in turns for message in turn.messages)
        await work.screen.moderate(said, work.context.deadline)
        await reservation.dispatch()
        background = await self._summaries.messages(
            work.background,
            work.targets,
            caller=work.context.caller.name,
            deadline=work.context.deadline.share(3),
            bill=work.bill,
            record=record,
        )
        record.summarised = bool(background)
        asked_format = request.response_format
        prompt = Prompt(
            messages=(*plan.system, *background, *plan.messages),
            max_output_tokens=asked.output_cap(request, self._settings),
            temperature=asked.temperature(request, self._settings),
            top_p=request.top_p,
            stop=asked.stop(request),
            seed=asked.seed(request, self._settings),
            response_format=asked_format.response_format() if asked_format else None,
            end_user=record.end_user,
        )
        bound = prompt_bound(prompt.messages, asked.schema(request))
        call = Call(prompt, bound, work.context.deadline, work.bill, record)
        in_json = prompt.response_format is not None
        work.mirror = self._shadow.draw(call, work.targets[0], in_json=in_json)
        return call

    async def _give_up(self, work: Work, reservation: Reservation, error: BaseException) -> None:
        """End a reservation whose request failed before anything was sent to the client."""
        bill, record = work.bill, work.context.record
        answer: StoredAnswer | None = None
        if isinstance(error, AppError) and (bill.reached or error.status < 500):
            if work.keeping.keyed:
                error.headers["x-should-retry"] = "false"  # the key now stands for this error
            body = json.dumps(error.body(work.context.messages, record))
            answer = work.keeping.kept(error.status, JSON, body.encode())
        elif bill.reached and work.keeping.keyed:
            # Cancelled in mid-call: nobody knows what the provider did with it.
            answer = StoredAnswer(504, JSON, None, complete=False)
        await reservation.settle(bill.close(), answer)


@asynccontextmanager
async def _in_time(deadline: Deadline) -> AsyncIterator[None]:
    """A block that ends with `AppError` when the request's time is up."""
    try:
        async with deadline.limit():
            yield
    except TimeoutError:
        raise AppError("time_budget_exceeded") from None
