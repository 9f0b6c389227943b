"""3.2 Is retry logic using exponential backoff?

Who retries at once, and in step with everybody else, keeps a provider down that was about to get
up. So the pauses grow, and chance spreads them (jitter). `Retry-After` says better than any formula
when to come back. And what cannot succeed, such as a wrong key, is not tried again: it costs time
and money, three times over.

How we see it: the provider fails, and its ledger says when each attempt arrived. Pauses of chance
prove little one by one, so we compare the sums of many.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import mean

import pytest

from app.foundation.project import load_project
from checklist.asking import ask
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider, Reply, Status
from tests.running import RunningApp

ATTEMPTS = 4
# The n-th pause is at most FIRST * 2^n seconds; what a busy machine may add.
FIRST = 0.5
MARGIN = 0.9
# What the provider says to what is wrong with the request, the key or the model.
HOPELESS = (400, 401, 404)
# Two apps ask so often in one round; a round is repeated when chance has been unkind.
ASKED = 3
ROUNDS = 3


@pytest.fixture(scope="module")
def other() -> Iterator[FakeProvider]:
    """A second provider, for a second app that takes samples at the same time."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def apps(
    start: StartApp, fake: FakeProvider, other: FakeProvider
) -> dict[RunningApp, FakeProvider]:
    """Two apps, each with a provider of its own."""
    with ThreadPoolExecutor(2) as pool:
        started = pool.map(
            lambda provider: start(
                provider=provider, providers=load_project().providers[0], max_attempts=ATTEMPTS
            ),
            (fake, other),
        )
        return dict(zip(started, (fake, other), strict=True))


def test_pauses_grow_with_jitter(apps: dict[RunningApp, FakeProvider], check: Check) -> None:
    samples: list[list[float]] = []
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(_pauses, apps, apps.values()):
                samples += found
        if all(len(pauses) == ATTEMPTS - 1 for pauses in samples) and _grows(samples):
            break
    counts = {len(pauses) + 1 for pauses in samples}
    check.that(
        counts == {ATTEMPTS},
        "attempts",
        count=ATTEMPTS,
        seen=seen_as("attempts", count=", ".join(map(str, sorted(counts)))),
    )
    means = " / ".join(f"{mean(column):.2f} s" for column in zip(*samples, strict=True))
    check.that(_grows(samples), "grow", seen=means)
    spread = max(max(column) - min(column) for column in zip(*samples, strict=True))
    check.that(spread > 0.1, "jitter", seen=means)
    within = all(
        pause < FIRST * 2**number + MARGIN
        for pauses in samples
        for number, pause in enumerate(pauses)
    )
    check.that(within, "bounds", seen=means)
    check.found("pauses", means=means, count=len(samples))


def _pauses(app: RunningApp, provider: FakeProvider) -> list[list[float]]:
    """The pauses between the attempts of some requests, the last attempt of which succeeds."""
    found = []
    for _ in range(ASKED):
        provider.reset()
        provider.next(*[Status(500)] * (ATTEMPTS - 1), Reply("at last"))
        ask(app)
        arrived = [call.arrived for call in provider.ledger.calls]
        found.append([later - earlier for earlier, later in pairwise(arrived)])
    return found


def _grows(samples: list[list[float]]) -> bool:
    return mean(pauses[-1] for pauses in samples) > 1.5 * mean(pauses[0] for pauses in samples)


def test_attempts_end(apps: dict[RunningApp, FakeProvider], check: Check) -> None:
    app, provider = next(iter(apps.items()))
    provider.reset()
    provider.next(*[Status(500)] * 3 * ATTEMPTS)
    answer = ask(app)
    attempts = len(provider.ledger.calls)
    provider.reset()
    ask(app)  # an answer, so that these failures count for nothing in the next test
    seen = f"{seen_as('attempts', count=attempts)}, {answer.status_code}"
    check.that(attempts == ATTEMPTS, "attempts", count=ATTEMPTS, seen=seen)
    check.that(answer.status_code == 503, "given_up", seen=seen)
    check.found("counted", count=attempts)


def test_retry_after_is_obeyed(apps: dict[RunningApp, FakeProvider], check: Check) -> None:
    app, provider = next(iter(apps.items()))
    provider.reset()
    provider.next(Status(429, retry_after=1), Reply("at last"))
    ask(app)
    arrived = [call.arrived for call in provider.ledger.calls]
    pause = arrived[1] - arrived[0] if len(arrived) > 1 else 0.0
    check.that(0.95 < pause < 1 + MARGIN, "retry_after", seen=f"{pause:.2f} s")
    check.found("obeyed", pause=f"{pause:.2f}")


def test_what_cannot_succeed_is_tried_once(
    apps: dict[RunningApp, FakeProvider], check: Check
) -> None:
    app, provider = next(iter(apps.items()))
    for status in HOPELESS:
        provider.reset()
        provider.next(*[Status(status)] * ATTEMPTS)
        ask(app)
        attempts = len(provider.ledger.calls)
        provider.reset()
        ask(app)
        check.that(
            attempts == 1,
            "once",
            status=status,
            seen=f"{status}: {seen_as('attempts', count=attempts)}",
        )
    check.found("tried_once", statuses=", ".join(map(str, HOPELESS)))
