"""The error budget: counted by all processes, looked at through windows, alerted about once."""

import asyncio
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.record import RequestRecord
from app.foundation.settings import Settings
from app.launch.budget import COUNTER, ErrorBudget
from app.launch.burning import LONGEST_BY_MINUTE, Events, Window
from app.launch.slo import BURNS, Objectives
from app.standards.visibility.alerts import Alerts, Incidents, Kind
from app.standards.visibility.logs import configure_logs
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.request_log import Outcome, RequestEnd
from app.stores.base import (
    Admission,
    Cap,
    Connection,
    Count,
    Settlement,
    Store,
    StoreUnavailableError,
)
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Status
from tests.servers import store_url
from tests.stores import Clock, make_store
from tests.webhook import Webhook

# As on a platform that freezes or ends an instance when its response has left.
FUNCTION = """
import os
import uvicorn
from app.main import create_app

served = create_app()

async def function(scope, receive, send):
    try:
        await served(scope, receive, send)
    finally:
        if scope["type"] == "http":
            await served.state.finish()
            print("finished", scope["path"], flush=True)

uvicorn.run(function, port=int(os.environ["PORT"]), log_level="warning")
"""
CHAT = "/v1/chat/completions"
QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
_SAY = load_messages(load_project().language).text
RECOVERED = _SAY("alert.title_recovered", app="", what="").partition("] ")[2]
FAST, SLOW = _SAY("alert.what.availability_fast"), _SAY("alert.what.availability_slow")


def fact(name: str, value: float) -> str:
    """The line of an alert that says it."""
    return f"{_SAY(f'alert.fact.{name}')}: {value}"


class Process:
    """An error budget of a process of its own: its store's connection, its alerts."""

    def __init__(self, store: Store, webhook: Webhook, **changes: Any) -> None:
        alert_urls = (SecretStr(webhook.url),)
        settings = Settings.model_construct(alert_urls=alert_urls, **changes)
        incidents: Incidents = store
        self.store = store
        self.alerts = Alerts(
            settings,
            load_project(),
            incidents,
            configure_logs(settings),
            gather_seconds=0.05,
            quiet_seconds=0.1,
        )
        self.budget = ErrorBudget(
            Objectives(settings),
            store,
            Metrics(Decimal(5)),
            self.alerts,
            speaks=settings.slo_alerts,
        )

    def end(self, outcome: Outcome, count: int, seconds: float = 0.1) -> None:
        record = RequestRecord("r1", caller="alice", cache="miss", attempts=1)
        end = RequestEnd(record, "POST", CHAT, 200, seconds, outcome, None)
        for _ in range(count):
            self.budget.request_ended(end)


