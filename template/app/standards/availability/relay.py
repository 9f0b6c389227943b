"""The relay: one prompt, an ordered list of targets, one deadline.

There is one retry layer, and it is here (the SDKs' own is off): a target gets at most
`max_attempts` calls, so a request makes at most `max_attempts` x targets of them, and one more
where a summary is written (`once`). Only what can
succeed is tried again: exponential backoff with full jitter, or the provider's `Retry-After` when
it fits; then the next target. Nothing is retried once a streamed byte has left.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from loguru import logger
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_any

from app.foundation.errors import AppError
from app.foundation.record import RequestRecord
from app.providers.base import Answer, Piece, Prompt, Provider, ProviderError, Usage
from app.providers.prices import Price
from app.standards.availability.backoff import NoTimeLeft, pause
from app.standards.availability.bill import MAX_CHARACTERS_PER_TOKEN, Bill
from app.standards.availability.breaker import Breaker
from app.standards.availability.deadline import Deadline
from app.standards.availability.observer import ObservedCall, Observer

T = TypeVar("T")

# What a client is told to wait when no target says anything better.
RETRY_AFTER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A provider's model, its price and its breaker.

    `on_trial`: it goes before the proven ones, and its failures are its own, never the caller's.
    """

    provider: Provider
    price: Price
    breaker: Breaker
    on_trial: bool = False


