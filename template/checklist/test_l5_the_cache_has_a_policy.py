"""L5 Is the cache policy clear?

In a demo a question is asked once; in service it comes a thousand times, often at the same moment.
A cache answers it cheaply, and a careless one answers it wrongly: with somebody else's answer, with
yesterday's, with what an earlier prompt would have said, with half of an answer that broke off. So
it must be known what is kept, for whom, for how long, and what passes it by.

How we see it: the provider's ledger says what an answer really cost, whatever `X-Cache` claims; and
the same store is looked at by processes in which one thing is different.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, calls_seen, new_text, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.starting import copy_of_app
from tests.fake_provider import FakeProvider, Reply
from tests.running import RunningApp

FIRST = load_project().providers[0]
AT_ONCE = 8
# Long enough to ask twice within it, on a busy machine too; and what that one may add.
TTL_SECONDS = 2
MARGIN = 5.0
RULES = '[[rule]]\nname = "new"\naction = "block"\nwords = ["a word that nobody says"]\n'
# What passes the cache by: headers, and a request's fields.
PASSING: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "Cache-Control: no-store": ({"Cache-Control": "no-store"}, {}),
    "Idempotency-Key": ({"Idempotency-Key": "key"}, {}),
    "temperature 0.7": ({}, {"temperature": 0.7}),
}


@pytest.fixture(scope="module")
def apps(start: StartApp, folder: Path) -> dict[str, RunningApp]:
    """Two processes of one app, and one for each thing that may change; all on one store."""
    prompted = copy_of_app(folder, "prompted")
    for prompt in prompted.rglob("system_prompt.md"):
        prompt.write_text("Answer in one word.", encoding="utf-8")
    rules = folder / "rules.toml"
    rules.write_text(RULES, encoding="utf-8")
    changes: dict[str, dict[str, object]] = {
        "one": {},
        "other": {},
        "prompt": {"source": prompted},
        "policy": {"policy_file": str(rules)},
        "model": {f"{FIRST}_model": "another-model", "cache_ttl_seconds": TTL_SECONDS},
    }
    with ThreadPoolExecutor(len(changes)) as pool:
        shared = {"at": folder / "cache", "max_attempts": 1}
        started = pool.map(lambda change: start(**shared, **change), changes.values())
        return dict(zip(changes, started, strict=True))


@pytest.fixture
def text(fake: FakeProvider) -> str:
    """A question that nobody has asked before; the ledger is empty."""
    fake.reset()
    return new_text()


def _ask(
    app: RunningApp,
    text: str,
    caller: str = "alice",
    headers: dict[str, str] | None = None,
    **fields: object,
) -> httpx2.Response:
    with app.http(caller) as http:
        body = question(text, **{"temperature": 0, **fields})
        return http.post(CHAT, json=body, headers=headers)


def _states(*answers: httpx2.Response) -> list[str]:
    return [
        answer.headers.get("x-cache", "-") if answer.status_code == 200 else str(answer.status_code)
        for answer in answers
    ]


def _seen(answers: list[httpx2.Response], fake: FakeProvider) -> str:
    return f"X-Cache: {', '.join(_states(*answers))}; {calls_seen(len(fake.ledger.calls))}"


def test_an_equal_question_costs_nothing(
    apps: dict[str, RunningApp], fake: FakeProvider, text: str, check: Check
) -> None:
    for stream in (False, True):
        fake.reset()
        answers = [_ask(apps[name], text, stream=stream) for name in ("one", "one", "other")]
        kept = _states(*answers) == ["MISS", "HIT", "HIT"] and len(fake.ledger.calls) == 1
        equal = len({answer.content for answer in answers}) == 1
        check.that(kept and equal, "equal", seen=_seen(answers, fake))
    check.found("kept", seen=_seen(answers, fake))


def test_an_answer_is_its_callers_alone(
    apps: dict[str, RunningApp], fake: FakeProvider, text: str, check: Check
) -> None:
    callers = ("alice", "bob", "alice", "bob")
    answers = [_ask(apps["one"], text, caller) for caller in callers]
    own = _states(*answers) == ["MISS", "MISS", "HIT", "HIT"] and len(fake.ledger.calls) == 2
    check.that(own, "callers", seen=_seen(answers, fake))
    check.found("own")


def test_it_can_be_passed_by(
    apps: dict[str, RunningApp], fake: FakeProvider, text: str, check: Check
) -> None:
    _ask(apps["one"], text)
    for number, (way, (headers, fields)) in enumerate(PASSING.items(), start=2):
        answer = _ask(apps["one"], text, headers=headers, **fields)
        passed = _states(answer) == ["BYPASS"] and len(fake.ledger.calls) == number
        check.that(passed, "passes", way=way, seen=f"{way}: {_seen([answer], fake)}")
    check.found("passed", ways=", ".join(PASSING))


def test_half_an_answer_is_not_kept(
    apps: dict[str, RunningApp], fake: FakeProvider, text: str, check: Check
) -> None:
    fake.next(Reply("Seo", finish="length"))
    answers = [_ask(apps["one"], text) for _ in range(3)]
    whole = _states(*answers) == ["MISS", "MISS", "HIT"] and len(fake.ledger.calls) == 2
    check.that(whole, "half", seen=_seen(answers, fake))


def test_equal_questions_at_once_are_one_call(
    apps: dict[str, RunningApp], fake: FakeProvider, text: str, check: Check
) -> None:
    fake.always(Reply("Seoul", delay_before=0.3))
    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        asked = [apps[name] for name in ("one", "other") for _ in range(AT_ONCE)]
        answers = list(pool.map(lambda app: _ask(app, text), asked))
    calls = len(fake.ledger.calls)
    same = len({answer.content for answer in answers}) == 1
    single = calls == 1 and same and answers[0].status_code == 200
    check.that(single, "at_once", count=len(answers), seen=calls_seen(calls))
    check.found("single", count=len(answers), calls=calls)


def test_a_change_finds_nothing_old(
    apps: dict[str, RunningApp], fake: FakeProvider, text: str, check: Check
) -> None:
    changed = ("prompt", "policy", "model")
    _ask(apps["one"], text)
    for number, name in enumerate(changed, start=2):
        answer = _ask(apps[name], text)
        anew = _states(answer) == ["MISS"] and len(fake.ledger.calls) == number
        check.that(anew, "changed", name=name, seen=f"{name}: {_seen([answer], fake)}")
    answer = _ask(apps["other"], text)
    check.that(_states(answer) == ["HIT"], "unchanged", seen=_seen([answer], fake))
    check.found("anew", names=", ".join(changed))


def test_an_answer_grows_old(
    apps: dict[str, RunningApp], fake: FakeProvider, text: str, check: Check
) -> None:
    started = time.monotonic()
    states = _states(_ask(apps["model"], text))
    held = 0.0
    while states.count("MISS") == 1 and held < TTL_SECONDS + MARGIN:
        time.sleep(0.05)
        states += _states(_ask(apps["model"], text))
        held = time.monotonic() - started
    ended = TTL_SECONDS - 0.1 < held < TTL_SECONDS + MARGIN and len(fake.ledger.calls) == 2
    seen = f"{', '.join(dict.fromkeys(states))}, {held:.1f} s"
    check.that(ended and "HIT" in states, "old", seconds=TTL_SECONDS, seen=seen)
    check.found("held", ttl=TTL_SECONDS, seconds=f"{held:.1f}")
