"""The guard: one atomic step before a provider is called, and one after.

Whatever happens in between (a cancelled request, a dead worker, a store that is down for a while)
a reservation ends: settled, released, or expired with the charge kept.
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

from loguru import logger

from app.foundation.errors import AppError
from app.foundation.record import RequestRecord
from app.foundation.settings import NANO_PER_USD, Settings
from app.standards.spending.identity import Caller
from app.stores.base import (
    KEEP_DAYS,
    WARN_AT_PERCENT,
    Admission,
    Admitted,
    Cap,
    CapWarning,
    Claim,
    Rate,
    RateState,
    Refused,
    Replay,
    Settlement,
    Store,
    StoredAnswer,
    StoreUnavailableError,
)

T = TypeVar("T")

WINDOW_SECONDS = 60
# A settlement that the store did not take is tried again after these pauses (seconds); after
# that the lease ends and the worst case is charged.
SETTLE_PAUSES = (0.2, 0.5, 1.0, 2.0)
REAP_EVERY_SECONDS = 5.0
# Between two steps where more is left to reap: requests come first.
REAP_PAUSE_SECONDS = 0.05
RENEWALS_PER_LEASE = 3


class Guard:
    """Admits and settles. `on_warning` hears of the daily cap's 80 %, once a day, and of the
    request whose charge it was, where that is known.
    """

    def __init__(
        self, settings: Settings, store: Store, on_warning: Callable[[CapWarning, str | None], None]
    ) -> None:
        self._settings = settings
        # Seconds that a request waits for its settlement before it is answered all the same.
        self.patience = settings.store_timeout_seconds
        self._store = store
        self._on_warning = on_warning
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running: set[Reservation] = set()

    @property
    def in_flight(self) -> int:
        """How many reservations of this process are running."""
        return len(self._running)

    async def admit(
        self, caller: Caller, amount_nano: int, claim: Claim | None, record: RequestRecord
    ) -> "Reservation | Replay":
        """Reserve, or raise `AppError` with nothing consumed. Notes the rate limits' state."""
        rates, caps = self._rates(caller), self._caps(caller)
        return await self._reserve(self._admission(amount_nano, rates, caps, claim), record)

    async def admit_shadow(
        self, amount_nano: int, limit_nano: int, record: RequestRecord
    ) -> "Reservation":
        """Reserve for a mirrored call: as `admit`, but it counts in nobody's rate and nobody's cap
        except the app's, and one of its own.
        """
        caps = (self._app_cap(), Cap("caller", "shadow", limit_nano))
        admitted = await self._reserve(self._admission(amount_nano, (), caps, None), record)
        return cast("Reservation", admitted)  # without a claim there is no replay

    def _admission(
        self, amount_nano: int, rates: tuple[Rate, ...], caps: tuple[Cap, ...], claim: Claim | None
    ) -> Admission:
        return Admission(
            reservation=uuid.uuid4().hex,
            amount_nano=amount_nano,
            lease_seconds=self._settings.lease_seconds,
            rates=rates,
            caps=caps,
            claim=claim,
        )

    async def _reserve(self, admission: Admission, record: RequestRecord) -> "Reservation | Replay":
        claim = admission.claim
        reservation = Reservation(self, admission.reservation, claim.key if claim else None, record)
        with record.timed("store"):
            decision = await self._admit_or_release(admission, reservation)
        if isinstance(decision, Replay):
            return decision
        record.headers.update(rate_headers(decision.rates))
        if isinstance(decision, Refused):
            raise _refusal(decision)
        self._running.add(reservation)
        return reservation

    async def count(self, caller: Caller, record: RequestRecord) -> None:
        """Count a request for which no provider is asked. Raises `AppError` over the limits."""
        counted = await self.admit(caller, 0, None, record)
        if isinstance(counted, Reservation):
            await counted.release()

    async def _admit_or_release(
        self, admission: Admission, reservation: "Reservation"
    ) -> Admitted | Replay | Refused:
        step = self.in_background(self._store.admit(admission))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            # The client left while the store was deciding: undo what it may grant.
            step.add_done_callback(lambda _: self.in_background(reservation.release()))
            raise
        except StoreUnavailableError as error:
            # It may have been granted all the same, a moment too late.
            self.in_background(reservation.release())
            raise AppError("store_unavailable", retry_after=1.0) from error

    def _rates(self, caller: Caller) -> tuple[Rate, ...]:
        settings = self._settings
        return (
            Rate("caller", f"caller:{caller.name}", settings.requests_per_minute, WINDOW_SECONDS),
            Rate("ip", f"ip:{caller.network}", settings.requests_per_minute_per_ip, WINDOW_SECONDS),
        )

    def _caps(self, caller: Caller) -> tuple[Cap, ...]:
        settings = self._settings
        caps = [self._app_cap()]
        if settings.daily_cost_cap_per_caller_usd is not None:
            limit = int(settings.daily_cost_cap_per_caller_usd * NANO_PER_USD)
            caps.append(Cap("caller", f"caller:{caller.name}", limit))
        return tuple(caps)

    def _app_cap(self) -> Cap:
        return Cap("app", "app", int(self._settings.daily_cost_cap_usd * NANO_PER_USD))

    async def dispatch(self, reservation: str) -> bool:
        """Note that the provider is about to be called."""
        try:
            return await self._store.dispatch(reservation)
        except StoreUnavailableError as error:
            raise AppError("store_unavailable", retry_after=1.0) from error

    def ended(self, reservation: "Reservation") -> None:
        """Its lease is renewed no longer."""
        self._running.discard(reservation)

    async def settle(self, settlement: Settlement, request_id: str | None = None) -> None:
        """Settle for a request, or for no one's; however often that has to be tried."""
        again = False
        for pause in (*SETTLE_PAUSES, None):
            try:
                warning = await self._store.settle(settlement)
                if warning is None and again:
                    # It may have been settled the first time, and only the store's word was lost.
                    warning = await self._due()
            except StoreUnavailableError:
                if pause is None:
                    logger.error("settlement lost: the lease will charge the worst case")
                    return
                again = True
                await asyncio.sleep(pause)
            else:
                await self._warn(warning, request_id)
                return

    async def _due(self) -> CapWarning | None:
        """The day's warning, where the money says that it is due, given or not."""
        limit, today = self._app_cap().limit_nano, await self._store.spending()
        if today.settled_nano * 100 < limit * WARN_AT_PERCENT:
            return None
        return CapWarning(today.day, today.settled_nano, limit)

    async def _warn(self, warning: CapWarning | None, request_id: str | None) -> None:
        """Pass a warning on, unless somebody has: once a day. Without the store it passes."""
        if warning is None:
            return
        with suppress(StoreUnavailableError):
            if not await self._store.open_incident(f"cap_warning:{warning.day}", KEEP_DAYS * 86400):
                return
        self._on_warning(warning, request_id)

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something that must end even when the request that asked for it is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def reap_for_ever(self) -> None:
        """End the leases of dead owners and forget what has expired, a little every few seconds."""
        while True:
            await asyncio.sleep(REAP_EVERY_SECONDS)
            more = True
            while more:
                try:
                    reaped = await self._store.reap()
                except StoreUnavailableError:
                    break
                for warning in reaped.warnings:
                    await self._warn(warning, None)
                more = reaped.more
                await asyncio.sleep(REAP_PAUSE_SECONDS)

    async def renew_for_ever(self) -> None:
        """Prolong the leases of the requests that still run, long before they end."""
        lease = self._settings.lease_seconds
        while True:
            await asyncio.sleep(lease / RENEWALS_PER_LEASE)
            for reservation in tuple(self._running):
                with suppress(StoreUnavailableError):
                    await self._store.renew(reservation.name, lease)

    async def drain(self, timeout: float) -> None:
        """Wait for the settlements that are under way, at shutdown."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)


class Reservation:
    """A granted admission. It is ended exactly once, by `settle` or `release`."""

    def __init__(self, guard: Guard, name: str, claim: str | None, record: RequestRecord) -> None:
        self.name = name
        self._guard = guard
        self._claim = claim
        self._record = record
        self._ended = False

    @property
    def ended(self) -> bool:
        """True when it was settled or released."""
        return self._ended

    async def dispatch(self) -> None:
        """Call this before the first call to a provider. Raises `AppError` when it is too late."""
        with self._record.timed("store"):
            if not await self._guard.dispatch(self.name):
                raise AppError("time_budget_exceeded")

    async def settle(self, cost_nano: int, answer: StoredAnswer | None) -> None:
        """Charge `cost_nano`; `answer` ends the idempotency key, None releases it."""
        await self._end(Settlement(self.name, cost_nano, self._claim, answer))

    async def release(self) -> None:
        """Nothing was done: give everything back but the rate."""
        await self._end(Settlement(self.name, 0, self._claim))

    async def _end(self, settlement: Settlement) -> None:
        if self._ended:
            return
        self._ended = True
        self._guard.ended(self)
        # In a task of its own: no cancellation reaches it. A slow store delays no answer for long.
        task = self._guard.in_background(self._guard.settle(settlement, self._record.request_id))
        with self._record.timed("store"):
            await asyncio.wait({task}, timeout=self._guard.patience)


def rate_headers(rates: tuple[RateState, ...]) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers."""
    if not rates:
        return {}
    policy = ", ".join(f'"{s.rate.name}";q={s.rate.quota};w={s.rate.window_seconds}' for s in rates)
    state = ", ".join(f'"{s.rate.name}";r={s.remaining};t={_whole(s.reset_seconds)}' for s in rates)
    return {"RateLimit-Policy": policy, "RateLimit": state}


def _whole(seconds: float) -> int:
    return int(seconds) + (seconds % 1 > 0)


def _refusal(refused: Refused) -> AppError:
    code = {
        "rate": "rate_limit_exceeded",
        "app_cap": "daily_cost_cap",
        "caller_cap": "caller_cost_cap",
        "in_progress": "idempotency_in_progress",
        "key_reused": "idempotency_key_reused",
    }[refused.reason]
    wait = None if refused.reason == "key_reused" else refused.retry_after
    return AppError(code, retry_after=wait)
