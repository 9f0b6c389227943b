"""A week of traffic as a small team's app has it, always the same, and its way into a store.

The day it ends in is taken to have come to NOW o'clock: `timezone` names one where it has. What the
page shows of it then depends on neither the hour nor the day that the tests run.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NOW = 18
HOURS = 7 * 24
OPENAI, ANTHROPIC = "openai\tgpt-6-luna", "anthropic\tclaude-haiku-5-5"
CALLERS = {"web": 0.46, "mobile": 0.27, "helpdesk": 0.17, "nightly": 0.1}
# Questions by the hour of a day, and how busy the days were, today first.
_BUSY = (20, 12, 8, 6, 8, 18, 44, 95, 180, 266, 312, 288, 224, 258, 301, 284, 236, 192, 130, 104)
_BY_HOUR = (*_BUSY, 88, 72, 52, 33)
_BY_DAY = (1.0, 0.96, 1.04, 0.93, 0.99, 0.42, 0.37, 0.9)
# In this hour of today the first provider was down: how many of its calls failed.
_TROUBLE, _FAILED = 10, 96
_SECONDS = {"0.5": 0.05, "1": 0.24, "3": 0.2, "5": 0.09, "8": 0.03, "13": 0.012, "20": 0.004}
_SLOW = {"1": 0.1, "3": 0.24, "5": 0.22, "8": 0.14, "13": 0.08, "20": 0.03}
_NANO = {OPENAI: 1_130_000, ANTHROPIC: 1_640_000}  # of an answer
_FAILURES = (
    ("cut:length", 34, 3, {"status": 200, "provider": "openai", "model": "gpt-6-luna"}),
    ("rating:down", 131, 1, {"status": 200, "provider": "openai", "model": "gpt-6-luna"}),
    ("blocked:injection", 205, 2, {"status": 400, "code": "content_policy_violation"}),
    ("error:providers_unavailable", 487, 9, {"status": 503, "code": "providers_unavailable"}),
)
# Run in an app's folder, with the app's settings: writes it all into the app's store.
_WRITE = """
import asyncio, json, sys, time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo
from app.foundation.settings import read_settings
from app.stores.base import Admission, Cap, Connection, Entry, Settlement
from app.stores.sqlite import connect

async def main(week):
    settings, end = read_settings(), time.time()
    now = [end]
    zone = ZoneInfo(settings.app_timezone)
    store = connect(Connection(settings.store_url, "app", 5.0, zone, lambda: now[0]))
    await store.open()
    for caller, nano in week["spent"].items():
        caps = (Cap("app", "app", 10**12), Cap("caller", f"caller:{caller}", 10**12))
        await store.admit(Admission(caller, nano, 30, (), caps))
        await store.settle(Settlement(caller, nano))
    for ago, (counted, events) in enumerate(week["hours"]):
        now[0] = end - ago * 3600
        await store.count("ops", counted)
        await store.count("slo_events", events)
    for cause, minutes, times, facts in reversed(week["failures"]):
        now[0] = end - minutes * 60
        facts["at"] = datetime.fromtimestamp(now[0], UTC).isoformat(timespec="milliseconds")
        entry = Entry(facts["request_id"], json.dumps(facts).encode(), times)
        if not cause.startswith("rating:"):
            await store.collect("failures", [Entry(cause, b"", times)], 30 * 86400, 100)
        await store.collect(f"failures:{cause}", [entry], 30 * 86400, 100)
    await store.close()

