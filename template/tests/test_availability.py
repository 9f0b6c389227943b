"""Timeouts, retries, fallback and the circuit breaker, seen from outside."""

import itertools
import json
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tenacity import AsyncRetrying, RetryCallState

from app.foundation.project import load_project
from app.standards.availability.backoff import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, pause
from tests.conftest import StartApp
from tests.fake_provider import (
    Behaviour,
    Drip,
    ErrorInside,
    FakeProvider,
    Garbage,
    Hang,
    Reply,
    Reset,
    Status,
    Truncate,
)
from tests.running import CALLERS, RunningApp, production, running_app, until

CHAT = "/v1/chat/completions"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
FIRST, *OTHERS = load_project().providers
# With a single provider the demo stands in as the second target, in development.
TWO = (
    {"providers": f"{FIRST},{OTHERS[0]}"}
    if OTHERS
    else {"providers": f"{FIRST},demo", "app_env": "development", "log_format": "json"}
)
FAST = {"read_timeout_seconds": 1, "time_budget_seconds": 4}


@pytest.fixture(scope="module")
def two_targets(
    shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """An app with a second target and little patience."""
    folder = tmp_path_factory.mktemp("two")
    environment = production(shared_fake, folder, **TWO, **FAST, max_attempts=2)
    with running_app(environment, folder) as app:
        yield app


@pytest.fixture(scope="module")
def one_target(
    shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """An app with a single target."""
    folder = tmp_path_factory.mktemp("one")
    environment = production(shared_fake, folder, **FAST, providers=FIRST)
    with running_app(environment, folder) as app:
        yield app


@pytest.fixture(autouse=True)
def closed_breakers(request: pytest.FixtureRequest, fake: FakeProvider) -> Iterator[None]:
    """After each test one good answer, so that no failure counts in the next test."""
    yield
    fake.reset()
    for name in ("two_targets", "one_target"):
        if name in request.fixturenames:
            app: RunningApp = request.getfixturevalue(name)
            app.client().chat.completions.create(model="auto", messages=HELLO)


def fail_first(fake: FakeProvider, behaviour: Behaviour) -> None:
    """The first target behaves so; the others answer."""
    model = load_project().models[FIRST]
    fake.when(lambda call: call.model == model, behaviour)


@pytest.mark.parametrize(
    "behaviour",
    [
        Status(500),
        Status(429),
        Status(401),
        Reset(),
        Garbage(after_chunks=0),
        ErrorInside(after_chunks=0),
        Truncate(after_chunks=0),
        Hang("connect"),
        Hang("headers"),
        Drip(0.3),
    ],
    ids=lambda b: f"{type(b).__name__}{getattr(b, 'code', getattr(b, 'where', ''))}",
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_the_second_target_answers(
    two_targets: RunningApp, fake: FakeProvider, behaviour: Behaviour, stream: bool
) -> None:
    app = two_targets
    fail_first(fake, behaviour)
    started = time.monotonic()
    with app.http() as http:
        answer = http.post("/v1/chat/completions", json={"messages": HELLO, "stream": stream})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-fallback"] == "true"
    assert answer.headers["x-provider"] != FIRST
    assert '"error"' not in answer.text
    assert time.monotonic() - started < 8  # the budget, and what a busy machine adds


def test_retries_back_off_and_stop(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(providers=FIRST, max_attempts=4)
    fake.always(Status(500))
    with pytest.raises(openai.APIStatusError) as caught:
        app.client().chat.completions.create(model="auto", messages=HELLO)
    assert caught.value.status_code == 503
    assert caught.value.code == "providers_unavailable"
    arrived = [call.arrived for call in fake.ledger.calls]
    assert len(arrived) == 4
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    # So much at most, and what a busy machine adds; how long the pauses are is proven below.
    for number, gap in enumerate(gaps):
        assert gap < 0.5 * 2**number + 4


def test_pauses_are_random_and_double() -> None:
    failed = RetryCallState(AsyncRetrying(), None, (), {})
    for number in range(8):
        failed.attempt_number = number + 1
        pauses = [pause(failed) for _ in range(300)]
        most = min(FIRST_PAUSE_SECONDS * 2**number, MAX_PAUSE_SECONDS)
        assert 0 <= min(pauses) < most / 2 < max(pauses) <= most


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_cannot_succeed_gets_one_attempt(
    one_target: RunningApp, fake: FakeProvider, status: int
) -> None:
    app = one_target
    fake.always(Status(status))
    with app.http() as http:
        answer = http.post("/v1/chat/completions", json={"messages": HELLO})
    assert len(fake.ledger.calls) == 1
    assert answer.status_code == (400 if status in {400, 422} else 503)


def test_retry_after_is_obeyed_when_it_fits(one_target: RunningApp, fake: FakeProvider) -> None:
    app = one_target
    fake.next(Status(429, retry_after=1), Reply("ok"))
    app.client().chat.completions.create(model="auto", messages=HELLO)
    first, second = (call.arrived for call in fake.ledger.calls)
    assert 0.95 < second - first < 3


def test_retry_after_that_does_not_fit_is_not_waited_for(
    two_targets: RunningApp, fake: FakeProvider
) -> None:
    app = two_targets
    fail_first(fake, Status(429, retry_after=3600))
    started = time.monotonic()
    answer = app.client().chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    assert answer.headers["x-fallback"] == "true"
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_the_time_budget_holds(start_app: StartApp, fake: FakeProvider, stream: bool) -> None:
    app = start_app(
        providers=FIRST,
        time_budget_seconds=2,
        read_timeout_seconds=30,
    )
    fake.always(Hang("connect"))
    started = time.monotonic()
    with app.http() as http:
        answer = http.post("/v1/chat/completions", json={"messages": HELLO, "stream": stream})
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "time_budget_exceeded"
    # Three attempts with a budget each would take six seconds.
    assert time.monotonic() - started < 5


def test_a_stream_that_falls_silent_ends_in_time(
    one_target: RunningApp, fake: FakeProvider
) -> None:
    app = one_target
    fake.next(Hang("chunk", after_chunks=2))
    started = time.monotonic()
    with app.http() as http:
        answer = http.post("/v1/chat/completions", json={"messages": HELLO, "stream": True})
    assert '"error"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert time.monotonic() - started < 3


def test_the_apology_speaks_the_callers_language(
    one_target: RunningApp, fake: FakeProvider
) -> None:
    app = one_target
    fake.always(Status(500))
    with app.http(**{"Accept-Language": "ko"}) as http:
        answer = http.post("/v1/chat/completions", json={"messages": HELLO})
    assert answer.status_code == 503
    assert "죄송합니다" in answer.json()["error"]["message"]
    assert int(answer.headers["retry-after"]) >= 1


def test_the_breaker_spares_a_dead_target_and_closes_again(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(providers=FIRST, max_attempts=1)
    fake.always(Status(500))
    with app.http() as http:
        for _ in range(5):
            http.post("/v1/chat/completions", json={"messages": HELLO})
        asked = len(fake.ledger.calls)
        spared = http.post("/v1/chat/completions", json={"messages": HELLO})
        assert (spared.status_code, len(fake.ledger.calls)) == (503, asked)
        assert http.get("/readyz").status_code == 503
        fake.reset()
        wait = int(spared.headers["retry-after"])
        assert wait <= 10
        time.sleep(wait)
        assert http.get("/readyz").status_code == 200, "ready to be probed, without any traffic"
        assert http.post("/v1/chat/completions", json={"messages": HELLO}).status_code == 200
        assert http.get("/readyz").status_code == 200


def test_no_callers_mistake_opens_the_breaker(one_target: RunningApp, fake: FakeProvider) -> None:
    app = one_target
    fake.always(Status(400))
    with app.http() as http:
        for _ in range(8):
            http.post("/v1/chat/completions", json={"messages": HELLO})
        fake.reset()
        assert http.post("/v1/chat/completions", json={"messages": HELLO}).status_code == 200


def test_a_provider_that_is_away_comes_back(one_target: RunningApp, fake: FakeProvider) -> None:
    app = one_target
    fake.refuse_connections()
    try:
        with app.http() as http:
            answer = http.post("/v1/chat/completions", json={"messages": HELLO})
        assert answer.status_code == 503
    finally:
        fake.accept_connections()
    app.client().chat.completions.create(model="auto", messages=HELLO)


def test_a_running_stream_finishes_when_the_app_is_stopped(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app: RunningApp = start_app(workers=2)
    fake.next(Reply(chunks=20, delay_between=0.1))
    with (
        app.http() as http,
        http.stream(
            "POST", "/v1/chat/completions", json={"messages": HELLO, "stream": True}
        ) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        started = time.monotonic()
        app.process.terminate()
        rest = "".join(lines)
    assert rest.endswith("data: [DONE]")
    assert app.process.wait(30) == 0
    assert time.monotonic() - started < 30  # a shutdown that is stuck is ended after 65


def test_a_provider_that_breaks_every_stream_is_cut_off(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(providers=FIRST, max_attempts=1)
    fake.always(Reset("chunk", after_chunks=1, reply=Reply(chunks=5, delay_between=0.02)))
    with app.http() as http:
        for _ in range(5):
            http.post("/v1/chat/completions", json={"messages": HELLO, "stream": True})
        asked = len(fake.ledger.calls)
        answer = http.post("/v1/chat/completions", json={"messages": HELLO, "stream": True})
    assert answer.status_code == 503
    assert len(fake.ledger.calls) == asked


def test_long_answers_and_slow_readers_cut_nobody_off(
    start_app: StartApp, fake: FakeProvider
) -> None:
    # In this time each of them must have got as much as its buffers take.
    app = start_app(providers=FIRST, time_budget_seconds=3, max_output_tokens=100_000)
    app.client().chat.completions.create(model="auto", messages=HELLO)
    # More than the system's buffers take, so that the app has to wait for its reader.
    fake.always(Reply(chunks=("x" * 5000,) * 1300))
    body = json.dumps({"messages": HELLO, "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {CALLERS['alice']}\r\n\r\n"
    ).encode()
    port = int(app.url.rsplit(":", 1)[1])
    sockets = []
    for _ in range(6):
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port))
        slow.sendall(head + body)
        sockets.append(slow)
    until(lambda: len(app.log_lines(route=CHAT)) == 7, 30)
    assert len(app.log_lines(outcome="client_left")) == 6
    for slow in sockets:
        slow.close()
    fake.reset()
    app.client().chat.completions.create(model="auto", messages=HELLO)
    with app.http("admin") as http:
        assert "llm_app_cost_reserved_usd 0.0" in http.get("/metrics").text


def test_a_body_that_never_ends_is_given_up(start_app: StartApp, fake: FakeProvider) -> None:
    app = start_app(providers=FIRST, time_budget_seconds=1)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", app.port), timeout=10) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n"
            + f"Authorization: Bearer {CALLERS['alice']}\r\n\r\n".encode()
            + b'{"messages'
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 504")
    assert time.monotonic() - started < 8


def test_a_head_that_does_not_end_is_given_up(start_app: StartApp, fake: FakeProvider) -> None:
    soon = "from app import cli; cli.KEEP_ALIVE_SECONDS = 3; cli.serve()"
    app = start_app(command=[sys.executable, "-c", soon])
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    lines = b"X-A: %b\r\n" % (b"a" * 1000) * 100
    room = 65_536 - len(post)

    def answer(*sent: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", app.port), timeout=10) as client:
            with suppress(ConnectionError):  # it was closed, and not all of it read
                for part in sent:
                    client.sendall(part)
                return b"".join(iter(partial(client.recv, 4096), b""))
            return b"reset"

    assert answer(post, lines[: room + 1]).startswith(b"HTTP/1.1 400")
    assert answer(post, b"X: ".ljust(room + 1, b"x")).startswith(b"HTTP/1.1 400")
    assert answer(post, lines[:60_000], b"\r\n\r\n").startswith(b"HTTP/1.1 401")
    chunked = b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    started = time.monotonic()
    assert b"HTTP/1.1 400" not in answer(post, chunked, *[lines] * 10)
    assert time.monotonic() - started < 2.5, "it was closed for its silence"

    def closed_after(begun: bytes) -> float:
        started = time.monotonic()
        assert answer(begun) == b""
        return time.monotonic() - started

    with ThreadPoolExecutor(2) as pool, app.http() as http:
        silent = pool.map(closed_after, (b"", post))
        # What is slow in its body, or waits for its answer, has more time.
        fake.next(Reply("hi", delay_before=3.5))
        assert http.post("/v1/chat/completions", json={"messages": HELLO}).status_code == 200
        assert http.get("/healthz").status_code == 200
        assert all(2 < seconds < 9 for seconds in silent)
