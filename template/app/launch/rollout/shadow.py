"""Shadow traffic: a share of the answers is asked of the candidate too, and only compared.

It begins when the response has left, and touches neither it nor its caller's quota. Its money is
reserved and settled like any other, below the app's daily cap and one of its own
(SHADOW_DAILY_COST_CAP_USD, by default a tenth). One call, no retry, no fallback, within what the
request has left of its time budget; nothing waits in a queue. It is the first thing to go: while
the app is busy, the store slow, the candidate's breaker open or 80 % of the day's money spent, an
answer is not mirrored. Nor is one that came from the cache, an idempotency key, a fallback or the
candidate itself, or that the policy abstained from. The candidate sees what the first model saw.
"""

import asyncio
import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Literal

from loguru import logger

from app.foundation.errors import AppError
from app.foundation.record import RequestRecord
from app.foundation.settings import NANO_PER_USD, Settings
from app.launch.rollout.comparison import Heard, compared
from app.launch.rollout.figures import Figures
from app.launch.switches import SHADOW, Switches
from app.providers.base import Answer, Usage
from app.standards.availability.bill import Bill
from app.standards.availability.deadline import Deadline
from app.standards.availability.relay import Call, Relay, Target
from app.standards.spending.guard import Guard, Reservation
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.request_log import RequestEnd
from app.stores.base import WARN_AT_PERCENT, Store, StoreUnavailableError

# In this process: so many mirrored calls at once, while at most so many requests are answered.
MOST_AT_ONCE = 4
MOST_REQUESTS = 32
# A store that took this long (seconds) over the request itself is spared.
SLOW_STORE_SECONDS = 0.25
LEAST_SECONDS = 1.0
SHARE_OF_CAP = Decimal("0.1")

ShadowOutcome = Literal[
    "answered", "failed", "cancelled", "busy", "cut_off", "switched_off", "store", "cap", "no_time"
]


class Mirror:
    """One answer that was drawn, as it is given."""

    def __init__(
        self, call: Call, target: Target, *, in_json: bool, begin: Callable[["Mirror"], None]
    ) -> None:
        self.call = call
        self.target = target
        self.in_json = in_json
        self._begin = begin
        self._started = time.perf_counter()
        self._texts: list[str] = []
        self._reason = "stop"
        self._usage: Usage | None = None
        self._seconds = 0.0

    def hear(self, text: str, finish_reason: str | None, usage: Usage | None) -> None:
        """What the provider said: an answer, or a piece of it."""
        self._texts.append(text)
        self._reason, self._usage = finish_reason or self._reason, usage or self._usage
        self._seconds = time.perf_counter() - self._started

    def given(self, *, abstained: bool) -> None:
        """The answer is settled: once its response has left, the candidate may be asked."""
        record = self.call.record
        if not (abstained or record.fallback):
            record.afterwards.append(lambda: self._begin(self))

    @property
    def heard(self) -> Heard:
        """The whole answer, with what the bill says that it cost: what is stated may be absurd."""
        charges = self.call.record.charges
        nano = charges[-1].nano if charges else 0
        return Heard("".join(self._texts), self._reason, self._usage, self._seconds, nano)


