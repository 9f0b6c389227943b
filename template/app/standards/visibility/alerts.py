"""Alerts: one notification per incident over all processes, hourly reminders, one recovery.

An incident is a kind of trouble, from its first report until it has stayed away for a while. The
store decides which process speaks; while it is down the workers of each host agree on one.
"""

import asyncio
import contextvars
import re
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from loguru import logger

from app.foundation.messages import load_messages
from app.foundation.project import Project
from app.foundation.settings import Settings
from app.standards.visibility.delivery import load_targets
from app.standards.visibility.redaction import Redactor
from app.standards.visibility.told import Told

Kind = Literal[
    "providers",
    "store",
    "internal_error",
    "cost_warning",
    "daily_cost_cap",
    "provider_key",
    "availability_fast",
    "availability_slow",
    "latency_fast",
    "latency_slow",
    "fallback",
    "refusal",
    "cost",
    "canary",
]
# What can wait until morning.
_WARNINGS = frozenset(
    {"cost_warning", "availability_slow", "latency_slow", "fallback", "refusal", "cost", "canary"}
)
REMIND_SECONDS = 3600.0
MAX_REQUEST_IDS = 10
# How many times the gathering takes where the incident is known to be reported.
RECHECK_AFTER = 10
MAX_QUIET_SECONDS = 900.0
_FACT = re.compile(r"[\w.:/@-]{1,100}")


class Incidents(Protocol):
    """The part of a store that alerts need; see `stores/base.py`."""

    async def open_incident(self, key: str, remind_seconds: float) -> bool: ...

    async def close_incident(self, key: str) -> bool: ...


@dataclass(slots=True)
class _Incident:
    """What this process knows of one kind; instants are of the monotonic clock."""

    kind: Kind
    quiet: float
    count: int = 0
    since: datetime | None = None
    request_ids: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    last_report: float = 0.0
    # True at first: an earlier process may have left it open, and the first success closes it.
    maybe_open: bool = True
    known_reported: bool = False
    last_recovery: float | None = None
    gathering: asyncio.Task[None] | None = None
    closing: asyncio.Task[None] | None = None
    # Held by whoever asks the store, so that what one has closed the other does not open again.
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)

    def forget(self) -> None:
        self.count, self.since, self.request_ids, self.facts = 0, None, [], {}
        self.maybe_open = self.known_reported = False


