"""Shadow traffic: the candidate answers too, afterwards, and nobody who asks notices."""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.launch.rollout.comparison import similarity
from app.launch.rollout.figures import quantile
from app.launch.rollout.shadow import MOST_AT_ONCE, MOST_REQUESTS
from app.standards.availability.breaker import FAILURES_TO_OPEN
from app.standards.visibility.metrics import BUCKETS
from app.stores.base import Connection, Store
from tests import test_switches as switches
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Hang, Reply, Status, Usage
from tests.fake_provider.ledger import Call
from tests.running import ROOT, RunningApp, clean_environment, until
from tests.servers import store_environment, store_url
from tests.test_canary import CANDIDATE, NAME, ON_TRIAL, PROVEN
from tests.test_error_budget import FUNCTION
from tests.test_switches import SEEN_SECONDS, turned

MIRRORED: dict[str, Any] = {"shadow_percent": 100, "shadow_daily_cost_cap_usd": 1, **ON_TRIAL}
# On a busy machine too no look comes too late for the first request, and no store is spared.
SLOWLY = f"{switches.SLOWLY}; from app.launch.rollout import shadow; shadow.SLOW_STORE_SECONDS = 30"
PATIENT = [sys.executable, "-c", f"{SLOWLY}; from app.cli import serve; serve()"]
PRICES = {PROVEN: (1000, 2000), CANDIDATE: (1000, 2000)}  # nano-dollars a token
TOLD = "비밀번호 재설정 방법을 알려 주세요"


def ask(http: httpx2.Client, text: str = TOLD, **changes: Any) -> httpx2.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **changes}
    return http.post("/v1/chat/completions", json=body)


def outcomes(app: RunningApp) -> dict[str, int]:
    """How often each outcome is counted."""
    with app.http("admin") as http:
        metrics = http.get("/metrics").text
    found = re.findall(r'^llm_app_shadow_total\{outcome="(\w+)"\} (\S+)', metrics, re.M)
    return {outcome: int(float(count)) for outcome, count in found}


