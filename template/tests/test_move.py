"""`uv run stores move`: what was spent, answered and switched in one store holds in the next."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.foundation.project import load_project
from app.launch.switches import SPENDING
from app.move import main
from app.stores.base import (
    UNKNOWN,
    Admission,
    Admitted,
    Cap,
    Claim,
    Connection,
    Decision,
    Refused,
    Replay,
    Settlement,
    Store,
    StoredAnswer,
)
from app.stores.moving import InFlightError, Lease, Memo, MoveError, Records, move, open_records
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Reply, Usage
from tests.running import ROOT, clean_environment
from tests.servers import store_environment, store_url

PROJECT = load_project()
BODY = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
DAY = 86400.0
MOVE = "from app.cli import stores; stores()"
# The same, killed after it has noted `DIE_AFTER` batches.
MORTAL = """
import os, signal
from app import move
from app.cli import stores

def note(kind, met, noted=[]):
    noted.append(kind)
    if len(noted) == int(os.environ["DIE_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)

move._show = note
stores()
"""
OpenStore = Callable[..., Awaitable[Store]]


def moved(
    folder: Path, *words: str, command: str = MOVE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command, as it is run in an app whose store is the folder's."""
    own = {"PYTHONPATH": str(ROOT), **store_environment(folder), **environment}
    return subprocess.run(
        [sys.executable, "-c", command, "move", *words],
        cwd=folder,
        env={**clean_environment(), **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The place that is moved from."""
    (tmp_path / "old").mkdir()
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The place that is moved to."""
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Open a place's store with the true clock, or one that is `ahead`."""
    stores: list[Store] = []

    async def open_one(folder: Path, ahead: float = 0.0) -> Store:
        clock = (lambda: time.time() + ahead) if ahead else None
        connection = Connection(store_url(folder), PROJECT.slug, 5, ZoneInfo("UTC"), clock)
        store: Store = import_module(f"app.stores.{PROJECT.store}").connect(connection)
        await store.open()
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.close()


async def ask(store: Store, name: str, amount: int = 10, lease: float = 60) -> Decision:
    """Admit alice's request whose key has the reservation's name."""
    caps = (Cap("app", "app", 100_000), Cap("caller", "caller:alice", 100_000))
    claim = Claim(f"key of {name}", "fingerprint", keep_seconds=10_000)
    return await store.admit(Admission(name, amount, lease, (), caps, claim))


def answer(name: str) -> StoredAnswer:
    """What the provider said to the request of that name."""
    return StoredAnswer(200, "application/json", f"sealed {name}".encode(), complete=True)


async def serve(store: Store, name: str, cost: int) -> None:
    """A whole request of alice."""
    assert isinstance(await ask(store, name), Admitted)
    assert await store.dispatch(name)
    await store.settle(Settlement(name, cost, f"key of {name}", answer(name)))


async def spent(store: Store) -> tuple[int, int]:
    """What the app and alice have spent today."""
    app, alice = await store.spending(), await store.spending("caller:alice")
    assert (app.reserved_nano, alice.reserved_nano) == (0, 0)
    return app.settled_nano, alice.settled_nano


def test_the_cap_a_key_and_a_switch_hold_in_the_next_store(
    start_app: StartApp, fake: FakeProvider, old: Path, new: Path
) -> None:
    # 0.0021 dollars each: five fit, and what is left is too little for one more.
    fake.always(Reply("word", usage=Usage(prompt=100, completion=1000)))
    changes = {"daily_cost_cap_usd": 0.012, "max_attempts": 1, "providers": PROJECT.providers[0]}
    before = start_app(store_url=store_url(old), **changes)
    with before.http(**{"Idempotency-Key": "one"}) as http:
        first = http.post("/v1/chat/completions", json=BODY)
    with before.http() as http:
        answers = [http.post("/v1/chat/completions", json=BODY) for _ in range(5)]
    assert [answer.status_code for answer in (first, *answers)] == [200] * 5 + [503]
    before.stop()
    calls = len(fake.ledger.calls)

    done = moved(new, "--from", store_url(old))
    assert done.returncode == 0, done.stderr
    assert "0.010500" in done.stdout
    # From elsewhere, with every address stated.
    again = moved(old, "--to", store_url(new), OLD_STORE_URL=store_url(old))
    assert again.returncode == 0, again.stderr
    assert "0.010500" in again.stdout

    after = start_app(store_url=store_url(new), **changes)
    with after.http(**{"Idempotency-Key": "one"}) as http:
        replay = http.post("/v1/chat/completions", json=BODY)
        other = http.post("/v1/chat/completions", json={**BODY, "max_tokens": 5})
    with after.http() as http:
        refused = http.post("/v1/chat/completions", json=BODY)
    assert replay.content == first.content
    assert replay.headers["idempotency-replayed"] == "true"
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert refused.json()["error"]["code"] == "daily_cost_cap"
    assert len(fake.ledger.calls) == calls
    # One warning of 80 % a day, in whichever store.
    assert "80 %" in before.log()
    assert "80 %" not in after.log()


async def test_a_move_that_is_killed_goes_on(old: Path, new: Path, open_store: OpenStore) -> None:
    yesterday, store = await open_store(old, ahead=-DAY), await open_store(old)
    await serve(yesterday, "long ago", 7)
    names = [f"request {number}" for number in range(250)]
    for name in names:
        await serve(store, name, 3)
    await store.remember("summary", b"sealed", 10_000)
    await store.remember(f"switch:{SPENDING}", b"{}", 10_000)
    target = await open_store(new)
    for batches in ("1", "4"):
        killed = moved(new, "--from", store_url(old), command=MORTAL, DIE_AFTER=batches)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert await spent(target) in {(0, 0), (750, 750)}  # each day at once
    done = moved(new, "--from", store_url(old))
    assert done.returncode == 0, done.stderr
    assert await spent(target) == (750, 750)
    assert (await (await open_store(new, ahead=-DAY)).spending()).settled_nano == 7
    for name in names:
        decision = await ask(target, name)
        assert isinstance(decision, Replay)
        assert decision.answer == answer(name)
        assert 9000 < decision.expires_in <= 10_000
    assert await target.recall("summary") == b"sealed"
    assert await target.recall(f"switch:{SPENDING}") == b"{}"


async def test_there_and_back_counts_nothing_twice(
    old: Path, new: Path, open_store: OpenStore
) -> None:
    here, there = await open_store(old), await open_store(new)
    await serve(here, "a", 5)
    await serve(there, "b", 30)  # it had money of its own
    for source, target in ((old, new), (old, new), (new, old), (old, new)):
        carry(source, target)
    assert await spent(here) == await spent(there) == (35, 35)
    await serve(there, "c", 100)
    await serve(here, "d", 1000)
    for source, target in ((old, new), (new, old), (new, old)):
        carry(source, target)
    assert await spent(here) == await spent(there) == (1135, 1135)
    refused = await there.admit(Admission("x", 1, 9, (), (Cap("app", "app", 1135),)))
    assert isinstance(refused, Refused)
    assert refused.reason == "app_cap"
    admitted = await there.admit(Admission("y", 1, 9, (), (Cap("app", "app", 1136),)))
    assert isinstance(admitted, Admitted)


def carry(source: Path, target: Path) -> None:
    """Move, in this process."""
    records = [
        open_records(PROJECT.store, store_url(place), PROJECT.slug) for place in (source, target)
    ]
    move(records[0], records[1], lambda kind, met: None)
    for one in records:
        one.close()


async def test_running_requests_are_waited_for_and_lost_ones_are_charged(
    old: Path, new: Path, open_store: OpenStore
) -> None:
    store = await open_store(old)
    ends = time.monotonic() + 5
    await ask(store, "untouched", amount=40, lease=5)
    await ask(store, "lost", amount=200, lease=5)
    assert await store.dispatch("lost")
    target = await open_store(new)
    with pytest.raises(InFlightError) as caught:
        carry(old, new)
    assert caught.value.facts["count"] == 2
    assert await spent(target) == (0, 0)
    done = moved(new, "--from", store_url(old), "--wait")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() > ends
    assert await spent(target) == (200, 200)
    assert isinstance(await ask(target, "untouched"), Admitted)
    outcome = await ask(target, "lost")
    assert isinstance(outcome, Replay)
    assert outcome.answer == UNKNOWN
    # Now the old store books it too: that is the same money.
    while (await store.reap()).more:
        pass
    assert (await store.spending()).settled_nano == 200
    carry(old, new)
    assert (await target.spending()).settled_nano == 200


class Restless:
    """Records of a real store whose app still writes."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def leases(self) -> list[Lease]:
        self._records.merge_memos([Memo(os.urandom(4).hex(), b"new", 60)])
        return self._records.leases()


async def test_a_store_that_never_rests_is_no_moved_store(
    old: Path, new: Path, open_store: OpenStore
) -> None:
    await open_store(old)
    await open_store(new)
    source, target = (open_records(PROJECT.store, store_url(x), PROJECT.slug) for x in (old, new))
    with pytest.raises(MoveError) as caught:
        move(Restless(source), target, lambda kind, met: None)
    assert caught.value.complaint == "still_written"
    source.close()
    target.close()


def test_what_cannot_be_moved_is_said(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**clean_environment(), **store_environment(new)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(new)
    secret = "s3cret-of-the-old-store"
    for words, said in (
        (["--from", ""], "--from"),
        (["--from", f"mysql://u:{secret}@localhost/x"], "--from"),
        (["--from", f"sqlite:///{old}/none.db"], "none.db"),
        (["--from", store_url(new)], "same"),
        (["--from", store_url(new), "--to", f"mysql://u:{secret}@localhost/x"], PROJECT.store),
    ):
        assert main(["move", *words]) == 64
        complaint = capsys.readouterr().err
        assert said in complaint or PROJECT.language != "en"
        assert secret not in complaint
