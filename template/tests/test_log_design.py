"""The log alone, and the metrics alone, add up to what really happened, over two processes.

What happened is known from outside: from the provider's ledger, and from the answers that came.
"""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.foundation.project import load_project
from tests.conftest import StartApp
from tests.fake_provider import Call, FakeProvider, Reply, Status
from tests.running import RunningApp, until

FIRST, *OTHERS = load_project().providers
CHAT = "/v1/chat/completions"
RULES = """
[[rule]]
name = "no-doses"
action = "abstain"
words = ["maximum dose"]

[[rule]]
name = "no-secrets"
action = "block"
words = ["Project Nightjar"]
"""
# Questions by what becomes of them; `#` makes each a question of its own.
KINDS: dict[str, dict[str, Any]] = {
    "fine #": {},
    "fine and streamed #": {"stream": True},
    "again #": {},
    "away #": {},
    "away and streamed #": {"stream": True},
    "the maximum dose #": {},
    "Project Nightjar #": {},
    "no such model #": {"model": "no-such-model"},
    "too long #" + " word" * 5000: {},
}
EACH = 4
PRICE = (1_000, 2_000)


@dataclass(frozen=True)
class Run:
    """What was seen from outside, and from inside."""

    answers: list[httpx2.Response]
    calls: list[Call]
    log: list[dict[str, Any]]
    metrics: dict[str, float]
    cost_nano: int


def sent_text(call: Call) -> str:
    """The question of a call."""
    return call.messages[-1][1]


def send(app: RunningApp, body: dict[str, Any], caller: str | None = "alice") -> httpx2.Response:
    """Ask on a connection of its own, so that either process may get it."""
    with app.http(caller) as http:
        return http.post(CHAT, json={"model": "auto", **body})


@pytest.fixture
def run(start_app: StartApp, fake: FakeProvider, tmp_path: Path) -> Run:
    """Two questions that are the same, one after the other, and then every kind at once."""
    seen: set[str] = set()

    def fails_once(call: Call) -> bool:
        text = sent_text(call)
        new = text.startswith("again") and text not in seen
        seen.add(text)
        return new

    model = load_project().models[FIRST]
    fake.when(fails_once, Status(500))
    fake.when(lambda call: call.model == model and sent_text(call)[:4] == "away", Status(503))
    fake.always(Reply("A word or two.", delay_before=0.05))
    rules = tmp_path / "policy.toml"
    rules.write_text(RULES, encoding="utf-8")
    second = (
        {"providers": f"{FIRST},{OTHERS[0]}"}
        if OTHERS
        else {"providers": f"{FIRST},demo", "app_env": "development", "log_format": "json"}
    )
    app = start_app(workers=2, max_attempts=2, policy_file=str(rules), **second)
    bodies = [
        {"messages": [{"role": "user", "content": kind.replace("#", str(n))}], **fields}
        for n in range(EACH)
        for kind, fields in KINDS.items()
    ]
    # First, while no breaker is open: a fallback's answer is not kept.
    same = {"temperature": 0, "messages": [{"role": "user", "content": "the same"}]}
    answers = [send(app, same), send(app, same), send(app, same, caller=None)]
    with ThreadPoolExecutor(8) as pool:
        answers += pool.map(lambda body: send(app, body), bodies)
    log = [app.request_line(answer.headers["x-request-id"]) for answer in answers]
    # A request's events of the error budget are counted last, and its line is written first.
    judged = sum(line["caller"] is not None for line in log)
    event = re.compile('slo_events_total{.*slo="refusal"')
    until(lambda: sum(n for key, n in scraped(app).items() if event.match(key)) == judged)
    models = {call.model for call in fake.ledger.calls}
    cost = fake.ledger.cost_nano(dict.fromkeys(models, PRICE))
    return Run(answers, fake.ledger.calls, log, scraped(app), cost)