@pytest.fixture
async def processes(
    tmp_path: Path, clock: Clock, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Process]]:
    """Two processes with one store."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    made = [Process(make_store(store_url(tmp_path), clock), webhook) for _ in range(2)]
    for process in made:
        await process.store.open()
    yield made
    for process in made:
        await process.alerts.close(1)
        await process.store.close()


async def look(*processes: Process) -> None:
    for process in processes:
        await process.budget.catch_up()
        await process.budget.look()
        await process.alerts.flush(20)


async def at_rest() -> None:
    """Wait until no process has an alert to gather or to close."""

    def names() -> str:
        return "".join(str(task.get_coro()) for task in asyncio.all_tasks())

    while "Alerts._gather" in names() or "Alerts._close" in names():
        await asyncio.sleep(0.01)


async def test_a_burst_of_errors_is_reported_once_and_so_is_its_end(
    processes: list[Process], webhook: Webhook, clock: Clock
) -> None:
    one, other = processes
    one.end("ok", 20)
    other.end("failed", 10)
    await look(one, other)
    (alert,) = await webhook.has(1)
    assert FAST in alert["title"]
    # A third failed, and one in two hundred may.
    assert fact("times_too_fast", 66.7) in alert["message"]
    assert fact("over_hours", 1) + "\n" in alert["message"]
    assert f"{fact('bad', 10)}\n{fact('events', 30)}\n" in alert["message"]
    assert "RUNBOOK.md#availability" in alert["message"]
    clock.now += 60
    other.end("failed", 5)
    await look(other, one)
    await at_rest()  # who still gathers when the other has closed it takes it for news
    await webhook.has(1)

    clock.now += 31 * 60  # the short windows of both pages are over, their long ones are not
    one.end("ok", 20)
    await look(one, other)
    found = await webhook.has(3)
    assert {alert["title"].partition(RECOVERED)[2] or "" for alert in found[1:]} == {
        "",
        found[0]["title"].partition("] ")[2],
    }
    assert SLOW in "".join(alert["title"] for alert in found[1:])


async def test_a_few_requests_prove_nothing(processes: list[Process], webhook: Webhook) -> None:
    one, other = processes
    one.end("failed", 10)
    other.end("failed", 9)
    await look(one, other)
    await webhook.has(0)
    other.end("failed", 1)
    await look(one, other)
    await webhook.has(1)


async def test_a_slow_loss_is_a_ticket(
    processes: list[Process], webhook: Webhook, clock: Clock
) -> None:
    one, other = processes
    one.end("ok", 98)
    one.end("failed", 2)  # four times too many
    await look(one, other)
    (alert,) = await webhook.has(1)
    assert SLOW in alert["title"]
    assert fact("times_too_fast", 4.0) in alert["message"]
    assert fact("budget_left_percent", -300.0) in alert["message"]
    # Three days later the window has passed.
    clock.now += 73 * 3600
    one.end("ok", 20)
    await look(one, other)
    assert RECOVERED in (await webhook.has(2))[1]["title"]


async def test_each_objective_speaks_for_itself(processes: list[Process], webhook: Webhook) -> None:
    one, other = processes
    one.end("ok", 20, seconds=11)
    one.end("refused", 20)
    await look(one, other)
    titles = " ".join(alert["title"] for alert in await webhook.has(2))
    assert _SAY("alert.what.latency_fast") in titles
    assert _SAY("alert.what.refusal") in titles


async def test_it_outlives_every_process(
    processes: list[Process], webhook: Webhook, tmp_path: Path, clock: Clock
) -> None:
    processes[0].end("failed", 30)
    await processes[0].budget.catch_up()
    later = Process(make_store(store_url(tmp_path), clock), webhook, slo_alerts=True)
    await later.store.open()
    await look(later)
    await webhook.has(1)
    await later.alerts.close(1)
    await later.store.close()


async def test_with_slo_alerts_off_it_counts_and_is_quiet(
    processes: list[Process], webhook: Webhook, tmp_path: Path, clock: Clock
) -> None:
    quiet = Process(make_store(store_url(tmp_path), clock), webhook, slo_alerts=False)
    await quiet.store.open()
    quiet.end("failed", 30)
    await quiet.budget.catch_up()
    await quiet.alerts.flush(20)
    await webhook.has(0)
    assert await processes[0].store.counted(COUNTER, 60, 1) == (Count(0, "availability bad", 30),)
    await quiet.alerts.close(1)
    await quiet.store.close()


async def test_the_days_cost_is_watched_where_an_objective_is_stated(
    processes: list[Process], webhook: Webhook, tmp_path: Path, clock: Clock
) -> None:
    watching = Process(
        make_store(store_url(tmp_path), clock), webhook, slo_cost_usd_per_day=Decimal(2)
    )
    store = watching.store
    await store.open()
    for name, cost in (("a", 1_999_999_999), ("b", 2)):
        caps = (Cap("app", "app", 10**10),)
        await store.admit(Admission(name, cost, 30, (), caps))
        await store.settle(Settlement(name, cost))
        await look(watching, *processes)
        await webhook.has(0 if name == "a" else 1)
    assert _SAY("alert.what.cost") in webhook.titles[0]
    clock.now += 86400
    await look(watching)
    await webhook.has(2)
    await watching.alerts.close(1)
    await store.close()


class Down:
    """A store's connection that can be cut."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.down = True

    def __getattr__(self, name: str) -> object:
        async def refuse(*_: object) -> None:
            raise StoreUnavailableError("cut")

        return refuse if self.down else getattr(self._store, name)


