"""Random ways through the store: each step must answer as the model of `store_model.py` does.

    STORE_MODEL_EXAMPLES=2000 uv run pytest tests/test_store_model.py

takes that many new ways instead of the usual ones. A failure is printed as a program: of a deep run
as the shortest one that fails.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from app.stores.base import Admitted, Refused, Replay, Settlement, Store
from tests.store_machine import StoreMachine
from tests.store_twins import STORE
from tests.stores import ANSWER, CLAIM, Clock, admission

# Every store has about the same seconds to spend: the slower its steps, the fewer they are.
EXAMPLES = {"sqlite": 150, "redis": 80, "postgres": 50}[STORE]
DEEP = int(os.environ.get("STORE_MODEL_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=DEEP or EXAMPLES,
    stateful_step_count=50,
    derandomize=not DEEP,
    database=None,
    deadline=None,
    print_blob=True,
    # To make a failure as short as it can be takes minutes: only a deep run does.
    phases=[Phase.generate, *([Phase.shrink] if DEEP else [])],
    suppress_health_check=list(HealthCheck),
)


def test_the_store_answers_as_the_model_does(tmp_path: Path) -> None:
    class Machine(StoreMachine):
        folder = tmp_path

    run_state_machine_as_test(Machine, settings=SETTINGS)


# What the machine has found, each in its shortest form.


async def test_a_late_settlement_is_late_before_it_was_noticed(store: Store, clock: Clock) -> None:
    await store.admit(admission("a"))
    await store.dispatch("a")
    clock.now += 30
    await store.settle(Settlement("a", 3))
    assert (await store.spending()).settled_nano == 10


async def test_the_warning_of_a_dead_owners_charge_is_not_lost(store: Store, clock: Clock) -> None:
    await store.admit(admission("dead", amount=100, claim=CLAIM))
    await store.dispatch("dead")
    clock.now += 31
    assert isinstance(await store.admit(admission("again", claim=CLAIM)), Replay)
    (warning,) = (await store.reap()).warnings
    assert warning.settled_nano == 100


async def test_what_costs_nothing_is_settled_and_ended(store: Store, clock: Clock) -> None:
    for name in ("settled", "dead"):
        await store.admit(admission(name, amount=0))
    await store.settle(Settlement("settled", 0))
    clock.now += 31
    await store.reap()
    assert not await store.renew("dead", 30)


async def test_a_former_owner_does_not_answer_for_the_new_one(store: Store, clock: Clock) -> None:
    await store.admit(admission("slow", claim=CLAIM))
    clock.now += 31
    assert isinstance(await store.admit(admission("new", claim=CLAIM)), Admitted)
    await store.settle(Settlement("slow", 1, CLAIM.key, ANSWER))
    waiting = await store.admit(admission("third", claim=CLAIM))
    assert isinstance(waiting, Refused)
    assert waiting.reason == "in_progress"


async def test_what_nobody_knows_is_kept_as_long_as_its_owner_asked(
    store: Store, clock: Clock
) -> None:
    await store.admit(admission("dead", claim=CLAIM))
    await store.dispatch("dead")
    clock.now += 31
    longer = replace(CLAIM, keep_seconds=2 * CLAIM.keep_seconds)
    replay = await store.admit(admission("again", claim=longer))
    assert isinstance(replay, Replay)
    assert replay.expires_in == CLAIM.keep_seconds


async def test_an_incident_from_before_the_clock_was_set_back_is_due(
    store: Store, clock: Clock
) -> None:
    assert await store.open_incident("store", 100)
    clock.now -= 86400
    assert await store.open_incident("store", 100)
    assert not await store.open_incident("store", 100)


async def test_a_lowered_quota_tells_when_one_more_may_pass(store: Store, clock: Clock) -> None:
    for number in range(3):
        await store.admit(admission(str(number), 1, quota=3))
        clock.now += 10
    refused = await store.admit(admission("more", 1, quota=1))
    assert isinstance(refused, Refused)
    assert refused.rates[0].reset_seconds == refused.retry_after == pytest.approx(50)
