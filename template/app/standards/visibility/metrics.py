"""Metrics in Prometheus' text format, summed over all worker processes.

With several workers `PROMETHEUS_MULTIPROC_DIR` names a folder that they share and that was empty
when they started. Every label's values come from a closed set.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from app.foundation.errors import KINDS
from app.foundation.project import OnCall
from app.foundation.record import Arm, CacheState, PolicyHit
from app.foundation.settings import NANO_PER_USD
from app.stores.base import Spending

# Seconds: fine where refusals lie, even steps where models do, up to the time budget and over.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 45, 60, 90)
# Failures of a call that only the operator can mend: the key is refused, or the account is empty.
KEY_TROUBLE = frozenset({"rejected_key", "quota"})


class Metrics:
    """What this process counted; `render` adds the other workers' numbers and today's money."""

    def __init__(
        self, daily_cost_cap_usd: Decimal, daily_cost_cap_per_caller_usd: Decimal | None = None
    ) -> None:
        self._caps = {"daily_cost_cap_usd": ("The daily cap.", float(daily_cost_cap_usd))}
        if daily_cost_cap_per_caller_usd is not None:
            each = ("The daily cap of each caller.", float(daily_cost_cap_per_caller_usd))
            self._caps["daily_cost_cap_per_caller_usd"] = each
        self._stated: tuple[Metric, ...] = ()
        self._folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if values.ValueClass._multiprocess != bool(self._folder):
            # The library looked at the variable when it was imported, perhaps too early.
            values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
        # Workers cannot share the times of creation: a single process leaves them out too.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"llm_app_{name}", text, labels, registry=registry)

        self._requests = counter("requests", "Requests that ended.", "route", "status")
        self._seconds = Histogram(
            "llm_app_request_duration_seconds",
            "From a request's first byte to its response's last.",
            ["route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._refusals = counter("refusals", "Requests that were refused.", "code")
        self._attempts = counter(
            "provider_attempts", "Calls to providers.", "provider", "model", "outcome"
        )
        self._retries = counter("retries", "Calls to a target that had been asked already.")
        self._fallbacks = counter("fallbacks", "Answers from another than the first target.")
        self._cache = counter("cache", "Questions, by what the answer cache did.", "result")
        self._policy = counter("policy_hits", "What the policy found.", "rule", "action", "side")
        self._failures = counter("failures", "Failures, by what is collected.", "kind")
        self._dropped = counter("failures_dropped", "Exchanges that found no room to be kept.")
        self._feedback = counter("feedback", "Ratings of answers.", "rating")
        self._abstentions = counter("abstentions", "Questions left unanswered.", "reason")
        self._citations = counter("citations", "Passages that answers cite.", "result")
        self._tokens = counter("tokens", "Tokens used.", "provider", "model", "kind")
        self._costs = counter("cost_usd", "Settled cost.", "provider", "model")
        self._slo_events = counter("slo_events", "Good and bad events.", "slo", "result")
        self._canary = counter(
            "canary_events", "The rollout's good and bad events.", "arm", "slo", "result"
        )
        self._shadow = counter("shadow", "Answers that were drawn to be mirrored.", "outcome")
        self._shadow_seconds = Histogram(
            "llm_app_shadow_duration_seconds",
            "Of mirrored answers: how long each model took.",
            ["arm"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._shadow_costs = counter("shadow_cost_usd", "Cost of mirrored answers.", "arm")
        self._breakers = Gauge(
            "llm_app_breaker_open",
            "1 while any worker has cut the target off.",
            ["provider", "model"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request ended. `route` is a template, never a path."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refusal(self, code: str) -> None:
        """A request was refused with this error code."""
        self._refusals.labels(code if code in KINDS else "invalid_request_error").inc()

    def attempt(self, provider: str, model: str, outcome: str) -> None:
        """A call to a provider ended; `outcome` is `ok`, `cancelled` or the error's kind."""
        self._attempts.labels(provider, model, outcome).inc()

    def retries(self, count: int) -> None:
        """In a request so many calls went to a target that had been asked already."""
        self._retries.inc(count)

    def fallback(self) -> None:
        """Another than the first target answered."""
        self._fallbacks.inc()

    def cache(self, result: CacheState) -> None:
        """A question was answered from the cache or from an idempotency key, or was not."""
        self._cache.labels(result).inc()

    def policy(self, hit: PolicyHit, count: int) -> None:
        """A rule of the policy found something `count` times in a request."""
        self._policy.labels(hit.rule, hit.action, hit.side).inc(count)

    def failure(self, kind: str) -> None:
        """A request failed in a way that is collected."""
        self._failures.labels(kind).inc()

    def failure_dropped(self) -> None:
        """There was no room to put a failure's text aside."""
        self._dropped.inc()

    def feedback(self, rating: str) -> None:
        """An answer was rated, or rated otherwise than before."""
        self._feedback.labels(rating).inc()

    def abstention(self, reason: str) -> None:
        """The app gave no answer of its own: for a rule of the policy, or for want of evidence."""
        self._abstentions.labels(reason).inc()

    def citations(self, valid: int, invalid: int) -> None:
        """An answer cited passages that it was given, and numbers of others."""
        self._citations.labels("valid").inc(valid)
        self._citations.labels("invalid").inc(invalid)

    def breaker(self, provider: str, model: str, is_open: bool) -> None:
        """This process's breaker of a target opened or closed."""
        self._breakers.labels(provider, model).set(int(is_open))

    def tokens(
        self,
        provider: str,
        model: str,
        kind: Literal["input", "output", "cached", "reasoning"],
        count: int,
    ) -> None:
        """`count` tokens were used."""
        self._tokens.labels(provider, model, kind).inc(count)

    def cost(self, provider: str, model: str, nano: int) -> None:
        """`nano` dollars (10^-9) were settled."""
        self._costs.labels(provider, model).inc(nano / NANO_PER_USD)

    def slo_event(self, slo: str, good: bool) -> None:
        """A request was a good or a bad event of a service level objective."""
        self._slo_events.labels(slo, "good" if good else "bad").inc()

    def canary_event(self, arm: Arm, slo: str, good: bool) -> None:
        """A request of an arm was a good or a bad event."""
        self._canary.labels(arm, slo, "good" if good else "bad").inc()

    def shadow(self, outcome: str) -> None:
        """An answer was mirrored, or dropped; see `ShadowOutcome`."""
        self._shadow.labels(outcome).inc()

    def shadowed(self, arm: Arm, seconds: float, nano: int) -> None:
        """How long a model took for a mirrored answer, and what that cost."""
        self._shadow_seconds.labels(arm).observe(seconds)
        self._shadow_costs.labels(arm).inc(nano / NANO_PER_USD)

    def state_objectives(
        self,
        budgets: Mapping[str, float],
        min_events: int,
        cost_usd_per_day: float,
        on_call: OnCall,
    ) -> None:
        """What the alert rules compare with, and whom they name. `budgets` are shares."""
        budget = GaugeMetricFamily(
            "llm_app_slo_error_budget_ratio", "The share that may be bad.", labels=["slo"]
        )
        for slo, share in budgets.items():
            budget.add_metric([slo], share)
            for result in ("good", "bad"):
                # There from the start at 0: Prometheus sees no rise in what begins at 1.
                self._slo_events.labels(slo, result)
        people = GaugeMetricFamily(
            "llm_app_on_call_info", "Who is on call.", labels=["name", "contact"]
        )
        people.add_metric([on_call.name, on_call.contact], 1)
        self._stated = (
            budget,
            people,
            _gauge("slo_min_events", "So many events in the long window, at least.", min_events),
            _gauge("slo_cost_usd_per_day", "What a day may cost.", cost_usd_per_day),
        )

    def state_targets(self, targets: Iterable[tuple[str, str]], canary_ratio: float) -> None:
        """Who may be called, as pairs of provider and model, and the candidate's share (0 to 1).

        What an alert counts from none to one is there from now on, as 0.
        """
        for provider, model in targets:
            self._breakers.labels(provider, model)
            for outcome in ("ok", *sorted(KEY_TROUBLE)):
                self._attempts.labels(provider, model, outcome)
        for code, kind in KINDS.items():
            if kind.status >= 500:
                self._refusals.labels(code)
        for arm in get_args(Arm) if canary_ratio else ():
            for slo in ("availability", "latency"):
                self._canary.labels(arm, slo, "bad")
        share = _gauge("canary_ratio", "The share of end users for the candidate.", canary_ratio)
        self._stated = (*self._stated, share)

    async def render(
        self, spending: Spending | None, switches: Mapping[str, bool] | None = None
    ) -> tuple[bytes, str]:
        """The text and its content type; without `spending` (the store is down) no money gauges.

        `switches` are the kill switches by name, True where something is off.
        """
        text = await asyncio.to_thread(self._collect)
        read = [_gauge("store_up", "1 while the store answers.", int(spending is not None))]
        if spending is not None:
            read += _money(spending, self._caps)
        if switches:
            read.append(_switched(switches))
        text += generate_latest(_Collected((*self._stated, *read)))
        return text, CONTENT_TYPE_PLAIN_0_0_4

    def _collect(self) -> bytes:
        if not self._folder:
            return generate_latest(self._registry)
        _forget_dead_workers(Path(self._folder))
        shared = CollectorRegistry()
        MultiProcessCollector(shared, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


class _Collected:
    """Gauges that no worker counts, as a collector."""

    def __init__(self, gauges: tuple[Metric, ...]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges


def _money(spending: Spending, caps: Mapping[str, tuple[str, float]]) -> tuple[Metric, ...]:
    """Today's money as the store knows it."""
    return (
        _gauge("daily_cost_usd", "Settled today.", spending.settled_nano / NANO_PER_USD),
        _gauge("cost_reserved_usd", "Reserved right now.", spending.reserved_nano / NANO_PER_USD),
        *(_gauge(name, text, usd) for name, (text, usd) in caps.items()),
    )


def _switched(switches: Mapping[str, bool]) -> Metric:
    gauge = GaugeMetricFamily(
        "llm_app_switched_off", "1 while a kill switch is off.", labels=["switch"]
    )
    for name, is_off in switches.items():
        gauge.add_metric([name], int(is_off))
    return gauge


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"llm_app_{name}", text, value=value)


def _forget_dead_workers(folder: Path) -> None:
    """Drop the gauges of workers that are gone: a breaker of theirs would stay open for ever."""
    for file in folder.glob("gauge_live*_*.db"):
        if not _alive(int(file.stem.rpartition("_")[2])):
            with suppress(OSError):
                file.unlink()


def _alive(pid: int) -> bool:
    if os.name == "nt":
        # No signal is harmless there, but what a living process has mapped cannot be deleted.
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
