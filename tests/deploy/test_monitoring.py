"""The monitoring of the Docker target: its rules alone, and all of it beside a running app.

Prometheus and Alertmanager are real, and so is the app that they watch; its provider fails.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.aws import free_port
from tests.deploy.monitoring import (
    START_SECONDS,
    Monitoring,
    Receiver,
    check_rules,
    expected,
    fetch_tools,
    monitoring,
    wait_for,
    without_annotations,
)
from tests.deploy.served import ADMIN, ALICE, in_production
from tests.deploy.stage import load_fakes
from tests.kit import ON_CALL, TEMPLATE, answers, generate, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

# It lies in template/, whose own `tests` stays hidden behind this repository's.
sys.path.append(str(TEMPLATE))
slo: Any = importlib.import_module("app.launch.slo")

MONITORING = TEMPLATE / "deploy/monitoring"
RULES_FILE = MONITORING / "prometheus/rules.yml"
RULES = yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))
RECORDED, ALERTS = (group["rules"] for group in RULES["groups"])
DASHBOARD = json.loads((TEMPLATE / "deploy/grafana/dashboard.json").read_text(encoding="utf-8"))
NAMED = f"{ON_CALL['on_call_name']}, {ON_CALL['on_call_contact']}"
TOLD = {"summary", "summary_ko", "description", "runbook", "requests", "requests_ko", "on_call"}
GONE = {"AppDown", "InstanceDown"}
MINUTES = {"m": 1, "h": 60, "d": 24 * 60}


@pytest.fixture(scope="module")
def tools() -> Path:
    return fetch_tools(ROOT / "build/monitoring")


@pytest.fixture(scope="module")
def app(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(folder, tmp_path_factory.mktemp("monitoring") / "app", answers())


def minutes(window: str) -> int:
    return int(window[:-1]) * MINUTES[window[-1]]


def test_grafana_reads_all_of_the_dashboard() -> None:
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert lost(DASHBOARD, read) == []
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def lost(given: Any, read: Any, place: str = "") -> list[str]:
    """What of a file is not, or is not the same, in what was read of it."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [w for k, v in given.items() for w in lost(v, read.get(k), f"{place}.{k}")]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = enumerate(zip(given, read, strict=True))
        return [w for at, (one, other) in pairs for w in lost(one, other, f"{place}[{at}]")]
    return [] if given == read else [f"{place}: {given} is read as {read}"]


def without_data(prometheus: Monitoring) -> list[str]:
    """The plots of the dashboard in which nothing would be seen."""
    return [
        f"{panel['title']}: {target['expr']}"
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        if not prometheus.series(
            target["expr"].replace("$__rate_interval", "1m").replace("$route", ".*")
        )
    ]


def test_prometheus_and_alertmanager_take_the_files(tools: Path, app: Path) -> None:
    files = app / "deploy/monitoring"
    run(app, tools / "promtool", "check", "rules", "--lint-fatal", files / "prometheus/rules.yml")
    config = files / "prometheus/prometheus.yml"
    run(app, tools / "promtool", "check", "config", "--syntax-only", config)
    run(app, tools / "amtool", "check-config", files / "alertmanager/alertmanager.yml")


def test_the_rules_ask_what_the_app_asks() -> None:
    asked = set()
    for rule in ALERTS:
        if found := re.match(
            r'slo:llm_app_burn:rate(\w+)\{slo=~"([\w|]+)"\} > ([\d.]+)'
            r" and on \(slo\) slo:llm_app_burn:rate(\w+) > ([\d.]+)"
            r" and on \(slo\) slo:llm_app_slo_events:increase(\w+) >= .*llm_app_slo_min_events\)$",
            rule["expr"],
        ):
            long, objectives, factor, short, same_factor, counted = found.groups()
            assert (factor, long) == (same_factor, counted)
            severity = rule["labels"]["severity"]
            for name in objectives.split("|"):
                asked.add((name, severity, float(factor), minutes(long), minutes(short)))
    assert asked == {
        (name, burn.severity, burn.factor, burn.long, burn.short)
        for name, burns in slo.BURNS.items()
        for burn in burns
    }
    assert {name for name, *_ in asked} == set(slo.OBJECTIVES)
    recorded = {rule["record"] for rule in RECORDED}
    assert f"slo:llm_app_error_budget_left:ratio{slo.BUDGET_DAYS}d" in recorded


