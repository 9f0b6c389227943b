"""The canary and the shadow traffic of one candidate, as the app attaches them."""

from collections.abc import Callable

from app.foundation.messages import Messages
from app.foundation.record import RequestRecord
from app.foundation.settings import Settings
from app.launch.rollout.canary import Canary, name_of
from app.launch.rollout.figures import Figures
from app.launch.rollout.shadow import Shadow
from app.launch.slo import Objectives
from app.launch.switches import Switches
from app.launch.tally import Tally
from app.standards.availability.relay import Relay, Target
from app.standards.spending.guard import Guard
from app.standards.visibility.alerts import Alerts
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.request_log import RequestEnd
from app.stores.base import Store

# How long the app waits for mirrored calls when it stops.
PATIENCE_SECONDS = 2.0


class Rollout:
    """Without a candidate it does nothing."""

    def __init__(
        self,
        candidate: Target | None,
        first: Target,
        settings: Settings,
        *,
        store: Store,
        guard: Guard,
        relay: Relay,
        switches: Switches,
        objectives: Objectives,
        metrics: Metrics,
        alerts: Alerts,
        messages: Messages,
        on_charge: Callable[[RequestRecord], None],
    ) -> None:
        self._tally = Tally(store)
        self._wanted = candidate is not None
        figures = Figures(self._tally, name_of(candidate) if candidate else "")
        self.canary = Canary(
            candidate,
            settings.canary_percent,
            store=store,
            tally=self._tally,
            figures=figures,
            switches=switches,
            objectives=objectives,
            metrics=metrics,
            alerts=alerts,
            messages=messages,
        )
        self.shadow = Shadow(
            candidate,
            first,
            settings,
            store=store,
            guard=guard,
            relay=relay,
            switches=switches,
            metrics=metrics,
            figures=figures,
            on_charge=on_charge,
        )

    def request_ended(self, end: RequestEnd) -> None:
        """A request has ended, however it ended."""
        self.canary.request_ended(end)
        self.shadow.request_ended(end)

    async def keep_for_ever(self) -> None:
        """Write the counts every few seconds, and judge the canary soon after something bad."""
        while self._wanted:
            await self.canary.pause()
            await self.catch_up()

    async def catch_up(self) -> None:
        """Write what was counted, and judge; later, where the store is down."""
        if self._wanted and await self._tally.write():
            await self.canary.judge()

    async def finish(self) -> None:
        """Wait for what is mirrored, and count it."""
        await self.shadow.drain(None)
        await self.catch_up()

    async def close(self) -> None:
        """Let mirrored calls end, or cut them short; later settlements are the guard's."""
        await self.shadow.close(PATIENCE_SECONDS)
        await self.catch_up()
