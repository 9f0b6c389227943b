"""L2 An alternative when a dependency fails?

On the developer's machine everything that the app calls is there. In service one of them is always
away: a provider, the store, whoever takes the alerts or the traces. What the app does then must
have been decided beforehand, for each of them: go on with another one, go on without it, or refuse
honestly, because without the store nobody could count the money. And when it is back, so is the
app, by itself: who must restart it at night has no alternative, only a procedure.

How we see it: each in turn goes away under the app's hands, with requests on their way, and comes
back. The app is started once.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import pytest

from app.foundation.project import load_project
from checklist.asking import ask, ask_many, calls_seen, code_of, tally
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import Listener, until
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider, Reply
from tests.running import RunningApp
from tests.servers import Server, own_server

FIRST, *OTHERS = load_project().providers
FLAGGED_NOTHING = b'{"results": [{"flagged": false}]}'
# So many are on their way when it goes, and so many come after; together not enough to open the
# circuit breaker, which is item 3.3.
FEW = 2
STORE_SECONDS = 0.5
MARGIN = 5.0
BACK_SECONDS = 12.0
STORE_ALERT = "RUNBOOK.md#store"
LOOK_STORE = "app/standards/spending/guard.py"
LOOK_ALERTS = "app/standards/visibility/delivery.py"
LOOK_TELEMETRY = "app/standards/visibility/telemetry.py"
LOOK_MODERATION = "app/launch/policy/moderation.py"


@dataclass(frozen=True, slots=True)
class World:
    """The app and all that it depends on."""

    app: RunningApp
    first: FakeProvider
    store: Server
    alerts: Listener
    telemetry: Listener
    moderation: Listener


@pytest.fixture(scope="module")
def world(start: StartApp, fake: FakeProvider) -> Iterator[World]:
    """All of it alive; with one provider the demo is its alternative."""
    with (
        FakeProvider() as second,
        own_server() as store,
        Listener() as alerts,
        Listener(answer=b"{}") as telemetry,
        Listener(answer=FLAGGED_NOTHING) as moderation,
    ):
        for provider in (fake, second):
            provider.always(Reply("word", delay_before=0.1))
        app = start(
            store_url=store.url,
            **store.app_environment,
            **_alternative(second),
            max_attempts=1,
            store_timeout_seconds=STORE_SECONDS,
            alert_urls=f"json://{alerts.address}/hook",
            otel_exporter_otlp_endpoint=f"http://{telemetry.address}",
            otel_bsp_schedule_delay=200,
            sentry_dsn=f"http://public@{telemetry.address}/1",
            moderation="open",
            moderation_base_url=f"http://{moderation.address}/v1",
            moderation_timeout_seconds=1,
        )
        yield World(app, fake, store, alerts, telemetry, moderation)


def _alternative(second: FakeProvider) -> dict[str, object]:
    if not OTHERS:
        return {"providers": f"{FIRST},demo", "app_env": "development", "log_format": "json"}
    wire = {"compatible": "openai"}.get(OTHERS[0], OTHERS[0])
    return {
        "providers": f"{FIRST},{OTHERS[0]}",
        f"{OTHERS[0]}_base_url": getattr(second, f"{wire}_base_url"),
    }


def _without(
    world: World, die: Callable[[], object]
) -> tuple[list[httpx2.Response], list[httpx2.Response], float]:
    """What those get that were on their way, what those get that came after, and in what time."""
    with ThreadPoolExecutor(1) as pool:
        on_their_way = pool.submit(ask_many, world.app, FEW)
        time.sleep(0.05)
        die()
        began = time.monotonic()
        after = ask_many(world.app, FEW)
        seconds = time.monotonic() - began
        return on_their_way.result(), after, seconds


def _is_first(answer: httpx2.Response) -> bool:
    return answer.status_code == 200 and "x-fallback" not in answer.headers


def _back(good: Callable[[], bool]) -> float:
    """How long it took until all was well again (seconds)."""
    began = time.monotonic()
    until(good, BACK_SECONDS)
    return time.monotonic() - began


def _errors(telemetry: Listener) -> int:
    """How many error reports have come, on Sentry's wire."""
    return sum("envelope" in path for path in telemetry.paths)


def _alert_of(section: str, ids: list[str], texts: list[str]) -> bool:
    """Whether one of the alerts sends to that section of the runbook and names one of these."""
    return any(section in text and any(name in text for name in ids) for text in texts)