def test_every_alert_says_what_to_do_and_whom_to_call() -> None:
    runbook = (TEMPLATE / "RUNBOOK.md.jinja").read_text(encoding="utf-8")
    for rule in ALERTS:
        told = rule["annotations"]
        assert set(told) >= TOLD
        # How many there are: the alert's own number, or one that is asked for.
        assert rule["alert"] in GONE or re.search(r"\$value|query", told["description"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        for name in slo.OBJECTIVES if "$labels.slo" in told["runbook"] else [""]:
            file, _, section = told["runbook"].replace("{{ $labels.slo }}", name).partition("#")
            assert file == "RUNBOOK.md"
            assert f"\n## {section}\n" in runbook


def series(slo: str, result: str, values: str) -> dict[str, str]:
    return {
        "series": f'llm_app_slo_events_total{{slo="{slo}",result="{result}",instance="a"}}',
        "values": values,
    }


STATED = [
    {"series": f'llm_app_slo_error_budget_ratio{{slo="{name}"}}', "values": f"{budget}x9999"}
    for name, budget in {"availability": 0.005, "fallback": 0.1}.items()
] + [
    {"series": "llm_app_slo_min_events", "values": "20x9999"},
    {"series": "llm_app_slo_cost_usd_per_day", "values": "4x9999"},
    {
        "series": 'llm_app_on_call_info{name="Kim Minji",contact="+82 10 5550 0100"}',
        "values": "1x9999",
    },
]
PAGE_1H, PAGE_6H, TICKET_3D = (
    {"slo": "availability", "severity": severity, "window": window}
    for severity, window in (("page", "1h"), ("page", "6h"), ("ticket", "3d"))
)
# What happens, minute by minute; when Prometheus is asked; what it says of the error budget.
BURNING: list[tuple[str, list[dict[str, str]], str, list[dict[str, str]]]] = [
    (
        "one in ten fails: 20 times too many",
        [series("availability", "good", "0+9x90"), series("availability", "bad", "0+1x90")],
        "1h10m",
        [PAGE_1H, PAGE_6H, TICKET_3D],
    ),
    (
        "one in twenty fails: 10 times too many",
        [series("availability", "good", "0+19x400"), series("availability", "bad", "0+1x400")],
        "6h10m",
        [PAGE_6H, TICKET_3D],
    ),
    (
        "one in a hundred fails: twice too many",
        [series("availability", "good", "0+99x400"), series("availability", "bad", "0+1x400")],
        "6h10m",
        [TICKET_3D],
    ),
    (
        "one in three hundred fails: that is allowed",
        [series("availability", "good", "0+299x400"), series("availability", "bad", "0+1x400")],
        "6h10m",
        [],
    ),
    (
        "everything fails, for fewer requests than can be judged",
        [series("availability", "good", "0x90"), series("availability", "bad", "0x60 1+1x14")],
        "1h14m",
        [],
    ),
    (
        "everything failed, and ten minutes ago it stopped: nobody is called any more",
        [
            series("availability", "good", "0x60 0+10x100"),
            series("availability", "bad", "0+10x60 600x100"),
        ],
        "1h40m",
        [TICKET_3D],
    ),
]


def test_burn_rates_alert_when_they_must_and_only_then(tools: Path, tmp_path: Path) -> None:
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [*STATED, *happening],
            "alert_rule_test": [{"eval_time": when, **expected("ErrorBudgetBurn", alerts)}],
        }
        for name, happening, when, alerts in BURNING
    ]
    check_rules(tools, tmp_path, without_annotations(RULES_FILE, tmp_path), tests)


