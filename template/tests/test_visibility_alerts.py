"""Alerts, through apprise, to a webhook that listens: once per incident, whatever happens."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from app.foundation.messages import load_messages
from app.foundation.project import Language, Project
from app.foundation.settings import Settings
from app.standards.visibility import alerts as alerts_module
from app.standards.visibility import delivery
from app.standards.visibility.alerts import Alerts, Incidents, Kind
from app.standards.visibility.delivery import alert_url_problems
from app.standards.visibility.logs import configure_logs
from app.stores.base import Store, StoreUnavailableError
from tests.running import ROOT
from tests.servers import own_server, store_url
from tests.stores import make_store
from tests.webhook import TOKEN, Webhook

QUIET_SECONDS = 0.2


class Makes:
    """Makes what the tests need, and closes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_800_000_000.0
        self.open: list[Alerts | Store] = []

    def project(self, language: str = "en") -> Project:
        answers: dict[str, Any] = {
            "name": "Shop help",
            "slug": "shop-help",
            "about": "",
            "language": language,
            "providers": ["openai"],
            "models": {},
            "store": "sqlite",
            "deploy": "docker",
            "web_page": False,
            "daily_cost_cap_usd": 10,
            "on_call": {"name": "Kim", "contact": "+82-10-1234-5678"},
        }
        return Project.model_validate(answers)

    def store(self, name: str = "store") -> Store:
        made = make_store(store_url(self.folder / name), lambda: self.now, timeout=1)
        self.open.append(made)
        return made

    def alerts(self, *urls: str, store: Incidents | None = None, language: str = "en") -> Alerts:
        settings = Settings.model_construct(
            app_env="production",
            alert_urls=tuple(SecretStr(url) for url in urls),
            openai_api_key=SecretStr("canary-provider-key"),
        )
        made = Alerts(
            settings,
            self.project(language),
            store or self.store(),
            configure_logs(settings),
            gather_seconds=0.1,
            quiet_seconds=QUIET_SECONDS,
        )
        self.open.append(made)
        return made


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Makes]:
    makes = Makes(tmp_path)
    yield makes
    for made in reversed(makes.open):
        await (made.close(1) if isinstance(made, Alerts) else made.close())


async def test_a_burst_is_one_alert_and_its_end_another(
    make: Makes, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = make.alerts(webhook.url)
    for number in range(50):
        alerts.report("providers", request_id=f"id-{number}", provider="openai")
    (first,) = await webhook.has(1)
    assert first["title"] == "[Shop help] The model providers do not answer"
    assert "Reports so far: 50" in first["message"]
    assert (
        "Request ids: id-0, id-1, id-2, id-3, id-4, id-5, id-6, id-7, id-8, id-9\n"
        in (first["message"])
    )
    assert "provider: openai" in first["message"]
    assert "On call: Kim, +82-10-1234-5678" in first["message"]
    alerts.report("store")
    second = (await webhook.has(2))[1]
    assert second["title"] == "[Shop help] The store is unavailable, requests are refused"
    alerts.report("providers", request_id="more")
    for _ in range(10):
        alerts.recovered("providers")
    third = (await webhook.has(3))[2]
    assert third["title"] == "[Shop help] Recovered: The model providers do not answer"
    assert "Reports so far: 51" in third["message"]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["alert"], line["level"]) for line in lines if "alert" in line] == [
        ("providers", "ERROR"),
        ("store", "ERROR"),
        ("providers", "WARNING"),
    ]


async def test_several_processes_speak_once(make: Makes, webhook: Webhook) -> None:
    processes = [make.alerts(webhook.url) for _ in range(3)]
    for process in processes:
        process.report("providers", request_id="x")
    await webhook.has(1)
    for process in processes:
        process.recovered("providers")
    await webhook.has(2)
    processes[1].report("providers")
    assert "Reports so far: 1" in (await webhook.has(3))[2]["message"]


async def test_an_incident_outlives_its_process(make: Makes, webhook: Webhook) -> None:
    await make.store().open_incident("providers", 3600)
    alerts = make.alerts(webhook.url)
    alerts.recovered("providers")
    alerts.recovered("store")
    (message,) = await webhook.has(1)
    assert message["title"].startswith("[Shop help] Recovered: The model providers")


async def test_what_goes_on_is_repeated_after_an_hour(
    make: Makes, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts_module, "RECHECK_AFTER", 1)
    alerts = make.alerts(webhook.url)
    for later, said in ((0, 1), (3000, 1), (3700, 2)):
        make.now = 1_800_000_000.0 + later
        alerts.report("providers", request_id=f"after-{later}")
        await asyncio.sleep(0.3)
        messages = await webhook.has(said)
    assert "Request ids: after-3000, after-3700" in messages[1]["message"]
    assert "Reports so far: 3" in messages[1]["message"]


