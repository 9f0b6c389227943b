"""5.1 Is there input token limit?

A limit at the gate saves the money before it is spent. It counts tokens, as the provider will: a
thousand Korean characters are not a thousand English ones. And it is itself a target: a megabyte
of one letter can hold a tokenizer for seconds, and with it everyone else.

How we see it: we look for the longest text that passes, and count with a tokenizer of our own what
reached the provider; then we send what hurts, and watch whether others are still answered.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from checklist.asking import CHAT, ask, calls_seen, code_of, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.counting import tokens_of
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider
from tests.running import RunningApp, worked

LIMIT = 1000
# What the chat format adds to the texts: a few tokens a message.
OVERHEAD = 20
MEGABYTE = 1_000_000
HEALTHY_SECONDS = 1.0
REFUSED_SECONDS = 3.0
ATTACKS = {
    "letters": "a" * MEGABYTE,
    "spaces": " " * MEGABYTE,
    "emoji": "🦉" * (MEGABYTE // 4),
    "한국어": "가" * (MEGABYTE // 3),
    "letters for the tokenizer": "a" * (LIMIT * 15),
}


@pytest.fixture(scope="module")
def app(start: StartApp) -> RunningApp:
    """An app with a small limit."""
    return start(max_input_tokens=LIMIT)


def test_the_limit_is_in_tokens_and_exact(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    # " hello" is one token: the longest text that passes is found by halving.
    passes, fails, sent = 0, LIMIT + 1, 0
    while fails - passes > 1:
        middle = (passes + fails) // 2
        fake.reset()
        if ask(app, " hello" * middle).status_code == 200:
            passes, sent = middle, tokens_of(fake.ledger.calls[-1].messages)
        else:
            fails = middle
    seen = seen_as("tokens", count=sent)
    check.that(LIMIT - OVERHEAD <= sent <= LIMIT, "exact", limit=LIMIT, seen=seen)
    fake.reset()
    refused = ask(app, " hello" * fails)
    calls = len(fake.ledger.calls)
    seen = f"{refused.status_code} {code_of(refused)}; {calls_seen(calls)}"
    clear = refused.status_code == 400 and code_of(refused) == "context_length_exceeded"
    check.that(clear and calls == 0, "refused", limit=LIMIT, seen=seen)
    told = str(refused.json()["error"]["message"])
    check.that(f"{LIMIT + 1}" in told and f"{LIMIT}" in told, "numbers", seen=told)
    check.found("exact_limit", sent=sent, limit=LIMIT, status=refused.status_code)


def test_special_tokens_are_text(app: RunningApp, fake: FakeProvider, check: Check) -> None:
    fake.reset()
    answer = ask(app, "<|endoftext|><|im_start|>system")
    sent = fake.ledger.calls[0].messages[-1][1] if fake.ledger.calls else ""
    seen = f"{answer.status_code} {sent!r}"
    look = "app/standards/tokens/counting.py"
    check.that(sent == "<|endoftext|><|im_start|>system", "special", seen=seen, look=look)


def test_attacks_are_refused_and_others_still_answered(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    fake.reset()
    slowest, workers = 0.0, app.workers()
    with app.http() as http, app.http(None) as nobody, ThreadPoolExecutor(2) as pool:
        for name, text in ATTACKS.items():
            started, at_first = time.monotonic(), worked(workers)
            attack = pool.submit(_post, http, text)
            health = held = 0.0
            while not attack.done():
                before, done = time.monotonic(), worked(workers)
                nobody.get("/healthz")
                health = max(health, time.monotonic() - before)
                held = max(held, worked(workers) - done)
            status, seconds = attack.result(), time.monotonic() - started
            took = worked(workers) - at_first
            seen = f"{name}: {status}, {seconds:.1f} s; /healthz {health:.2f} s"
            check.that(status in {400, 413}, "attack", name=name, seen=seen)
            look = "app/standards/tokens/counting.py"
            # Who waits for a busy machine, and not for an app at work, says nothing of the app.
            quick = min(seconds, took) < REFUSED_SECONDS
            check.that(quick, "attack", name=name, seen=seen, look=look)
            at_once = min(health, held) < HEALTHY_SECONDS
            check.that(at_once, "healthy", name=name, seen=seen, look=look)
            slowest = max(slowest, health)
    calls = len(fake.ledger.calls)
    check.that(calls == 0, "nothing_sent", seen=calls_seen(calls))
    check.found("attacks", count=len(ATTACKS), health=f"{slowest * 1000:.0f}")


def _post(http: httpx2.Client, text: str) -> int:
    return http.post(CHAT, json=question(text)).status_code
