"""What Prometheus says of the safeguards: when it alerts, when it does not, and that it does not
flap. promtool plays what happens to the rules, minute by minute.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.monitoring import check_rules, expected, fetch_tools, without_annotations
from tests.kit import TEMPLATE
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

RULES = TEMPLATE / "deploy/monitoring/prometheus/rules.yml"
ALERTS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][1]["rules"]
KEY = {"provider": "openai", "model": "gpt-5", "outcome": "rejected_key"}
TARGET = {"provider": "openai", "model": "gpt-5"}
PAGE, TICKET = {"severity": "page"}, {"severity": "ticket"}


def series(metric: str, values: str, /, **labels: str) -> dict[str, str]:
    told = ",".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
    return {"series": f"llm_app_{metric}{{{told}}}", "values": values}


# What happens, minute by minute (`0x9 1x9`: ten minutes of 0, then ten of 1), the alert, and when
# it must say what. A `None` of it: it must be silent.
HAPPENINGS: list[tuple[str, list[dict[str, str]], str, dict[str, dict[str, str] | None]]] = [
    (
        "the store is away of one of two instances, after a short hiccup",
        [
            series("store_up", "1x40", instance="a"),
            series("store_up", "1x5 0 1x10 0x30", instance="b"),
        ],
        "StoreUnavailable",
        {"6m": None, "17m": None, "19m": PAGE},
    ),
    (
        "a breaker opens for a while, then for long",
        [series("breaker_open", "0x2 1x7 0x5 1x20 0x5", **TARGET)],
        "BreakerOpen",
        {"12m": None, "20m": None, "27m": {**TICKET, **TARGET}, "40m": None},
    ),
    (
        "a key is refused once in twenty minutes: that is one trouble, until it stays away",
        [series("provider_attempts_total", "0x4 1x19 2x19 3x60", **KEY, instance="a")],
        "ProviderKeyRefused",
        {
            "4m": None,
            "6m": {**PAGE, "provider": "openai"},
            "24m": {**PAGE, "provider": "openai"},
            "44m": {**PAGE, "provider": "openai"},
            "1h45m": None,
        },
    ),
    (
        "a bug is met, once",
        [series("refusals_total", "0x10 1x90", code="internal_error", instance="a")],
        "InternalErrors",
        {"9m": None, "12m": TICKET, "40m": TICKET, "1h20m": None},
    ),
    (
        "callers are refused for other things",
        [
            series("refusals_total", "0+9x90", code="rate_limit_exceeded"),
            series("refusals_total", "0x90", code="internal_error"),
            series("refusals_total", "0x90", code="daily_cost_cap"),
        ],
        "InternalErrors",
        {"1h": None},
    ),
    (
        "the day's money is spent",
        [series("refusals_total", "0x10 1+5x20", code="daily_cost_cap", instance="a")],
        "DailyCostCapReached",
        {"9m": None, "15m": {**PAGE, "slo": "cost"}},
    ),
    (
        "the canary is cut off, and its candidate taken away a while later",
        [
            series("switched_off", "0x10 1x60", switch="canary", instance="a"),
            series("canary_ratio", "0.1x30 0x40", instance="a"),
        ],
        "CanaryCutOff",
        {"9m": None, "11m": None, "13m": TICKET, "33m": None},
    ),
    (
        "a switch is off for half an hour, another for longer",
        [
            series("switched_off", "0x10 1x30 0x90", switch="spending"),
            series("switched_off", "0x10 1x90", switch="model:gpt-5"),
            series("switched_off", "1x90", switch="canary"),
            series("switched_off", "1x90", switch="shadow"),
        ],
        "SwitchedOff",
        {"1h": None, "1h15m": {**TICKET, "switch": "model:gpt-5"}},
    ),
    (
        "texts of failures find no room for a minute",
        [series("failures_dropped_total", "0x10 250x90", instance="a")],
        "FailuresDropped",
        {"9m": None, "12m": TICKET, "40m": TICKET, "1h20m": None},
    ),
]


@pytest.fixture(scope="module")
def tools() -> Path:
    return fetch_tools(ROOT / "build/monitoring")


def test_each_alert_comes_when_it_must_and_only_then(tools: Path, tmp_path: Path) -> None:
    tests: list[dict[str, Any]] = [
        {
            "name": name,
            "interval": "1m",
            "input_series": happening,
            "alert_rule_test": [
                {"eval_time": when, **expected(alert, [] if labels is None else [labels])}
                for when, labels in said.items()
            ],
        }
        for name, happening, alert, said in HAPPENINGS
    ]
    check_rules(tools, tmp_path, without_annotations(RULES, tmp_path), tests)


# What has happened by the 25th minute, an alert, and what it says there in numbers.
SAID: list[tuple[list[dict[str, str]], str, dict[str, str], str]] = [
    (
        [
            series("store_up", "0x40"),
            series("refusals_total", "0+4x40", code="store_unavailable"),
        ],
        "StoreUnavailable",
        PAGE,
        "For a minute now. Questions that were refused for it in 15 minutes: 60.",
    ),
    (
        [
            series("breaker_open", "1x40", **TARGET),
            series("provider_attempts_total", "0+2x40", **TARGET, outcome="timeout"),
            series("provider_attempts_total", "0+7x40", **TARGET, outcome="ok"),
        ],
        "BreakerOpen",
        TICKET | TARGET,
        "For ten minutes now. Calls that failed in the last hour: 50.",
    ),
    (
        [series("provider_attempts_total", "0+1x40", **KEY)],
        "ProviderKeyRefused",
        PAGE | {"provider": "openai"},
        "Calls that ended so in 15 minutes: 15.",
    ),
    (
        [
            series("switched_off", "1x40", switch="canary"),
            series("canary_ratio", "0.1x40"),
        ],
        "CanaryCutOff",
        TICKET,
        "The app has cut it off, or a person. Its bad events of the day, answers that failed or"
        " came late: 0.",
    ),
]


def test_an_alert_says_how_many(tools: Path, tmp_path: Path) -> None:
    people = series("on_call_info", "1x40", name="Kim Minji", contact="+82 10 5550 0100")
    tests: list[dict[str, Any]] = []
    for happening, alert, labels, description in SAID:
        (rule,) = (rule for rule in ALERTS if rule["alert"] == alert)
        told = {
            name: text.replace("{{ $labels.provider }}", "openai").replace(
                "{{ $labels.model }}", "gpt-5"
            )
            for name, text in rule["annotations"].items()
        } | {"description": description, "on_call": "Kim Minji, +82 10 5550 0100"}
        test = {"eval_time": "25m", **expected(alert, [labels], exp_annotations=told)}
        tests.append(
            {"interval": "1m", "input_series": [*happening, people], "alert_rule_test": [test]}
        )
    check_rules(tools, tmp_path, RULES, tests)
