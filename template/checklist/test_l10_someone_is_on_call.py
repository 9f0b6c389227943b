"""L10 Is someone on call?

An alert at three in the morning helps if it wakes somebody, and if whoever it wakes knows whom else
to call. "The team" is nobody, and so is an address that was copied from an example. The name and
the way to reach it stand where they are looked for in that night: in the runbook, and in the alert
itself, whatever kind it is of; not only in the kind that somebody once tried.

How we see it: two apps are brought into every kind of trouble that there is an alert for, a webhook
of ours takes down what they say, and the runbook is read.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.standards.visibility.alerts import Kind
from checklist.asking import ask, ask_many, operations
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import Listener, until
from checklist.messages import seen_as
from checklist.starting import BUG, app_with_a_bug
from tests.fake_provider import FakeProvider, Reply, Status, Usage
from tests.running import APP, RunningApp
from tests.servers import own_server

FIRST, *OTHERS = load_project().providers
# With one provider the demo stands in as the second target, and it is for development only.
TWO = (
    {"providers": f"{FIRST},{OTHERS[0]}"}
    if OTHERS
    else {"providers": f"{FIRST},demo", "app_env": "development", "log_format": "json"}
)
# The app looks at its objectives every five seconds, and gathers for one.
ALERTED_SECONDS = 20.0
# How long a store that hangs is waited for: its app alone, for the other one's must answer.
STORE_SECONDS = 0.5
# So many dear answers, the last of which are refused, lead past 80 % of the cap to its end.
CAP_USD = 0.03
DEAR = Reply("word", usage=Usage(prompt=100, completion=1000))
ASKED = 20
FAILED = 6
ON_TRIAL = "on-trial"
TRIED = 10
KINDS = frozenset(get_args(Kind))
# What is written where nobody has been named yet; the question asked refuses the same.
NOBODY = re.compile(
    "|".join(
        (
            r"[\W_]+",
            r"(change|fill|replace|set)[ _-]?(me|this|it|in)\b.*",
            r"tb[adc]|to ?do|fix ?me|n/?a|none|null|nil|unknown",
            r"nobody|no ?one|someone|somebody|anyone",
            r"test|dummy|placeholder|foo|bar|baz|x{2,}|(john|jane) doe|example\b.*|<.*>",
            r"name|e-?mail|phone|contact|on[ _-]?call|me",
            r"(your|my)[ _-]?(full[ _-]?)?(name|team|contact|channel)\b.*",
            r"(your|my)[ _-]?(full[ _-]?)?(e-?mail|phone|number|address)\b.*",
            r"홍길동|미정|없음|모름|이름|연락처|담당자",
            r".*@(example\.[a-z]+|localhost|domain\.com|email\.com|test\.com|company\.com)",
            r"[+0 ()-]+|.*\b123-?456.*|(.*\b)?(0|\+?82[ -]?)?10[ -]?1234[ -]?5678",
        )
    ),
    re.IGNORECASE,
)
LOOK_RUNBOOK = "RUNBOOK.md"
LOOK_METRICS = "app/standards/visibility/metrics.py"


@pytest.fixture(scope="module")
def on_call() -> tuple[str, str]:
    """Who is called, and how, as it was answered when the app was generated."""
    file = APP / "app" / "project.json"
    found = json.loads(file.read_text(encoding="utf-8"))["on_call"] if file.exists() else {}
    return found.get("name", ""), found.get("contact", "")


@pytest.fixture(scope="module")
def webhook() -> Iterator[Listener]:
    """Where both apps send their alerts."""
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def apps(
    start: StartApp, fake: FakeProvider, folder: Path, webhook: Listener
) -> Iterator[list[RunningApp]]:
    """Two apps that have been in every kind of trouble."""
    shared = {
        "alert_urls": f"json://{webhook.address}/hook",
        "max_attempts": 1,
        "slo_min_events": 1,
        "slo_latency_ms": 1,
    }
    # What fails is far over the one budget, and a little over the other one.
    strict = {"slo_availability_percent": 99.9, "slo_latency_percent": 99}
    lax = {"slo_availability_percent": 90, "slo_latency_percent": 50}
    trial = {
        "candidate": f"{FIRST}:{ON_TRIAL}",
        "candidate_input_usd_per_mtok": 1,
        "candidate_output_usd_per_mtok": 2,
        "canary_percent": 100,
    }
    small = {"slo_fallback_percent": 1, "slo_refusal_percent": 1, "slo_cost_usd_per_day": 0.0001}
    with FakeProvider() as other, own_server() as store, ThreadPoolExecutor(2) as pool:

        def fail() -> RunningApp:
            source = app_with_a_bug(folder)
            app = start(source=source, providers=FIRST, **shared, **strict, **trial)
            until(lambda: _tries(app, fake), ALERTED_SECONDS)
            fake.always(Status(500), model=ON_TRIAL)
            ask_many(app, TRIED)
            with app.http() as http:
                http.get(BUG)
            for status in (401, 500):
                fake.always(Status(status))
                ask(app)
            return app

        def spend() -> RunningApp:
            app = start(
                provider=other,
                store_url=store.url,
                **store.app_environment,
                store_timeout_seconds=STORE_SECONDS,
                daily_cost_cap_usd=CAP_USD,
                **TWO,
                **shared,
                **lax,
                **small,
            )
            other.next(Status(500))
            ask(app)
            store.freeze()
            try:
                ask_many(app, FAILED)
            finally:
                store.thaw()
            other.always(DEAR)
            ask_many(app, ASKED, at_once=2)
            return app

        failing, spending = pool.submit(fail), pool.submit(spend)
        yield [failing.result(), spending.result()]


def _tries(app: RunningApp, fake: FakeProvider) -> bool:
    """Whether the candidate has been asked: before it has seen the switches the app spares it."""
    ask(app)
    return any(call.model == ON_TRIAL for call in fake.ledger.calls)


def _kinds(apps: list[RunningApp]) -> list[str]:
    """The kind of every alert, as the log has them."""
    return [str(line["alert"]) for app in apps for line in app.log_lines() if "alert" in line]


def _told(alert: str) -> str:
    """Title and message of apprise's JSON notification."""
    content = json.loads(alert)
    return f"{content.get('title', '')}\n{content.get('message', '')}"


