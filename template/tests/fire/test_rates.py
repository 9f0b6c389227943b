"""Rate limits under fire: exactly so many pass, over all processes, and Retry-After is true."""

from collections.abc import Iterator

import pytest

from tests.fake_provider import FakeProvider
from tests.fire.crowd import Ask, Heard, crowd
from tests.running import RunningApp, production, running_app
from tests.servers import Clock, own_server

pytestmark = pytest.mark.fire

PER_CALLER, PER_ADDRESS = 60, 90
WINDOW_SECONDS = 60


@pytest.fixture(scope="module")
def shared_clock() -> Clock:
    """The store's clock; use `clock`."""
    return Clock()


@pytest.fixture
def clock(shared_clock: Clock) -> Clock:
    """The store's clock, when what was counted before counts no longer."""
    shared_clock.jump(2 * WINDOW_SECONDS)
    return shared_clock


@pytest.fixture(scope="module")
def limited(
    shared_fake: FakeProvider, shared_clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """Four processes with limits that a test can reach."""
    folder = tmp_path_factory.mktemp("limited")
    with own_server(shared_clock) as server:
        environment = production(
            shared_fake,
            folder,
            requests_per_minute=PER_CALLER,
            requests_per_minute_per_ip=PER_ADDRESS,
            store_timeout_seconds=5,
            store_url=server.url,
            **server.app_environment,
        )
        with running_app(environment, folder, workers=4) as app:
            yield app


async def test_exactly_so_many_pass(limited: RunningApp, fake: FakeProvider, clock: Clock) -> None:
    for round_number in (1, 2):
        alices = await crowd(limited, [Ask(caller="alice")] * (PER_CALLER + 40))
        assert count(alices) == {"ok": PER_CALLER, "rate_limit_exceeded": 40}
        # One address has sent them all, so the other caller gets what the address has left.
        bobs = await crowd(limited, [Ask(caller="bob")] * 50)
        left = PER_ADDRESS - PER_CALLER
        assert count(bobs) == {"ok": left, "rate_limit_exceeded": 50 - left}
        assert len(fake.ledger.calls) == round_number * PER_ADDRESS
        clock.jump(WINDOW_SECONDS + 1)


@pytest.mark.parametrize("caller", ["alice", "bob"], ids=["per caller", "per address"])
async def test_retry_after_is_exact(
    limited: RunningApp, fake: FakeProvider, clock: Clock, caller: str
) -> None:
    alices, bobs = (
        [Ask(caller="alice")] * PER_CALLER,
        [Ask(caller="bob")] * (PER_ADDRESS - PER_CALLER),
    )
    assert count(await crowd(limited, alices + bobs)) == {"ok": PER_ADDRESS}
    earliest = clock.now()
    (refused,) = await crowd(limited, [Ask("refused", caller=caller, key=f"free-{caller}")])
    latest = clock.now()
    assert refused.code == "rate_limit_exceeded"
    wait = int(refused.headers["retry-after"])
    assert 0 < wait <= WINDOW_SECONDS + 1
    # Whole seconds, rounded up: the next may pass after `wait - 1`, and at `wait` for certain.
    clock.jump(earliest + wait - 2 - clock.now())
    assert count(await crowd(limited, [Ask(caller=caller)])) == {"rate_limit_exceeded": 1}
    clock.jump(latest + wait - clock.now())
    # What was refused has consumed nothing: not even its key, which takes another payload.
    assert count(await crowd(limited, [Ask(caller=caller, key=f"free-{caller}")])) == {"ok": 1}


def count(heard: list[Heard]) -> dict[str, int]:
    """How often each code was heard."""
    codes = [answer.code for answer in heard]
    return {code: codes.count(code) for code in codes}
