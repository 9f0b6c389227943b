"""The numbers of the operations page: the provider's own, those of `/metrics`, and kept."""

import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.foundation.errors import KINDS
from app.foundation.project import load_project
from app.launch.tally import MOST, Tally
from app.ops.aggregates import BETWEEN, COUNTER, OTHERS, Callers
from app.ops.summary import RANGES, Summary, quantile
from app.standards.availability.breaker import FAILURES_TO_OPEN
from app.stores.base import Admission, Cap, Connection, Count, Settlement, Store
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Status
from tests.running import RunningApp
from tests.servers import store_url
from tests.stores import Clock
from tests.test_canary import CANDIDATE, ON_TRIAL, PROVEN
from tests.test_shadow import PATIENT

QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
WRITTEN_SECONDS = 20.0  # every worker writes every five


def state(app: RunningApp, shown: str = "hour") -> dict[str, Any]:
    with app.http("admin") as http:
        answer = http.get("/ops/state", params={"range": shown})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def written(app: RunningApp, questions: int, events: int = 0) -> dict[str, Any]:
    """The state once every worker has written what it counted: its questions, and the events of
    the objectives, which are another step of the store.
    """
    deadline = time.monotonic() + WRITTEN_SECONDS
    while True:
        found = state(app)
        asked = sum(found["totals"]["asked"].values())
        counted = max(slo["good"] + slo["bad"] for slo in found["objectives"])
        if (asked >= questions and counted >= events) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def metrics(app: RunningApp) -> Counter[str]:
    """The sums of `/metrics`, over all labels but one: `name` and `name value` of each label."""
    sums: Counter[str] = Counter()
    with app.http("admin") as http:
        for line in http.get("/metrics").text.splitlines():
            if found := re.fullmatch(r"llm_app_(\w+?)(?:\{(.*)\})? ([\d.e+-]+)", line):
                name, labels, value = found[1], found[2] or "", float(found[3])
                sums[name] += value  # type: ignore[assignment]
                for _, label in re.findall(r'(\w+)="([^"]*)"', labels):
                    sums[f"{name} {label}"] += value  # type: ignore[assignment]
    return sums