async def test_trouble_that_comes_and_goes_does_not_flood(make: Makes, webhook: Webhook) -> None:
    alerts = make.alerts(webhook.url)
    for told in (1, 3):
        alerts.report("providers")
        await webhook.has(told)
        alerts.recovered("providers")
        await webhook.has(told + 1)
    # After two ends that came too early the third trouble is believed to go on for longer.
    began = time.monotonic()
    alerts.report("providers")
    await webhook.has(5)
    alerts.recovered("providers")
    assert "Recovered" in (await webhook.has(6))[-1]["title"]
    assert time.monotonic() - began >= 4 * QUIET_SECONDS


class Slow:
    """The incidents of a store whose word that one is closed comes late."""

    def __init__(self, store: Store) -> None:
        self.open_incident = store.open_incident
        self._store = store

    async def close_incident(self, key: str) -> bool:
        was_open = await self._store.close_incident(key)
        await asyncio.sleep(3 * QUIET_SECONDS)
        return was_open


async def test_what_ends_is_not_reported_again_at_its_end(
    make: Makes, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is looked at again while the store has closed it and has not yet said so.
    monkeypatch.setattr(alerts_module, "RECHECK_AFTER", 4)
    alerts = make.alerts(webhook.url, store=Slow(make.store()))
    alerts.report("providers")
    await webhook.has(1)
    alerts.report("providers")
    alerts.recovered("providers")
    assert "Recovered" in (await webhook.has(2))[1]["title"]
    alerts.report("providers")
    assert "Recovered" not in (await webhook.has(3))[2]["title"]


async def test_without_a_store_a_process_alone_speaks_for_itself(
    make: Makes, webhook: Webhook
) -> None:
    with own_server() as server:
        store = make_store(server.url, None, timeout=0.3)
        make.open.append(store)
        server.freeze()
        alerts = make.alerts(webhook.url, store=store)
        for _ in range(3):
            alerts.report("store")
            await asyncio.sleep(0.15)
        await webhook.has(1)
        server.thaw()
        await answers(store)
        await recovers(webhook, 2, alerts)
        assert "Recovered" in (await webhook.has(2))[1]["title"]


async def answers(store: Store) -> None:
    """Wait until the store is itself again."""
    for _ in range(20):
        with suppress(StoreUnavailableError):
            return await store.ping()
    await store.ping()


async def recovers(webhook: Webhook, count: int, *workers: Alerts) -> None:
    """Let workers succeed until the webhook has so many messages: while the store is slow, the next
    success tries again.
    """
    deadline = time.monotonic() + 10
    while len(webhook.received) < count and time.monotonic() < deadline:
        for worker in workers:
            worker.recovered("store")
        await asyncio.sleep(0.02)


async def test_without_a_store_the_workers_of_one_host_speak_once(
    make: Makes, webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))  # as `serve` sets it
    with own_server() as server:
        stores = [make_store(server.url, None, timeout=0.3) for _ in range(3)]
        make.open += stores
        server.freeze()
        workers = [make.alerts(webhook.url, store=store) for store in stores]
        for worker in workers:
            worker.report("store")
        await asyncio.sleep(0.6)
        await webhook.has(1)
        server.thaw()
        workers[0].report("store")
        await asyncio.sleep(0.3)
        await webhook.has(1)
        for store in stores:
            await answers(store)
        await recovers(webhook, 2, *workers)
        assert "Recovered" in (await webhook.has(2))[1]["title"]
        workers[1].report("store")
        assert "Recovered" not in (await webhook.has(3))[2]["title"]


async def test_a_failing_webhook_is_tried_three_times_and_logged_once(
    make: Makes,
    webhook: Webhook,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "PAUSES_SECONDS", (0.05, 0.1))
    webhook.statuses = [500] * 6
    alerts = make.alerts(webhook.url)
    alerts.report("providers")
    await webhook.has(3)
    alerts.report("store")
    await webhook.has(6)
    written = capsys.readouterr().err
    assert written.count("an alert could not be delivered") == 1
    assert TOKEN not in written
    assert "127.0.0.1" not in written
    alerts.report("provider_key")
    await webhook.has(7)


