"""4.2 Is there a daily cost cap?

A cap that is checked before a call and counted after it lets a hundred calls through at once: each
of them saw the money before the others spent it. So the worst case is reserved first, in one step,
and replaced by the true cost afterwards. And the client who closes the window has not saved
anything: the provider bills what it wrote.

How we see it: the provider keeps its own books. Two processes, many requests at once, at the edge
of the cap: the sum in the books, not in ours, must stay within it.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, ask, ask_many, code_of, question, tally
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.days import around_noon
from checklist.listener import until
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider, Reply, Usage
from tests.running import RunningApp

CAP_USD = 0.03
NANO_PER_USD = 1_000_000_000
# Per token, as `production` states the prices: one dollar a million for input, two for output.
PRICE = (1_000, 2_000)
EXPENSIVE = Reply("word", usage=Usage(prompt=100, completion=1000), delay_before=0.1)
SLOW_STREAM = Reply(chunks=60, delay_between=0.03)
BURST = 40
DAY = 86_400


def _where_it_is_another_day(zone: str) -> str:
    """A time zone in which it is not the same date."""
    zones = ("Etc/GMT-14", "Etc/GMT+12")
    return next(other for other in zones if _today(other) != _today(zone))


def _today(zone: str) -> str:
    return f"{datetime.now(ZoneInfo(zone)):%Y-%m-%d}"


ZONE = around_noon()


@pytest.fixture(scope="module")
def place(folder: Path) -> Path:
    """Where the apps of these tests keep their books: the second one reads those of the first."""
    return folder / "cap"


@pytest.fixture(scope="module")
def app(start: StartApp, place: Path) -> RunningApp:
    """Two processes with three cents a day between them."""
    return start(
        workers=2,
        at=place,
        providers=load_project().providers[0],
        max_attempts=1,
        daily_cost_cap_usd=CAP_USD,
        app_timezone=ZONE,
    )


def _billed(fake: FakeProvider) -> float:
    """What the provider's books say, in dollars."""
    models = {call.model for call in fake.ledger.calls}
    return fake.ledger.cost_nano(dict.fromkeys(models, PRICE)) / NANO_PER_USD


def _spent(app: RunningApp) -> float:
    """What the app says that the day has cost; 0 where it says nothing."""
    with app.http("admin") as http:
        found = re.search(r"^llm_app_daily_cost_usd (\S+)", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_stream_that_the_client_left_is_charged(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    fake.next(SLOW_STREAM)
    with app.http() as http, http.stream("POST", CHAT, json=question(stream=True)) as response:
        for number, _ in enumerate(response.iter_lines()):
            if number == 8:
                break
    fake.ledger.idle()
    billed = _billed(fake)
    until(lambda: _spent(app) >= billed, 10)
    seen = seen_as("charged", billed=f"{billed:.6f}", charged=f"{_spent(app):.6f}")
    check.that(_spent(app) >= billed > 0, "left_stream", seen=seen, look="app/streaming.py")
    check.found("charged", billed=f"{billed:.6f}", charged=f"{_spent(app):.6f}")


def test_the_providers_books_stay_within_the_cap(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    fake.always(EXPENSIVE)
    answers = ask_many(app, BURST, at_once=BURST)
    for _ in range(20):
        answers.append(ask(app))
        if answers[-1].status_code != 200:
            break
    fake.ledger.idle()
    billed = _billed(fake)
    seen = f"{seen_as('billed', billed=f'{billed:.4f}')}; {tally(answers)}"
    check.that(0 < billed <= CAP_USD, "within", cap=CAP_USD, seen=seen)
    refused = answers[-1]
    check.that(code_of(refused) == "daily_cost_cap", "refused", seen=f"{seen} {code_of(refused)}")
    midnight = DAY - _seconds_of_the_day()
    wait = int(refused.headers.get("retry-after", "0"))
    seen = seen_as("midnight", wait=wait, midnight=midnight)
    check.that(abs(wait - midnight) < 10, "retry_after", seen=seen, look="app/stores/day.py")
    check.found("billed", billed=f"{billed:.4f}", cap=CAP_USD, statuses=tally(answers))


def _seconds_of_the_day() -> int:
    now = datetime.now(ZoneInfo(ZONE))
    return now.hour * 3600 + now.minute * 60 + now.second


def _warnings(app: RunningApp) -> list[dict[str, Any]]:
    return [line for line in app.log_lines(level="WARNING") if "80 %" in str(line.get("message"))]


def test_the_warning_comes_once(app: RunningApp, check: Check) -> None:
    until(lambda: bool(_warnings(app)), 10)
    told = _warnings(app)
    check.that(
        len(told) == 1, "warning", seen=seen_as("warnings", count=len(told)), look="app/watch.py"
    )
    check.found("warned", spent=f"{told[0].get('spent_usd', 0):.4f}")


def test_the_next_day_begins_anew(
    app: RunningApp, start: StartApp, fake: FakeProvider, place: Path, check: Check
) -> None:
    spent = ask(app)
    other = _where_it_is_another_day(ZONE)
    tomorrow = start(
        at=place,
        providers=load_project().providers[0],
        max_attempts=1,
        daily_cost_cap_usd=CAP_USD,
        app_timezone=other,
    )
    fresh = ask(tomorrow)
    seen = f"{_today(ZONE)}: {spent.status_code}, {_today(other)}: {fresh.status_code}"
    turned = (spent.status_code, fresh.status_code) == (503, 200)
    check.that(turned, "next_day", seen=seen, look="app/stores/day.py")
    check.found("turned", before=_today(ZONE), after=_today(other))
