"""Failures on their way to the store, and exchanges that may be rated.

Nothing of it lies on a request's path: what ended is put aside, and a task hides, seals and writes
it, many at once. Memory is bounded. When more fails than can be put aside, failures are counted
all the same, and their texts are dropped (`llm_app_failures_dropped_total`). While the store is
down all of it waits; a process that dies takes its last seconds with it.

The store is the one that guards money, so what lies there is bounded in bytes, whoever fills it:
6 MB of exchanges, and 1 MB of failures for each cause.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from loguru import logger

from app.foundation.record import Said
from app.foundation.settings import Settings
from app.launch.failures.causes import cause_of
from app.launch.failures.envelope import Envelopes, Facts, Text
from app.launch.failures.extent import OF_A_FAILURE, OF_AN_EXCHANGE, Extent
from app.launch.failures.hiding import Hiding
from app.launch.failures.outbox import CAUSES, EXCHANGES, MOST_OF_A_CAUSE, Outbox
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.redaction import Redactor
from app.standards.visibility.request_log import RequestEnd
from app.stores.base import Entry, Store

WRITE_EVERY_SECONDS = 1.0
# What one process puts aside between two writes: exchanges, and their characters.
MOST_WAITING = 2_000
MOST_CHARACTERS = 8_000_000


@dataclass(frozen=True, slots=True)
class _Ended:
    """A request that was put aside; `cause` None: it may be rated."""

    cause: str | None
    facts: Facts
    said: Said | None

    @property
    def same(self) -> object:
        """What is equal in failures that are one, met several times."""
        if self.cause is None:
            return self.facts.caller, self.facts.request_id
        asked = self.said.question if self.said else None
        return asked or (self.facts.route, self.facts.provider, self.facts.model)

    @property
    def size(self) -> int:
        if self.said is None:
            return 0
        return sum(len(text) for _, text in self.said.question) + sum(map(len, self.said.answer))


class FailureCollection:
    """Hears of every request's end. FAILURES_TTL_SECONDS=0 keeps none, FEEDBACK_SECONDS=0 nothing
    to rate.
    """

    def __init__(
        self, settings: Settings, store: Store, metrics: Metrics, redactor: Redactor
    ) -> None:
        self.envelopes = Envelopes(settings.admin_token)
        self.hiding = Hiding(redactor)
        self._keep_failures = settings.failures_ttl_seconds
        self._keep_exchanges = settings.feedback_seconds
        self._store = store
        self.metrics = metrics
        self._ended: list[_Ended] = []
        self._characters = 0
        self._dropped = 0
        self._outbox = Outbox(
            store, self._keep_failures, self._keep_exchanges, metrics.failure_dropped
        )
        self._writing = asyncio.Lock()
        # The run that has not begun, for whoever wants one; and the one that goes on.
        self._next: asyncio.Task[bool] | None = None
        self._running: asyncio.Task[bool] | None = None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="failures")

    def request_ended(self, end: RequestEnd) -> None:
        """Put it aside, where it failed or may be rated. Never waits."""
        cause, record = cause_of(end), end.record
        if cause is not None and self._keep_failures:
            self.metrics.failure(cause.partition(":")[0])
            self._outbox.counts[cause] += 1
            self._put_aside(_Ended(cause, facts_of(end), record.said))
        answered = record.said is not None and record.error_code is None
        if self._keep_exchanges and answered and end.outcome == "ok":
            self._put_aside(_Ended(None, facts_of(end), record.said))

    def _put_aside(self, ended: _Ended) -> None:
        size = ended.size
        if len(self._ended) >= MOST_WAITING or self._characters + size > MOST_CHARACTERS:
            self._dropped += 1
            self.metrics.failure_dropped()
            return
        self._ended.append(ended)
        self._characters += size

    async def keep_for_ever(self) -> None:
        """Write whatever was put aside."""
        while True:
            await asyncio.sleep(WRITE_EVERY_SECONDS)
            await self.catch_up()

    async def catch_up(self, within: float | None = None) -> bool:
        """Write what was put aside. False where some of it waits still: the store is down, or
        `within` seconds have passed, and the run goes on.
        """
        # In a task of its own: one that is cancelled half-way would lose it, or write it twice.
        # All who come while another run goes on share the next.
        if self._next is None:
            self._next = asyncio.create_task(self._catch_up())
        run = self._next
        done, _ = await asyncio.wait({run}, timeout=within)
        return bool(done) and run.result()

    async def _catch_up(self) -> bool:
        async with self._writing:
            self._running, self._next = self._next, None
            if self._dropped:
                logger.warning("failures dropped", count=self._dropped)
                self._dropped = 0
            ended, self._ended, self._characters = self._ended, [], 0
            try:
                if ended:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._beside, self._close, ended)
                return await self._outbox.write()
            except Exception:
                logger.exception("failures could not be written")
                return False

    def _close(self, ended: list[_Ended]) -> None:
        groups: dict[str, dict[object, tuple[_Ended, int]]] = {}
        for one in ended:
            name = EXCHANGES if one.cause is None else collection_of(one.cause)
            group = groups.setdefault(name, {})
            _, times = group.pop(one.same, (one, 0))
            group[one.same] = one, times + 1
        for name, group in groups.items():
            _, most = self._outbox.bounds(name)
            # Hiding takes time: what would be pushed out again is not looked at.
            for one, times in list(group.values())[-most:]:
                try:
                    entry = self._entry(one)
                except Exception:
                    logger.exception("a failure could not be kept")
                    continue
                self._outbox.add(name, replace(entry, times=times))

    def _entry(self, one: _Ended) -> Entry:
        if one.cause is not None:
            return self.failure(one.cause, one.facts, _text(one.said, OF_A_FAILURE))
        key = self.mark(one.facts.caller or "", one.facts.request_id)
        text = _text(one.said, OF_AN_EXCHANGE)
        return Entry(key, self._closed_within(OF_AN_EXCHANGE, one.facts, text))

    def failure(self, cause: str, facts: Facts, text: Text | None, key: str | None = None) -> Entry:
        """A failure as it is kept: nothing personal, no secret, and sealed."""
        if text is None or not self.envelopes.seals:
            same = (facts.route, facts.provider or "", facts.model or "")
            return Entry(
                key or self.envelopes.mark(cause, *same), self.envelopes.close(facts, None)
            )
        hidden = OF_A_FAILURE.of(self.hiding.of(text))
        value = self._closed_within(OF_A_FAILURE, facts, hidden)
        return Entry(
            key or self.envelopes.mark(cause, *(said for _, said in hidden.question)), value
        )

    def _closed_within(self, extent: Extent, facts: Facts, text: Text | None) -> bytes:
        value = self.envelopes.close(facts, text)
        return value if len(value) <= extent.entry else self.envelopes.close(facts, None)

    def mark(self, caller: str, request_id: str) -> str:
        """The key of an exchange: nobody finds another caller's by its request id."""
        return self.envelopes.mark(EXCHANGES, caller, request_id)

    async def keep(self, cause: str, facts: Facts, text: Text, key: str) -> None:
        """Keep a failure now, in the place of one with the same key.

        Raises `StoreUnavailableError`.
        """
        if self._keep_failures:
            loop = asyncio.get_running_loop()
            entry = await loop.run_in_executor(self._beside, self.failure, cause, facts, text, key)
            await self._change(cause, [entry], key)

    async def forget(self, cause: str, key: str) -> None:
        """Forget a failure. Raises `StoreUnavailableError`."""
        await self._change(cause, [], key)

    async def _change(self, cause: str, entries: list[Entry], key: str) -> None:
        name, keep = collection_of(cause), max(self._keep_failures, 1)
        await self._store.collect(name, entries, keep, MOST_OF_A_CAUSE, [key])


def collection_of(cause: str) -> str:
    """The store's collection of a cause."""
    return f"{CAUSES}:{cause}"


def facts_of(end: RequestEnd) -> Facts:
    """What is kept in clear: no more than the log's line has."""
    record = end.record
    return Facts(
        request_id=record.request_id,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        route=end.route,
        status=end.status,
        caller=record.caller,
        code=record.error_code,
        model=record.model,
        provider=record.provider,
        streamed=record.streamed,
        attempts=record.attempts,
        finish_reason=record.finish_reason,
    )


def _text(said: Said | None, extent: Extent) -> Text | None:
    if said is None:
        return None
    return extent.of(Text(said.question, "".join(said.answer), cut_after=said.room <= 0))
