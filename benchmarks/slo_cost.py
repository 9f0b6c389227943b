"""What counting for the objectives and for `/ops` adds to a request, beside the whole request.

    python benchmarks/slo_cost.py [--stores sqlite,redis,postgres] [--rounds 3] [--seconds 3]

A request is judged and counted in memory, for the objectives and for the operations page; every
5 s a process writes its counts to the store, and once a minute it looks at the windows of all
objectives. They are timed in the Python of an app generated for the store, on a store that holds
as much as it keeps; writing and looking are shared out among the requests of a slow app, 1 a
second, and of a busy one, 50 a second. The whole request is that of request_cost.py: a plain
answer, every guard on. Given is CPU time, with all threads of the process; the store's server is
not in it. At last the page's numbers of a week are read, on a store that is a week old and on one
that has counted for a year.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.apps import free_port, installed, python_of, serving, store_server
from benchmarks.request_cost import CASES, ask, production, provider
from benchmarks.stores import STORES

MOST_ADDED = 0.02
RATES = (1, 50)  # requests a second of one process
REQUESTS = 20_000
WRITES = 200
LOOKS = 20
PAGES = 20
WEEK, YEAR = 7 * 24, 35 * 24  # hours of counts that a store of this age holds
MINUTES = 60 + 1
CALLERS = 20


async def _seconds(times: int, work: Callable[[], Awaitable[object]]) -> float:
    """The CPU seconds of one, of so many."""
    before = time.process_time()
    for _ in range(times):
        await work()
    return (time.process_time() - before) / times


async def inside(store_name: str, url: str) -> dict[str, float]:
    """Time the steps, in the app's Python and folder; seconds each, of CPU but for the page's."""
    sys.path.insert(0, ".")

    def module(name: str) -> Any:
        return import_module(f"app.{name}")

    now = time.time()
    clock = {"now": now}
    connection = module("stores.base").Connection(
        url, "benchmark", 5.0, ZoneInfo("UTC"), lambda: clock["now"]
    )
    store = module(f"stores.{store_name}").connect(connection)
    await store.open()
    labels = [f"{slo} {how}" for slo in module("launch.slo").OBJECTIVES for how in ("good", "bad")]

    async def fill(ages: range, span: int) -> None:
        for age in ages:
            clock["now"] = now - age * span
            await store.count("slo_events", dict.fromkeys(labels, 1))
            await store.count("ops", dict.fromkeys(shown_labels(), 1))
        clock["now"] = now

    await fill(range(WEEK), 3600)
    await fill(range(MINUTES), 60)

    settings = module("foundation.settings").Settings.model_construct()
    project = module("foundation.project").load_project()
    redactor = module("standards.visibility.logs").configure_logs(settings)
    budget = module("launch.budget").ErrorBudget(
        module("launch.slo").Objectives(settings),
        store,
        module("standards.visibility.metrics").Metrics(settings.daily_cost_cap_usd),
        module("standards.visibility.alerts").Alerts(settings, project, store, redactor),
        speaks=False,
    )
    aggregates = module("ops.aggregates").Aggregates(budget.tally)
    record = module("foundation.record").RequestRecord("r1", caller="a", cache="miss", attempts=1)
    charge = module("foundation.record").Charge("openai", "gpt-5", 1000, 10, 10, 0, 0)
    record.charge(charge)
    end = module("standards.visibility.request_log").RequestEnd(
        record, "POST", "/v1/chat/completions", 200, 0.5, "ok", None
    )

    async def judge() -> None:
        budget.request_ended(end)

    async def count() -> None:
        aggregates.attempt("openai", "gpt-5", "ok")
        aggregates.request_ended(end)
        aggregates.charged(end.record)

    async def write() -> None:
        await judge()
        await count()
        await budget.catch_up()

    operations = module("ops.operations").Operations(
        settings=settings,
        project=project,
        store=store,
        tally=budget.tally,
        objectives=module("launch.slo").Objectives(settings),
        switches=module("launch.switches").Switches(store, ("spending",)),
        targets=(),
    )

    async def page() -> float:
        took = []
        for _ in range(PAGES):
            before = time.perf_counter()
            await operations.state("week")
            took.append(time.perf_counter() - before)
        return statistics.median(took)

    found = {
        "page_week": await page(),
        "judge": await _seconds(REQUESTS, judge),
        "count": await _seconds(REQUESTS, count),
        "write": await _seconds(WRITES, write),
        "look": await _seconds(LOOKS, budget.look),
    }
    await fill(range(WEEK, YEAR), 3600)
    found["page_year"] = await page()
    await store.close()
    return found


def shown_labels() -> list[str]:
    """What an hour of a busy app with two providers leaves for the page."""
    bounds = ("0.25", "0.5", "1", "2", "3", "5", "8")
    parts: list[tuple[str, ...]] = [
        ("asked", how) for how in ("ok", "refused", "failed", "client_left")
    ]
    parts += [("seconds", bound) for bound in bounds]
    parts += [("cache", how) for how in ("hit", "miss", "bypass", "replay")]
    parts += [("refused", code) for code in ("rate_limit_exceeded", "daily_cost_cap")]
    for name in ("openai", "anthropic"):
        parts += [("attempt", name, "model", how) for how in ("ok", "timeout", "overloaded")]
        parts += [("cost", name, "model"), ("cut_off", name, "model")]
    parts += [("caller", f"caller{number}") for number in range(CALLERS)]
    parts += [("fallback",), ("retry",)]
    return ["\t".join(each) for each in parts]


def measure(store: str, rounds: int, seconds: int) -> bool:
    """Print the table of one store; True when the target is reached."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        app = installed(store, folder)
        settings = stack.enter_context(store_server(app))
        provider_port, _ = stack.enter_context(provider(folder, 0))
        port = free_port()
        command = [python_of(app), "-c", "from app.cli import serve; serve()"]
        environment = production(settings, provider_port, port)
        pid = stack.enter_context(serving(app, command, port, environment, folder / "app.log"))
        ask(port, pid, CASES[0], 1)
        whole, steps = [], []
        (url,) = settings.values()
        timing = [python_of(app), __file__, "--inside", "--stores", store, "--url", url]
        for _ in range(rounds):
            whole.append(ask(port, pid, CASES[0], seconds).cpu_ms)
            done = subprocess.run(timing, cwd=app, capture_output=True, text=True, check=True)
            steps.append(json.loads(done.stdout.splitlines()[-1]))
    return report(store, statistics.median(whole), steps)


