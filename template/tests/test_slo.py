"""Objectives: which requests are events of which, and what the app exports about them."""

import time
from decimal import Decimal
from typing import Any

import pytest

from app.foundation.record import RequestRecord
from app.foundation.settings import Settings
from app.launch.slo import Objectives
from app.standards.visibility.request_log import Outcome, RequestEnd
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Status

QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}


def objectives(**changes: Any) -> Objectives:
    return Objectives(Settings.model_construct(**changes))


def end(
    outcome: Outcome, seconds: float = 1.0, *, caller: str | None = "alice", attempts: int = 1
) -> RequestEnd:
    record = RequestRecord("r1", caller=caller, attempts=attempts, cache="miss")
    return RequestEnd(record, "POST", "/v1/chat/completions", 200, seconds, outcome, None)


def test_an_answer_is_judged_by_its_time_and_by_who_gave_it() -> None:
    judge = objectives(slo_latency_ms=2000).judge
    assert judge(end("ok", 2.0)) == {
        "availability": True,
        "latency": True,
        "fallback": True,
        "refusal": True,
    }
    assert judge(end("ok", 2.1))["latency"] is False
    other = end("ok")
    other.record.fallback = True
    assert judge(other)["fallback"] is False
    # From the cache: nobody was asked, so nobody was asked in another's place.
    assert "fallback" not in judge(end("ok", attempts=0))


def test_an_abstention_is_an_answer_and_counts_as_refused() -> None:
    abstained = end("ok", attempts=0)
    abstained.record.abstained, abstained.record.cache = "medical", "none"
    assert objectives().judge(abstained) == {
        "availability": True,
        "latency": True,
        "refusal": False,
    }


@pytest.mark.parametrize("outcome", ["failed", "broken_stream"])
def test_a_failure_counts_against_availability_alone(outcome: Outcome) -> None:
    assert objectives().judge(end(outcome, 0.1)) == {"availability": False}


def test_a_refusal_does_not_count_as_a_failure() -> None:
    assert objectives().judge(end("refused")) == {"refusal": False}


def test_who_leaves_says_nothing_unless_he_has_waited_too_long() -> None:
    judge = objectives(slo_latency_ms=2000).judge
    assert judge(end("client_left", 1.0)) == {}
    assert judge(end("client_left", 3.0)) == {"latency": False}


def test_what_no_caller_asked_is_no_event() -> None:
    assert objectives().judge(end("ok", caller=None)) == {}
    assert objectives().judge(end("failed", caller=None)) == {}


def test_budgets_are_what_the_objectives_leave() -> None:
    stated = objectives(slo_availability_percent=Decimal("99.9"), daily_cost_cap_usd=Decimal(10))
    assert stated.budgets == {
        "availability": 0.001,
        "latency": 0.05,
        "fallback": 0.1,
        "refusal": 0.2,
    }
    assert stated.cost_usd_per_day == 8
    assert objectives(slo_cost_usd_per_day=Decimal("1.5")).cost_usd_per_day == 1.5


def samples(text: str) -> dict[str, float]:
    found = (line.rpartition(" ") for line in text.splitlines() if line.startswith("llm_app_"))
    return {name.removeprefix("llm_app_"): float(value) for name, _, value in found}


def test_the_running_app_exports_its_objectives_and_events(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(workers=2, max_attempts=1, slo_availability_percent=98, slo_min_events=7)

    def exported() -> dict[str, float]:
        with app.http("admin") as http:
            return samples(http.get("/metrics").text)

    before = exported()
    assert before['slo_error_budget_ratio{slo="availability"}'] == 0.02
    assert before["slo_min_events"] == 7
    assert any(name.startswith("on_call_info{") for name in before)
    for slo in ("availability", "latency", "fallback", "refusal"):
        for result in ("good", "bad"):
            assert before[f'slo_events_total{{result="{result}",slo="{slo}"}}'] == 0

    with app.http() as http:
        assert http.post("/v1/chat/completions", json=QUESTION).status_code == 200
        assert http.post("/v1/chat/completions", json={**QUESTION, "n": 2}).status_code == 400
        assert http.get("/v1/models").status_code == 200
        assert http.post("/v1/chat/completions", json={**QUESTION, "model": "x"}).status_code == 404
        fake.always(Status(500))
        assert http.post("/v1/chat/completions", json=QUESTION).status_code == 503
    with app.http() as http:
        http.headers["Authorization"] = "Bearer wrong-0123456789"
        assert http.post("/v1/chat/completions", json=QUESTION).status_code == 401

    wanted = {
        ("good", "availability"): 1,
        ("bad", "availability"): 1,
        ("good", "latency"): 1,
        ("good", "refusal"): 1,
        ("bad", "refusal"): 2,
        ("good", "fallback"): 1,
    }
    deadline = time.monotonic() + 5
    while True:
        after = exported()
        found = {
            (result, slo): after[f'slo_events_total{{result="{result}",slo="{slo}"}}']
            for result, slo in wanted
        }
        if found == wanted or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert found == wanted
