"""The error budget over all processes: counted in the store, looked at, and alerted about.

Every process counts what it judges, and looks at everybody's counts: each comes to the same
verdict, and the store decides who speaks (see `standards/visibility/alerts.py`). Where Prometheus
alerts by the same numbers, SLO_ALERTS=false keeps this quiet; it counts all the same.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Literal

from app.foundation.settings import NANO_PER_USD
from app.launch.burning import HOUR, LONGEST_BY_MINUTE, MINUTE, Events, Window, label
from app.launch.slo import BUDGET_DAYS, OBJECTIVES, Objective, Objectives
from app.launch.tally import Tally
from app.standards.visibility.alerts import MAX_REQUEST_IDS, Alerts, Kind
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.request_log import RequestEnd
from app.stores.base import Store, StoreUnavailableError

COUNTER = "slo_events"
WRITE_EVERY_SECONDS = 5.0
# How often a process looks while all is well; after bad events it looks at each writing.
LOOK_EVERY_SECONDS = 60.0
# The hours of the longest window of an alert, and of the whole budget.
ALERT_HOURS, BUDGET_HOURS = 3 * 24 + 1, BUDGET_DAYS * 24 + 1

_KINDS: dict[tuple[Objective, Literal["page", "ticket"]], Kind] = {
    ("availability", "page"): "availability_fast",
    ("availability", "ticket"): "availability_slow",
    ("latency", "page"): "latency_fast",
    ("latency", "ticket"): "latency_slow",
    ("fallback", "ticket"): "fallback",
    ("refusal", "ticket"): "refusal",
}


class ErrorBudget:
    """Counts good and bad events, and speaks up while a budget burns too fast.

    What else is counted in its `tally` is written with them.
    """

    def __init__(
        self,
        objectives: Objectives,
        store: Store,
        metrics: Metrics,
        alerts: Alerts,
        *,
        speaks: bool,
    ) -> None:
        self._objectives = objectives
        self._store = store
        self._metrics = metrics
        self._alerts = alerts
        self._speaks = speaks
        self.tally = Tally(store)
        self._went_badly = False
        # This process's last ones, as examples: bad for an objective, and of those that cost.
        self._bad = {slo: deque[str](maxlen=MAX_REQUEST_IDS) for slo in OBJECTIVES}
        self._dear = deque[str](maxlen=MAX_REQUEST_IDS)
        self._looked_at: float | None = None

    def request_ended(self, end: RequestEnd) -> None:
        """A request has ended, however it ended."""
        for slo, good in self._objectives.judge(end).items():
            self._metrics.slo_event(slo, good)
            self.tally.add(COUNTER, label(slo, good))
            self._went_badly |= not good
            if not good:
                self._bad[slo].append(end.record.request_id)
        if end.record.cost_nano:
            self._dear.append(end.record.request_id)

    async def keep_for_ever(self) -> None:
        """Write every few seconds, and look where it is time to."""
        while True:
            await asyncio.sleep(WRITE_EVERY_SECONDS)
            await self.catch_up()

    async def catch_up(self) -> None:
        """Write what was counted, and look where it is time to; later, where the store is down."""
        with suppress(StoreUnavailableError):
            if await self.tally.write() and self._speaks and self._is_time_to_look():
                await self.look()

    def _is_time_to_look(self) -> bool:
        now = asyncio.get_running_loop().time()
        pause = WRITE_EVERY_SECONDS if self._went_badly else LOOK_EVERY_SECONDS
        # The timer may come a little early.
        if self._looked_at is not None and now < self._looked_at + pause - 0.5:
            return False
        self._looked_at, self._went_badly = now, False
        return True

    async def look(self) -> None:
        """Report what burns too fast, and what does no longer. Raises `StoreUnavailableError`."""
        events = Events(
            await self._store.counted(COUNTER, MINUTE, LONGEST_BY_MINUTE + 1),
            await self._store.counted(COUNTER, HOUR, ALERT_HOURS),
        )
        for slo in OBJECTIVES:
            await self._judge(slo, events)
        if (most := self._objectives.stated_cost_usd_per_day) is not None:
            spent = (await self._store.spending()).settled_nano / NANO_PER_USD
            if spent > most:
                spent, ids = round(spent, 6), self._dear
                self._alerts.report("cost", request_ids=ids, spent_usd=spent, objective_usd=most)
            else:
                self._alerts.recovered("cost")

    async def _judge(self, slo: Objective, events: Events) -> None:
        objectives = self._objectives
        found = events.burning(slo, objectives.budgets[slo], objectives.min_events)
        worst = {burn.severity: (burn, rate) for burn, rate in reversed(found.items())}
        for (named, severity), kind in _KINDS.items():
            if named != slo:
                continue
            if severity in worst:
                # Who is called for an objective needs no ticket about it as well.
                if severity == "page" or "page" not in worst:
                    burn, rate = worst[severity]
                    await self._report(kind, slo, rate, events.window(slo, burn.long), burn.long)
            else:
                self._alerts.recovered(kind)

    async def _report(
        self, kind: Kind, slo: Objective, rate: float, seen: Window, minutes: int
    ) -> None:
        hours = await self._store.counted(COUNTER, HOUR, BUDGET_HOURS)
        whole = Events((), hours).window(slo, BUDGET_DAYS * 24 * 60)
        left = 1 - whole.burn(self._objectives.budgets[slo])
        self._alerts.report(
            kind,
            request_ids=self._bad[slo],
            bad=seen.bad,
            events=seen.events,
            times_too_fast=round(rate, 1),
            over_hours=minutes // 60,
            budget_left_percent=round(left * 100, 1),
        )