def scraped(app: RunningApp) -> dict[str, float]:
    """The metrics now, by name and labels."""
    with app.http("admin") as http:
        text = http.get("/metrics").text
    return {name: float(n) for name, n in re.findall(r"^llm_app_(\S+) (\S+)$", text, re.M)}


def labelled(run: Run, name: str, label: str) -> dict[str, int]:
    """A metric's values by one of its labels."""
    found: Counter[str] = Counter()
    for key, value in run.metrics.items():
        if (match := re.search(rf'^{name}_total{{.*{label}="([^"]*)"', key)) and value:
            found[match[1]] += int(value)
    return dict(found)


def code(answer: httpx2.Response) -> str | None:
    """The code of an error; None for an answer."""
    return None if answer.status_code == 200 else str(answer.json()["error"]["code"])


def test_log_and_metrics_each_add_up_to_what_happened(run: Run) -> None:
    # Retries: calls beyond the first for the same question, at the same target.
    by_question = Counter((call.model, sent_text(call)) for call in run.calls)
    retries = sum(count - 1 for count in by_question.values())
    assert retries > 0
    assert sum(line["retries"] for line in run.log) == retries
    assert run.metrics["retries_total"] == retries

    # Attempts: every call that reached a provider; those at the demo reach nobody.
    demo = sum(answer.headers.get("x-provider") == "demo" for answer in run.answers)
    assert sum(line["attempts"] for line in run.log) == len(run.calls) + demo
    attempts = labelled(run, "provider_attempts", "provider")
    assert sum(attempts.values()) == len(run.calls) + demo
    assert attempts.get("demo", 0) == demo

    # Fallbacks: answers that say so.
    fallbacks = sum(answer.headers.get("x-fallback") == "true" for answer in run.answers)
    assert fallbacks >= 2 * EACH  # more where the breaker has opened meanwhile
    assert sum(line["fallback"] for line in run.log) == fallbacks
    assert run.metrics["fallbacks_total"] == fallbacks

    # Refusals: errors by their code.
    refusals = Counter(filter(None, map(code, run.answers)))
    assert refusals == {
        "content_policy_violation": EACH,
        "model_not_found": EACH,
        "context_length_exceeded": EACH,
        "invalid_api_key": 1,
    }
    assert Counter(line["error_code"] for line in run.log if line["error_code"]) == refusals
    assert labelled(run, "refusals", "code") == refusals

    # Abstentions, by what made the app abstain.
    abstained = sum('"abstained":true' in answer.text for answer in run.answers)
    assert abstained == EACH
    assert Counter(filter(None, (line["abstained"] for line in run.log))) == {"no-doses": EACH}
    assert labelled(run, "abstentions", "reason") == {"no-doses": EACH}
    assert labelled(run, "policy_hits", "rule") == {"no-doses": EACH, "no-secrets": EACH}

    # The cache, as its header has it.
    cached = Counter(answer.headers.get("x-cache") for answer in run.answers)
    assert (cached["MISS"], cached["HIT"]) == (1, 1)
    assert labelled(run, "cache", "result") == Counter(
        line["cache"] for line in run.log if line["cache"] != "none"
    )
    assert sum(line["cache"] == "hit" for line in run.log) == 1

    # Statuses, and money.
    statuses = Counter(str(answer.status_code) for answer in run.answers)
    assert Counter(str(line["status"]) for line in run.log) == statuses
    of_chat = {
        re.search(r'status="(\d+)"', key)[1]: int(value)  # type: ignore[index]
        for key, value in run.metrics.items()
        if key.startswith(f'requests_total{{route="{CHAT}"')
    }
    assert of_chat == statuses
    assert sum(line["cost_usd"] for line in run.log) == pytest.approx(run.cost_nano / 1e9)
    assert sum(
        value for key, value in run.metrics.items() if key.startswith("cost_usd_total")
    ) == pytest.approx(run.cost_nano / 1e9)
