"""3.3 Is there a fallback path?

When one provider is down the next one answers, and says so. "Down" has many faces: an error, no
answer, "too many requests", a web page instead of an answer, a 200 with an error inside. When all
are down, an honest 503 with an apology in the caller's language beats a 200 that holds an excuse:
clients, caches and monitors believe the status. And the dead are left in peace for a while (a
circuit breaker), but never for ever.

How we see it: the first target fails in each of these ways; then there is only one target, and it
fails until the breaker opens, and recovers.
"""

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, ask, calls_seen, question, status_after, timed
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.messages import seen_as
from tests.fake_provider import Behaviour, ErrorInside, FakeProvider, Garbage, Hang, Status
from tests.running import RunningApp

FIRST, *OTHERS = load_project().providers
# With one provider the demo stands in as the second target, and it is for development only.
TWO = (
    {"providers": f"{FIRST},{OTHERS[0]}"}
    if OTHERS
    else {"providers": f"{FIRST},demo", "app_env": "development", "log_format": "json"}
)
BUDGET = 4.0
MARGIN = 2.5
# So many failures in a row open the breaker; the longest that it stays open, in seconds.
FAILURES = 5
COOLDOWN = 10.0

WAYS: dict[str, Behaviour] = {
    "down": Status(500),
    "silent": Hang("connect"),
    "429": Status(429),
    "garbage": Garbage(after_chunks=0),
    "error-in-a-200": ErrorInside(after_chunks=0),
}


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to an app whose only target died and came back."""

    apologies: dict[str, httpx2.Response]
    spared: httpx2.Response
    calls_when_spared: int
    waited: float
    back: httpx2.Response


@pytest.fixture(scope="module")
def story(start: StartApp) -> Iterator["Future[Story]"]:
    """It goes on beside the other tests: a breaker takes its time."""
    with FakeProvider() as provider, ThreadPoolExecutor(1) as pool:
        app = start(provider=provider, providers=FIRST, max_attempts=1)
        yield pool.submit(_die_and_come_back, app, provider)


def _die_and_come_back(app: RunningApp, provider: FakeProvider) -> Story:
    provider.always(Status(500))
    apologies = {}
    for language in ("en", "ko"):
        with app.http(**{"Accept-Language": language}) as http:
            apologies[language] = http.post(CHAT, json=question())
    for _ in range(FAILURES - len(apologies)):
        ask(app)
    asked = len(provider.ledger.calls)
    spared = ask(app)
    calls = len(provider.ledger.calls) - asked
    provider.reset()
    wait = min(float(spared.headers.get("retry-after", COOLDOWN)), COOLDOWN)
    time.sleep(wait)
    return Story(apologies, spared, calls, wait, ask(app))


@pytest.fixture(scope="module")
def app(story: "Future[Story]", start: StartApp) -> RunningApp:
    """An app with a second target."""
    return start(**TWO, max_attempts=1, read_timeout_seconds=1, time_budget_seconds=BUDGET)


def test_the_second_target_answers(app: RunningApp, fake: FakeProvider, check: Check) -> None:
    model = load_project().models[FIRST]
    for way, behaviour in WAYS.items():
        fake.reset()
        fake.when(lambda call: call.model == model, behaviour)
        answer, seconds = timed(app)
        fallback = answer.headers.get("x-fallback")
        seen = f"{way}: {status_after(answer, seconds)}, X-Fallback: {fallback}"
        second = answer.status_code == 200 and fallback == "true"
        check.that(second and seconds < BUDGET + MARGIN, "second", way=way, seen=seen)
        text = answer.json()["choices"][0]["message"]["content"]
        check.that(bool(text), "second", way=way, seen=f"{way}: {seen_as('empty')}")
        fake.reset()
        ask(app)  # the first target answers, so that its failures do not add up
    check.found("answered", ways=", ".join(WAYS))
    if not OTHERS:
        check.found("stand_in")


def test_when_all_are_down_the_apology_is_an_honest_503(
    story: "Future[Story]", check: Check
) -> None:
    look = "app/standards/availability/relay.py"
    for language, answer in story.result().apologies.items():
        seen = f"{language}: {answer.status_code} {answer.text[:120]}"
        check.that(answer.status_code == 503, "apology", seen=seen, look=look)
        message = str(answer.json()["error"]["message"])
        korean = re.search("[가-힣]", message) is not None
        check.that(korean == (language == "ko"), "language", seen=seen, look="app/edge/scope.py")
    check.found("apologised")


def test_a_dead_target_is_spared_and_comes_back(story: "Future[Story]", check: Check) -> None:
    told = story.result()
    look = "app/standards/availability/breaker.py"
    seen = f"{calls_seen(told.calls_when_spared)}, {told.spared.status_code}"
    check.that(told.calls_when_spared == 0, "spared", count=FAILURES, seen=seen, look=look)
    back = status_after(told.back, told.waited)
    check.that(told.back.status_code == 200, "back", seconds=COOLDOWN, seen=back, look=look)
    check.found("recovered", count=FAILURES, seconds=f"{told.waited:.0f}")
