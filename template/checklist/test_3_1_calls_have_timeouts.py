"""3.1 Do all external calls have timeouts?

A call without a timeout waits for ever, and everything that waits behind it waits too. A provider
can go silent before it answers, after its first line, in the middle of a stream, or it can send a
byte now and then, so that no single wait is ever long. The store and the alert's server can hang
as well. Each of them must cost a known time, and no more.

How we see it: each is made to hang, in each of those ways, and we look at the clock.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import pytest

from app.foundation.project import load_project
from checklist.asking import ask, calls_seen, code_of, status_after, timed
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import Listener
from checklist.messages import seen_as
from tests.fake_provider import Behaviour, Call, Drip, FakeProvider, Hang, Reply, Status
from tests.running import RunningApp
from tests.servers import Server, own_server

CONNECT = READ = 1.0
BUDGET = 4.0
STORE = 0.5
# What a busy machine may add to any of them.
MARGIN = 2.5
# The app's own time for its last words when it is stopped.
SHUTDOWN = 5.0

# How the provider hangs: whether the answer is streamed, and when the wait must be over.
WAYS: dict[str, tuple[Behaviour, bool, float]] = {
    "connected": (Hang("connect"), False, READ),
    "headers": (Hang("headers"), False, READ),
    "stream": (Hang("chunk", after_chunks=2), True, READ),
    "dripping": (Drip(0.3), False, BUDGET),
}


@dataclass(frozen=True, slots=True)
class AlertStory:
    """An app whose alert server takes what it is sent, and never answers."""

    alerted: bool
    answer: httpx2.Response
    seconds: float
    stopped: float


@pytest.fixture(scope="module")
def alert_story(start: StartApp) -> Iterator["Future[AlertStory]"]:
    """It goes on beside the other tests: an app that is stopped takes its time."""
    with (
        FakeProvider() as provider,
        Listener(hang=True) as webhook,
        ThreadPoolExecutor(1) as pool,
    ):
        yield pool.submit(_alert_and_stop, start, provider, webhook)


def _alert_and_stop(start: StartApp, provider: FakeProvider, webhook: Listener) -> AlertStory:
    app = start(
        provider=provider,
        providers=load_project().providers[0],
        max_attempts=1,
        alert_urls=f"json://{webhook.address}/hook",
    )
    provider.next(Status(500), Reply("fine"))
    ask(app)
    alerted = bool(webhook.wait_for(1, 10))
    answer, seconds = timed(app)
    started = time.monotonic()
    app.stop()
    return AlertStory(alerted, answer, seconds, time.monotonic() - started)


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    """The store of these tests' app: one that can be frozen."""
    with own_server() as server:
        yield server


@pytest.fixture(scope="module")
def app(
    alert_story: "Future[AlertStory]", start: StartApp, fake: FakeProvider, store: Server
) -> RunningApp:
    """An app with little patience; the provider hangs in the way that the question names."""
    for way, (behaviour, _, _) in WAYS.items():
        fake.when(lambda call, way=way: _asks(call, way), behaviour)  # type: ignore[misc]
    return start(
        store_url=store.url,
        **store.app_environment,
        providers=load_project().providers[0],
        max_attempts=1,
        connect_timeout_seconds=CONNECT,
        read_timeout_seconds=READ,
        time_budget_seconds=BUDGET,
        store_timeout_seconds=STORE,
    )


def _asks(call: Call, text: str) -> bool:
    return bool(call.messages) and call.messages[-1][1] == text


def test_a_hanging_provider_costs_its_timeout(app: RunningApp, check: Check) -> None:
    with ThreadPoolExecutor(len(WAYS)) as pool:
        asked = {
            way: pool.submit(timed, app, way, stream=stream) for way, (_, stream, _) in WAYS.items()
        }
        results = {way: future.result() for way, future in asked.items()}
    for way, (answer, seconds) in results.items():
        limit = WAYS[way][2]
        seen = f"{way}: {status_after(answer, seconds)}"
        check.that(seconds < limit + MARGIN, "provider", way=way, limit=limit, seen=seen)
        failed = answer.status_code in {503, 504} or '"error"' in answer.text
        check.that(failed, "provider_error", way=way, seen=seen)
    check.found("ended", times=", ".join(f"{way} {t:.1f} s" for way, (_, t) in results.items()))


def test_a_hanging_store_costs_its_timeout(
    app: RunningApp, fake: FakeProvider, store: Server, check: Check
) -> None:
    ask(app)
    asked = len(fake.ledger.calls)
    store.freeze()
    try:
        answer, seconds = timed(app)
    finally:
        store.thaw()
    seen = f"{status_after(answer, seconds)} {code_of(answer)}"
    look = "app/stores/base.py"
    check.that(seconds < STORE + MARGIN, "store", limit=STORE, seen=seen, look=look)
    check.that(code_of(answer) == "store_unavailable", "store_refused", seen=seen, look=look)
    called = len(fake.ledger.calls) - asked
    check.that(called == 0, "store_refused", seen=calls_seen(called), look=look)
    check.found("store_ended", seconds=f"{seconds:.1f}")


def test_a_hanging_alert_delays_nobody(alert_story: "Future[AlertStory]", check: Check) -> None:
    told = alert_story.result()
    look = "app/standards/visibility/delivery.py"
    seen = status_after(told.answer, told.seconds)
    answered = told.answer.status_code == 200 and told.seconds < 2 * MARGIN
    check.that(told.alerted, "alerted", seen=seen_as("alerts", count=0), look=look)
    check.that(answered, "alert", seen=seen, look=look)
    seen = f"{told.stopped:.1f} s"
    check.that(
        told.stopped < SHUTDOWN + 3 * MARGIN, "shutdown", limit=SHUTDOWN, seen=seen, look=look
    )
    check.found("alert_ended", seconds=f"{told.stopped:.1f}")