class Alerts:
    """Reports trouble to ALERT_URLS, and to the log whether there are any or not.

    A burst is collected for `gather_seconds` into one notification. A kind that has stayed away
    for `quiet_seconds` is over; for four times as long, each time that it comes back.
    """

    def __init__(
        self,
        settings: Settings,
        project: Project,
        store: Incidents,
        redactor: Redactor,
        *,
        gather_seconds: float = 1.0,
        quiet_seconds: float = 2.0,
    ) -> None:
        self._project = project
        self._store = store
        self._redactor = redactor
        self._timezone = settings.timezone
        self._messages = load_messages(project.language)
        self._text = self._messages.text
        self._gather_seconds = gather_seconds
        self._quiet_seconds = quiet_seconds
        self._targets = load_targets(settings)
        self._told = Told.by_this_app()
        self._incidents: dict[Kind, _Incident] = {
            kind: _Incident(kind, quiet_seconds) for kind in get_args(Kind)
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def report(
        self,
        kind: Kind,
        *,
        request_id: str | None = None,
        request_ids: Iterable[str] = (),
        **facts: str | float,
    ) -> None:
        """Something of `kind` went wrong. Never waits and never raises.

        `request_ids` are examples of several. `facts` are names and numbers; anything else is left
        out.
        """
        incident, now = self._incidents[kind], time.monotonic()
        if now - incident.last_report > REMIND_SECONDS:
            incident.forget()
        incident.count += 1
        incident.since = incident.since or datetime.now(self._timezone)
        incident.last_report = now
        incident.maybe_open = True
        examples = [*request_ids, *([request_id] if request_id else [])]
        known = dict.fromkeys([*incident.request_ids, *examples])
        incident.request_ids = list(known)[:MAX_REQUEST_IDS]
        incident.facts |= {n: str(v) for n, v in facts.items() if _FACT.fullmatch(str(v))}
        if incident.gathering is None:
            incident.gathering = self._start(self._gather(incident))

    def recovered(self, kind: Kind) -> None:
        """`kind` works again. Costs next to nothing while none is open: call it on success."""
        incident = self._incidents[kind]
        if incident.maybe_open and incident.closing is None:
            incident.closing = self._start(self._close_when_quiet(incident))

    async def flush(self, seconds: float) -> None:
        """Wait until new trouble is reported, for at most `seconds`; it goes on afterwards.

        Reminders and recoveries are not waited for: a later request brings them.
        """
        incidents = self._incidents.values()
        news = [i.gathering for i in incidents if i.gathering and not i.known_reported]
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if news:
                    await asyncio.wait(news)
                await asyncio.gather(*(target.drained() for target in self._targets))

    async def close(self, seconds: float) -> None:
        """Send what was reported, for at most `seconds`."""
        self._stopping.set()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self._tasks)
                await asyncio.gather(*(target.drained() for target in self._targets))
        except TimeoutError:
            logger.warning("alerts were still on their way when the app stopped")
        for target in self._targets:
            target.stop()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        try:
            # In a context of its own: it outlives the request that it begins in.
            task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        except RuntimeError:
            work.close()
            return None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _gather(self, incident: _Incident) -> None:
        try:
            for _ in range(RECHECK_AFTER):
                await self._pause(self._gather_seconds)
                if not incident.known_reported:
                    break
            async with incident.deciding:
                if not incident.count:
                    return  # it has ended meanwhile
                if await self._is_ours_to_report(incident):
                    self._notify(incident, recovery=False)
                    incident.request_ids = []
                incident.known_reported = True
        finally:
            incident.gathering = None

    async def _is_ours_to_report(self, incident: _Incident) -> bool:
        try:
            new = await self._store.open_incident(incident.kind, REMIND_SECONDS)
        except Exception:  # a store that cannot answer must not hide what went wrong
            return self._told.tell(incident.kind, REMIND_SECONDS)
        # What was told without the store, the store knows from now on: it is not told again.
        return not self._told.forget(incident.kind) and new

    async def _close_when_quiet(self, incident: _Incident) -> None:
        try:
            reports = incident.count
            if reports:
                await self._pause(incident.last_report + incident.quiet - time.monotonic())
            async with incident.deciding:
                await self._close(incident, reports)
        finally:
            incident.closing = None

    async def _close(self, incident: _Incident, reports: int) -> None:
        """Close it, unless there were more than so many reports meanwhile."""
        if self._stopping.is_set() or incident.count != reports:
            return
        try:
            was_open = await self._store.close_incident(incident.kind)
        except Exception:
            return  # the next success tries again
        if self._told.forget(incident.kind) or was_open:
            self._notify(incident, recovery=True)
            now, before = time.monotonic(), incident.last_recovery
            again = before is not None and now - before < REMIND_SECONDS
            longer = min(incident.quiet * 4, MAX_QUIET_SECONDS)
            incident.quiet = longer if again else self._quiet_seconds
            incident.last_recovery = now
        if incident.count == reports:
            incident.forget()

    def _notify(self, incident: _Incident, *, recovery: bool) -> None:
        level = "WARNING" if recovery or incident.kind in _WARNINGS else "ERROR"
        facts = {"alert": incident.kind, "count": incident.count, **incident.facts}
        line = logger.bind(request_ids=incident.request_ids, **facts)
        line.log(level, "alert: recovered" if recovery else "alert")
        title, body = self._title(incident, recovery), self._body(incident, recovery)
        for target in self._targets:
            target.send(self._redactor.text(title), self._redactor.text(body))

    def _title(self, incident: _Incident, recovery: bool) -> str:
        key = "alert.title_recovered" if recovery else "alert.title"
        what = self._text(f"alert.what.{incident.kind}")
        return self._text(key, app=self._project.name, what=what)

    def _body(self, incident: _Incident, recovery: bool) -> str:
        lines = []
        if incident.since is not None:
            since = f"{incident.since:%Y-%m-%d %H:%M:%S %Z}"
            lines += [self._text("alert.since", since=since)]
            lines += [self._text("alert.count", count=incident.count)]
        lines += [f"{self._named(name)}: {value}" for name, value in incident.facts.items()]
        if incident.request_ids and not recovery:
            lines += [self._text("alert.requests", ids=", ".join(incident.request_ids))]
        elif not recovery:
            lines += [self._text("alert.no_requests")]
        on_call = self._project.on_call
        lines += [self._text("alert.on_call", name=on_call.name, contact=on_call.contact)]
        section = re.sub("_(fast|slow)$", "", incident.kind)
        lines += [self._text("alert.runbook", section=section)]
        return "\n".join(lines)

    def _named(self, fact: str) -> str:
        """What a fact is called where a person reads it."""
        return self._messages.texts.get(f"alert.fact.{fact}", fact)
