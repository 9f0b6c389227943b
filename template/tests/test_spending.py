"""Rates, caps and idempotency through the running app, over several worker processes."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai.types.chat import ChatCompletionMessageParam

from app.foundation.project import load_project
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Garbage, Hang, Reply, Status, Usage
from tests.running import CALLERS, RunningApp, until
from tests.servers import store_contents

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
FIRST = load_project().providers[0]
BODY: dict[str, Any] = {"model": "auto", "messages": HELLO}


def post_many(app: RunningApp, count: int, **headers: str) -> list[httpx2.Response]:
    """Send `count` equal requests at once."""
    with app.http(**headers) as http, ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: http.post("/v1/chat/completions", json=BODY), range(count)))


def codes(answers: list[httpx2.Response]) -> list[str]:
    """`ok` or the error's code, of each answer."""
    return [
        "ok" if answer.status_code == 200 else answer.json()["error"]["code"] for answer in answers
    ]


def settled(http: httpx2.Client, body: dict[str, Any]) -> httpx2.Response | None:
    """The answer for a key, once the request that has it is settled."""
    answer = http.post("/v1/chat/completions", json=body)
    return None if answer.status_code == 409 else answer


def test_exactly_n_requests_pass_over_several_processes(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(workers=3, requests_per_minute=20)
    began = time.monotonic()
    answers = post_many(app, 30)
    took = time.monotonic() - began
    assert sorted(codes(answers)) == ["ok"] * 20 + ["rate_limit_exceeded"] * 10
    assert len(fake.ledger.calls) == 20
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 59 - took <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"].startswith('"caller";q=20;w=60')
    assert '"caller";r=0;t=' in refused.headers["ratelimit"]
    other = app.client("bob").chat.completions.create(model="auto", messages=HELLO)
    assert other.choices


def test_the_header_counts_down(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(requests_per_minute=10)
    states = []
    with app.http() as http:
        for _ in range(3):
            answer = http.post("/v1/chat/completions", json=BODY)
            states.append(answer.headers["ratelimit"].split(";")[1])
        refused = http.post("/v1/chat/completions", json={**BODY, "n": 3})
    assert states == ["r=9", "r=8", "r=7"]
    assert refused.status_code == 400


def test_a_forged_address_gains_nothing(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(requests_per_minute_per_ip=5)
    with app.http() as http:
        results = [
            http.post(
                "/v1/chat/completions", json=BODY, headers={"X-Forwarded-For": f"10.0.0.{number}"}
            ).status_code
            for number in range(7)
        ]
    assert results == [200] * 5 + [429] * 2


def test_a_trusted_proxy_is_believed_right_to_left(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(requests_per_minute_per_ip=2, trusted_proxies="127.0.0.0/8")
    with app.http() as http:

        def status(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded}
            return http.post("/v1/chat/completions", json=BODY, headers=headers).status_code

        assert [status("203.0.113.1") for _ in range(3)] == [200, 200, 429]
        assert status("203.0.113.1, 203.0.113.2") == 200
        assert status("198.51.100.7, 203.0.113.1") == 429
        assert [status(f"2001:db8::{n}") for n in range(3)] == [200, 200, 429]
        assert status("2001:db8:0:1::1") == 200


def test_the_shield_sheds_floods_on_every_route(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(requests_per_minute_per_ip=5)
    with app.http(None) as http:
        for path in ("/v1/models", "/nothing"):
            answers = [http.get(path) for _ in range(25)]
            assert answers[-1].status_code == 429, path
            assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert http.get("/healthz").status_code == 200


def test_the_daily_cap_holds_over_several_processes(
    start_app: StartApp, fake: FakeProvider
) -> None:
    # One dollar for a million input tokens, two for output: about 14 of these calls fit.
    fake.always(Reply("word", usage=Usage(prompt=100, completion=1000)))
    app = start_app(workers=3, daily_cost_cap_usd=0.03, max_attempts=1, providers=FIRST)
    answers = post_many(app, 60)
    for _ in range(10):
        answers += post_many(app, 1)
    assert set(codes(answers)) == {"ok", "daily_cost_cap"}
    fake.ledger.idle()
    models = {call.model for call in fake.ledger.calls}
    spent = fake.ledger.cost_nano({model: (1_000, 2_000) for model in models})
    assert 0 < spent <= 30_000_000
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    warnings = [line for line in app.log_lines() if "80 %" in line["message"]]
    assert len([line for line in warnings if "spent_usd" in line]) == 1


def test_a_callers_cap_leaves_the_others_alone(start_app: StartApp, fake: FakeProvider) -> None:
    fake.always(Reply("word", usage=Usage(prompt=100, completion=1000)))
    app = start_app(
        daily_cost_cap_usd=100,
        daily_cost_cap_per_caller_usd=0.005,
        max_attempts=1,
        providers=FIRST,
    )
    answers = [post_many(app, 1)[0] for _ in range(5)]
    assert codes(answers)[-1] == "caller_cost_cap"
    assert answers[-1].status_code == 429
    app.client("bob").chat.completions.create(model="auto", messages=HELLO)


def test_a_provider_that_states_no_usage_costs_the_worst_case(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(max_attempts=1)
    fake.always(Reply("hello", omit_usage=True))
    answer = app.client().chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    assert app.request_line(answer.headers["x-request-id"])["cost_usd"] >= 1000 * 2e-6


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_duplicates_make_one_call(start_app: StartApp, fake: FakeProvider, stream: bool) -> None:
    app = start_app(workers=3)
    fake.always(Reply("same", delay_before=0.3))
    body = {**BODY, "stream": stream}
    with (
        app.http(**{"Idempotency-Key": "k-1"}) as http,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(lambda _: http.post("/v1/chat/completions", json=body), range(50)))
        replay = http.post("/v1/chat/completions", json=body)
    assert len(fake.ledger.calls) == 1
    assert set(codes(answers)) <= {"ok", "idempotency_in_progress"}
    first = next(answer for answer in answers if answer.status_code == 200)
    assert replay.headers["idempotency-replayed"] == "true"
    assert replay.content == first.content
    assert replay.headers["content-type"] == first.headers["content-type"]
    waiting = [answer for answer in answers if answer.status_code == 409]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in waiting)


def test_a_key_belongs_to_its_payload_and_caller(app: RunningApp, fake: FakeProvider) -> None:
    key = {"Idempotency-Key": "k-2"}
    with app.http(**key) as alice, app.http("bob", **key) as bob:
        assert alice.post("/v1/chat/completions", json=BODY).status_code == 200
        other = alice.post("/v1/chat/completions", json={**BODY, "temperature": 0})
        assert other.status_code == 422
        assert other.json()["error"]["code"] == "idempotency_key_reused"
        mine = bob.post("/v1/chat/completions", json=BODY)
        assert "idempotency-replayed" not in mine.headers
    assert len(fake.ledger.calls) == 2


@pytest.mark.parametrize("key", ["", "ä".encode().decode("latin-1"), "x" * 256, "a b"])
def test_keys_that_are_no_keys(app: RunningApp, fake: FakeProvider, key: str) -> None:
    request = httpx2.Request(
        "POST",
        f"{app.url}/v1/chat/completions",
        json=BODY,
        headers=[
            (b"Idempotency-Key", key.encode("latin-1")),
            (b"Authorization", f"Bearer {CALLERS['alice']}".encode()),
        ],
    )
    with app.http(None) as http:
        answer = http.send(request)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"
    assert fake.ledger.calls == []


def test_a_key_is_free_again_when_nothing_was_done(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(max_attempts=1)
    fake.always(Status(500))
    with app.http(**{"Idempotency-Key": "k-3"}) as http:
        assert http.post("/v1/chat/completions", json=BODY).status_code == 503
        fake.reset()
        assert http.post("/v1/chat/completions", json=BODY).status_code == 200


def test_a_stream_that_the_client_left_is_replayed_as_incomplete(
    app: RunningApp, fake: FakeProvider
) -> None:
    fake.next(Reply(chunks=50, delay_between=0.05))
    body = {**BODY, "stream": True}
    with app.http(**{"Idempotency-Key": "k-4"}) as http:
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            for number, _ in enumerate(response.iter_lines()):
                if number > 6:
                    break
        fake.ledger.idle()
        replay = until(lambda: settled(http, body))
    assert replay.headers["idempotency-replayed"] == "true"
    assert "time_budget_exceeded" in replay.text
    assert len(fake.ledger.calls) == 1


def test_a_plain_request_with_a_key_is_finished_without_its_client(
    app: RunningApp, fake: FakeProvider
) -> None:
    fake.next(Reply("worth waiting for", delay_before=1))
    key = {"Idempotency-Key": "k-5"}
    with app.asked(BODY, **key):
        fake.ledger.wait_for(1)
    fake.ledger.idle()
    with app.http(**key) as http:
        replay = until(lambda: settled(http, BODY))
    assert replay.headers["idempotency-replayed"] == "true"
    assert replay.json()["choices"][0]["message"]["content"] == "worth waiting for"
    assert len(fake.ledger.calls) == 1


def test_a_killed_owner_leaves_the_key_neither_stuck_nor_run_twice(
    start_app: StartApp, fake: FakeProvider
) -> None:
    quick = {"time_budget_seconds": 2, "store_timeout_seconds": 0.5}
    app = start_app(**quick)
    with app.http() as http:  # what a first request loads must not use up this little time
        http.post("/v1/chat/completions", json=BODY)
    fake.reset()
    fake.next(Hang("connect"))
    with app.http(**{"Idempotency-Key": "k-6"}) as http:
        asking = threading.Thread(target=_ask_in_vain, args=(http,))
        asking.start()
        fake.ledger.wait_for(1)
        app.process.kill()
        asking.join()
    again = start_app(**quick)
    with again.http(**{"Idempotency-Key": "k-6"}) as http:
        answer = until(lambda: settled(http, BODY), 30)
    assert answer.status_code == 504
    assert answer.headers["idempotency-replayed"] == "true"
    assert len(fake.ledger.calls) == 1


def _ask_in_vain(http: httpx2.Client) -> None:
    with pytest.raises(httpx2.TransportError):
        http.post("/v1/chat/completions", json=BODY)


def test_no_stored_row_shows_a_prompt_or_an_answer(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(max_history_messages=2)
    fake.always(Reply("the secret answer is forty-two"))
    turns: list[ChatCompletionMessageParam] = []
    for _ in range(6):
        turns += [
            {"role": "user", "content": "my secret question"},
            {"role": "assistant", "content": "the secret answer"},
        ]
    with app.http(**{"Idempotency-Key": "k-7"}) as http:
        body = {"messages": [*turns, *HELLO]}
        assert http.post("/v1/chat/completions", json=body).status_code == 200
    app.stop()
    content = store_contents(tmp_path)
    assert b"caller:alice" in content
    assert b"secret" not in content
    assert CALLERS["alice"].encode() not in content


def test_a_usage_that_cannot_be_is_not_believed(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(daily_cost_cap_usd=1, providers=FIRST, max_attempts=1)
    for tokens in (10_000_000, 10**16):
        fake.next(Reply("hi", usage=Usage(prompt=tokens, completion=tokens)))
        app.client().chat.completions.create(model="auto", messages=HELLO)
    fake.next(Reply("word " * 500, usage=Usage(prompt=1, completion=1)))
    answer = app.client().chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    assert app.request_line(answer.headers["x-request-id"])["cost_usd"] >= 1000 * 2e-6
    with app.http("admin") as http:
        metrics = http.get("/metrics").text
    spent = next(x for x in metrics.splitlines() if x.startswith("llm_app_daily_cost_usd "))
    assert 0 < float(spent.split()[1]) < 0.02
    assert "llm_app_cost_reserved_usd 0.0" in metrics


# Whole answers on each wire, with counts that are to be filled in.
COUNTED = {
    "anthropic": '{"content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn",'
    '"usage":{"input_tokens":N,"output_tokens":N}}',
    "gemini": '{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}],'
    '"usageMetadata":{"promptTokenCount":N,"candidatesTokenCount":N}}',
}
OPENAI = (
    '{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":N,"completion_tokens":N}}'
)


def test_a_usage_that_cannot_be_written_down_holds_no_money(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(providers=FIRST, max_attempts=1)
    body = COUNTED.get(FIRST, OPENAI).replace("N", "9" * 4300).encode()
    fake.next(Garbage(body, after_chunks=0))
    answer = app.client().chat.completions.create(model="auto", messages=HELLO)
    assert answer.choices[0].message.content == "hi"
    assert app.metric("cost_reserved_usd") == 0
    assert app.metric("daily_cost_usd") >= 1000 * 2e-6


def test_a_stored_error_is_replayed_with_its_headers(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(providers=FIRST, max_attempts=1)
    fake.always(Garbage(after_chunks=0))
    with app.http(**{"Idempotency-Key": "k-8"}) as http:
        answers = [http.post("/v1/chat/completions", json=BODY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 503]
    for answer in answers:
        assert answer.headers["x-should-retry"] == "false"
        assert int(answer.headers["retry-after"]) >= 1
    replay = app.request_line(answers[1].headers["x-request-id"])
    assert replay["error_code"] == "providers_unavailable"
    assert len(fake.ledger.calls) == 1


def test_costs_are_booked_where_they_arose(start_app: StartApp, fake: FakeProvider) -> None:
    second = (*load_project().providers[1:], "demo")[0]
    app = start_app(
        max_attempts=1,
        providers=f"{FIRST},{second}",
        app_env="development",
        log_format="json",
    )
    fake.next(Garbage(after_chunks=0), Reply("ok", usage=Usage(prompt=20, completion=5)))
    answer = app.client().chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    assert app.request_line(answer.headers["x-request-id"])["cost_usd"] > 1000 * 2e-6
    with app.http("admin") as http:
        metrics = http.get("/metrics").text
    booked = {
        line.split('provider="')[1].split('"')[0]: float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("llm_app_cost_usd_total{")
    }
    assert booked[FIRST] > 1000 * 2e-6
    assert booked[second] == pytest.approx(0 if second == "demo" else 30e-6)
