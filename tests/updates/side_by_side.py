"""A release and the one before it on one store, as while a new version takes an old one's place.

It runs as a test of a generated app, and finds the older one's folder in `OLDER`.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

running: Any = import_module("tests.running")

QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}


def test_both_count_the_same_money_and_know_the_same_keys(fake: Any, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("older", "newer", "store")]
    for place in places:
        place.mkdir()
    environment = running.production(fake, places[2])
    with (
        running.running_app(environment, places[0], source=Path(os.environ["OLDER"])) as older,
        older.http() as old,
    ):
        first = old.post("/v1/chat/completions", json=QUESTION)
        assert first.status_code == 200, first.text
        with running.running_app(environment, places[1]) as newer, newer.http() as new:
            spent = older.metric("daily_cost_usd")
            assert newer.metric("daily_cost_usd") == spent > 0
            for number, (one, other) in enumerate([(old, new), (new, old)]):
                named = {"Idempotency-Key": f"key-{number}"}
                answer = one.post("/v1/chat/completions", json=QUESTION, headers=named)
                again = other.post("/v1/chat/completions", json=QUESTION, headers=named)
                assert answer.status_code == again.status_code == 200, again.text
                assert again.headers["Idempotency-Replayed"] == "true"
                assert again.json() == answer.json()
            assert (
                newer.metric("daily_cost_usd")
                == older.metric("daily_cost_usd")
                == pytest.approx(3 * spent)
            )
        # The newer one is taken back.
        assert old.post("/v1/chat/completions", json=QUESTION).status_code == 200
    assert len(fake.ledger.calls) == 4
