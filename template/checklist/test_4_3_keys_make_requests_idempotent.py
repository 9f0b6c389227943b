"""4.3 Is there idempotency handling?

A client that got no answer asks again: its network failed, not its request. Without a key the
model is paid twice, and whatever the answer sets off happens twice. With a key there is one
execution, however many ask at once; the later ones get the same answer, byte for byte. The claim
comes before the call: a note that is written afterwards comes too late for the twin that is
already under way. And when the process dies in mid-call, the key must be neither stuck for ever
nor run a second time.

How we see it: fifty equal requests at once, over two processes, and one call in the provider's
ledger; then kill -9.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from checklist.asking import CHAT, ask, ask_many, calls_seen, code_of, question, status_after, tally
from checklist.check import Check
from checklist.conftest import StartApp
from tests.fake_provider import FakeProvider, Hang, Reply
from tests.running import RunningApp

DUPLICATES = 50
# A dead owner's key is free when its lease is over: the budget and a few seconds more.
QUICK = {"time_budget_seconds": 1.5, "store_timeout_seconds": 0.75}
LEASE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What the next process says to a key whose owner was killed, and what the provider got."""

    answer: httpx2.Response
    waited: float
    calls: int


@pytest.fixture(scope="module")
def aftermath(start: StartApp, folder: Path) -> Iterator["Future[Aftermath]"]:
    """It goes on beside the other tests: a lease takes its time."""
    with FakeProvider() as provider, ThreadPoolExecutor(1) as pool:
        yield pool.submit(_kill_and_ask_again, start, provider, folder / "killed")


def _kill_and_ask_again(start: StartApp, provider: FakeProvider, place: Path) -> Aftermath:
    app = start(at=place, provider=provider, **QUICK)
    ask(app)  # what a first request loads must not use up this little time
    provider.reset()
    provider.next(Hang("connect"))
    key = {"Idempotency-Key": "killed"}
    with app.http(**key) as http:
        asking = threading.Thread(target=_ask_in_vain, args=(http,))
        asking.start()
        provider.ledger.wait_for(1, 10)
        app.process.kill()
        asking.join()
    again = start(at=place, provider=provider, **QUICK)
    started = time.monotonic()
    with again.http(**key) as http:
        while True:
            answer = http.post(CHAT, json=question())
            waited = time.monotonic() - started
            if answer.status_code != 409 or waited > LEASE_SECONDS:
                return Aftermath(answer, waited, len(provider.ledger.calls))
            time.sleep(0.3)


def _ask_in_vain(http: httpx2.Client) -> None:
    with suppress(httpx2.TransportError):
        http.post(CHAT, json=question())


@pytest.fixture(scope="module")
def app(aftermath: "Future[Aftermath]", start: StartApp) -> RunningApp:
    """Two processes that know one set of keys."""
    return start(workers=2)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_fifty_duplicates_are_one_call(
    app: RunningApp, fake: FakeProvider, check: Check, stream: bool
) -> None:
    fake.reset()
    fake.always(Reply("same", delay_before=0.3))
    key = {"Idempotency-Key": f"duplicates-{stream}"}
    same: dict[str, Any] = {"text": "Hello", "headers": [key], "stream": stream}
    answers = ask_many(app, DUPLICATES, at_once=DUPLICATES, **same)
    replay = ask_many(app, 1, **same)[0]
    calls = len(fake.ledger.calls)
    seen = f"{calls_seen(calls)}; {tally(answers)}"
    check.that(calls == 1, "one_call", count=DUPLICATES, seen=seen)
    first = next(answer for answer in answers if answer.status_code == 200)
    replayed = replay.headers.get("idempotency-replayed")
    equal = replay.content == first.content and replayed == "true"
    seen = f"{replay.status_code}, Idempotency-Replayed: {replayed}"
    check.that(equal, "replay", seen=seen, look="app/guarded.py")
    check.found("duplicates", count=len(answers), calls=calls)


def test_a_key_belongs_to_its_payload_and_its_caller(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    fake.reset()
    with app.http(**{"Idempotency-Key": "mine"}) as alice:
        alice.post(CHAT, json=question())
        other = alice.post(CHAT, json=question("Something else"))
    with app.http("bob", **{"Idempotency-Key": "mine"}) as bob:
        bobs = bob.post(CHAT, json=question())
    seen = f"{other.status_code} {code_of(other)}"
    check.that(other.status_code == 422, "payload", seen=seen)
    calls = len(fake.ledger.calls)
    apart = calls == 2 and "idempotency-replayed" not in bobs.headers
    check.that(apart, "caller", seen=calls_seen(calls))
    check.found("payload_refused")


def test_a_killed_owners_key_is_neither_stuck_nor_run_twice(
    aftermath: "Future[Aftermath]", check: Check
) -> None:
    told = aftermath.result()
    answer = told.answer
    seen = f"{status_after(answer, told.waited)}; {calls_seen(told.calls)}"
    look = "app/standards/spending/guard.py"
    check.that(answer.status_code != 409, "stuck", seconds=LEASE_SECONDS, seen=seen, look=look)
    check.that(told.calls == 1, "twice", seen=seen, look=look)
    check.found("killed", status=answer.status_code, seconds=f"{told.waited:.0f}")
