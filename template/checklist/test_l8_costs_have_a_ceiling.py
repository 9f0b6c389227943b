"""L8 Is there a cost ceiling?

One loop in one client's code can spend a month's money in a night. A ceiling for the whole app
stops the loss, and with it everybody else: so each caller has a ceiling of its own below it. Both
hold before the money is spent, and both are to be seen before the bill comes: a ceiling that nobody
watches is found out about from the angry caller.

How we see it: one caller asks until its money is gone, then another one until the app's is; the
provider keeps its own books, and `/metrics` and `/ops` must agree with them.
"""

import re

import pytest

from app.foundation.project import load_project
from checklist.asking import ask, ask_many, calls_seen, code_of, operations, tally
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.days import around_noon
from checklist.listener import until
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider, Reply, Usage
from tests.running import RunningApp

CALLER_CAP, APP_CAP = 0.01, 0.016
NANO_PER_USD = 1_000_000_000
# Per token, as `production` states the prices: one dollar a million for input, two for output.
PRICE = (1_000, 2_000)
EXPENSIVE = Reply("word", usage=Usage(prompt=100, completion=1000), delay_before=0.1)
BURST = 12
MOST = 30
METRICS_SECONDS = 10.0
LOOK_OPS = "app/ops/operations.py"
LOOK_METRICS = "app/standards/visibility/metrics.py"


@pytest.fixture(scope="module")
def app(start: StartApp, fake: FakeProvider) -> RunningApp:
    """An app with little money, and less for each caller."""
    fake.always(EXPENSIVE)
    return start(
        providers=load_project().providers[0],
        max_attempts=1,
        daily_cost_cap_usd=APP_CAP,
        daily_cost_cap_per_caller_usd=CALLER_CAP,
        app_timezone=around_noon(),
    )


def _billed(fake: FakeProvider) -> float:
    """What the provider's books say, in dollars."""
    fake.ledger.idle()
    models = {call.model for call in fake.ledger.calls}
    return fake.ledger.cost_nano(dict.fromkeys(models, PRICE)) / NANO_PER_USD


def _spend(app: RunningApp, caller: str) -> list[str]:
    """The codes of a caller's answers, many at once and then one by one until it is refused."""
    codes = [code_of(answer) for answer in ask_many(app, BURST, caller, at_once=BURST)]
    while codes[-1] in {"ok", ""} and len(codes) < MOST:
        codes += [code_of(answer) for answer in ask_many(app, 1, caller)]
    return codes


def test_a_caller_has_a_ceiling_of_its_own(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    codes = _spend(app, "alice")
    billed = _billed(fake)
    seen = f"{seen_as('billed', billed=f'{billed:.4f}')}; {', '.join(sorted(set(codes)))}"
    check.that(0 < billed <= CALLER_CAP, "caller_within", cap=CALLER_CAP, seen=seen)
    asked = len(fake.ledger.calls)
    refused = ask(app)
    seen = f"{refused.status_code} {code_of(refused)}"
    told = (refused.status_code, code_of(refused)) == (429, "caller_cost_cap")
    check.that(told, "caller_refused", seen=seen, look="app/foundation/errors.py")
    called = len(fake.ledger.calls) - asked
    check.that(called == 0, "nothing_sent", seen=calls_seen(called))
    check.found("caller", billed=f"{billed:.4f}", cap=CALLER_CAP)


def test_others_go_on_up_to_the_apps_ceiling(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    first = ask_many(app, 1, "bob")
    check.that(first[0].status_code == 200, "other_caller", seen=tally(first))
    codes = _spend(app, "bob")
    billed = _billed(fake)
    seen = f"{seen_as('billed', billed=f'{billed:.4f}')}; {', '.join(sorted(set(codes)))}"
    check.that(0 < billed <= APP_CAP, "app_within", cap=APP_CAP, seen=seen)
    check.that(codes[-1] == "daily_cost_cap", "app_refused", seen=seen)
    check.found("app", billed=f"{billed:.4f}", cap=APP_CAP)


def _metrics(app: RunningApp) -> dict[str, float]:
    with app.http("admin") as http:
        found = re.findall(r"^llm_app_(\S+) (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_both_are_to_be_seen(app: RunningApp, fake: FakeProvider, check: Check) -> None:
    billed = _billed(fake)
    wanted = {
        "daily_cost_usd": billed,
        "daily_cost_cap_usd": APP_CAP,
        "daily_cost_cap_per_caller_usd": CALLER_CAP,
    }

    def shown() -> dict[str, float]:
        found = _metrics(app)
        return {name: round(found.get(name, -1.0), 9) for name in wanted}

    rounded = {name: round(value, 9) for name, value in wanted.items()}
    until(lambda: shown() == rounded, METRICS_SECONDS)
    seen = ", ".join(f"{name} {value}" for name, value in shown().items())
    check.that(shown() == rounded, "shown", billed=f"{billed:.6f}", seen=seen, look=LOOK_METRICS)
    refusals = {
        code: _metrics(app).get(f'refusals_total{{code="{code}"}}', 0.0)
        for code in ("caller_cost_cap", "daily_cost_cap")
    }
    seen = ", ".join(f"{code} {count:.0f}" for code, count in refusals.items())
    check.that(all(refusals.values()), "counted", seen=seen, look=LOOK_METRICS)
    check.found("metrics", refusals=seen)


def test_the_operations_page_shows_both(app: RunningApp, fake: FakeProvider, check: Check) -> None:
    billed = round(_billed(fake), 9)
    spending = operations(app).get("spending", {})
    callers = {one["name"]: one for one in spending.get("callers", ())}
    shown = round(spending.get("settled_usd", -1), 9), spending.get("cap_usd")
    seen = f"{shown[0]} / {shown[1]} USD"
    check.that(shown == (billed, APP_CAP), "ops", seen=seen, billed=f"{billed:.6f}", look=LOOK_OPS)
    total = round(sum(one["settled_usd"] for one in callers.values()), 9)
    caps = {one["cap_usd"] for one in callers.values()}
    seen = ", ".join(f"{name} {one['settled_usd']}" for name, one in sorted(callers.items())) or "-"
    each = callers.keys() == {"alice", "bob"} and caps == {CALLER_CAP} and total == billed
    check.that(each, "ops_callers", seen=seen, look=LOOK_OPS)
    check.found("ops_shown", callers=seen)