@dataclass(slots=True)
class Call:
    """One request's way through the relay: what is sent, and what is known of it so far.

    `input_bound` is in tokens and holds for every target.
    """

    prompt: Prompt
    input_bound: int
    deadline: Deadline
    bill: Bill
    record: RequestRecord


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that has begun: its pieces, the first one included."""

    pieces: AsyncGenerator[Piece, None]
    observed: ObservedCall

    async def close(self) -> None:
        """End the call at the provider, if it has not ended."""
        await self.pieces.aclose()
        self.observed.end("cancelled")


# One call to a target, within a deadline.
Attempt = Callable[[Target, Deadline, ObservedCall], Awaitable[T]]


class Relay:
    """Calls targets in order until one answers. See the module's text for the rules."""

    def __init__(self, *, max_attempts: int, read_timeout: float, observer: Observer) -> None:
        self._max_attempts = max_attempts
        self._read_timeout = read_timeout
        self._observer = observer

    def worst_nano(self, targets: tuple[Target, ...], input_bound: int, output: int) -> int:
        """The most that a request can cost, over all attempts at all targets."""
        once = sum(target.price.worst_nano(input_bound, output) for target in targets)
        return once * self._max_attempts

    async def complete(self, call: Call, targets: tuple[Target, ...]) -> Answer:
        """The whole answer, or `AppError` when no target gave one."""
        return await self._first_success(call, targets, self._ask(call))

    async def stream(self, call: Call, targets: tuple[Target, ...]) -> Stream:
        """An answer that has begun, or `AppError` when no target began one."""

        async def attempt(target: Target, deadline: Deadline, observed: ObservedCall) -> Stream:
            pieces = target.provider.stream(call.prompt)
            try:
                async with deadline.limit(self._read_timeout):
                    first = await _first_piece(pieces, target)
            except BaseException:
                await pieces.aclose()
                raise
            rest = self._rest(call, target, first, pieces, observed)
            return Stream(rest, observed)

        return await self._first_success(call, targets, attempt)

    async def once(self, call: Call, targets: tuple[Target, ...]) -> Answer | None:
        """One attempt at the first target that is not cut off; None when it fails.

        For work that the request can do without (a summary): no retry and no fallback.
        """
        for target in targets:
            if target.breaker.allow():
                try:
                    return await self._attempt(call, target, call.deadline, self._ask(call))
                except ProviderError:
                    return None
        return None

    def _ask(self, call: Call) -> Attempt[Answer]:
        async def attempt(target: Target, deadline: Deadline, observed: ObservedCall) -> Answer:
            async with deadline.limit():
                answer = await target.provider.complete(call.prompt)
            observed.answered(answer.usage, answer.finish_reason)
            call.bill.used(answer.usage, len(answer.text))
            return answer

        return attempt

    async def _rest(
        self,
        call: Call,
        target: Target,
        first: Piece,
        pieces: AsyncGenerator[Piece, None],
        observed: ObservedCall,
    ) -> AsyncGenerator[Piece, None]:
        """The stream after its first piece: each gap is bounded, and its end is charged."""
        usage: Usage | None = None
        reason: str | None = None
        characters = 0
        piece = first
        outcome = "cancelled"
        try:
            while True:
                usage = piece.usage or usage
                reason = piece.finish_reason or reason
                characters += len(piece.text)
                if characters > call.prompt.max_output_tokens * MAX_CHARACTERS_PER_TOKEN:
                    raise ProviderError("garbage", target.provider.name)
                yield piece
                async with call.deadline.limit(self._read_timeout):
                    piece = await anext(pieces)
        except StopAsyncIteration:
            outcome = "ok"
            call.bill.used(usage, characters)
            target.breaker.succeeded()
        except TimeoutError:
            outcome = "timeout"
            call.bill.unknown()
            if call.deadline.over:
                # A long answer, or a slow reader: it says nothing about the target.
                raise AppError("time_budget_exceeded") from None
            target.breaker.failed()
            raise AppError("providers_unavailable", retry_after=RETRY_AFTER_SECONDS) from None
        except ProviderError as error:
            outcome = error.kind
            call.bill.unknown()
            if not error.callers_fault:
                target.breaker.failed()
            raise AppError("providers_unavailable", retry_after=RETRY_AFTER_SECONDS) from error
        finally:
            await pieces.aclose()
            observed.answered(usage, reason)
            observed.end(outcome)

    async def _first_success(
        self,
        call: Call,
        targets: tuple[Target, ...],
        attempt: Attempt[T],
    ) -> T:
        failures: list[ProviderError] = []
        proven_failed = False
        for index, target in enumerate(targets):
            if call.deadline.over:
                break
            deadline = call.deadline.share(len(targets) - index)
            try:
                result = await self._retry(call, target, deadline, attempt)
            except _CutOffError:
                continue
            except ProviderError as error:
                # After another target's failure nobody can say that it is the caller's fault, and
                # one on trial never can.
                if error.callers_fault and not target.on_trial and not proven_failed:
                    raise AppError("invalid_request_error", detail="provider") from error
                failures.append(error)
                proven_failed = proven_failed or not target.on_trial
                continue
            self._note(call.record, target, targets[:index])
            if failures:
                logger.warning("another provider answered", provider=target.provider.name)
            return result
        raise self._nobody(call, targets, failures)

    async def _retry(
        self,
        call: Call,
        target: Target,
        deadline: Deadline,
        attempt: Attempt[T],
    ) -> T:
        retrying = AsyncRetrying(
            stop=stop_any(stop_after_attempt(self._max_attempts), NoTimeLeft(deadline)),
            wait=pause,
            retry=retry_if_exception(lambda e: isinstance(e, ProviderError) and e.retryable),
            sleep=asyncio.sleep,
            reraise=True,
        )

        tried = False

        async def one() -> T:
            nonlocal tried
            if not target.breaker.allow():
                raise _CutOffError
            call.record.retries += tried
            tried = True
            return await self._attempt(call, target, deadline, attempt)

        return await retrying(one)

    async def _attempt(
        self,
        call: Call,
        target: Target,
        deadline: Deadline,
        attempt: Attempt[T],
    ) -> T:
        """One call. Whatever happens, the breaker hears of it and the bill is right."""
        provider, record = target.provider, call.record
        record.attempts += 1
        record.provider, record.model = provider.name, provider.model
        call.bill.begin(
            provider.name,
            provider.model,
            target.price,
            input_bound=call.input_bound,
            output_bound=call.prompt.max_output_tokens,
        )
        observed = self._observer.call(
            provider.name, provider.model, call.prompt, record.request_id
        )
        outcome, goes_on = "cancelled", False
        try:
            with record.timed("provider"), observed.current():
                try:
                    result = await attempt(target, deadline, observed)
                except TimeoutError:
                    raise ProviderError("timeout", provider.name) from None
            outcome = "ok"
            if isinstance(result, Stream):
                goes_on = True
                target.breaker.began()
            else:
                target.breaker.succeeded()
            return result
        except ProviderError as error:
            observed.end(error.kind)  # before the breaker speaks: it may open for this one
            self._note_failure(call, target, error)
            raise
        except BaseException:
            # Cancelled, or a bug of ours: nothing was learned about the target.
            target.breaker.abandoned()
            raise
        finally:
            if not goes_on:
                observed.end(outcome)

    def _note_failure(self, call: Call, target: Target, error: ProviderError) -> None:
        if error.perhaps_billed:
            call.bill.unknown()
        else:
            call.bill.nothing()
        if error.callers_fault:
            target.breaker.succeeded()
        else:
            target.breaker.failed()
        logger.warning(
            "provider attempt failed",
            provider=error.provider,
            kind=error.kind,
            provider_status=error.status,
        )

    def _note(self, record: RequestRecord, target: Target, before: tuple[Target, ...]) -> None:
        """`target` answered; those `before` it did not, or were cut off."""
        record.headers["X-Provider"] = target.provider.name
        record.candidate_failed = any(other.on_trial for other in before)
        # The first of the proven ones in a candidate's stead is what the caller gets without it.
        if any(not other.on_trial for other in before):
            record.fallback = True
            record.headers["X-Fallback"] = "true"
            self._observer.fallback()

    def _nobody(
        self, call: Call, targets: tuple[Target, ...], failures: list[ProviderError]
    ) -> AppError:
        cause = failures[-1] if failures else None
        if call.deadline.over:
            error = AppError("time_budget_exceeded")
        else:
            waits = [failure.retry_after for failure in failures if failure.retry_after]
            waits += [t.breaker.opens_in for t in targets if t.breaker.opens_in > 0]
            error = AppError(
                "providers_unavailable", retry_after=min(waits, default=RETRY_AFTER_SECONDS)
            )
        error.__cause__ = cause
        return error


class _CutOffError(Exception):
    """The target's breaker is open."""


async def _first_piece(pieces: AsyncGenerator[Piece, None], target: Target) -> Piece:
    """The first piece that says something: until then another target may still be asked."""
    async for piece in pieces:
        if piece.text or piece.finish_reason:
            return piece
    raise ProviderError("broken", target.provider.name)
