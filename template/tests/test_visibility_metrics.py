"""Metrics: their names, which others hang on, and their sums over several processes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from app.foundation.project import load_project
from app.standards.availability.breaker import FAILURES_TO_OPEN
from app.standards.visibility.metrics import Metrics
from app.stores.base import Spending
from checklist.listener import until
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Reply, Status
from tests.running import RunningApp

FIRST = load_project().providers[0]
MODEL = load_project().models[FIRST]
CHAT = "/v1/chat/completions"
SPENDING = Spending(
    date(2026, 11, 22), settled_nano=2_500_000_000, reserved_nano=10**8, resets_in=1
)

WORKER = """
import asyncio, sys
from decimal import Decimal
from app.standards.visibility.metrics import Metrics

metrics = Metrics(Decimal(10))
metrics.request("/v1/chat/completions", 200, float(sys.argv[1]))
metrics.fallback()
metrics.breaker("openai", "gpt-5", is_open=sys.argv[1] == "1")
print("ready", flush=True)
for _ in sys.stdin:
    print(asyncio.run(metrics.render(None))[0].decode() + "end", flush=True)
"""


def scraped(app: RunningApp) -> str:
    with app.http("admin") as http:
        return http.get("/metrics").text


def samples(text: str) -> dict[str, float]:
    found = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in found}


async def test_the_names_and_labels_are_the_stated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics = Metrics(Decimal(10))
    metrics.request("/v1/chat/completions", 200, 0.3)
    metrics.refusal("rate_limit_exceeded")
    metrics.refusal("whatever a caller wrote")
    metrics.attempt("openai", "gpt-5", "ok")
    metrics.fallback()
    metrics.breaker("openai", "gpt-5", is_open=True)
    metrics.tokens("openai", "gpt-5", "input", 12)
    metrics.cost("openai", "gpt-5", 1_500_000)
    metrics.abstention("zero_hit")
    metrics.citations(valid=2, invalid=1)
    text, content_type = await metrics.render(SPENDING)
    found = samples(text.decode())
    buckets = {name for name in found if "_bucket" in name}
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert {name: value for name, value in found.items() if name not in buckets} == {
        'llm_app_requests_total{route="/v1/chat/completions",status="200"}': 1,
        'llm_app_request_duration_seconds_count{route="/v1/chat/completions"}': 1,
        'llm_app_request_duration_seconds_sum{route="/v1/chat/completions"}': 0.3,
        'llm_app_refusals_total{code="rate_limit_exceeded"}': 1,
        'llm_app_refusals_total{code="invalid_request_error"}': 1,
        'llm_app_provider_attempts_total{model="gpt-5",outcome="ok",provider="openai"}': 1,
        "llm_app_retries_total": 0,
        "llm_app_fallbacks_total": 1,
        'llm_app_breaker_open{model="gpt-5",provider="openai"}': 1,
        'llm_app_tokens_total{kind="input",model="gpt-5",provider="openai"}': 12,
        'llm_app_cost_usd_total{model="gpt-5",provider="openai"}': 0.0015,
        'llm_app_abstentions_total{reason="zero_hit"}': 1,
        'llm_app_citations_total{result="valid"}': 2,
        'llm_app_citations_total{result="invalid"}': 1,
        "llm_app_failures_dropped_total": 0,
        "llm_app_store_up": 1,
        "llm_app_daily_cost_usd": 2.5,
        "llm_app_cost_reserved_usd": 0.1,
        "llm_app_daily_cost_cap_usd": 10,
    }
    assert any('le="60.0"' in name for name in buckets)


async def test_without_a_store_there_is_no_money(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    text, _ = await Metrics(Decimal(10)).render(None)
    assert b"daily_cost" not in text
    assert b"llm_app_store_up 0.0" in text
    assert b"llm_app_fallbacks_total 0.0" in text


async def test_what_an_alert_counts_is_there_before_it_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics = Metrics(Decimal(10))
    metrics.state_targets([("openai", "gpt-5"), ("gemini", "gemini-3")], canary_ratio=0.05)
    text, _ = await metrics.render(SPENDING, {"spending": True, "model:gpt-5": False})
    found = samples(text.decode())
    for provider, model in (("openai", "gpt-5"), ("gemini", "gemini-3")):
        assert found[f'llm_app_breaker_open{{model="{model}",provider="{provider}"}}'] == 0
        for outcome in ("rejected_key", "quota"):
            labels = f'model="{model}",outcome="{outcome}",provider="{provider}"'
            assert found[f"llm_app_provider_attempts_total{{{labels}}}"] == 0
    for code in ("internal_error", "daily_cost_cap", "store_unavailable", "switched_off"):
        assert found[f'llm_app_refusals_total{{code="{code}"}}'] == 0
    assert found["llm_app_canary_ratio"] == 0.05
    assert found['llm_app_switched_off{switch="spending"}'] == 1
    assert found['llm_app_switched_off{switch="model:gpt-5"}'] == 0


def test_nobody_outside_can_make_a_label(app: RunningApp) -> None:
    mark = "attacker7"

    def try_to(numbers: range) -> set[str]:
        with app.http() as http, app.http(None, authorization=f"Bearer {mark}") as stranger:
            for number in numbers:
                odd = f"{mark}-{number}"
                body = {"messages": [{"role": "user", "content": odd}], "model": odd}
                stranger.post("/v1/chat/completions", json=body)
                http.post("/v1/chat/completions", json=body)
                http.post("/v1/chat/completions", json=body | {"model": "auto", "user": odd})
                http.post("/v1/chat/completions", json=body | {"model": "auto", odd: 1})
                http.post("/v1/feedback", json={"request_id": odd, "rating": odd})
                http.get(f"/{odd}/{odd}")
                http.get(f"/v1/{odd}?{odd}={odd}", headers={odd: odd, "x-request-id": odd})
                http.get(f"/assets/ops/{odd}.js")
                http.request(f"ODD{number}", "/v1/models")
        return set(samples(scraped(app)))

    scraped(app)  # which is a request like any other
    known = try_to(range(3))
    assert mark not in str(known)
    assert "ODD" not in str(known)
    assert try_to(range(3, 12)) == known


@contextmanager
def worker(seconds: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
    }
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(seconds)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def scrape(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return samples("".join(iter(process.stdout.readline, "end\n")))


def test_several_workers_count_as_one_app(tmp_path: Path) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(seconds, tmp_path)) for seconds in (1, 10)]
        for process in workers:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in workers:
            found = scrape(process)
            assert found['llm_app_requests_total{route="/v1/chat/completions",status="200"}'] == 2
            seconds = "llm_app_request_duration_seconds"
            assert found[f'{seconds}_sum{{route="/v1/chat/completions"}}'] == 11
            assert found[f'{seconds}_bucket{{le="1.0",route="/v1/chat/completions"}}'] == 1
            assert found["llm_app_fallbacks_total"] == 2
            assert found['llm_app_breaker_open{model="gpt-5",provider="openai"}'] == 1
        workers[0].kill()
        workers[0].wait()
        left = scrape(workers[1])
        assert left["llm_app_fallbacks_total"] == 2
        assert left['llm_app_breaker_open{model="gpt-5",provider="openai"}'] == 0


def test_the_folder_may_be_named_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library was imported above, without the variable.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics = Metrics(Decimal(10))
    metrics.fallback()
    text, _ = asyncio.run(metrics.render(None))
    assert b"llm_app_fallbacks_total 1.0" in text
    assert list(tmp_path.glob("counter_*.db"))


def test_a_worker_that_dies_takes_no_count_along_and_the_stop_all_of_them(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    app = start_app(workers=2, tmpdir=shared, providers=FIRST, max_attempts=1)
    assert list(shared.glob("metrics-*/*.db"))
    answered = 'llm_app_requests_total{route="/v1/chat/completions",status="200"}'
    cut_off = f'llm_app_breaker_open{{model="{MODEL}",provider="{FIRST}"}}'
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
    with app.http() as http:
        assert {http.post(CHAT, json=body).status_code for _ in range(4)} == {200}
        # One connection leads to one worker: its breaker opens, and it dies of something else.
        fake.always(Status(500))
        assert {http.post(CHAT, json=body).status_code for _ in range(FAILURES_TO_OPEN)} == {503}
        worker = app.serving()
    before = samples(scraped(app))
    assert (before[answered], before[cut_off]) == (4, 1)
    worker.kill()
    fake.always(Reply())

    def replaced() -> bool:
        found = [each.pid for each in app.workers()]
        return len(found) == 2 and worker.pid not in found

    assert until(replaced, 30)
    for _ in range(6):
        with app.http() as http:
            assert http.post(CHAT, json=body).status_code == 200
    until(lambda: samples(scraped(app))[answered] >= 10, 5)  # counted when its answer has left
    after = samples(scraped(app))
    assert after[answered] == 10
    assert after[cut_off] == 0
    fewer = [name for name in before if "_total" in name and after[name] < before[name]]
    assert fewer == []
    assert app.stop() == 0
    assert not list(shared.glob("metrics-*"))