async def test_counts_wait_for_a_store_that_is_down(
    processes: list[Process], webhook: Webhook
) -> None:
    real = processes[0].store
    line = Down(real)
    cut = Process(line, webhook)  # type: ignore[arg-type]
    cut.end("failed", 20)
    await cut.budget.catch_up()
    cut.end("ok", 3)
    line.down = False
    assert await real.counted(COUNTER, 60, 1) == ()
    await cut.budget.catch_up()
    found = {count.label: count.value for count in await real.counted(COUNTER, 60, 1)}
    assert found["availability bad"] == 20
    assert found["availability good"] == 3
    await cut.alerts.close(1)


def test_windows_are_cut_from_minutes_and_hours() -> None:
    minutes = [Count(age, "latency bad", 1) for age in range(500)]
    hours = [Count(age, "latency bad", 10) for age in range(100)]
    events = Events([*minutes, Count(3, "latency good", 7)], hours)
    # The minute, or the hour, that has just begun comes on top.
    assert events.window("latency", 5) == Window(good=7, bad=6)
    assert events.window("latency", LONGEST_BY_MINUTE) == Window(good=7, bad=61)
    assert events.window("latency", 6 * 60) == Window(good=0, bad=70)
    assert events.window("latency", 3 * 24 * 60) == Window(good=0, bad=730)
    assert events.window("availability", 60) == Window(0, 0)
    assert Window(0, 0).burn(0.005) == 0
    windows = {window for burns in BURNS.values() for x in burns for window in (x.long, x.short)}
    assert all(window <= LONGEST_BY_MINUTE or window % 60 == 0 for window in windows)


async def test_running_workers_report_a_burst_once(
    start_app: StartApp, fake: FakeProvider, webhook: Webhook
) -> None:
    app = start_app(workers=2, max_attempts=1, alert_urls=webhook.url)
    fake.always(Status(500))
    with app.http() as http:
        statuses = {http.post(CHAT, json=QUESTION).status_code for _ in range(30)}
    assert statuses == {503}
    await asyncio.to_thread(webhook.wait_for, 1, 30.0, FAST, 1.0)


async def test_an_instance_that_dies_after_its_request_has_counted_it(
    start_app: StartApp, fake: FakeProvider, webhook: Webhook, tmp_path: Path
) -> None:
    fake.always(Status(500))
    for _ in range(2):  # half of what must have happened, each
        app = start_app(command=[sys.executable, "-c", FUNCTION], max_attempts=1)
        for _ in range(2):
            finished = app.log().count(f"finished {CHAT}")
            with app.http() as http:
                assert http.post(CHAT, json=QUESTION).status_code == 503
            while app.log().count(f"finished {CHAT}") == finished:
                await asyncio.sleep(0.02)
        app.process.kill()
    url, slug = store_url(tmp_path), load_project().slug
    connection = Connection(url, slug, timeout=5, timezone=ZoneInfo("UTC"))
    store: Store = import_module(f"app.stores.{load_project().store}").connect(connection)
    later = Process(store, webhook, slo_min_events=4)
    await store.open()
    await look(later)
    (alert,) = await asyncio.to_thread(webhook.wait_for, 1, 20.0, FAST)
    assert fact("times_too_fast", 200.0) in alert["message"]
    await later.alerts.close(1)
    await store.close()


def test_every_alert_has_its_section_in_the_runbook() -> None:
    runbook = (Path(__file__).parents[1] / "RUNBOOK.md").read_text(encoding="utf-8")
    for kind in get_args(Kind):
        section = kind.removesuffix("_fast").removesuffix("_slow")
        assert f"\n## {section}\n" in runbook