def test_they_add_up_with_the_providers_ledger_and_with_the_metrics(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(workers=2, max_attempts=3, daily_cost_cap_per_caller_usd=1)
    # Two answers at temperature 0: one asked of the provider, one out of the cache.
    exact = QUESTION | {"temperature": 0}
    with app.http() as http:
        assert [http.post("/v1/chat/completions", json=exact).status_code for _ in range(2)] == [
            200,
            200,
        ]
    fake.next(Status(500), Status(503))  # two calls fail, and are made again

    def ask(number: int) -> int:
        with app.http("bob" if number % 3 else "alice") as http:
            return http.post("/v1/chat/completions", json=QUESTION).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = Counter(pool.map(ask, range(24)))
    with app.http() as http:
        bad = http.post("/v1/chat/completions", json=QUESTION | {"model": "nobody's"})
        assert bad.status_code == 404
    assert statuses == {200: 24}

    shown = written(app, 27, events=27)
    totals, series, counted = shown["totals"], shown["series"], metrics(app)
    calls = fake.ledger.calls
    assert totals["asked"] == {"ok": 26, "refused": 1}
    assert sum(series["answered"]) == 26
    assert sum(series["refused"]) == 1
    assert totals["errors"] == {"model_not_found": 1}
    assert totals["errors"]["model_not_found"] == counted["refusals_total model_not_found"]

    attempts = {row["outcome"]: 0 for row in totals["attempts"]}
    for row in totals["attempts"]:
        attempts[row["outcome"]] += row["count"]
    assert sum(attempts.values()) == len(calls) == counted["provider_attempts_total"]
    assert attempts["ok"] == sum(call.outcome == "answered" for call in calls) == 25
    assert totals["retries"] == len(calls) - 25 == 2
    assert totals["fallbacks"] == counted["fallbacks_total"] == 0
    assert totals["cache"]["hit"] == counted["cache_total hit"] == 1
    assert sum(totals["cache"].values()) == counted["cache_total"] == 26

    billed = sum(call.usage.prompt + 2 * call.usage.completion for call in calls) / 1e6
    assert totals["cost_usd"] == pytest.approx(billed)
    assert totals["cost_usd"] == pytest.approx(counted["cost_usd_total"])
    assert shown["spending"]["settled_usd"] == pytest.approx(billed)
    assert sum(series["cost_usd"]) == pytest.approx(billed)
    for rows in ("cost_by_provider", "cost_by_model", "cost_by_caller"):
        assert sum(row["usd"] for row in totals[rows]) == pytest.approx(billed), rows
    callers = {row["caller"]: row["usd"] for row in totals["cost_by_caller"]}
    assert set(callers) == {"alice", "bob"}
    capped = {row["name"]: row for row in shown["spending"]["callers"]}
    assert capped["bob"]["settled_usd"] == pytest.approx(callers["bob"])
    assert capped["bob"]["cap_usd"] == 1

    latency = totals["latency_seconds"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] < 30
    good = {slo["name"]: (slo["good"], slo["bad"]) for slo in shown["objectives"]}
    assert good["availability"] == (26, 0)

    app.stop()
    again = state(start_app(daily_cost_cap_per_caller_usd=1), "week")
    assert again["totals"]["asked"] == totals["asked"]
    assert again["totals"]["cost_usd"] == pytest.approx(billed)
    assert len(again["series"]["answered"]) == 168


def test_every_process_says_which_target_fails(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(workers=2)
    fake.always(Status(401))  # nothing that another try could mend
    with app.http() as http:
        for _ in range(FAILURES_TO_OPEN + 1):
            assert http.post("/v1/chat/completions", json=QUESTION).status_code == 503
    written(app, FAILURES_TO_OPEN + 1)
    for _ in range(8):  # whichever worker answers
        first, *_ = state(app)["targets"]
        assert first["failing"] is True, first


def test_a_target_that_answers_does_not_fail() -> None:
    def failing(**outcomes: int) -> bool:
        labels = {BETWEEN.join(("attempt", "p", "m", how)): n for how, n in outcomes.items()}
        counts = [Count(0, label, number) for label, number in labels.items()]
        return Summary(counts, RANGES["hour"]).failing() == {("p", "m")}

    assert failing(timeout=FAILURES_TO_OPEN - 1, overloaded=1, cancelled=1)
    assert not failing(timeout=FAILURES_TO_OPEN - 1, cancelled=9)
    assert not failing(timeout=99, ok=1)


def test_what_shadow_traffic_costs_is_shown_under_the_candidate(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(command=PATIENT, shadow_percent=100, shadow_daily_cost_cap_usd=1, **ON_TRIAL)
    with app.http() as http:
        for _ in range(3):
            assert http.post("/v1/chat/completions", json=QUESTION).status_code == 200
            fake.ledger.idle()
    deadline = time.monotonic() + WRITTEN_SECONDS
    while (counted := metrics(app))["shadow_total answered"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shown = state(app)
    rows = {row["model"]: row["usd"] for row in shown["totals"]["cost_by_model"]}
    asked = fake.ledger.usage_by_model()
    billed = {model: (u.prompt + 2 * u.completion) / 1e6 for model, u in asked.items()}
    assert set(billed) == {PROVEN, CANDIDATE}
    assert rows == pytest.approx(billed)
    for model, usd in rows.items():
        assert usd == pytest.approx(counted[f"cost_usd_total {model}"]), model
    assert shown["totals"]["cost_usd"] == pytest.approx(shown["spending"]["settled_usd"])


async def test_a_caller_at_its_cap_is_shown_whenever_it_was_busy(
    start_app: StartApp, tmp_path: Path
) -> None:
    app = start_app(daily_cost_cap_per_caller_usd=1)
    clock = Clock()
    clock.now = time.time()
    place, slug = store_url(tmp_path), load_project().slug
    store = import_module(f"app.stores.{load_project().store}").connect(
        Connection(place, slug, 5, ZoneInfo("UTC"), clock)
    )
    await store.open()
    # As money goes: bob's day is nearly spent, and it was spent two hours ago.
    nano = 810_000_000
    caps = (Cap("app", "app", 10**10), Cap("caller", "caller:bob", 10**9))
    await store.admit(Admission("r1", nano, 30, (), caps))
    await store.settle(Settlement("r1", nano))
    clock.now -= 2 * 3600
    await store.count(COUNTER, {BETWEEN.join(("caller", "bob")): nano})
    await store.close()
    for shown in ("hour", "day", "week"):
        found = state(app, shown)
        (bob,) = found["spending"]["callers"]
        assert (bob["name"], bob["settled_usd"]) == ("bob", pytest.approx(0.81)), shown
        assert bob["settled_usd"] > bob["warning_usd"] == 0.8
        assert bool(found["totals"]["cost_by_caller"]) == (shown != "hour")


async def test_what_a_store_cannot_hold_does_not_hold_up_the_rest(store: Store) -> None:
    tally = Tally(store)
    tally.add(COUNTER, "absurd", 10**21)
    tally.add(COUNTER, "large", MOST)
    tally.add(COUNTER, "large", 1)
    tally.add(COUNTER, "small")
    assert await tally.write()
    found = {count.label: count.value for count in await store.counted(COUNTER, 60, 1)}
    assert found["small"] == 1
    assert "absurd" not in found
    assert found["large"] == MOST


async def test_a_week_is_small_and_what_is_older_is_not_in_it(store: Store, clock: Clock) -> None:
    now = clock()
    labels = {
        BETWEEN.join(parts): 7
        for parts in (
            ("asked", "ok"),
            ("seconds", "0.5"),
            ("cost", "openai", "gpt-5"),
            ("caller", "alice"),
        )
    }
    for hours_ago in (0, 1, 167, 168):
        clock.now = now - hours_ago * 3600
        await store.count(COUNTER, labels)
    clock.now = now
    shown = RANGES["week"]
    summary = Summary(await store.counted(COUNTER, shown.span, shown.spans), shown)
    series = summary.series()
    assert [index for index, value in enumerate(series["answered"]) if value] == [0, 166, 167]
    assert summary.totals()["asked"] == {"ok": 21}
    assert series["p50"][0] == pytest.approx(0.375)
    assert series["p50"][1] is None


def test_a_week_of_a_busy_app_is_few_bytes() -> None:
    parts = [("asked", how) for how in ("ok", "refused", "failed", "broken_stream", "client_left")]
    parts += [("seconds", str(bound)) for bound in (0.5, 1, 2, 5, 13)]
    parts += [("refused", code) for code in KINDS]
    parts += [("caller", f"a-caller-with-a-name-{number}") for number in range(40)]
    labels = [BETWEEN.join(each) for each in parts]
    labels += [BETWEEN.join(("cost", "provider", f"a-model-with-a-name-{n}")) for n in range(4)]
    counts = [Count(age, label, 123_456_789 + age) for age in range(168) for label in labels]
    summary = Summary(counts, RANGES["week"])
    told = json.dumps({"totals": summary.totals(), "series": summary.series()})
    assert len(told) <= 25_000
    assert sum(summary.series()["failed"]) == 2 * sum(123_456_789 + age for age in range(168))


def test_latencies_are_read_between_the_bounds() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({0.5: 10}, 0.5) == pytest.approx(0.375)
    assert quantile({0.005: 98, 5.0: 2}, 0.5) < 0.005  # type: ignore[operator]
    assert quantile({0.005: 98, 5.0: 2}, 0.99) == pytest.approx(4.0)
    assert quantile({float("inf"): 3}, 0.5) == 90


def test_many_callers_share_a_number_and_those_that_cost_most_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour = [1000.0 * 3600]
    monkeypatch.setattr("app.ops.aggregates.time.time", lambda: hour[0])
    callers = Callers(most=2)
    assert [callers.label(name, 1) for name in ("a", "b", "late", "a")] == ["a", "b", OTHERS, "a"]
    callers.label("late", 1_000_000)
    hour[0] += 3600
    assert [callers.label(name, 1) for name in ("b", "late", "a")] == [OTHERS, "late", "a"]


def test_what_many_cost_is_shown_together() -> None:
    counts = [Count(0, BETWEEN.join(("caller", f"c{n}")), 10**9 * (n + 1)) for n in range(12)]
    counts.append(Count(0, BETWEEN.join(("caller", OTHERS)), 10**11))
    rows = Summary(counts, RANGES["hour"]).totals()["cost_by_caller"]
    assert [row.get("caller") for row in rows] == [f"c{n}" for n in range(11, 1, -1)] + [None]
    assert rows[-1] == {"rest": True, "usd": 103}
