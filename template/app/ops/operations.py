"""What the operations page shows, as JSON: the numbers of all processes, and what can be done."""

import asyncio
from dataclasses import asdict
from typing import Any

from app.foundation.project import Project
from app.foundation.settings import NANO_PER_USD, Settings
from app.launch.budget import BUDGET_HOURS
from app.launch.budget import COUNTER as EVENTS
from app.launch.burning import HOUR, LONGEST_BY_MINUTE, MINUTE, Events
from app.launch.slo import BUDGET_DAYS, OBJECTIVES, Objective, Objectives
from app.launch.switches import Switches
from app.launch.tally import Tally
from app.ops.aggregates import COUNTER
from app.ops.checklist import LastRun
from app.ops.log_command import log_command
from app.ops.recent import recent_failures
from app.ops.summary import RANGES, Range, RangeName, Summary
from app.standards.availability.relay import Target
from app.stores.base import WARN_AT_PERCENT, Spending, Store

# Whose caps are shown, whatever range is: those whose day it may have been.
LAST_DAY = Range(HOUR, 25)
# A target that has answered no process for so long fails for all of them.
LATELY = Range(MINUTE, 2)


class Operations:
    """Reads it all. Raises `StoreUnavailableError` where the store does not answer."""

    def __init__(
        self,
        *,
        settings: Settings,
        project: Project,
        store: Store,
        tally: Tally,
        objectives: Objectives,
        switches: Switches,
        targets: tuple[Target, ...],
    ) -> None:
        self._settings = settings
        self._project = project
        self._store = store
        self._tally = tally
        self._objectives = objectives
        self.switches = switches
        self._targets = targets
        self._checklist = LastRun()
        self._log = log_command(project, production=settings.production)

    async def state(self, name: RangeName) -> dict[str, Any]:
        """Everything that the page shows, for the last hour, day or week."""
        shown = RANGES[name]
        await self._tally.write()  # what this process has counted so far belongs to it
        (summary, lately), spending, callers, objectives, switches, failures = await asyncio.gather(
            asyncio.gather(self._summary(shown), self._summary(LATELY)),
            self._store.spending(),
            self._callers(),
            self._burning(shown),
            self._switched(),
            recent_failures(self._store),
        )
        return {
            "app": self._project.name,
            "range": {"name": name, "span_seconds": shown.span, "spans": shown.spans},
            "spending": self._spending(spending) | {"callers": callers},
            "totals": summary.totals(),
            "series": summary.series(),
            "objectives": objectives,
            "latency_limit_seconds": self._objectives.latency_seconds,
            "targets": self._state_of_targets(lately.failing()),
            "switches": switches,
            "failures": failures,
            "log": self._log,
            "checklist": self._checklist.state(),
            "on_call": {
                "name": self._project.on_call.name,
                "contact": self._project.on_call.contact,
            },
        }

    async def _summary(self, shown: Range) -> Summary:
        return Summary(await self._store.counted(COUNTER, shown.span, shown.spans), shown)

    def _spending(self, spending: Spending) -> dict[str, Any]:
        """Today's money against the app's cap, and what is announced on the way to it."""
        cap = float(self._settings.daily_cost_cap_usd)
        return {
            "day": spending.day.isoformat(),
            "resets_in_seconds": round(spending.resets_in),
            **_money(spending, cap),
            "objective_usd": self._objectives.cost_usd_per_day,
        }

    async def _callers(self) -> list[dict[str, Any]]:
        """Today's money of the callers that cost most, against their cap."""
        cap = self._settings.daily_cost_cap_per_caller_usd
        if cap is None:
            return []
        summary = await self._summary(LAST_DAY)
        names = [name for name in summary.callers() if name in self._settings.app_api_keys]
        found = await asyncio.gather(*(self._store.spending(f"caller:{name}") for name in names))
        return [
            {"name": name, **_money(spending, float(cap))}
            for name, spending in zip(names, found, strict=True)
        ]

    async def _burning(self, shown: Range) -> list[dict[str, Any]]:
        """Each objective: good and bad events of the range, and what is left of its 30 days."""
        minutes, hours = await asyncio.gather(
            self._store.counted(EVENTS, MINUTE, LONGEST_BY_MINUTE + 1),
            self._store.counted(EVENTS, HOUR, BUDGET_HOURS),
        )
        events = Events(minutes, hours)
        return [self._objective(slo, shown, events) for slo in OBJECTIVES]

    def _objective(self, slo: Objective, shown: Range, events: Events) -> dict[str, Any]:
        budget = self._objectives.budgets[slo]
        window = events.window(slo, shown.span * shown.spans // MINUTE)
        month = events.window(slo, BUDGET_DAYS * 24 * 60)
        burning = events.burning(slo, budget, self._objectives.min_events)
        return {
            "name": slo,
            "budget": budget,
            "good": window.good,
            "bad": window.bad,
            "times_too_fast": round(window.burn(budget), 2),
            "budget_left": round(1 - month.burn(budget), 4),
            "burning": sorted({burn.severity for burn in burning}),
        }

    def _state_of_targets(self, failing: set[tuple[str, str]]) -> list[dict[str, Any]]:
        """The targets in their order: what this process spares, and what fails for all."""
        return [
            {
                "provider": target.provider.name,
                "model": target.provider.model,
                "cut_off": target.breaker.is_open,
                "failing": (target.provider.name, target.provider.model) in failing,
            }
            for target in self._targets
        ]

    async def _switched(self) -> list[dict[str, Any]]:
        off = {item.name: asdict(item) for item in await self.switches.listed()}
        return [{"name": name, "off": off.get(name)} for name in self.switches.names]


def _money(spending: Spending, cap: float) -> dict[str, float]:
    return {
        "settled_usd": spending.settled_nano / NANO_PER_USD,
        "reserved_usd": spending.reserved_nano / NANO_PER_USD,
        "cap_usd": cap,
        "warning_usd": cap * WARN_AT_PERCENT / 100,
    }
