"""Who looks on while providers are called: for metrics, traces and alerts."""

from contextlib import AbstractContextManager
from typing import Protocol

from app.providers.base import Prompt, Usage


class ObservedCall(Protocol):
    """One attempt, observed until its answer is complete."""

    def current(self) -> AbstractContextManager[object]: ...

    def answered(self, usage: Usage | None, finish_reason: str | None) -> None: ...

    def end(self, outcome: str) -> None:
        """Only the first end counts: `ok`, `cancelled` or the error's kind."""


class Observer(Protocol):
    """Hears of every attempt: for metrics, traces and alerts."""

    def fallback(self) -> None: ...

    def call(self, provider: str, model: str, prompt: Prompt, request_id: str) -> ObservedCall: ...
