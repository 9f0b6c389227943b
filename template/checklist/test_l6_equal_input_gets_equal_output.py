"""L6 Same input, same output?

"It said something else yesterday" cannot be tested, and cannot be explained to whoever complains.
Where the same input must give the same output there is a mode for it: temperature 0 and a fixed
seed, for every request that says nothing else. They count only if they arrive: a setting that is
read and then lost on the way to one of the providers looks just the same from outside.

How we see it: what was asked of each provider, on its own wire; and whether equal requests get
equal bytes.
"""

import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, ask, new_text, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.messages import seen_as
from tests.fake_provider import Call, FakeProvider
from tests.running import RunningApp

SEED = 7
PROVIDERS = load_project().providers
# Anthropic's wire has no field for a seed.
SEEDLESS = {"anthropic"}


@pytest.fixture(scope="module")
def app(start: StartApp) -> RunningApp:
    """An app in the deterministic mode; each provider has a model of its own name."""
    models = {f"{name}_model": _model(name) for name in PROVIDERS}
    return start(temperature=0, seed=SEED, max_attempts=1, **models)


def _model(provider: str) -> str:
    return f"model-of-{provider}"


def _settings_of(call: Call) -> str:
    seed = "-" if call.wire in SEEDLESS else call.seed
    return f"{call.model}: temperature {call.temperature}, seed {seed}"


def test_temperature_and_seed_reach_every_providers_wire(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    arrived = []
    for name in PROVIDERS:
        for stream in (False, True):
            fake.reset()
            ask(app, model=_model(name), stream=stream)
            calls = [call for call in fake.ledger.calls if call.model == _model(name)]
            seen = ", ".join(map(_settings_of, calls)) or seen_as("calls", count=0)
            check.that(len(calls) == 1, "reached", provider=name, seen=seen)
            check.that(calls[0].temperature == 0, "temperature", provider=name, seen=seen)
            seed = None if calls[0].wire in SEEDLESS else SEED
            check.that(calls[0].seed == seed, "seed", provider=name, seed=seed, seen=seen)
        arrived.append(seen)
    check.found("arrived", wires="; ".join(arrived))


def test_a_request_that_says_otherwise_is_heard(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    fake.reset()
    ask(app, temperature=0.5)
    seen = ", ".join(map(_settings_of, fake.ledger.calls))
    check.that(all(call.temperature == 0.5 for call in fake.ledger.calls), "own", seen=seen)


def test_equal_requests_are_equal_on_the_wire(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    fake.reset()
    text = new_text()
    with app.http(**{"Cache-Control": "no-store"}) as http:
        answers = [http.post(CHAT, json=question(text)) for _ in range(2)]
    bodies = [call.body for call in fake.ledger.calls]
    seen = " / ".join(map(str, bodies))
    check.that(len(bodies) == 2 and bodies[0] == bodies[1], "same_call", seen=seen)
    said = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
    check.that(said[0] == said[1] != "", "same_answer", seen=" / ".join(said))


def test_equal_requests_get_equal_bytes(app: RunningApp, check: Check) -> None:
    sizes = []
    for stream in (False, True):
        text = new_text()
        first, second = (ask(app, text, stream=stream) for _ in range(2))
        good = (first.status_code, second.status_code) == (200, 200)
        seen = f"{first.text[:120]} / {second.text[:120]}"
        check.that(good and first.content == second.content, "same_bytes", seen=seen)
        sizes.append(str(len(first.content)))
    check.found("equal", sizes=", ".join(sizes))
