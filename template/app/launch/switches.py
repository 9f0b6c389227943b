"""Kill switches: what an operator turns off at run time, for all processes, within seconds.

`spending` refuses every question; `provider:NAME` and `model:NAME` take a target out of the
fallback order; `canary` keeps requests from the candidate, `shadow` mirrors none to it. The store
keeps them until they are turned on again, at most for 400 days.

A process looks before its first request, and then beside the first one after LOOK_EVERY_SECONDS,
which does not wait for it: a store that is down must hold nobody up twice. While it does not
answer, what was seen last counts; the guard refuses the request anyway.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from loguru import logger

from app.foundation.errors import AppError
from app.standards.availability.relay import Target
from app.stores.base import Store, StoreUnavailableError

SPENDING = "spending"
CANARY = "canary"
SHADOW = "shadow"
LOOK_EVERY_SECONDS = 2.0
# How long the first request waits for the look: long for a store that answers.
PATIENCE_SECONDS = 0.25
KEEP_SECONDS = 400 * 86400
RETRY_AFTER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Off:
    """Something that is turned off: by whom, when (ISO 8601, UTC), and why."""

    name: str
    by: str
    at: str
    why: str


def switch_names(
    targets: Iterable[tuple[str, str]], *, with_candidate: bool = True
) -> tuple[str, ...]:
    """What can be turned off, for targets as pairs of provider and model."""
    named = (name for target in targets for name in _switches_of(*target))
    return (SPENDING, *([CANARY, SHADOW] if with_candidate else []), *dict.fromkeys(named))


class Switches:
    """Reads and turns the switches. `names` are all there are."""

    def __init__(self, store: Store, names: tuple[str, ...]) -> None:
        self._store = store
        self.names = names
        self._off: frozenset[str] = frozenset()
        self._look_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._seen = False

    async def look(self) -> None:
        """Look again where it is time to: call it once for each request, before the next two."""
        now = asyncio.get_running_loop().time()
        if self._looking is None and now >= self._look_at:
            self._look_at = now + LOOK_EVERY_SECONDS
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None and not self._seen:
            await asyncio.wait({self._looking}, timeout=PATIENCE_SECONDS)

    def left(self, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        """The targets that may be asked. Raises `AppError` where none is left."""
        left = tuple(target for target in targets if self.may_ask(target))
        if not left:
            raise AppError("switched_off", retry_after=RETRY_AFTER_SECONDS)
        return left

    def may_ask(self, target: Target) -> bool:
        """False where the target, its provider or all spending is off."""
        switches = _switches_of(target.provider.name, target.provider.model)
        return self._off.isdisjoint((SPENDING, *switches))

    def is_on(self, name: str) -> bool:
        """True where `name` is on; False until something was seen, for what can do without."""
        return self._seen and name not in self._off

    async def listed(self) -> list[Off]:
        """All that is off. Raises `StoreUnavailableError`."""
        found = await asyncio.gather(*(self._store.recall(_key(name)) for name in self.names))
        return [Off(**json.loads(value)) for value in found if value]

    async def turn_off(self, name: str, *, by: str, why: str) -> Off:
        """Turn off what is named. Raises `StoreUnavailableError`."""
        off = Off(name, by, datetime.now(UTC).isoformat(timespec="seconds"), why)
        await self._store.remember(_key(name), json.dumps(asdict(off)).encode(), KEEP_SECONDS)
        return off

    async def turn_on(self, name: str) -> None:
        """Let what is named work again. Raises `StoreUnavailableError`."""
        if name == CANARY:
            await self._store.close_incident(CANARY)  # another cut-off is news again
        await self._store.remember(_key(name), b"", 1)

    async def _look(self) -> None:
        try:
            found = await self.listed()
        except StoreUnavailableError:
            return
        finally:
            self._looking = None
        self._seen = True
        off = frozenset(item.name for item in found)
        for item in found:
            if item.name not in self._off:
                logger.warning("switched off", switch=item.name, by=item.by, why=item.why)
        for name in sorted(self._off - off):
            logger.warning("switched on", switch=name)
        self._off = off


def _switches_of(provider: str, model: str) -> tuple[str, str]:
    return f"provider:{provider}", f"model:{model}"


def _key(name: str) -> str:
    return f"switch:{name}"
