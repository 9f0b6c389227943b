"""The cut-off over several processes: one alert, and what came before it is forgiven."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.record import RequestRecord
from app.foundation.settings import Settings
from app.launch.rollout.canary import THE_APP, Canary
from app.launch.rollout.figures import Figures, read
from app.launch.slo import Objectives
from app.launch.switches import CANARY, Switches
from app.launch.tally import Tally
from app.providers.demo import Demo
from app.providers.prices import find_price
from app.standards.availability.breaker import Breaker
from app.standards.availability.relay import Target
from app.standards.visibility.alerts import Alerts
from app.standards.visibility.logs import configure_logs
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.request_log import RequestEnd
from app.stores.base import Store, StoreUnavailableError
from tests.servers import store_url
from tests.stores import Clock, make_store
from tests.webhook import Webhook

NAME = "demo:on-trial"
CANDIDATE = Target(Demo("on-trial"), find_price("demo", "", None, None), Breaker(), on_trial=True)


class Process:
    """A canary of a process of its own: its store's connection, its switches, its alerts."""

    def __init__(self, store: Store, webhook: Webhook) -> None:
        settings = Settings.model_construct(alert_urls=(SecretStr(webhook.url),), slo_min_events=10)
        self.store, self.tally = store, Tally(store)
        self.switches = Switches(store, (CANARY,))
        self.alerts = Alerts(
            settings,
            load_project(),
            store,
            configure_logs(settings),
            gather_seconds=0.05,
            quiet_seconds=0.1,
        )
        self.canary = Canary(
            CANDIDATE,
            Decimal(50),
            store=store,
            tally=self.tally,
            figures=Figures(self.tally, NAME),
            switches=self.switches,
            objectives=Objectives(settings),
            metrics=Metrics(Decimal(5)),
            alerts=self.alerts,
            messages=load_messages("ko"),
        )

    def end(self, count: int, *, failed: bool) -> None:
        """So many requests of the canary end; where the candidate failed, another stood in."""
        model = "proven" if failed else "on-trial"
        record = RequestRecord("r1", caller="alice", provider="demo", model=model, attempts=1)
        record.arm, record.candidate_failed = "canary", failed
        end = RequestEnd(record, "POST", "/v1/chat/completions", 200, 0.1, "ok", None)
        for _ in range(count):
            self.canary.request_ended(end)


@pytest.fixture
async def processes(
    tmp_path: Path, clock: Clock, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Process]]:
    """Two processes with one store, which have looked at the switches."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    made = [Process(make_store(store_url(tmp_path), clock), webhook) for _ in range(2)]
    for process in made:
        await process.store.open()
        await process.switches.look()
    yield made
    for process in made:
        await process.alerts.close(1)
        await process.store.close()


async def test_one_alert_over_all_processes_and_another_after_it_was_let_in_again(
    processes: list[Process], webhook: Webhook, clock: Clock
) -> None:
    one, other = processes
    for process in processes:
        process.end(6, failed=True)
        assert await process.tally.write()
    # Both come to the same verdict before either knows of the other's.
    for process in processes:
        await process.canary.judge()
    await webhook.has(1)
    for process in processes:  # one that is late would take what comes next for news
        await process.alerts.flush(20)
    (off,) = await one.switches.listed()
    assert (off.name, off.by) == (CANARY, THE_APP)
    assert NAME in off.why
    assert "12" in off.why

    await other.switches.turn_on(CANARY)
    clock.now += 60
    one.end(1, failed=True)
    await one.tally.write()
    await one.canary.judge()
    assert await one.switches.listed() == [], "it was cut off for what came before"
    one.end(10, failed=True)
    await one.tally.write()
    await one.canary.judge()
    assert await one.switches.listed()
    await webhook.has(2)
    figures = await read(one.store, NAME, 1)
    assert (figures["canary canary requests"], figures["canary canary bad"]) == (23, 23)


async def test_a_candidate_that_does_well_stays(processes: list[Process], webhook: Webhook) -> None:
    one, _ = processes
    one.end(300, failed=False)
    one.end(2, failed=True)
    await one.tally.write()
    await one.canary.judge()
    assert await one.switches.listed() == []
    await webhook.has(0)


async def test_it_is_told_though_the_stores_word_on_it_was_lost(
    processes: list[Process], webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = processes
    remember = one.store.remember

    async def remember_and_be_late(key: str, value: bytes, keep_seconds: int) -> None:
        await remember(key, value, keep_seconds)
        raise StoreUnavailableError

    one.end(12, failed=True)
    await one.tally.write()
    with monkeypatch.context() as late:
        late.setattr(one.store, "remember", remember_and_be_late)
        await one.canary.judge()
    monkeypatch.setattr("app.launch.switches.LOOK_EVERY_SECONDS", 0)
    while one.switches.is_on(CANARY):
        await one.switches.look()
        await asyncio.sleep(0.01)
    await one.canary.judge()
    await webhook.has(1)
