"""Idempotency keys under fire: one execution, whoever dies at whatever instant."""

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Hang, Reply
from tests.fire.crowd import Ask, Heard, crowd
from tests.running import RunningApp

pytestmark = pytest.mark.fire

DUPLICATES = 500
# A dead owner's lease: the time budget, four store timeouts and five seconds.
QUICK = {"time_budget_seconds": 1.5, "store_timeout_seconds": 0.5}
LEASE_SECONDS = 1.5 + 4 * 0.5 + 5


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_500_duplicates_make_one_call(
    start_app: StartApp, fake: FakeProvider, stream: bool
) -> None:
    app = start_app(workers=4)
    fake.always(Reply(chunks=30, delay_between=0.02))
    heard = await crowd(app, [Ask(key="one", stream=stream)] * DUPLICATES)
    told = Counter(answer.code for answer in heard)
    print(told)
    assert len(fake.ledger.calls) == 1
    assert told.keys() == {"ok", "idempotency_in_progress"}
    answers = {answer.body for answer in heard if answer.code == "ok"}
    assert len(answers) == 1
    first = [answer for answer in heard if answer.code == "ok" and not answer.replayed]
    assert len(first) == 1


def test_an_owner_killed_before_dispatch_leaves_the_key_free(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app, fate = with_a_fate(start_app, tmp_path, workers=4)
    fate.write_text("SIGKILL", encoding="utf-8")
    killed_at = time.monotonic()
    assert ask_once(app, Ask(key="early")).code == "cut"
    assert not fate.exists()
    answer = ask_until_decided(app, Ask(key="early"))
    assert answer.code == "ok"
    assert not answer.replayed
    assert time.monotonic() - killed_at < LEASE_SECONDS + 2
    assert len(fake.ledger.calls) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "mid-stream"])
def test_an_owner_killed_after_dispatch_is_not_run_again(
    start_app: StartApp, fake: FakeProvider, stream: bool
) -> None:
    app = start_app(workers=4, **QUICK)
    fake.always(Reply(chunks=200, delay_between=0.05) if stream else Hang("connect"))
    asked = Ask(key="late", stream=stream)
    heard: list[Heard] = []
    asking = threading.Thread(target=lambda: heard.append(ask_once(app, asked)))
    asking.start()
    fake.ledger.wait_for(1)
    if stream:
        while fake.ledger.calls[0].chunks_sent < 3:
            time.sleep(0.01)
    app.worker_at(fake.port).kill()
    killed_at = time.monotonic()
    asking.join()
    assert [answer.code for answer in heard] == ["cut"]
    fake.always(Reply())
    answer = ask_until_decided(app, asked)
    assert (answer.code, answer.status) == ("time_budget_exceeded", 504)
    assert answer.replayed
    assert time.monotonic() - killed_at < LEASE_SECONDS + 2
    assert len(fake.ledger.calls) == 1


def test_an_owner_that_wakes_after_its_lease_calls_nobody(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    sleeper, fate = with_a_fate(start_app, tmp_path)
    other = start_app(**QUICK)
    fate.write_text("SIGSTOP", encoding="utf-8")
    asked = Ask(key="asleep")
    heard: list[Heard] = []
    asking = threading.Thread(target=lambda: heard.append(ask_once(sleeper, asked)))
    asking.start()
    while fate.exists():
        time.sleep(0.01)
    answer = ask_until_decided(other, asked)
    assert (answer.code, answer.replayed) == ("ok", False)
    sleeper.workers()[0].resume()
    asking.join()
    assert [late.code for late in heard] == ["time_budget_exceeded"]
    assert len(fake.ledger.calls) == 1
    again = ask_once(other, asked)
    assert (again.body, again.replayed) == (answer.body, True)


def with_a_fate(start_app: StartApp, folder: Path, workers: int = 1) -> tuple[RunningApp, Path]:
    """An app whose process dies, or sleeps, before its next dispatch once the file is written."""
    fate = folder / "fate"
    program = ("-m", "tests.fire.mortal")
    return start_app(workers=workers, program=program, fate=fate, **QUICK), fate


def ask_once(app: RunningApp, asked: Ask) -> Heard:
    """Send one request."""
    return asyncio.run(crowd(app, [asked]))[0]


def ask_until_decided(app: RunningApp, asked: Ask) -> Heard:
    """Ask again and again, until it is no longer in progress."""
    deadline = time.monotonic() + LEASE_SECONDS + 10
    while True:
        heard = ask_once(app, asked)
        if heard.code not in {"idempotency_in_progress", "cut"} or time.monotonic() > deadline:
            return heard
        time.sleep(0.2)