asyncio.run(main(json.load(sys.stdin)))
"""


@dataclass
class Week:
    """What was counted, by hours ago (0 is the one that has begun), and what it has cost today."""

    hours: list[tuple[Counter[str], Counter[str]]] = field(default_factory=list)
    spent: Counter[str] = field(default_factory=Counter)  # nano-dollars of today, by caller

    def sums(self, hours: int = HOURS) -> Counter[str]:
        """What the last hours have counted, by label."""
        return sum((counted for counted, _ in self.hours[:hours]), Counter())


def a_week() -> Week:
    """The same every time."""
    week = Week()
    for ago in range(HOURS):
        hour, day = (NOW - ago) % 24, (ago + 23 - NOW) // 24
        asked = round(_BY_HOUR[hour] * _BY_DAY[day] * (1 + (ago * 7 % 11 - 5) / 50))
        if not ago:
            asked //= 2  # it has only begun
        trouble = ago == NOW - _TROUBLE
        counted, events = _hour(asked, _FAILED if trouble else 0)
        week.hours.append((counted, events))
        if ago <= NOW:
            for caller in CALLERS:
                week.spent[caller] += counted[f"caller\t{caller}"]
    return week


def _hour(asked: int, calls_failed: int) -> tuple[Counter[str], Counter[str]]:
    failed = calls_failed // 8 + asked // 250
    refused, left = asked // 60, asked // 90
    ok = asked - failed - refused - left
    fallback = calls_failed - calls_failed // 8
    hit = ok // 16
    answered = {OPENAI: ok - hit - fallback, ANTHROPIC: fallback}
    spread = {
        bound: int(ok * share) for bound, share in (_SLOW if calls_failed else _SECONDS).items()
    }
    cost = {name: number * _NANO[name] for name, number in answered.items()}
    counted = Counter(
        {
            "asked\tok": ok,
            "asked\trefused": refused,
            "asked\tfailed": failed,
            "asked\tclient_left": left,
            **{f"seconds\t{bound}": number for bound, number in spread.items()},
            "seconds\t2": ok - sum(spread.values()),
            "refused\trate_limit_exceeded": refused - refused // 4,
            "refused\tcontent_policy_violation": refused // 4,
            "refused\tproviders_unavailable": failed,
            "cache\thit": hit,
            "cache\tmiss": ok - hit,
            f"attempt\t{OPENAI}\tok": answered[OPENAI],
            f"attempt\t{OPENAI}\toverloaded": 2 * calls_failed + failed,
            f"attempt\t{ANTHROPIC}\tok": answered[ANTHROPIC],
            f"attempt\t{ANTHROPIC}\toverloaded": failed,
            f"cut_off\t{OPENAI}": 3 if calls_failed else 0,
            "fallback": fallback,
            "retry": calls_failed + failed,
            "policy\tcontacts\tredact\tinput": asked // 40,
            "policy\tinjection\tblock\tinput": refused // 4,
            **{f"cost\t{name}": nano for name, nano in cost.items()},
            **{
                f"caller\t{name}": int(sum(cost.values()) * share)
                for name, share in CALLERS.items()
            },
        }
    )
    late = sum(spread.get(bound, 0) for bound in ("13", "20"))
    events = Counter(
        {
            "availability good": ok,
            "availability bad": failed,
            "latency good": ok - late,
            "latency bad": late,
            "fallback good": ok - fallback,
            "fallback bad": fallback,
            "refusal good": ok + failed,
            "refusal bad": refused,
        }
    )
    return +counted, +events


def write(week: Week, app: Path, environment: Mapping[str, str]) -> None:
    """Put it into the store of an app, which the environment's settings name."""
    failures: list[Any] = [
        (
            cause,
            minutes,
            times,
            {"request_id": _request_id(cause), "route": "/v1/chat/completions", **facts},
        )
        for cause, minutes, times, facts in _FAILURES
    ]
    told = json.dumps({"hours": week.hours, "spent": week.spent, "failures": failures})
    command = [sys.executable, "-c", _WRITE]
    subprocess.run(command, cwd=app, env={**environment}, input=told, text=True, check=True)


def _request_id(cause: str) -> str:
    return cause.encode().hex().ljust(32, "0")[-32:]


def timezone() -> str:
    """A time zone in which it is NOW o'clock. POSIX counts its hours westwards."""
    east = (NOW - datetime.now(UTC).hour + 11) % 24 - 11
    return f"Etc/GMT{-east:+d}" if east else "Etc/GMT"