def reported(folder: Path, kind: str, figure: str) -> list[str]:
    """What `uv run rollout report` says of a figure, of both sides."""
    done = subprocess.run(
        [sys.executable, "-c", "from app.cli import rollout; rollout()", "report"],
        cwd=folder,
        env={
            **clean_environment(),
            "PYTHONPATH": str(ROOT),
            **store_environment(folder),
            "CANDIDATE": NAME,
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    say = load_messages(load_project().language).text
    table = done.stdout.partition(say(f"rollout.{kind}"))[2]
    line = next(x for x in table.splitlines() if x.endswith(say(f"rollout.{figure}")))
    return line.removesuffix(say(f"rollout.{figure}")).split()


def calls_of(fake: FakeProvider, model: str) -> list[Call]:
    """The calls to a model."""
    return [call for call in fake.ledger.calls if call.model == model]


def _has_failed(app: RunningApp, times: int) -> bool:
    return outcomes(app).get("failed") == times


async def spent(folder: Path, subject: str) -> int:
    """Today's settled money of a cap's subject, in nano-dollars; nothing may be reserved."""
    connection = Connection(store_url(folder), load_project().slug, 5, ZoneInfo("UTC"))
    store: Store = import_module(f"app.stores.{load_project().store}").connect(connection)
    await store.open()
    spending = await store.spending(subject)
    await store.close()
    assert spending.reserved_nano == 0
    return spending.settled_nano


async def test_a_candidate_that_hangs_touches_no_answer(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(command=PATIENT, **MIRRORED)
    fake.always(Hang(), model=CANDIDATE)
    with app.http() as http:
        answers = [ask(http, stream=streamed) for streamed in (False, True) * MOST_AT_ONCE]
    until(lambda: len(calls_of(fake, CANDIDATE)) >= MOST_AT_ONCE)
    left = [int(re.findall(r'"caller";r=(\d+)', a.headers["ratelimit"])[0]) for a in answers]
    lines = [app.request_line(answer.headers["x-request-id"]) for answer in answers]
    # The candidate would have taken the whole time budget: a minute.
    assert max(line["duration_ms"] for line in lines) < 20_000
    assert [line["attempts"] for line in lines] == [1] * len(answers)
    assert left == list(range(left[0], left[0] - len(answers), -1))
    # So many at once, and none waits for its turn.
    assert len(calls_of(fake, CANDIDATE)) == MOST_AT_ONCE
    assert outcomes(app) == {"busy": MOST_AT_ONCE}
    before = time.monotonic()
    assert app.stop() == 0
    assert time.monotonic() - before < 10
    # What was cut short is charged with its worst case, to nobody's account but its own.
    shadow, whole = await spent(tmp_path, "shadow"), await spent(tmp_path, "app")
    worst = 1000 * 2000 * MOST_AT_ONCE
    assert worst < shadow < worst * 1.5
    assert whole - shadow == fake.ledger.cost_nano(PRICES)


def test_the_answers_are_compared_and_not_shown(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(command=PATIENT, **MIRRORED)
    fake.always(Reply("설정에서 비밀번호를 바꾸세요"), model=PROVEN)
    fake.always(Reply("설정 화면에서 비밀번호를 바꿔 주세요"), model=CANDIDATE)
    with app.http() as http:
        streamed = ask(http, f"{TOLD} mail@example.com", stream=True)
        (first,) = until(lambda: app.log_lines(message="shadow compared"))
        assert ask(http, temperature=0).headers["x-cache"] == "MISS"
        assert ask(http, temperature=0).headers["x-cache"] == "HIT"
        until(lambda: outcomes(app) == {"answered": 2})
        schema = {"type": "json_object"}
        fake.always(Reply('{"a": 1}'), model=PROVEN)
        ask(http, "JSON 으로 답하세요", response_format=schema)
        until(lambda: outcomes(app) == {"answered": 3})
        fake.always(Status(500), model=CANDIDATE)
        ask(http)
        until(lambda: app.log_lines(message="shadow failed"))
        fake.next(Status(400))
        assert ask(http).status_code == 400
        assert ask(http, model=PROVEN).status_code == 200
        # One after the other: a call that has begun is not held back by the one before.
        for failed in range(2, FAILURES_TO_OPEN + 1):
            until(partial(_has_failed, app, failed))
            ask(http)
        until(lambda: outcomes(app) == {"answered": 3, "failed": FAILURES_TO_OPEN, "cut_off": 1})
    fake.ledger.idle()
    cost = until(lambda: app.metric("cost_reserved_usd") == 0 and app.metric("daily_cost_usd"))
    assert not app.log_lines(message="alert")
    app.stop()
    assert reported(tmp_path, "shadow", "requests") == ["8", "8"]
    assert reported(tmp_path, "shadow", "bad") == ["0.00%", "62.50%"]
    assert reported(tmp_path, "shadow", "json") == ["100.00%", "0.00%"]
    assert 0.3 < float(reported(tmp_path, "shadow", "similarity")[0]) < 0.9
    assert first["request_id"] == streamed.headers["x-request-id"]
    assert (first["candidate"], first["stable"]) == (NAME, NAME.replace(CANDIDATE, PROVEN))
    assert 0.3 < first["similarity"] < 0.9
    assert first["length_ratio"] == pytest.approx(20 / 15, abs=0.01)
    assert first["candidate_finish_reason"] == "stop"
    assert first["candidate_output_tokens"] > first["stable_output_tokens"] > 0
    assert first["candidate_cost_usd"] > first["stable_cost_usd"] > 0
    assert "candidate_json_valid" not in first
    last = app.log_lines(message="shadow compared")[-1]
    assert (last["stable_json_valid"], last["candidate_json_valid"]) == (True, False)
    assert not any(word in app.log() for word in ("재설정", "화면에서"))
    # The candidate sees what the policy leaves, once.
    seen = calls_of(fake, CANDIDATE)
    assert [text for role, text in seen[0].messages if role == "user"] == [f"{TOLD} [EMAIL_1]"]
    assert len(seen) == 3 + FAILURES_TO_OPEN
    assert cost * 10**9 == pytest.approx(fake.ledger.cost_nano(PRICES))


def test_absurd_usage_is_compared_as_it_is_charged(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(command=PATIENT, **MIRRORED)
    fake.next(Reply("설정에서 바꾸세요", usage=Usage(10**18, 10**18), billed=Usage(20, 8)))
    with app.http() as http:
        assert ask(http).status_code == 200
        (line,) = until(lambda: app.log_lines(message="shadow compared"))
        charged = app.metric("daily_cost_usd") - line["candidate_cost_usd"]
        assert line["stable_cost_usd"] == pytest.approx(charged)
        assert ask(http).status_code == 200
        until(lambda: outcomes(app) == {"answered": 2})
    app.stop()
    assert reported(tmp_path, "shadow", "requests") == ["2", "2"]


def test_its_money_keeps_below_both_caps(start_app: StartApp, fake: FakeProvider) -> None:
    cap, own = 4_000_000, 700_000
    limits = {"daily_cost_cap_usd": cap / 10**9, "shadow_daily_cost_cap_usd": own / 10**9}
    app = start_app(workers=2, shadow_percent=100, **limits, **ON_TRIAL)
    fake.always(Reply(chunks=40, delay_before=0.02))
    with app.http() as http, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(http, max_tokens=50), range(40)))
    fake.ledger.idle()
    of_shadow = fake.ledger.usage_by_model()[CANDIDATE]
    assert 0 < of_shadow.prompt * 1000 + of_shadow.completion * 2000 <= own
    assert fake.ledger.cost_nano(PRICES) <= cap
    assert outcomes(app)["cap"] > 0
    assert {answer.status_code for answer in answers} <= {200, 503}


def test_it_goes_first_when_the_day_is_nearly_spent(
    start_app: StartApp, fake: FakeProvider
) -> None:
    limits = {"daily_cost_cap_usd": 0.004, "shadow_daily_cost_cap_usd": 1}
    app = start_app(command=PATIENT, **MIRRORED | limits)
    fake.always(Reply(chunks=700), model=PROVEN)
    with app.http() as http:
        assert ask(http).status_code == 200  # a third of the day
        until(lambda: outcomes(app) == {"answered": 1})
        fake.always(Reply(chunks=900), model=PROVEN)
        assert ask(http).status_code == 200  # more than 80 %
        until(lambda: outcomes(app).get("cap") == 1)
        assert ask(http, max_tokens=50).status_code == 200
        until(lambda: outcomes(app) == {"answered": 1, "cap": 2})


def test_it_goes_first_when_the_app_is_busy(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(command=PATIENT, **MIRRORED)
    fake.when(lambda call: any("오래" in text for _, text in call.messages), Hang())
    slow = {"model": "auto", "messages": [{"role": "user", "content": "오래 걸려요"}]}
    with app.http() as http:
        with ExitStack() as waiting:
            for _ in range(MOST_REQUESTS + 1):
                waiting.enter_context(app.asked(slow))
            fake.ledger.wait_for(MOST_REQUESTS + 1)
            ask(http)
            until(lambda: outcomes(app) == {"busy": 1})
        # They have left, and the app gives up their calls.
        fake.ledger.idle()
        until(lambda: ask(http) and outcomes(app).get("answered"))


def test_it_is_a_share_that_a_switch_turns_off(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(command=PATIENT, **MIRRORED | {"shadow_percent": 50})
    with app.http() as http:
        for _ in range(40):
            ask(http)
        drawn = sum(outcomes(app).values())
        assert 5 < drawn < 35  # by chance once in a million
        turned(tmp_path, "off", "shadow")
        ask(http)  # the look goes on beside it
        until(lambda: app.log_lines(message="switched off"))
        for _ in range(10):
            ask(http, "그 뒤의 질문")
        time.sleep(0.1)
    later = [c for c in fake.ledger.calls if any("그 뒤" in text for _, text in c.messages)]
    assert [call.model for call in later] == [PROVEN] * 10


def test_a_candidate_that_is_switched_off_is_not_mirrored_to(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(command=PATIENT, **MIRRORED)
    with app.http() as http, app.http("admin") as operator:
        ask(http, temperature=0)
        until(lambda: outcomes(app) == {"answered": 1})
        turn = {"name": f"model:{CANDIDATE}", "off": True, "why": "the bill"}
        assert operator.post("/ops/switches", json=turn).status_code == 200
        time.sleep(SEEN_SECONDS)
        # The look goes on beside an answer, and one from the cache is not mirrored.
        assert ask(http, temperature=0).headers["x-cache"] == "HIT"
        until(lambda: app.log_lines(message="switched off"))
        for _ in range(4):
            assert ask(http).status_code == 200
        until(lambda: outcomes(app) == {"answered": 1, "switched_off": 4})
    fake.ledger.idle()
    assert [call.model for call in fake.ledger.calls].count(CANDIDATE) == 1


async def test_a_function_waits_for_it_before_it_is_frozen(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(command=[sys.executable, "-c", f"{SLOWLY}\n{FUNCTION}"], **MIRRORED)
    fake.always(Reply("언제든지요", delay_before=1), model=CANDIDATE)
    with app.http() as http:
        finished = app.log().count("finished")
        ask(http)
        answered = time.monotonic()
    until(lambda: app.log().count("finished") > finished)
    (mirrored,) = calls_of(fake, CANDIDATE)
    assert answered < (mirrored.finished or 0.0), "the answer waited for it"
    app.process.kill()
    assert [call.model for call in fake.ledger.calls] == [PROVEN, CANDIDATE]
    assert await spent(tmp_path, "app") == fake.ledger.cost_nano(PRICES)


def test_what_is_alike_is_told_in_korean_too() -> None:
    assert similarity("비밀번호를 바꾸세요", "비밀번호를 바꾸세요") == 1.0
    assert similarity("비밀번호를 바꾸세요", "비밀번호는 바꾸시면 됩니다") > 0.2
    assert similarity("비밀번호를 바꾸세요", "환불은 되지 않습니다") < 0.1
    assert similarity("Change it.", "") == 0.0
    assert similarity("", "") == 1.0


def test_durations_are_estimated_from_buckets() -> None:
    total = {"side le 1": 50, "side le 2": 45, "side le more": 5}
    assert quantile(total, "side", 0.5) == 1.0
    assert quantile(total, "side", 0.95) == 2.0
    assert quantile(total, "side", 0.725) == pytest.approx(1.5)
    assert quantile(total, "side", 0.99) == BUCKETS[-1]
    assert quantile(total, "other", 0.5) is None
