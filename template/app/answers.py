"""What is kept of an answer, and what a kept one says: for an idempotency key, or in the cache.

Also the answer that stands in where the app abstains.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app import wire
from app.exchange import Context, Whole
from app.foundation.errors import AppError
from app.foundation.record import CacheState, RequestRecord
from app.foundation.settings import Settings
from app.launch import caching
from app.launch.policy.screen import AbstainedError, Screen
from app.providers.base import Answer, Usage
from app.standards.spending import idempotency
from app.standards.spending.idempotency import Execution
from app.stores.base import Claim, Replay, StoredAnswer

JSON = "application/json"
SSE = "text/event-stream"


@dataclass(slots=True)
class Keeping:
    """Where a request's answer is kept: nowhere, for its idempotency key, or in the cache.

    A key keeps how its execution ended, whatever that was. The cache keeps good answers alone.
    """

    execution: Execution | None = None
    cached: bool = False
    good: bool = False

    @property
    def claim(self) -> Claim | None:
        """What the store is asked to claim."""
        return self.execution.claim if self.execution else None

    @property
    def keyed(self) -> bool:
        """True where an idempotency key stands for the outcome."""
        return self.execution is not None and not self.cached

    def judge(
        self, finish_reason: str, record: RequestRecord, screen: Screen, abstained: str | None
    ) -> None:
        """The provider came to its end: was that an answer to give again?

        One that was cut or refused is none, nor is an abstention, nor one whose question moderation
        did not judge, nor one that another than the first target gave: that one may be back.
        """
        record.finish_reason = finish_reason
        whole = finish_reason == "stop" and abstained is None
        by_the_first = not record.fallback and not record.candidate_failed
        self.good = whole and not screen.unjudged and by_the_first

    def give_up(self, context: Context) -> None:
        """Keep nothing: who asked this question before has died over it."""
        self.execution, self.cached = None, False
        _note(context, "bypass")

    def kept(
        self, status: int, media_type: str, body: bytes, *, complete: bool = True
    ) -> StoredAnswer | None:
        """What the store keeps; None where that is nothing."""
        if self.execution is None or (self.cached and not (self.good and complete)):
            return None
        return idempotency.sealed(
            self.execution, status=status, media_type=media_type, body=body, complete=complete
        )

    def replayed(self, replay: Replay, context: Context) -> Whole | None:
        """An earlier answer as it was sent; None for a cached question whose answer got lost.

        Raises `AppError` for an idempotency key whose outcome nobody knows.
        """
        stored, record = replay.answer, context.record
        body = idempotency.opened(self.execution, stored) if self.execution else None
        if self.cached:
            if body is None:
                return None
            _note(context, "hit")
            return Whole(stored.status, stored.media_type, body)
        record.cache = "replay"
        record.headers["Idempotency-Replayed"] = "true"
        lost = AppError("time_budget_exceeded", detail="unknown_outcome")
        if stored.status >= 400:
            # A retry with this key would only be told the same.
            record.headers["x-should-retry"] = "false"
        if body is None:
            raise lost
        if stored.status >= 400:
            error = json.loads(body)["error"]
            record.error_code = error["code"]
            if stored.status in {429, 503}:
                record.headers["Retry-After"] = str(int(replay.expires_in) + 1)
        if not stored.complete:
            record.error_code = lost.code
            body += wire.error_event(lost.body(context.messages, record))
        return Whole(stored.status, stored.media_type, body)


class Answers:
    """Decides where a request's answer is kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def keeping(
        self,
        request: wire.ChatRequest,
        context: Context,
        *,
        deterministic: bool,
        question: Callable[[], dict[str, Any]],
    ) -> Keeping:
        """For its idempotency key, in the cache (see `launch/caching.py`), or nowhere.

        `question` gives all that the answer depends on. Raises `AppError` for a malformed key.
        """
        caller, seconds = context.caller.name, self._settings.cache_ttl_seconds
        if context.idempotency_key is not None:
            _note(context, "bypass")
            execution = idempotency.execution(
                context.idempotency_key,
                caller=caller,
                route=context.route,
                payload=request.model_dump(mode="json", exclude_unset=True),
                keep_seconds=self._settings.idempotency_ttl_seconds,
            )
            return Keeping(execution)
        if context.no_store or not deterministic or not seconds:
            _note(context, "bypass")
            return Keeping()
        _note(context, "miss")
        execution = caching.execution(question(), caller=caller, keep_seconds=seconds)
        return Keeping(execution, cached=True)


def in_words(error: AbstainedError, context: Context) -> str:
    """What a person is told who gets no answer."""
    return error.reason or context.messages.text("policy.abstained", rule=error.rule)


def abstention(error: AbstainedError, request: wire.ChatRequest, context: Context) -> Whole:
    """The answer to a question that no provider was asked."""
    record, text, beside = context.record, in_words(error, context), wire.abstained(error.rule)
    record.model = request.model
    record.headers.pop("X-Cache", None)
    if not request.stream:
        answer = Answer(text, "stop", Usage(0, 0))
        return Whole(200, JSON, wire.completion(answer, record, beside))
    writer = wire.ChunkWriter(record)
    events = [writer.role(), writer.text(text), writer.finish("stop", beside)]
    if request.stream_options is not None and request.stream_options.include_usage:
        events.append(writer.usage(Usage(0, 0), record))
    return Whole(200, SSE, b"".join([*events, wire.DONE]))


def _note(context: Context, state: CacheState) -> None:
    """Say in the log, the metrics and `X-Cache` what the cache did for a request."""
    context.record.cache = state
    context.record.headers["X-Cache"] = state.upper()