def test_without_moderation_questions_are_answered(world: World, check: Check) -> None:
    ask(world.app)
    judged = len(world.moderation.bodies)
    check.that(judged == 1, "moderated", seen=seen_as("calls", count=judged), look=LOOK_MODERATION)
    under_way, after, _ = _without(world, world.moderation.die)
    answers = [*under_way, *after]
    seen, fine = tally(answers), all(answer.status_code == 200 for answer in answers)
    check.that(fine, "moderation", seen=seen, look=LOOK_MODERATION)
    said = len(world.app.log_lines(message="moderation failed"))
    check.that(said >= FEW, "moderation_said", seen=seen_as("lines", count=said))
    world.moderation.revive()
    judged = len(world.moderation.bodies)
    ask(world.app)
    asked = len(world.moderation.bodies) - judged
    check.that(asked == 1, "moderation_back", seen=seen_as("calls", count=asked))
    check.found("without_moderation", statuses=seen)


def test_without_the_first_provider_the_second_answers(world: World, check: Check) -> None:
    under_way, after, _ = _without(world, world.first.refuse_connections)
    seen = f"{tally([*under_way, *after])}; X-Fallback: {after[0].headers.get('x-fallback')}"
    answered = all(answer.status_code == 200 for answer in [*under_way, *after])
    second = all(answer.headers.get("x-fallback") == "true" for answer in after)
    check.that(answered and second, "provider", seen=seen)
    world.first.accept_connections()
    seconds = _back(lambda: _is_first(ask(world.app)))
    check.that(seconds < BACK_SECONDS, "provider_back", seen=f"{seconds:.1f} s")
    check.found("without_provider", seconds=f"{seconds:.1f}")


def test_without_telemetry_nobody_waits(world: World, check: Check) -> None:
    under_way, after, seconds = _without(world, world.telemetry.die)
    seen = f"{tally([*under_way, *after])}, {seconds:.1f} s"
    answered = all(_is_first(answer) for answer in [*under_way, *after])
    check.that(answered and seconds < MARGIN, "telemetry", seen=seen, look=LOOK_TELEMETRY)
    world.telemetry.revive()
    world.telemetry.received.clear()
    ask(world.app)
    seconds = _back(lambda: "/v1/traces" in world.telemetry.paths)
    check.that(
        "/v1/traces" in world.telemetry.paths,
        "telemetry_back",
        seen=f"{seconds:.1f} s",
        look=LOOK_TELEMETRY,
    )
    check.found("without_telemetry", seconds=f"{seconds:.1f}")


def test_without_store_and_alerts_it_refuses_and_tells_later(world: World, check: Check) -> None:
    world.alerts.busy = True
    try:
        under_way, after, seconds = _without(world, world.store.freeze)
        asked = len(world.first.ledger.calls)
        refused = [*after, ask(world.app)]
    finally:
        world.store.thaw()
    seen = f"{tally(refused)} {code_of(refused[-1])}, {seconds:.1f} s"
    told = all(code_of(answer) == "store_unavailable" for answer in refused)
    in_time = seconds < STORE_SECONDS + MARGIN
    check.that(told and in_time, "store", seen=seen, look=LOOK_STORE)
    called = len(world.first.ledger.calls) - asked
    check.that(called == 0, "store_unasked", seen=calls_seen(called), look=LOOK_STORE)
    seconds = _back(lambda: _is_first(ask(world.app)))
    check.that(seconds < BACK_SECONDS, "store_back", seen=f"{seconds:.1f} s", look=LOOK_STORE)
    check.found("without_store", statuses=tally([*under_way, *refused]), seconds=f"{seconds:.1f}")

    # The alert about the store was turned away, and is not lost. It names a request that failed;
    # what comes after it, that all is well again, names none.
    ids = [answer.headers["x-request-id"] for answer in [*under_way, *refused]]
    until(lambda: _alert_of(STORE_ALERT, ids, world.alerts.turned_away), BACK_SECONDS)
    world.alerts.busy = False
    arrived = until(lambda: _alert_of(STORE_ALERT, ids, world.alerts.texts), BACK_SECONDS)
    seen = seen_as("alerts", count=len(world.alerts.bodies))
    check.that(arrived, "alert", seen=seen, look=LOOK_ALERTS)
    check.found("alert_later")

    # It was an error as well, and those who take errors are back since long.
    reported = until(lambda: _errors(world.telemetry) > 0, BACK_SECONDS)
    check.that(reported, "errors_back", seen=seen_as("lines", count=0), look=LOOK_TELEMETRY)