@pytest.mark.parametrize("drips", [False, True])
async def test_a_hanging_webhook_delays_nobody(
    make: Makes, monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    monkeypatch.setattr(delivery, "ATTEMPT_SECONDS", 0.2)
    monkeypatch.setattr(delivery, "PAUSES_SECONDS", (0.01, 0.01))
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(3)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                for _ in range(100):
                    time.sleep(0.1)
                    connection.sendall(b"H" if drips else b"")

        threading.Thread(target=answer, daemon=True).start()
        alerts = make.alerts(f"json://127.0.0.1:{server.getsockname()[1]}/")
        started = time.monotonic()
        alerts.report("providers")
        assert time.monotonic() - started < 2
        await asyncio.sleep(0.15)
        for _ in range(3):
            alerts.report("store")
            await asyncio.sleep(0.02)
        await alerts.close(8)
        assert time.monotonic() - started < 5
        begun = set(threading.enumerate()) - before
        assert len([thread for thread in begun if thread.name == "alert"]) <= 1


async def test_close_sends_what_was_just_reported(make: Makes, webhook: Webhook) -> None:
    alerts = make.alerts(webhook.url)
    alerts.report("internal_error", request_id="last")
    await alerts.close(20)
    assert webhook.titles == ["[Shop help] Requests fail with an internal error"]


async def test_an_alert_holds_nothing_but_names_and_numbers(make: Makes, webhook: Webhook) -> None:
    alerts = make.alerts(webhook.url)
    alerts.report(
        "cost_warning",
        request_id="canary-provider-key",
        spent_usd=8.02,
        key="canary-provider-key",
        text="what a person wrote",
    )
    (message,) = await webhook.has(1)
    assert "spent today (US$): 8.02" in message["message"]
    assert "canary" not in str(message)
    assert "person" not in str(message)


@pytest.mark.parametrize("language", get_args(Language))
async def test_every_kind_says_all_that_is_needed_at_night(
    make: Makes, webhook: Webhook, language: Language
) -> None:
    alerts, texts = make.alerts(webhook.url, language=language), load_messages(language).texts
    kinds = get_args(Kind)
    for number, kind in enumerate(kinds):
        ids = [f"bad-{number}", f"worse-{number}"]
        for _ in range(3):
            alerts.report(kind, request_ids=ids, candidate="compatible:meta-llama/llama@4")
    runbook = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
    received = await asyncio.to_thread(webhook.wait_for, len(kinds), 20.0)
    messages = {message["title"]: message["message"] for message in received}
    for number, kind in enumerate(kinds):
        text = messages[f"[Shop help] {texts[f'alert.what.{kind}']}"]
        section = kind.removesuffix("_fast").removesuffix("_slow")
        lines = text.splitlines()
        assert lines[0].startswith(texts["alert.since"].partition("{")[0] + "20")
        assert lines[1] == texts["alert.count"].format(count=3)
        assert f"{texts['alert.fact.candidate']}: compatible:meta-llama/llama@4" in lines
        assert texts["alert.requests"].format(ids=f"bad-{number}, worse-{number}") in lines
        assert texts["alert.on_call"].format(name="Kim", contact="+82-10-1234-5678") in lines
        assert lines[-1] == texts["alert.runbook"].format(section=section)
        assert f"\n## {section}\n" in runbook


async def test_who_knows_no_request_says_where_they_are(make: Makes, webhook: Webhook) -> None:
    make.alerts(webhook.url).report("availability_slow", bad=3, events=40)
    (message,) = await webhook.has(1)
    assert "bad requests: 3\nrequests in all: 40\n" in message["message"]
    assert "Request ids: another process has them, see the log and /ops" in message["message"]


async def test_alerts_speak_the_apps_language(make: Makes, webhook: Webhook) -> None:
    make.alerts(webhook.url, language="ko").report("providers")
    (message,) = await webhook.has(1)
    assert message["title"] == "[Shop help] 모델 제공자가 응답하지 않습니다"
    assert "담당자: Kim" in message["message"]


async def test_without_urls_the_log_is_told(
    make: Makes, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = make.alerts()
    alerts.report("providers", request_id="r1")
    written, deadline = "", time.monotonic() + 5
    while not written and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        written = capsys.readouterr().err
    line = json.loads(written)
    assert (line["message"], line["alert"], line["request_ids"]) == ("alert", "providers", ["r1"])


def test_a_report_outside_the_loop_is_no_error(tmp_path: Path) -> None:
    alerts = Makes(tmp_path).alerts()
    alerts.report("providers")
    alerts.recovered("providers")


def test_wrong_urls_are_counted_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("apprise").addHandler(caplog.handler)
    logging.getLogger("apprise").setLevel(logging.DEBUG)
    urls = (f"json://127.0.0.1/{TOKEN}", f"nonsense://{TOKEN}", TOKEN)
    settings = Settings.model_construct(alert_urls=tuple(SecretStr(url) for url in urls))
    problems = alert_url_problems(settings)
    assert len(problems) == 2
    assert TOKEN not in str(problems) + caplog.text
    logging.getLogger("apprise").removeHandler(caplog.handler)
    assert alert_url_problems(Settings.model_construct()) == []
