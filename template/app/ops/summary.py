"""What the counts of an hour, a day or a week say: totals, and a series of each plot.

Latencies are read from buckets, as Prometheus' `histogram_quantile` does: between a bucket's
bounds they are taken to be spread evenly.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.foundation.settings import NANO_PER_USD
from app.ops.aggregates import BETWEEN
from app.standards.availability.breaker import FAILURES_TO_OPEN
from app.standards.visibility.metrics import BUCKETS
from app.stores.base import Count

RangeName = Literal["hour", "day", "week"]
# What is shown of what may be many.
MOST_SHOWN = 10
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

# What is shown minute by minute, or hour by hour.
PLOTTED = ("asked", "seconds", "cost")

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The last `spans` minutes or hours (`span`, in seconds), the one that has begun included."""

    span: Literal[60, 3600]
    spans: int


RANGES: dict[RangeName, Range] = {
    "hour": Range(60, 60),
    "day": Range(3600, 24),
    "week": Range(3600, 7 * 24),
}


class Summary:
    """The counts of a range, by what was counted."""

    def __init__(self, counts: Iterable[Count], shown: Range) -> None:
        self._range = shown
        by_label: dict[str, dict[int, int]] = defaultdict(dict)
        for count in counts:
            by_label[count.label][count.age] = count.value
        self._totals: dict[str, Counter[Parts]] = defaultdict(Counter)
        self._ages: dict[str, dict[int, Counter[Parts]]] = {name: {} for name in PLOTTED}
        for label, values in by_label.items():
            name, *rest = label.split(BETWEEN)
            parts = tuple(rest)
            self._totals[name][parts] = sum(values.values())
            if name in PLOTTED:
                for age, value in values.items():
                    self._ages[name].setdefault(age, Counter())[parts] = value

    def totals(self) -> dict[str, Any]:
        """The whole range in numbers. Money is in US dollars, durations are in seconds."""
        cost = self._totals["cost"]
        by_provider: Counter[Parts] = Counter()
        for (provider, _), nano in cost.items():
            by_provider[(provider,)] += nano
        return {
            "asked": _flat(self._totals["asked"]),
            "errors": _flat(self._totals["refused"]),
            "cache": _flat(self._totals["cache"]),
            "abstained": _flat(self._totals["abstained"]),
            "policy": _rows(self._totals["policy"], ("rule", "action", "side")),
            "attempts": _rows(self._totals["attempt"], ("provider", "model", "outcome")),
            "cut_off": _rows(self._totals["cut_off"], ("provider", "model")),
            "fallbacks": self._totals["fallback"].total(),
            "retries": self._totals["retry"].total(),
            "latency_seconds": _quantiles(self._totals["seconds"]),
            "cost_usd": cost.total() / NANO_PER_USD,
            "cost_by_provider": _money(by_provider, ("provider",)),
            "cost_by_model": _money(cost, ("provider", "model")),
            "cost_by_caller": _money(self._totals["caller"], ("caller",)),
        }

    def series(self) -> dict[str, list[Any]]:
        """What the plots show, one number for each minute or hour, oldest first."""

        def asked(*outcomes: str) -> list[int]:
            return self._each("asked", lambda found: sum(found[(name,)] for name in outcomes))

        latencies = self._each("seconds", _quantiles)
        return {
            "answered": asked("ok"),
            "refused": asked("refused"),
            "failed": asked("failed", "broken_stream"),
            "left": asked("client_left"),
            "cost_usd": self._each("cost", lambda found: found.total() / NANO_PER_USD),
            **{name: [each[name] for each in latencies] for name in QUANTILES},
        }

    def failing(self) -> set[tuple[str, str]]:
        """The targets that have failed as often as opens a breaker, and have answered nothing."""
        failed: Counter[tuple[str, str]] = Counter()
        answered = set()
        for (provider, model, outcome), calls in self._totals["attempt"].items():
            if outcome == "ok":
                answered.add((provider, model))
            elif outcome != "cancelled":
                failed[provider, model] += calls
        return {target for target in failed if failed[target] >= FAILURES_TO_OPEN} - answered

    def callers(self) -> list[str]:
        """Those with the highest cost, named ones only."""
        named = [(parts[0], nano) for parts, nano in self._totals["caller"].items()]
        return [name for name, _ in sorted(named, key=lambda item: -item[1]) if name][:MOST_SHOWN]

    def _each(self, name: str, value: Callable[[Counter[Parts]], Any]) -> list[Any]:
        ages = self._ages[name]
        return [value(ages.get(age, Counter())) for age in range(self._range.spans - 1, -1, -1)]


def quantile(buckets: Mapping[float, int], share: float) -> float | None:
    """The number that `share` of what was observed stay below; None where there is nothing."""
    total = sum(buckets.values())
    if not total:
        return None
    wanted, below, lower = share * total, 0, 0.0
    for bound in BUCKETS:
        here = buckets.get(float(bound), 0)
        if here and below + here >= wanted:
            return lower + (bound - lower) * (wanted - below) / here
        below, lower = below + here, float(bound)
    return lower  # longer than the longest bound: nobody counted how long


def _quantiles(found: Counter[Parts]) -> dict[str, float | None]:
    buckets = {float(bound): value for (bound,), value in found.items()}
    return {name: _short(quantile(buckets, share)) for name, share in QUANTILES.items()}


def _short(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else round(seconds, 4)


def _flat(found: Counter[Parts]) -> dict[str, int]:
    return {parts[0]: value for parts, value in found.most_common()}


def _rows(found: Counter[Parts], names: Parts) -> list[dict[str, Any]]:
    return [
        {**dict(zip(names, parts, strict=True)), "count": value}
        for parts, value in found.most_common()
    ]


def _money(found: Counter[Parts], names: Parts) -> list[dict[str, Any]]:
    """The dearest few by name, and what the rest cost together (`rest` is true)."""
    dearest = found.most_common()
    shown = [item for item in dearest if item[0] != ("",)][:MOST_SHOWN]
    rest = found.total() - sum(value for _, value in shown)
    rows: list[dict[str, Any]] = [
        {**dict(zip(names, parts, strict=True)), "usd": value / NANO_PER_USD}
        for parts, value in shown
    ]
    return [*rows, {"rest": True, "usd": rest / NANO_PER_USD}] if rest else rows
