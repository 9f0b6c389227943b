"""Idempotency keys under fire: one execution, whoever dies at whatever instant."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartApp
from tests.fake_provider import Behaviour, Call, FakeProvider, Hang, Reply
from tests.fire.crowd import Ask, Heard, crowd, until
from tests.running import RunningApp, production, running_app

pytestmark = pytest.mark.fire

DUPLICATES = 500
MORTAL = (sys.executable, "-m", "tests.fire.mortal")
# A dead owner's lease: the time budget, four store timeouts and five seconds.
QUICK = {"time_budget_seconds": 3, "store_timeout_seconds": 1}
LEASE_SECONDS = 3 + 4 * 1 + 5


@pytest.fixture(scope="module")
def fate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that `tests.fire.mortal` obeys."""
    return tmp_path_factory.mktemp("fate") / "fate"


@pytest.fixture(scope="module")
def mortal(
    shared_fake: FakeProvider, fate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """Four processes; the next one that is about to dispatch meets the fate that is written."""
    folder = tmp_path_factory.mktemp("mortal")
    environment = production(shared_fake, folder, fate=fate, **QUICK)
    with running_app(environment, folder, workers=4, command=MORTAL) as app:
        yield app


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_500_duplicates_make_one_call(
    mortal: RunningApp, fake: FakeProvider, stream: bool
) -> None:
    await crowd(mortal, [Ask()] * 40)  # what a first request loads takes its time
    fake.reset()
    fake.always(Reply(chunks=20, delay_between=0.02))
    heard = await crowd(mortal, [Ask(key=f"one-{stream}", stream=stream)] * DUPLICATES)
    told = Counter(answer.code for answer in heard)
    print(told)
    assert len(fake.ledger.calls) == 1
    # A store that is too slow on a busy machine refuses; it never lets a second call pass.
    assert told.keys() - {"store_unavailable"} == {"ok", "idempotency_in_progress"}
    assert len({answer.body for answer in heard if answer.code == "ok"}) == 1
    assert len([answer for answer in heard if answer.code == "ok" and not answer.replayed]) == 1


async def test_a_dead_owners_key_is_neither_stuck_nor_run_twice(
    mortal: RunningApp, fake: FakeProvider, fate: Path
) -> None:
    before, after = Ask("before dispatch", key="before"), Ask("after dispatch", key="after")
    amid = Ask("in mid-stream", key="amid", stream=True)
    fate.write_text("SIGKILL", encoding="utf-8")
    assert (await crowd(mortal, [before]))[0].code == "cut"
    assert not fate.exists()
    await killed_at(1, mortal, fake, after, Hang("connect"))
    await killed_at(2, mortal, fake, amid, Reply(chunks=500, delay_between=0.05))
    early, late, torn = await decided(mortal, before, after, amid)
    assert (early.code, early.replayed) == ("ok", False)
    for lost in (late, torn):
        assert (lost.code, lost.status, lost.replayed) == ("time_budget_exceeded", 504, True)
    asked = [call.messages[-1][1] for call in fake.ledger.calls]
    assert sorted(asked) == sorted(each.content for each in (before, after, amid))


async def test_an_owner_that_wakes_after_its_lease_calls_nobody(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    fate = tmp_path / "fate"
    sleeper = start_app(command=MORTAL, fate=fate, **QUICK)
    other = start_app(**QUICK)
    fate.write_text("SIGSTOP", encoding="utf-8")
    asked = Ask(key="asleep", patience=90)
    asking = asyncio.create_task(crowd(sleeper, [asked]))
    await until(lambda: gone(fate), 20, "the owner to fall asleep")
    (answer,) = await decided(other, asked)
    assert (answer.code, answer.replayed) == ("ok", False)
    sleeper.workers()[0].resume()
    assert [late.code for late in await asking] == ["time_budget_exceeded"]
    assert len(fake.ledger.calls) == 1
    (again,) = await crowd(other, [asked])
    assert (again.body, again.replayed) == (answer.body, True)


async def killed_at(
    call: int, app: RunningApp, fake: FakeProvider, asked: Ask, behaviour: Behaviour
) -> None:
    """Ask, and kill the worker that has made the provider's `call`-th call, in its middle."""
    fake.next(behaviour)
    asking = asyncio.create_task(crowd(app, [asked]))
    calls = await asyncio.to_thread(fake.ledger.wait_for, call)
    if asked.stream:
        await until(lambda: has_begun(calls[-1]), 20, "the stream to begin")
    app.serving().kill()
    assert [heard.code for heard in await asking] == ["cut"]
    await asyncio.to_thread(fake.ledger.idle)


async def decided(app: RunningApp, *asked: Ask) -> list[Heard]:
    """Ask again and again, until none is in progress; what each one heard first after that."""
    heard = [Heard("idempotency_in_progress")] * len(asked)

    async def are_decided() -> bool:
        for number, each in enumerate(asked):
            if heard[number].code in {"idempotency_in_progress", "cut"}:
                heard[number] = (await crowd(app, [each]))[0]
        return not {"idempotency_in_progress", "cut"} & {each.code for each in heard}

    await until(are_decided, LEASE_SECONDS + 30, "the lease to end", pause=0.3)
    return heard


async def gone(path: Path) -> bool:
    """Whether a file is no longer there."""
    return not path.exists()


async def has_begun(call: Call) -> bool:
    """Whether a stream is in its middle."""
    return call.chunks_sent >= 3