def report(store: str, whole: float, steps: list[dict[str, float]]) -> bool:
    """Print medians in ms, and what they add."""
    judge, count, write, look, page_week, page_year = (
        statistics.median(step[name] for step in steps) * 1000
        for name in ("judge", "count", "write", "look", "page_week", "page_year")
    )
    print(f"\n{store}: {whole:.2f} ms of CPU for a whole request")
    print(
        f"  judged {judge:.4f} ms, counted for the page {count:.4f} ms,"
        f" written {write:.2f} ms, looked {look:.1f} ms"
    )
    print(f"  a week on the page: {page_week:.1f} ms after a week, {page_year:.1f} ms after a year")
    reached = True
    for rate in RATES:
        added = judge + count + write / (5 * rate) + look / (60 * rate)
        target = ""
        if rate == RATES[-1]:
            reached = added / whole <= MOST_ADDED
            target = f"  <= {MOST_ADDED:.0%}: {'reached' if reached else 'missed'}"
        print(f"  at {rate:>2} a second: {added:.4f} ms, {added / whole:.2%} of it{target}")
    return reached


def main() -> int:
    """Measure every store that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(asyncio.run(inside(options.stores, options.url))))
        return 0
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt install wrk")
    stores = options.stores.split(",")
    reached = [measure(store, options.rounds, options.seconds) for store in stores]
    return int(not all(reached))


if __name__ == "__main__":
    raise SystemExit(main())