def _lacking(text: str, requests: set[str]) -> list[str]:
    """What an alert does not say: since when, how many, of which requests, and what to do."""
    say = load_messages(load_project().language).texts
    begins = {
        name: say[f"alert.{name}"].partition("{")[0]
        for name in ("since", "count", "requests", "runbook")
    }
    found = {
        name: line.removeprefix(begin)
        for line in text.splitlines()
        for name, begin in begins.items()
        if line.startswith(begin)
    }
    if say["alert.title_recovered"].partition("{what}")[0].partition("] ")[2] in text:
        del begins["requests"]  # it is over: nobody looks for one
    elif not set(found.get("requests", "").split(", ")) <= requests:
        found.pop("requests", None)
    runbook = (APP / "RUNBOOK.md").read_text(encoding="utf-8")
    if f"\n## {found.get('runbook', '')}\n" not in runbook:
        found.pop("runbook", None)
    return [begin.strip(" :") for name, begin in begins.items() if name not in found]


def test_the_contact_is_no_example(on_call: tuple[str, str], check: Check) -> None:
    for value in on_call:
        check.that(bool(value.strip()) and not NOBODY.fullmatch(value), "real", seen=f"'{value}'")
    check.found("contact", name=on_call[0], contact=on_call[1])


def test_the_runbook_says_whom_to_call(on_call: tuple[str, str], check: Check) -> None:
    runbook = APP / "RUNBOOK.md"
    text = runbook.read_text(encoding="utf-8") if runbook.exists() else ""
    missing = [value for value in on_call if not value or value not in text]
    seen = seen_as("unsaid", way="RUNBOOK.md", names=", ".join(missing))
    check.that(not missing, "runbook", seen=seen, look=LOOK_RUNBOOK)


def test_every_kind_of_alert_says_whom_to_call(
    apps: list[RunningApp], webhook: Listener, on_call: tuple[str, str], check: Check
) -> None:
    until(lambda: set(_kinds(apps)) >= KINDS, ALERTED_SECONDS)
    missing = sorted(KINDS - set(_kinds(apps)))
    seen = seen_as("unsaid", way="ALERT_URLS", names=", ".join(missing))
    check.that(not missing, "kinds", count=len(KINDS), seen=seen)
    webhook.wait_for(len(_kinds(apps)), ALERTED_SECONDS)
    alerts = [_told(alert) for alert in webhook.texts]
    check.that(len(alerts) >= len(KINDS), "sent", seen=seen_as("alerts", count=len(alerts)))
    for text in alerts:
        named = all(value and value in text for value in on_call)
        check.that(named, "alert", seen=text.strip().partition("\n")[0])
    requests = {
        str(line["request_id"]) for app in apps for line in app.log_lines() if "route" in line
    }
    for text in alerts:
        lacking = _lacking(text, requests)
        told = seen_as("unsaid", way=text.strip().partition("\n")[0], names=", ".join(lacking))
        check.that(not lacking, "says", seen=told)
    check.found("alerted", kinds=len(KINDS), count=len(alerts))


def test_monitoring_is_told_whom_to_call(
    apps: list[RunningApp], on_call: tuple[str, str], check: Check
) -> None:
    with apps[0].http("admin") as http:
        lines = http.get("/metrics").text.splitlines()
    told = "".join(line for line in lines if line.startswith("llm_app_on_call_info{"))
    named = all(_escaped(value) in told for value in on_call)
    check.that(named, "metrics", seen=told or seen_as("lines", count=0), look=LOOK_METRICS)


def test_the_operations_page_says_whom_to_call(
    apps: list[RunningApp], on_call: tuple[str, str], check: Check
) -> None:
    shown = operations(apps[0]).get("on_call", {})
    named = (shown.get("name"), shown.get("contact")) == on_call
    check.that(named, "ops", seen=str(shown), look="app/ops/operations.py")


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"")
