"""Prometheus, promtool and Alertmanager for the tests: from Debian packages, which are unpacked
below `build/` and not installed. They start with the files of a generated app; only addresses and
intervals are the test's own.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self, TypeVar

import httpx2
import yaml

from tests.deploy.aws import free_port
from tests.deploy.debian import Debian
from tests.kit import run

SUITE = "trixie"  # the first Debian whose Alertmanager reads a webhook's address from a file
PACKAGES = ("busybox", "prometheus", "prometheus-alertmanager", "promtool")
START_SECONDS = 20.0

T = TypeVar("T")


def fetch_tools(cache: Path) -> Path:
    """The folder of the programs; they are downloaded once."""
    programs, wanted = cache / "tools/usr/bin", " ".join((SUITE, *PACKAGES))
    complete = cache / "complete"
    if complete.exists() and complete.read_text() == wanted:
        return programs
    Debian(cache, SUITE).alone(*PACKAGES, into=cache / "tools")
    complete.write_text(wanted)
    return programs


def wait_for(what: str, look: Callable[[], T | None], seconds: float = START_SECONDS) -> T:
    """Look until there is something to see."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except httpx2.TransportError:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"in vain waited for {what}"
        time.sleep(0.1)


class Receiver:
    """A webhook that Alertmanager posts to."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.alerts: list[dict[str, Any]] = []
        alerts = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                alerts.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}/"
        Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def find(self, name: str, status: str = "firing", **labels: str) -> dict[str, Any] | None:
        """An alert that was received, by its name and labels."""
        wanted = {"alertname": name, **labels}.items()
        for alert in self.alerts:
            if alert["status"] == status and wanted <= alert["labels"].items():
                return alert
        return None


class Monitoring:
    """A running Prometheus and what it answers, and the Alertmanager beside it."""

    def __init__(self, url: str, alertmanager: str = "") -> None:
        self._url = url
        self._alertmanager = alertmanager

    def alert(self, name: str, **labels: str) -> None:
        """Tell Alertmanager of an alert, in Prometheus' stead."""
        told = [{"labels": {"alertname": name, **labels}}]
        url = f"{self._alertmanager}/api/v2/alerts"
        httpx2.post(url, json=told, trust_env=False).raise_for_status()

    def series(self, query: str) -> list[dict[str, Any]]:
        """The series that a query finds. Raises for a query that Prometheus does not take."""
        url = f"{self._url}/api/v1/query"
        answer = httpx2.get(url, params={"query": query}, trust_env=False).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        return list(answer["data"]["result"])

    def value(self, query: str) -> float | None:
        """The value of a query's first series."""
        series = self.series(query)
        return float(series[0]["value"][1]) if series else None


def expected(name: str, alerts: list[dict[str, str]], **more: object) -> dict[str, object]:
    """That an alert fires with these labels, and no other way; for `check_rules`."""
    return {"alertname": name, "exp_alerts": [{"exp_labels": x, **more} for x in alerts]}


def check_rules(tools: Path, folder: Path, rules: Path, tests: list[dict[str, Any]]) -> None:
    """Have promtool play what happens to the rules, and compare what they say."""
    whole = {"rule_files": [str(rules)], "tests": tests}
    (folder / "tests.yml").write_text(yaml.safe_dump(whole, allow_unicode=True))
    run(folder, tools / "promtool", "test", "rules", "tests.yml")


def without_annotations(rules: Path, folder: Path) -> Path:
    """The rules without their texts, for a test of when they alert."""
    plain = yaml.safe_load(rules.read_text(encoding="utf-8"))
    for rule in plain["groups"][1]["rules"]:
        del rule["annotations"]
    (folder / "plain.yml").write_text(yaml.safe_dump(plain))
    return folder / "plain.yml"


def _with_its_templates(tools: Path) -> list[str | Path]:
    """Debian's Alertmanager reads files below /usr/share: it alone sees those that it came with."""
    mount = 'mount --bind "$0" /usr/share && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, tools.parent / "share"]


@contextmanager
def monitoring(
    tools: Path, app: Path, folder: Path, target: str, token: str, receiver: Receiver
) -> Iterator[Monitoring]:
    """Prometheus and Alertmanager with the files of `app`, which listens on `target`."""
    (folder / "ADMIN_TOKEN").write_text(token)
    (folder / "ALERT_WEBHOOK_URL").write_text(receiver.url)
    shutil.copytree(app / "deploy/monitoring", folder / "files")
    ports = {"prometheus": free_port(), "alertmanager": free_port()}

    def change(file: str, edit: Callable[[Any], None]) -> Path:
        path: Path = folder / "files" / file
        settings = yaml.safe_load(path.read_text())
        edit(settings)
        path.write_text(yaml.safe_dump(settings, allow_unicode=True))
        return path

    def prometheus(settings: Any) -> None:
        settings["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        settings["alerting"]["alertmanagers"] = [
            {"static_configs": [{"targets": [f"127.0.0.1:{ports['alertmanager']}"]}]}
        ]
        (job,) = settings["scrape_configs"]
        del job["dns_sd_configs"]  # the containers' own names: proved on a real engine
        job["static_configs"] = [{"targets": [target]}]
        job["authorization"]["credentials_file"] = str(folder / "ADMIN_TOKEN")

    def rules(settings: Any) -> None:
        for rule in settings["groups"][1]["rules"]:
            if "for" in rule:
                rule["for"] = "1s"

    def alertmanager(settings: Any) -> None:
        settings["route"] |= {"group_wait": "0s", "group_interval": "1s"}
        hook = settings["receivers"][0]["webhook_configs"][0]
        hook["url_file"] = str(folder / "ALERT_WEBHOOK_URL")

    change("prometheus/rules.yml", rules)
    commands: dict[str, list[str | Path]] = {
        "prometheus": [
            tools / "prometheus",
            f"--config.file={change('prometheus/prometheus.yml', prometheus)}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
        ],
        "alertmanager": [
            *_with_its_templates(tools),
            tools / "prometheus-alertmanager",
            f"--config.file={change('alertmanager/alertmanager.yml', alertmanager)}",
            f"--storage.path={folder / 'silences'}",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
        ],
    }
    running = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
        for name, port in ports.items():
            ready = f"http://127.0.0.1:{port}/-/ready"
            wait_for(name, lambda: httpx2.get(ready, trust_env=False).is_success)  # noqa: B023
        yield Monitoring(*(f"http://127.0.0.1:{port}" for port in ports.values()))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)
        for name in commands:
            print((folder / f"{name}.log").read_text()[-2000:])
