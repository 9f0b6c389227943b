"""What the app knows of its own state: for `/readyz` and `/metrics`."""

from contextlib import suppress

from app.launch.switches import Switches
from app.standards.availability.relay import Target
from app.standards.visibility.metrics import Metrics
from app.stores.base import Spending, Store, StoreUnavailableError


class Health:
    """Looks at each dependency without spending anything."""

    def __init__(
        self, store: Store, targets: tuple[Target, ...], metrics: Metrics, switches: Switches
    ) -> None:
        self._store = store
        self._switches = switches
        self._targets = targets
        self._metrics = metrics

    async def check(self) -> tuple[bool, dict[str, str]]:
        """Whether a request could be answered, and the state of each dependency by name."""
        checks = {"store": await self._store_state()}
        for target in self._targets:
            state = "cut_off" if target.breaker.is_open else "ok"
            checks[f"provider:{target.provider.name}"] = state
        # One that may be probed counts: without traffic nothing else would ever close its breaker.
        reachable = any(target.breaker.opens_in == 0 for target in self._targets)
        return checks["store"] == "ok" and reachable, checks

    async def metrics(self) -> tuple[bytes, str]:
        """The metrics' text and its media type; without what the store knows when it is down."""
        spending: Spending | None = None
        switches: dict[str, bool] | None = None
        with suppress(StoreUnavailableError):
            spending = await self._store.spending()
            off = {item.name for item in await self._switches.listed()}
            switches = {name: name in off for name in self._switches.names}
        return await self._metrics.render(spending, switches)

    async def _store_state(self) -> str:
        try:
            await self._store.ping()
        except StoreUnavailableError:
            return "unavailable"
        return "ok"
