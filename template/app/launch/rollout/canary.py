"""The canary: some of the end users get the candidate first, until it does worse.

Who is in is decided by a hash of the candidate, the caller's name and the request's `user`: in
every process and after every restart the same ones, and when CANARY_PERCENT grows they stay in.
Requests that name a model are in no arm. Where the candidate fails, the proven models answer as
ever (no `X-Fallback` for the first of them: it is what the caller gets without a canary), and the
event is a bad one of the candidate's.

All processes count in the store. The one that sees that the candidate burns the error budget
faster than the proven model turns the switch `canary` off, where it stays until a person turns it
on again.
"""

import asyncio
import hashlib
from collections import deque
from contextlib import suppress
from decimal import Decimal
from typing import Any

from loguru import logger

from app.foundation.messages import Messages
from app.foundation.record import Arm, RequestRecord
from app.launch.rollout.figures import Figures
from app.launch.rollout.judging import (
    CUT_OFF,
    WINDOW_MINUTES,
    Verdict,
    judged,
    label,
)
from app.launch.slo import Objective, Objectives
from app.launch.switches import CANARY, Switches
from app.launch.tally import Tally
from app.standards.availability.relay import Target
from app.standards.visibility.alerts import MAX_REQUEST_IDS, Alerts
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.request_log import RequestEnd
from app.stores.base import Store, StoreUnavailableError

WRITE_EVERY_SECONDS = 5.0
# After a bad event of the candidate's, so that others may come to it.
GATHER_SECONDS = 1.0
THE_APP = "the app"


class Canary:
    """Chooses the order in which a request's targets are asked, and judges the candidate.

    Without a candidate, or at 0 percent, every request has the proven order and nothing is counted.
    """

    def __init__(
        self,
        candidate: Target | None,
        percent: Decimal,
        *,
        store: Store,
        tally: Tally,
        figures: Figures,
        switches: Switches,
        objectives: Objectives,
        metrics: Metrics,
        alerts: Alerts,
        messages: Messages,
    ) -> None:
        self._candidate = candidate if percent else None
        self._name = name_of(candidate) if candidate else ""
        self._percent = float(percent)
        self._store = store
        self._switches = switches
        self._objectives = objectives
        self._metrics = metrics
        self._alerts = alerts
        self._messages = messages
        self._tally = tally
        self._figures = figures
        self._went_badly = asyncio.Event()
        self._bad = deque[str](maxlen=MAX_REQUEST_IDS)
        self._verdict: Verdict | None = None

    @property
    def _counter(self) -> str:
        return f"canary:{self._name}"

    async def targets(
        self, stable: tuple[Target, ...], record: RequestRecord, *, free: bool
    ) -> tuple[Target, ...]:
        """Whom to ask, in order; notes the arm. `free`: the request leaves the model to the app.

        Raises `AppError` where all is switched off.
        """
        await self._switches.look()
        candidate = self._candidate
        if candidate is None or not free:
            return self._switches.left(stable)
        order = stable
        drawn = is_in(self._percent, self._name, record.caller or "", record.end_user or "")
        if drawn and self._switches.is_on(CANARY):
            others = (t for t in stable if t.provider is not candidate.provider)
            order = (candidate, *others)
        left = self._switches.left(order)
        record.arm = "canary" if left[0].on_trial else "stable"
        return left

    def request_ended(self, end: RequestEnd) -> None:
        """A request has ended, however it ended."""
        record, in_time = end.record, end.seconds <= self._objectives.latency_seconds
        arm = record.arm
        if arm is None or not record.attempts:
            return
        if end.outcome == "client_left":
            if not in_time:
                self._count(record, arm, "latency", good=False)
        elif end.outcome != "refused":
            answered = end.outcome == "ok"
            as_first = answered and not record.fallback and not record.candidate_failed
            self._count(record, arm, "availability", good=as_first)
            self._figures.answered(arm, end.seconds, record.cost_nano, good=as_first)
            if answered:
                self._count(record, arm, "latency", good=in_time)
            if arm == "canary" and not self._asked_last(record):
                good = answered and not record.fallback
                self._tally.add(self._counter, label("stand_in", "availability", good))

    def _asked_last(self, record: RequestRecord) -> bool:
        return f"{record.provider}:{record.model}" == self._name

    def _count(self, record: RequestRecord, arm: Arm, slo: Objective, *, good: bool) -> None:
        self._metrics.canary_event(arm, slo, good)
        if arm == "canary" and not self._switches.is_on(CANARY):
            return  # it has been cut off meanwhile, and must not be again for this
        self._tally.add(self._counter, label(arm, slo, good))
        if arm == "canary" and not good:
            self._bad.append(record.request_id)
            self._went_badly.set()

    async def pause(self) -> None:
        """Until it is time to write: soon after something bad, or else every few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WRITE_EVERY_SECONDS):
                await self._went_badly.wait()
        await asyncio.sleep(GATHER_SECONDS)

    async def judge(self) -> None:
        """Judge the candidate where something went badly; later, where the store is down."""
        if not self._went_badly.is_set():
            return
        self._went_badly.clear()
        try:
            await self.look()
        except StoreUnavailableError:
            self._went_badly.set()

    async def look(self) -> None:
        """Cut the candidate off where it does too badly. Raises `StoreUnavailableError`."""
        await self._switches.look()
        if self._verdict is None and self._switches.is_on(CANARY):
            counts = await self._store.counted(self._counter, 60, WINDOW_MINUTES + 1)
            self._verdict = judged(counts, self._objectives.budgets, self._objectives.min_events)
        if self._verdict is not None:
            # Kept until all is done: the switch may be off though the store's word on it was lost.
            await self._cut_off(self._verdict)
            self._verdict = None

    async def _cut_off(self, verdict: Verdict) -> None:
        share = round(verdict.stable_share * 100, 1)
        facts: dict[str, Any] = {"candidate": self._name, "objective": verdict.slo}
        facts |= {"bad": verdict.bad, "events": verdict.events, "stable_bad_percent": share}
        why = self._messages.text("canary.why", **facts)
        await self._switches.turn_off(CANARY, by=THE_APP, why=why)
        await self._store.count(self._counter, {CUT_OFF: 1})
        logger.error("canary cut off", **facts)
        self._alerts.report("canary", request_ids=self._bad, **facts)


def name_of(target: Target) -> str:
    """A target as CANDIDATE names it."""
    return f"{target.provider.name}:{target.provider.model}"


def is_in(percent: float, candidate: str, caller: str, end_user: str) -> bool:
    """Whether an end user of a caller is among so many percent; the same everywhere and always."""
    told = hashlib.sha256(f"{candidate}\0{caller}\0{end_user}".encode()).digest()
    return int.from_bytes(told[:8]) * 100 < percent * 2**64