def test_the_other_alerts_and_what_they_say(tools: Path, tmp_path: Path) -> None:
    def said(
        alert: str, summary: str, ko: str, description: str, section: str
    ) -> dict[str, object]:
        (rule,) = (rule for rule in ALERTS if rule["alert"] == alert)
        return {
            "exp_annotations": {
                "summary": summary,
                "summary_ko": ko,
                "description": description,
                "runbook": f"RUNBOOK.md#{section}",
                "on_call": NAMED,
                **{name: rule["annotations"][name] for name in ("requests", "requests_ko")},
            }
        }

    many_fallbacks = said(
        "ShareOverObjective",
        "The share of fallback is over its objective",
        "fallback 비율이 목표를 넘었습니다",
        "Over 1h it is 2 times what is allowed, and still too much over 5m."
        " Such requests over 1h: 120.",
        "fallback",
    )
    too_dear = said(
        "CostOverObjective",
        "Today has cost more than it may",
        "오늘 비용이 목표를 넘었습니다",
        "4.5 US dollars are spent today.",
        "cost",
    )
    unreachable = said(
        "AppDown",
        "No instance of the app can be reached",
        "앱의 어떤 인스턴스에도 닿지 않습니다",
        "Prometheus could scrape none for a minute. It needs the right secrets/ADMIN_TOKEN.",
        "down",
    )
    one_gone = said(
        "InstanceDown",
        "b:8000 cannot be reached",
        "b:8000 에 닿지 않습니다",
        "Prometheus could not scrape it for five minutes.",
        "down",
    )
    tests = [
        {
            "name": "a fifth of the answers are fallbacks, and the money runs",
            "interval": "1m",
            "input_series": [
                *STATED,
                series("fallback", "good", "0+8x90"),
                series("fallback", "bad", "0+2x90"),
                {"series": 'llm_app_daily_cost_usd{instance="a"}', "values": "3x60 4.5x30"},
            ],
            "alert_rule_test": [
                {"eval_time": "50m", **expected("CostOverObjective", [])},
                {
                    "eval_time": "70m",
                    **expected(
                        "ShareOverObjective",
                        [{"severity": "ticket", "slo": "fallback"}],
                        **many_fallbacks,
                    ),
                },
                {
                    "eval_time": "70m",
                    **expected(
                        "CostOverObjective", [{"severity": "ticket", "slo": "cost"}], **too_dear
                    ),
                },
            ],
        },
        {
            "name": "one of two instances goes, then the other one",
            "interval": "1m",
            "input_series": [
                *STATED,
                {"series": 'up{job="app",instance="a:8000"}', "values": "1x20 0x20"},
                {"series": 'up{job="app",instance="b:8000"}', "values": "1x10 0x30"},
            ],
            "alert_rule_test": [
                {"eval_time": "9m", **expected("InstanceDown", [])},
                {
                    "eval_time": "17m",
                    **expected(
                        "InstanceDown",
                        [{"severity": "ticket", "job": "app", "instance": "b:8000"}],
                        **one_gone,
                    ),
                },
                {"eval_time": "20m", **expected("AppDown", [])},
                {
                    "eval_time": "23m",
                    **expected("AppDown", [{"severity": "page"}], **unreachable),
                },
            ],
        },
        {
            "name": "there is no instance at all",
            "interval": "1m",
            "input_series": STATED,
            "alert_rule_test": [
                {
                    "eval_time": "3m",
                    **expected("AppDown", [{"severity": "page"}], **unreachable),
                },
            ],
        },
    ]
    check_rules(tools, tmp_path, RULES_FILE, tests)


def production(folder: Path, port: int, provider: str) -> dict[str, str]:
    """How the app runs in production: two workers, a candidate for half of the end users."""
    return {
        "PATH": os.environ["PATH"],
        "ADMIN_TOKEN": ADMIN,
        "APP_API_KEYS": f"alice:{ALICE}",
        "APP_ENV": "production",
        "CANARY_PERCENT": "50",
        "CANDIDATE": "openai:gpt-next",
        "CANDIDATE_INPUT_USD_PER_MTOK": "1",
        "CANDIDATE_OUTPUT_USD_PER_MTOK": "2",
        "DATABASE_URL": f"sqlite:///{folder / 'app.db'}",
        "MAX_ATTEMPTS": "1",
        "OPENAI_API_KEY": "sk-provider-0123456789",
        "OPENAI_BASE_URL": provider,
        "PORT": str(port),
        "REQUESTS_PER_MINUTE": "1000",
        "REQUESTS_PER_MINUTE_PER_IP": "1000",
        "SHADOW_PERCENT": "100",
        "WEB_CONCURRENCY": "2",
    }


