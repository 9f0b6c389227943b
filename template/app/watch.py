"""Where visibility looks into the request path.

The path reports here and knows nothing of logs, metrics, traces or alerts.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from loguru import logger

from app.foundation.record import RequestRecord
from app.foundation.settings import NANO_PER_USD
from app.ops.aggregates import Aggregates
from app.providers.base import Prompt, Usage
from app.standards.visibility.alerts import MAX_REQUEST_IDS, Alerts, Kind
from app.standards.visibility.gen_ai import ModelCall
from app.standards.visibility.metrics import KEY_TROUBLE, Metrics
from app.standards.visibility.request_log import RequestEnd
from app.standards.visibility.telemetry import Telemetry
from app.stores.base import CapWarning

# What a request may end with that wakes someone up, and the alert it raises.
_ALERTS: dict[str, Kind] = {
    "providers_unavailable": "providers",
    "time_budget_exceeded": "providers",
    "store_unavailable": "store",
    "internal_error": "internal_error",
    "daily_cost_cap": "daily_cost_cap",
}


class Watch:
    """Hears of every attempt, every breaker and every request's end."""

    def __init__(
        self, metrics: Metrics, aggregates: Aggregates, alerts: Alerts, telemetry: Telemetry
    ) -> None:
        self._metrics = metrics
        self._aggregates = aggregates
        self._alerts = alerts
        self._telemetry = telemetry
        self._cut_off: set[str] = set()
        self._key_trouble: set[str] = set()
        # The last requests of this process: by provider, where it failed, and those that cost.
        self._failed: dict[str, deque[str]] = {}
        self._dear = deque[str](maxlen=MAX_REQUEST_IDS)

    def call(self, provider: str, model: str, prompt: Prompt, request_id: str) -> "Attempt":
        """An attempt begins: its span in the trace."""
        span = self._telemetry.model_call(provider, model, prompt)
        return Attempt(span, partial(self._attempted, provider, model, request_id))

    def _attempted(self, provider: str, model: str, request_id: str, outcome: str) -> None:
        """One attempt has ended, a streamed answer's with its last piece."""
        self._metrics.attempt(provider, model, outcome)
        self._aggregates.attempt(provider, model, outcome)
        if outcome not in {"ok", "cancelled"}:
            self._failed.setdefault(provider, deque(maxlen=MAX_REQUEST_IDS)).append(request_id)
        if outcome in KEY_TROUBLE:
            self._key_trouble.add(provider)
            self._alerts.report("provider_key", request_id=request_id, provider=provider)
        elif outcome == "ok":
            self._key_trouble.discard(provider)
            if not self._key_trouble:
                self._alerts.recovered("provider_key")
            if not self._cut_off:
                self._alerts.recovered("providers")

    def fallback(self) -> None:
        """Another target than the first has answered."""
        self._metrics.fallback()

    def breaker(self, provider: str, model: str, is_open: bool) -> None:
        """A target is cut off, or back."""
        self._metrics.breaker(provider, model, is_open)
        if is_open:
            self._aggregates.cut_off(provider, model)
            self._cut_off.add(provider)
            logger.error("provider cut off", provider=provider, model=model)
            self._alerts.report("providers", request_ids=self._failed.get(provider, ()))
        else:
            self._cut_off.discard(provider)
            logger.info("provider is back", provider=provider, model=model)

    def candidate_breaker(self, provider: str, model: str, is_open: bool) -> None:
        """The candidate is cut off, or back: that wakes nobody, for the proven models answer."""
        self._metrics.breaker(provider, model, is_open)
        if is_open:
            self._aggregates.cut_off(provider, model)
        state = "cut off" if is_open else "back"
        logger.warning(f"candidate {state}", provider=provider, model=model)

    def cap_warning(self, warning: CapWarning, request_id: str | None) -> None:
        """80 % of the day's money is spent; comes once a day over all processes.

        `request_id`: whose charge it was, where a request is known to have settled it.
        """
        spent, limit = warning.settled_nano / NANO_PER_USD, warning.limit_nano / NANO_PER_USD
        logger.warning("80 % of the daily cost cap is spent", spent_usd=spent, cap_usd=limit)
        spent = round(spent, 6)
        ids = [request_id, *self._dear] if request_id else self._dear
        self._alerts.report("cost_warning", request_ids=ids, spent_usd=spent, cap_usd=limit)

    def request_ended(self, end: RequestEnd) -> None:
        """A request has ended, however it ended."""
        metrics, record = self._metrics, end.record
        metrics.request(end.route, end.status, end.seconds)
        if record.error_code is not None:
            metrics.refusal(record.error_code)
            if record.error_code in _ALERTS and not record.slow_client:
                self._alerts.report(_ALERTS[record.error_code], request_id=record.request_id)
        if record.error_code != "store_unavailable" and "store" in record.timings:
            self._alerts.recovered("store")
        metrics.retries(record.retries)
        if record.cache != "none":
            metrics.cache(record.cache)
        for hit, count in record.policy.items():
            metrics.policy(hit, count)
        if record.abstained is not None:
            metrics.abstention(record.abstained)
        if record.evidence is not None:
            metrics.citations(record.evidence.citations, record.evidence.invalid_citations)
        self.charged(record)

    def charged(self, record: RequestRecord) -> None:
        """What a request, or a call beside it, has cost."""
        self._aggregates.charged(record)
        if record.cost_nano:
            self._dear.append(record.request_id)
        metrics = self._metrics
        for charge in record.charges:
            provider, model = charge.provider, charge.model
            metrics.cost(provider, model, charge.nano)
            metrics.tokens(provider, model, "input", charge.input_tokens)
            metrics.tokens(provider, model, "output", charge.output_tokens)
            metrics.tokens(provider, model, "cached", charge.cached_tokens)
            metrics.tokens(provider, model, "reasoning", charge.reasoning_tokens)


class Attempt:
    """One call to a provider, observed: its span, and its end, of which only the first counts."""

    def __init__(self, span: ModelCall, ended: Callable[[str], None]) -> None:
        self._span = span
        self._ended: Callable[[str], None] | None = ended

    def current(self) -> AbstractContextManager[object]:
        """While it is current, what is sent says that it belongs to it."""
        return self._span.current()

    def answered(self, usage: Usage | None, finish_reason: str | None) -> None:
        """What the provider has reported, which may be a part of it."""
        self._span.answered(usage, finish_reason)

    def end(self, outcome: str) -> None:
        """It is over: `ok`, `cancelled` or the error's kind."""
        self._span.end(outcome)
        if (ended := self._ended) is not None:
            self._ended = None
            ended(outcome)
