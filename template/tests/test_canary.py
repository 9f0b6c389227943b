"""The canary: a sticky share asks the candidate first, until it does worse than the proven one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app import asked, wire
from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.launch.rollout.canary import is_in
from app.launch.rollout.judging import CUT_OFF, Whose, chance_of, judged, label
from app.launch.switches import CANARY, SHADOW
from app.providers.demo import Demo
from app.providers.prices import find_price
from app.standards.availability.breaker import Breaker
from app.standards.availability.relay import Target
from app.stores.base import Count
from app.targets import all_connected
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Hang, Status
from tests.running import RunningApp, production, until
from tests.test_environment import start
from tests.test_switches import switch
from tests.webhook import Webhook

FIRST = load_project().providers[0]
PROVEN = load_project().models[FIRST]
CANDIDATE = "candidate-x"
NAME = f"{FIRST}:{CANDIDATE}"
ON_TRIAL: dict[str, Any] = {
    "candidate": NAME,
    "candidate_input_usd_per_mtok": 1,
    "candidate_output_usd_per_mtok": 2,
    "providers": FIRST,
    "max_attempts": 1,
}
_SAY = load_messages(load_project().language).text
SAID = _SAY("alert.what.canary")
QUESTION: dict[str, Any] = {
    "model": "auto",
    "messages": [{"role": "user", "content": "안녕하세요"}],
}
BUDGETS = {"availability": 0.005, "latency": 0.05}


def ask(http: httpx2.Client, user: str, **changes: Any) -> httpx2.Response:
    return http.post("/v1/chat/completions", json={**QUESTION, "user": user, **changes})


def models_of(app: RunningApp, users: list[str]) -> dict[str, str]:
    """Which model answers each of them; they come at once, so that each worker gets some."""
    with app.http() as http, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda user: ask(http, user), users))
    assert {(a.status_code, a.headers.get("x-fallback")) for a in answers} == {(200, None)}
    return {user: a.json()["model"] for user, a in zip(users, answers, strict=True)}


def noticed(app: RunningApp, message: str, name: str, some: list[str]) -> None:
    """Let them ask until every process has seen that a switch was turned, and has said so."""

    def seen() -> bool:
        models_of(app, some)
        return len(app.log_lines(message=message, switch=name)) == len(app.workers())

    until(seen)


def drawn(user: str, percent: float) -> bool:
    """Whether an end user of alice's is in the canary."""
    request = wire.ChatRequest.model_validate({**QUESTION, "user": user})
    return is_in(percent, NAME, "alice", asked.end_user(request, "alice") or "")


def users(percent: float, *, inside: bool) -> Iterator[str]:
    """End users of alice's that are in, or that are not."""
    return (u for u in (f"user-{n}" for n in range(10_000)) if drawn(u, percent) is inside)


def test_the_share_is_kept_and_only_grows() -> None:
    names = [str(number) for number in range(20_000)]

    def inside(percent: float) -> set[str]:
        return {name for name in names if is_in(percent, NAME, "alice", name)}

    few, more = inside(1), inside(25)
    assert len(few) == pytest.approx(200, abs=60)
    assert len(more) == pytest.approx(5000, abs=250)
    assert few < more < inside(100) == set(names)
    assert inside(0) == set()
    # Another candidate is tried on others, and each caller has end users of its own.
    others = {name for name in names if is_in(25, "openai:another", "alice", name)}
    assert len(more & others) == pytest.approx(1250, abs=150)