def ask(client: httpx2.Client, count: int, text: str = "Hello") -> set[int]:
    """The statuses of so many answers, each to another end user."""
    found = set()
    for user in range(count):
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], "user": str(user)}
        answer = client.post("/v1/chat/completions", json=body)
        found.add(answer.status_code)
    rating = {"request_id": answer.headers["x-request-id"], "rating": "up"}
    client.post("/v1/feedback", json=rating)
    return found


def lint(tools: Path, metrics: str) -> None:
    """Names, units and help texts, as Prometheus' conventions want them; each series once."""
    command: list[str | Path] = [tools / "promtool", "check", "metrics"]
    done = subprocess.run(command, input=metrics, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    names = [line.rpartition(" ")[0] for line in metrics.splitlines() if line[0] != "#"]
    assert len(names) == len(set(names)) > 100


def test_who_is_on_call_hears_of_a_failing_provider_and_of_a_dead_app(
    tools: Path, app: Path, tmp_path: Path
) -> None:
    fakes, port = load_fakes(app, "fake_of_monitoring"), free_port()
    with (
        fakes.FakeProvider() as fake,
        Receiver() as receiver,
        monitoring(tools, app, tmp_path, f"127.0.0.1:{port}", ADMIN, receiver) as prometheus,
    ):
        environment = production(tmp_path, port, fake.openai_base_url)
        with in_production(app, tmp_path, environment, START_SECONDS) as client:
            wait_for("a scrape", lambda: prometheus.value('up{job="app"} == 1'))
            assert ask(client, 18) == {200}
            assert ask(client, 1, "My card is 4111 1111 1111 1111.") == {200}
            assert ask(client, 1, "I want to die.") == {200}  # which the policy leaves to others
            good = 'sum(llm_app_slo_events_total{slo="availability",result="good"}) == 20'
            wait_for("the good events", lambda: prometheus.value(good))
            assert {x["labels"]["alertname"] for x in receiver.alerts} <= GONE

            turn = "from app.cli import switch; switch()"
            run(app, sys.executable, "-c", turn, "off", "canary", "--yes", **environment)
            cut = wait_for("the canary's end", lambda: receiver.find("CanaryCutOff"))
            assert cut["annotations"]["runbook"] == "RUNBOOK.md#canary"
            run(app, sys.executable, "-c", turn, "on", "canary", "--yes", **environment)
            wait_for("its return", lambda: receiver.find("CanaryCutOff", "resolved"))

            # A page about one thing leaves a ticket about another as it is.
            prometheus.alert("StoreUnavailable", severity="page")
            wait_for("the first", lambda: receiver.find("StoreUnavailable"))
            prometheus.alert("FailuresDropped", severity="ticket")
            wait_for("the other", lambda: receiver.find("FailuresDropped"))

            fake.always(fakes.Status(500))
            assert ask(client, 20) == {503}
            paged = {"slo": "availability", "severity": "page", "window": "1h"}
            alert = wait_for("the page", lambda: receiver.find("ErrorBudgetBurn", **paged))
            assert alert["annotations"]["on_call"] == NAMED
            assert alert["annotations"]["runbook"] == "RUNBOOK.md#availability"
            assert re.search(r"Bad ones over 1h: \d+\.", alert["annotations"]["description"])
            # Half of them failed, and one in two hundred may.
            rate = 'slo:llm_app_burn:rate1h{slo="availability"} > 90'
            assert wait_for("the rate", lambda: prometheus.value(rate)) < 110
            # The answers that there were came quickly, and nobody was refused.
            burning = [x for x in receiver.alerts if x["labels"]["alertname"] == "ErrorBudgetBurn"]
            assert {x["labels"]["slo"] for x in burning} == {"availability"}
            # It has no objective of its own, so no page can speak for it.
            wait_for("the breaker", lambda: receiver.find("BreakerOpen", provider="openai"))

            exported = client.get("/metrics", headers={"Authorization": f"Bearer {ADMIN}"})
            lint(tools, exported.text)

            # By now something of everything that the dashboard plots has happened.
            wait_for("every plot", lambda: not without_data(prometheus))
        down = wait_for("the app's end", lambda: receiver.find("AppDown", severity="page"))
        assert down["annotations"]["on_call"] == NAMED
