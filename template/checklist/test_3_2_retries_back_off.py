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
from dataclasses import dataclass
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
# Chance may be unkind: so often are the pauses measured before they count as constant.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: the pauses between its attempts, and the status that it ended with."""

    pauses: list[float]
    status: int


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


@pytest.fixture(scope="module")
def samples(apps: dict[RunningApp, FakeProvider]) -> list[Sample]:
    """Requests whose last attempt succeeds, and requests that fail to the end."""
    samples: list[Sample] = []
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(_measure, apps, apps.values()):
                samples += found
        if _attempts(samples) == {ATTEMPTS} and _grow(samples):
            break
    return samples


def _measure(app: RunningApp, provider: FakeProvider) -> list[Sample]:
    found = []
    for ends_well in (True, False):
        provider.reset()
        provider.always(Status(500))
        if ends_well:
            provider.next(*[Status(500)] * (ATTEMPTS - 1), Reply("at last"))
        status = ask(app).status_code
        arrived = [call.arrived for call in provider.ledger.calls]
        found.append(Sample([later - earlier for earlier, later in pairwise(arrived)], status))
    _forget_failures(app, provider)
    return found


def _forget_failures(app: RunningApp, provider: FakeProvider) -> None:
    """One good answer: the failures before it open no circuit breaker."""
    provider.reset()
    ask(app)


def _attempts(samples: list[Sample]) -> set[int]:
    return {len(sample.pauses) + 1 for sample in samples}


def _grow(samples: list[Sample]) -> bool:
    first = mean(sample.pauses[0] for sample in samples)
    return mean(sample.pauses[-1] for sample in samples) > 1.5 * first


def test_a_request_has_a_known_number_of_attempts(samples: list[Sample], check: Check) -> None:
    counts = _attempts(samples)
    seen = seen_as("attempts", count=", ".join(map(str, sorted(counts))))
    check.that(counts == {ATTEMPTS}, "attempts", count=ATTEMPTS, seen=seen)
    statuses = {sample.status for sample in samples}
    check.that(statuses == {200, 503}, "given_up", seen=f"{statuses}")
    check.found("counted", count=ATTEMPTS)


def test_pauses_grow_with_jitter(samples: list[Sample], check: Check) -> None:
    fewest = min(len(sample.pauses) for sample in samples)
    columns = list(zip(*(sample.pauses[:fewest] for sample in samples), strict=True))
    means = " / ".join(f"{mean(column):.2f} s" for column in columns)
    check.that(fewest > 1 and _grow(samples), "grow", seen=means)
    check.that(max(max(column) - min(column) for column in columns) > 0.1, "jitter", seen=means)
    within = all(max(column) < FIRST * 2**number + MARGIN for number, column in enumerate(columns))
    check.that(within, "bounds", seen=means)
    check.found("pauses", means=means, count=len(samples))


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
        _forget_failures(app, provider)
        check.that(
            attempts == 1,
            "once",
            status=status,
            seen=f"{status}: {seen_as('attempts', count=attempts)}",
        )
    check.found("tried_once", statuses=", ".join(map(str, HOPELESS)))