def test_the_same_users_get_the_candidate_in_every_process(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(workers=2, canary_percent=30, **ON_TRIAL)
    everybody = [f"user-{number}" for number in range(30)]
    expected = {u: CANDIDATE if drawn(u, 30) else PROVEN for u in everybody}
    # Who has not seen the switches asks no candidate; this one changes nothing else here.
    assert switch(tmp_path, "off", SHADOW, "--yes").returncode == 0
    noticed(app, "switched off", SHADOW, everybody[:8])
    assert models_of(app, everybody) == models_of(app, everybody) == expected
    asked_for = [call.model for call in fake.ledger.calls[-30:]]
    assert asked_for.count(CANDIDATE) == list(expected.values()).count(CANDIDATE) > 0
    inside = next(users(30, inside=True))
    with app.http() as http:
        named = ask(http, inside, model=PROVEN)
        streamed = ask(http, inside, stream=True)
        assert ask(http, inside, model=CANDIDATE).json()["error"]["code"] == "model_not_found"
    assert named.json()["model"] == PROVEN
    assert app.request_line(named.headers["x-request-id"])["arm"] is None
    assert CANDIDATE in streamed.text
    assert app.request_line(streamed.headers["x-request-id"])["arm"] == "canary"
    with app.http("admin") as http:
        metrics = http.get("/metrics").text
    good = 'llm_app_canary_events_total{arm="%s",result="good",slo="availability"}'
    assert good % "canary" in metrics
    assert good % "stable" in metrics


def test_one_that_fails_is_cut_off_for_good(
    start_app: StartApp, fake: FakeProvider, webhook: Webhook, tmp_path: Path
) -> None:
    fake.always(Status(500), model=CANDIDATE)
    settings = {"canary_percent": 50, "slo_min_events": 6, "alert_urls": webhook.url} | ON_TRIAL
    app = start_app(workers=2, **settings)
    everybody = [f"user-{number}" for number in range(40)]
    models_of(app, everybody[:8])
    # Nobody notices: the proven model answers in its stead.
    assert set(models_of(app, everybody).values()) == {PROVEN}
    webhook.wait_for(1, 30.0, SAID)
    noticed(app, "switched off", CANARY, everybody[:8])
    calls = len(fake.ledger.calls)
    models_of(app, everybody)
    assert {call.model for call in fake.ledger.calls[calls:]} == {PROVEN}
    (alert,) = webhook.wait_for(1, 1.0, SAID)  # both processes saw it
    assert "RUNBOOK.md#canary" in alert["message"]
    assert f"{_SAY('alert.fact.candidate')}: {NAME}" in alert["message"]
    (line,) = [x for x in switch(tmp_path, "list").stdout.splitlines() if " canary" in x]
    assert line.startswith("off  canary")
    assert "the app" in line
    assert NAME in line
    app.stop()

    fake.forget()
    again = start_app(**settings)
    assert set(models_of(again, everybody[:10]).values()) == {PROVEN}
    noticed(again, "switched off", CANARY, everybody[:2])
    assert switch(tmp_path, "on", CANARY, "--yes").returncode == 0
    noticed(again, "switched on", CANARY, everybody[:2])
    found = models_of(again, everybody)
    assert found == {u: CANDIDATE if drawn(u, 50) else PROVEN for u in everybody}


def test_what_the_candidate_does_not_take_is_not_the_callers_fault(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(canary_percent=100, max_history_messages=2, **ON_TRIAL)
    with app.http() as http:
        until(lambda: ask(http, "a").json()["model"] == CANDIDATE)  # the switches are seen
        fake.always(Status(400), model=CANDIDATE)
        answer = ask(http, "a")
        fake.always(Status(400), model=PROVEN)
        refused = ask(http, "a")
        fake.always(Status(500), model=CANDIDATE)
        refused_too = ask(http, "a")
        fake.reset()
        turns = [{"role": role, "content": "네"} for role in ("user", "assistant") * 4]
        ask(http, "a", messages=[*turns, *QUESTION["messages"]])
        # The summary is kept for others too: no candidate writes it.
        assert [call.model for call in fake.ledger.calls] == [PROVEN, CANDIDATE]
        fake.reset()
        fake.always(Status(500))
        assert ask(http, "a").json()["error"]["code"] == "providers_unavailable"
        assert [call.model for call in fake.ledger.calls] == [CANDIDATE, PROVEN]
    assert answer.json()["model"] == PROVEN
    assert "x-fallback" not in answer.headers
    assert (refused.status_code, refused_too.status_code) == (400, 400)


def test_the_cache_keeps_the_arms_apart(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(canary_percent=100, **ON_TRIAL)

    def answered(http: httpx2.Client, text: str) -> tuple[str, str]:
        messages = [{"role": "user", "content": text}]
        answer = ask(http, "a", temperature=0, messages=messages)
        return answer.headers["x-cache"], answer.json()["model"]

    with app.http() as http:
        until(lambda: ask(http, "a").json()["model"] == CANDIDATE)  # the switches are seen
        assert answered(http, "하나") == ("MISS", CANDIDATE)
        assert answered(http, "하나") == ("HIT", CANDIDATE)
        fake.next(Status(500))
        assert answered(http, "둘") == ("MISS", PROVEN)
        # What a stand-in said is not kept for who gets the candidate.
        assert answered(http, "둘") == ("MISS", CANDIDATE)
        assert switch(tmp_path, "off", CANARY, "--yes").returncode == 0
        noticed(app, "switched off", CANARY, ["a"])
        assert answered(http, "하나") == ("MISS", PROVEN)


def test_the_worst_case_counts_the_candidate_too(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(canary_percent=50, **ON_TRIAL)
    inside, outside = (next(users(50, inside=inside)) for inside in (True, False))
    with app.http() as http:
        until(lambda: ask(http, inside).json()["model"] == CANDIDATE)  # the switches are seen
    fake.reset()
    fake.always(Hang())
    held = []
    for number, user in enumerate((outside, inside), 1):
        with app.asked({**QUESTION, "user": user}):
            fake.ledger.wait_for(number)
            held.append(app.metric("cost_reserved_usd"))
        until(lambda: app.metric("cost_reserved_usd") == 0)
    assert held[0] > 0
    assert held[1] == pytest.approx(2 * held[0])


def test_a_candidate_that_cannot_run_is_reported_at_the_start(
    fake: FakeProvider, tmp_path: Path
) -> None:
    say = load_messages(load_project().language).text
    wrong = {
        "candidate_is_first": {"CANDIDATE": f"{FIRST}:{PROVEN}"},
        "unknown_price": {"CANDIDATE": f"{FIRST}:no-such-model"},
        "missing_candidate": {},
        "candidate": {"CANDIDATE": "gpt-x"},
    }
    for complaint, changes in wrong.items():
        ended = start({**production(fake, tmp_path, canary_percent=5), **changes})
        assert ended.returncode == 78
        expected = say(f"setting.{complaint}", provider="CANDIDATE")
        assert f"  CANDIDATE: {expected}" in ended.stderr


def test_a_candidate_that_is_a_stand_in_too_is_connected_once() -> None:
    proven, stand_in, other = (
        Target(Demo(model), find_price("demo", "", None, None), Breaker())
        for model in ("proven", "stand-in", "other")
    )
    assert all_connected((proven, stand_in), None) == (proven, stand_in)
    assert all_connected((proven, stand_in), replace(stand_in, on_trial=True)) == (proven, stand_in)
    assert all_connected((proven, stand_in), other) == (proven, stand_in, other)


def counted(whose: Whose, slo: Any, good: int, bad: int, age: int = 1) -> list[Count]:
    values = ((True, good), (False, bad))
    return [Count(age, label(whose, slo, is_good), n) for is_good, n in values if n]


def test_the_verdict_compares_with_the_proven_model() -> None:
    bad_canary = counted("canary", "availability", 15, 5)
    well = counted("stable", "availability", 1000, 2)
    verdict = judged([*bad_canary, *well], BUDGETS, 20)
    assert verdict is not None
    assert (verdict.slo, verdict.bad, verdict.events) == ("availability", 5, 20)
    assert verdict.stable_share == pytest.approx(2 / 1002)
    # Too few events, an outage of both, and what chance brings.
    assert judged([*bad_canary, *well], BUDGETS, 21) is None
    outage = counted("stable", "availability", 800, 200)
    assert judged([*bad_canary, *outage], BUDGETS, 20) is None
    assert judged([*counted("canary", "availability", 19, 1), *well], BUDGETS, 20) is None
    # Where everybody has the candidate, those who stand in for it tell what the proven one does.
    all_bad = counted("canary", "availability", 0, 30)
    up, down = (counted("stand_in", "availability", *n) for n in ((30, 0), (0, 30)))
    assert judged([*all_bad, *up], BUDGETS, 20) is not None
    assert judged([*all_bad, *down], BUDGETS, 20) is None
    # A slow one.
    late = counted("canary", "latency", 20, 20)
    # Slow it is by comparison: with the canary at 100 % there is nothing to compare it to.
    assert judged(late, BUDGETS, 20) is None
    assert judged([*late, *counted("stable", "latency", 19, 0)], BUDGETS, 20) is None
    assert judged([*late, *counted("stable", "latency", 20, 0)], BUDGETS, 20) is not None
    found = judged([*late, *counted("stable", "latency", 990, 10)], BUDGETS, 20)
    assert found is not None
    assert found.slo == "latency"


def test_what_led_to_a_cut_off_is_not_judged_again() -> None:
    old = [*counted("canary", "availability", 0, 30, age=3), Count(3, CUT_OFF, 1)]
    assert judged(old, BUDGETS, 20) is None
    new = counted("canary", "availability", 0, 30, age=1)
    assert judged([*old, *new], BUDGETS, 20) is not None


def test_the_chance_is_the_binomial_tail() -> None:
    assert chance_of(1, 10, 0.1) == pytest.approx(1 - 0.9**10)
    assert chance_of(10, 10, 0.5) == pytest.approx(0.5**10)
    assert chance_of(5000, 100_000, 0.005) == 0.0
    assert chance_of(30, 30, 1.0) == 1.0