class Shadow:
    """Mirrors SHADOW_PERCENT of what `first` answers to `candidate`."""

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
        metrics: Metrics,
        figures: Figures,
        on_charge: Callable[[RequestRecord], None],
    ) -> None:
        cap = settings.daily_cost_cap_usd
        own = settings.shadow_daily_cost_cap_usd or cap * SHARE_OF_CAP
        self._candidate = candidate if settings.shadow_percent else None
        self._first = first
        self._share = float(settings.shadow_percent / 100)
        self._cap_nano = int(cap * NANO_PER_USD)
        self._own_cap_nano = int(own * NANO_PER_USD)
        self._store = store
        self._guard = guard
        self._relay = relay
        self._switches = switches
        self._metrics = metrics
        self._figures = figures
        self._on_charge = on_charge
        self._running: set[asyncio.Task[None]] = set()

    def draw(self, call: Call, first: Target, *, in_json: bool) -> Mirror | None:
        """Whether the answer of `first` will be mirrored. Never waits."""
        if self._candidate is None or first is not self._first:
            return None
        drawn = random.random() < self._share  # noqa: S311 (a sample, and no secret)
        if not drawn or not self._switches.is_on(SHADOW):
            return None
        return Mirror(call, first, in_json=in_json, begin=self._begin)

    def request_ended(self, end: RequestEnd) -> None:
        """A response has left."""
        if end.outcome == "ok":
            for begin in end.record.afterwards:
                begin()

    def _begin(self, mirror: Mirror) -> None:
        if (dropped := self._hindrance(mirror.call)) is not None:
            self._metrics.shadow(dropped)
            return
        task = asyncio.create_task(self._mirror(mirror))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _hindrance(self, call: Call) -> ShadowOutcome | None:
        requests = self._guard.in_flight - len(self._running)
        if len(self._running) >= MOST_AT_ONCE or requests > MOST_REQUESTS:
            return "busy"
        if self._candidate is not None and self._candidate.breaker.opens_in > 0:
            return "cut_off"
        if call.record.timings.get("store", 0.0) > SLOW_STORE_SECONDS:
            return "store"
        return "no_time" if call.deadline.remaining < LEAST_SECONDS else None

    async def _mirror(self, mirror: Mirror) -> None:
        outcome: ShadowOutcome = "cancelled"
        try:
            with mirror.call.record.span("shadow"):  # a part of the trace, and not of the answer
                outcome = await self._outcome(mirror)
        except Exception:
            outcome = "failed"
            logger.exception("a mirrored call failed")
        finally:
            self._metrics.shadow(outcome)

    async def _outcome(self, mirror: Mirror) -> ShadowOutcome:
        candidate, asked = self._candidate, mirror.call
        if candidate is None:
            return "cancelled"
        # Again: what was on when the answer was drawn may be off when it is given.
        if not (self._switches.is_on(SHADOW) and self._switches.may_ask(candidate)):
            return "switched_off"
        record = RequestRecord(asked.record.request_id, asked.record.trace_id, asked.record.span)
        call = Call(
            asked.prompt,
            asked.input_bound,
            Deadline(asked.deadline.remaining),
            Bill(record),
            record,
        )
        try:
            reservation = await self._reserve(candidate, call)
        except StoreUnavailableError:
            return "store"
        except AppError as error:
            return "store" if error.code == "store_unavailable" else "cap"
        if reservation is None:
            return "cap"
        started = time.perf_counter()
        answer: Answer | None = None
        try:
            await reservation.dispatch()
            answer = await self._relay.once(call, (candidate,))
        except AppError:
            return "store"
        finally:
            seconds = time.perf_counter() - started
            await reservation.settle(call.bill.close(), None)
            self._on_charge(record)
        if not record.attempts:
            return "cut_off"
        self._report(mirror, candidate, record, answer, seconds)
        return "failed" if answer is None else "answered"

    async def _reserve(self, candidate: Target, call: Call) -> Reservation | None:
        """None where too much of the day is spent."""
        day = await self._store.spending()
        if (day.settled_nano + day.reserved_nano) * 100 >= self._cap_nano * WARN_AT_PERCENT:
            return None
        worst = candidate.price.worst_nano(call.input_bound, call.prompt.max_output_tokens)
        return await self._guard.admit_shadow(worst, self._own_cap_nano, call.record)

    def _report(
        self,
        mirror: Mirror,
        candidate: Target,
        record: RequestRecord,
        answer: Answer | None,
        seconds: float,
    ) -> None:
        names = {
            "candidate": f"{candidate.provider.name}:{candidate.provider.model}",
            "stable": f"{mirror.target.provider.name}:{mirror.target.provider.model}",
        }
        stable, nano = mirror.heard, record.cost_nano
        self._figures.shadowed("stable", stable.seconds, stable.nano, good=True)
        self._figures.shadowed("canary", seconds, nano, good=answer is not None)
        self._metrics.shadowed("stable", stable.seconds, stable.nano)
        self._metrics.shadowed("canary", seconds, nano)
        if answer is None:
            logger.warning("shadow failed", **names, candidate_ms=round(seconds * 1000, 1))
            return
        heard = Heard(answer.text, answer.finish_reason, answer.usage, seconds, nano)
        fields = compared(stable, heard, in_json=mirror.in_json)
        self._figures.compared(fields)
        logger.info("shadow compared", **names, **fields)

    async def drain(self, seconds: float | None) -> None:
        """Wait for what is mirrored, for at most `seconds`; each has its deadline."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def close(self, seconds: float) -> None:
        """As `drain`, and cut short what still runs: it is charged with its worst case."""
        await self.drain(seconds)
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
