"""5.2 Is there history management logic?

A conversation grows, and each turn sends all of it again: the hundredth question costs a hundred
times the first, until it does not fit at all. So what travels is bounded: the instructions and the
newest turns as they are, and a summary of the rest. Cut in the wrong place, a prompt begins with
an answer to a question that is gone.

How we see it: a conversation of 500 turns, and what of it reaches the provider.
"""

from typing import Any

import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, calls_seen
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.counting import tokens_of
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider, Reply
from tests.fake_provider.ledger import Call
from tests.running import RunningApp

TURNS = 500
LIMIT = 1000
NEWEST = 2
INSTRUCTIONS = "Answer in the style of a lighthouse keeper."
QUESTION = "And what is the newest question, {caller} wants to know?"
SUMMARY = "They spoke of owls, and of the number 4711."


@pytest.fixture(scope="module")
def app(start: StartApp) -> RunningApp:
    """An app with a small limit."""
    return start(max_input_tokens=LIMIT, max_attempts=1, providers=load_project().providers[0])


def _conversation(turns: int, newest: str) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": INSTRUCTIONS}]
    for number in range(turns):
        messages += [
            {"role": "user", "content": f"Question {number}: what do owls do at night?"},
            {"role": "assistant", "content": f"Answer {number}: they hunt, mostly mice."},
        ]
    return [*messages, {"role": "user", "content": newest}]


def _send(
    app: RunningApp, fake: FakeProvider, turns: int, caller: str = "alice"
) -> tuple[int, list[Call]]:
    """Ask with so long a history; the status, and the calls that it took."""
    newest = QUESTION.format(caller=caller)
    fake.reset()
    fake.when(lambda call: call.messages[-1][1] != newest, Reply(SUMMARY))
    body: dict[str, Any] = {"model": "auto", "messages": _conversation(turns, newest)}
    with app.http(caller) as http:
        status = http.post(CHAT, json=body).status_code
    return status, fake.ledger.calls


def test_a_long_conversation_stays_small_and_whole(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    status, calls = _send(app, fake, TURNS)
    check.that(
        status == 200 and bool(calls), "answered", seen=f"{status}; {calls_seen(len(calls))}"
    )
    prompt = calls[-1].messages
    tokens = tokens_of(prompt)
    seen = seen_as("prompt", tokens=tokens, messages=len(prompt))
    check.that(tokens <= LIMIT, "small", turns=TURNS, limit=LIMIT, seen=seen)
    roles = [role for role, _ in prompt]
    text = "\n".join(text for _, text in prompt)
    check.that(INSTRUCTIONS in text, "instructions", seen=f"{prompt[0]}")
    newest = [f"Question {TURNS - 1 - number}:" for number in range(NEWEST)]
    kept = prompt[-1][1] == QUESTION.format(caller="alice") and all(
        words in text for words in newest
    )
    check.that(kept, "newest", count=NEWEST, seen=f"{prompt[-3:]}")
    look = "app/standards/tokens/summary.py"
    check.that(SUMMARY in text, "summary", seen=f"{roles}", look=look)
    first = next(role for role in roles if role != "system")
    check.that(first == "user", "orphan", seen=f"{roles}")
    check.found("prompt", turns=TURNS, tokens=tokens, messages=len(prompt))


def test_a_turn_costs_the_same_however_long_the_history(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    costs = {}
    for turns in (TURNS // 10, TURNS):
        _, calls = _send(app, fake, turns, "bob")  # for whom nothing is summarised yet
        costs[turns] = sum(tokens_of(call.messages) for call in calls)
        seen = seen_as("turns", turns=turns, count=len(calls))
        check.that(1 <= len(calls) <= 2, "calls", seen=seen, look="app/summaries.py")
    short, long = costs.values()
    seen = seen_as("costs", short=short, few=TURNS // 10, long=long, many=TURNS)
    check.that(long <= 1.5 * short, "growth", seen=seen)
    check.found("same_cost", short=short, few=TURNS // 10, long=long, many=TURNS)
