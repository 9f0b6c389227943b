"""The service level objectives: what counts as good, how much may be bad, and when to speak up.

An event is a request with which a caller asked for an answer. `availability`: of those that were
not refused, the share that was answered. `latency`: of the answered ones, the share that was
complete within SLO_LATENCY_MS. `fallback` and `refusal` bound the share that another than the
first provider answered, and the share that was refused or abstained from. What a client broke off
says nothing, unless it had already waited for longer than SLO_LATENCY_MS.

The error budget is the share of events that may be bad over 30 days. It burns at rate 1 when it
would last for exactly that long. Alerts look at two windows each, after the SRE workbook: the long
one shows that it matters, the short one that it still goes on. With Docker, Prometheus is asked the
same of the same events, by the numbers that the app exports (`deploy/monitoring/prometheus`).
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from app.foundation.settings import Settings
from app.standards.visibility.request_log import RequestEnd

Objective = Literal["availability", "latency", "fallback", "refusal"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
BUDGET_DAYS = 30
# Without an objective of its own, the day's cost may reach this share of the cap.
COST_SHARE_OF_CAP = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Burn:
    """Speak up when the budget burns `factor` times too fast in both windows (in minutes)."""

    severity: Literal["page", "ticket"]
    factor: float
    long: int
    short: int


_WORKBOOK = (
    Burn("page", 14.4, 60, 5),
    Burn("page", 6, 6 * 60, 30),
    Burn("ticket", 1, 3 * 24 * 60, 6 * 60),
)
# A budget of 10 % and more cannot burn 14 times too fast: here the share itself is the alarm.
_SHARE = (Burn("ticket", 1, 60, 5),)
BURNS: dict[Objective, tuple[Burn, ...]] = {
    "availability": _WORKBOOK,
    "latency": _WORKBOOK,
    "fallback": _SHARE,
    "refusal": _SHARE,
}


class Objectives:
    """The objectives that the settings state."""

    def __init__(self, settings: Settings) -> None:
        self.budgets: dict[str, float] = {
            "availability": _rest(settings.slo_availability_percent),
            "latency": _rest(settings.slo_latency_percent),
            "fallback": float(settings.slo_fallback_percent / 100),
            "refusal": float(settings.slo_refusal_percent / 100),
        }
        self.latency_seconds = settings.slo_latency_ms / 1000
        self.min_events = settings.slo_min_events
        cap = settings.daily_cost_cap_usd
        stated = settings.slo_cost_usd_per_day
        # Of 80 % of the cap the store itself warns, once a day: None where nothing else is stated.
        self.stated_cost_usd_per_day = None if stated is None else float(stated)
        self.cost_usd_per_day = float(stated or cap * COST_SHARE_OF_CAP)

    def judge(self, end: RequestEnd) -> dict[Objective, bool]:
        """The objectives that a request is an event of, and whether it was a good one."""
        record = end.record
        if record.caller is None:
            return {}  # it asked for no answer, or nobody knows who asked
        in_time = end.seconds <= self.latency_seconds
        if end.outcome == "client_left":
            return {} if in_time else {"latency": False}
        if end.outcome == "refused":
            return {"refusal": False}
        if end.outcome != "ok":
            return {"availability": False}
        if record.cache == "none" and record.abstained is None:
            return {}  # such as the list of models
        good: dict[Objective, bool] = {"availability": True, "latency": in_time}
        good["refusal"] = record.abstained is None
        if record.attempts:
            good["fallback"] = not record.fallback
        return good


def _rest(percent: Decimal) -> float:
    return float((100 - percent) / 100)
