"""The profile `monitoring` on a real engine: two replicas are found by name, scraped and alerted
about. What a running Prometheus makes of it all is proved beside the engine: test_monitoring.py.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.engine import Engine
from tests.deploy.monitoring import Monitoring, Receiver, fetch_tools, wait_for
from tests.deploy.project import (
    EVERY_ADDRESS,
    KEY,
    MACHINE,
    OFTEN,
    SECRETS,
    Project,
    built,
    on_the_fake,
)
from tests.deploy.stage import question
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

# As the public images are made: the programs, the folders and their owner, a wget for the health.
IMAGES = {
    "prometheus": """
        COPY usr/bin/prometheus usr/bin/promtool /bin/
        RUN mkdir /prometheus && chown 65534:65534 /prometheus
        WORKDIR /prometheus
        ENTRYPOINT ["/bin/prometheus"]
    """,
    "alertmanager": """
        COPY usr/bin/prometheus-alertmanager usr/bin/busybox /bin/
        COPY usr/share/prometheus /usr/share/prometheus
        RUN ln -s busybox /bin/wget
        RUN mkdir /alertmanager && chown 65534:65534 /alertmanager
        WORKDIR /alertmanager
        ENTRYPOINT ["/bin/prometheus-alertmanager"]
    """,
}
# What takes seconds in production, so that the test waits less.
QUICKLY = {
    "prometheus/prometheus.yml": (("15s", "1s"),),
    "alertmanager/alertmanager.yml": (("group_wait: 10s", "group_wait: 0s"),),
}


def make_images(engine: Engine, services: dict[str, Any]) -> None:
    """An engine that can pull from nowhere gets the images of compose.yaml under their names."""
    tools = fetch_tools(ROOT / "build/monitoring").parents[1]
    for service, steps in IMAGES.items():
        lines = ["FROM python:3.13-slim", *map(str.strip, steps.splitlines())]
        done = subprocess.run(
            [
                *("docker", "build", "--quiet", "--network", "host"),
                *("--tag", services[service]["image"], "--file", "-", str(tools)),
            ],
            env=os.environ | engine.environment,
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{service}: {done.stderr}"


@pytest.fixture(scope="module")
def project(engine: Engine, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    app = built(engine, folder, tmp_path_factory.mktemp("docker") / "app", Project)
    files = app.folder / "deploy/monitoring"
    services = yaml.safe_load((files / "compose.yaml").read_text())["services"]
    if engine.throwaway:
        make_images(engine, services)
    for name, changes in QUICKLY.items():
        text = (files / name).read_text()
        for slow, quick in changes:
            assert slow in text
            text = text.replace(slow, quick)
        (files / name).write_text(text)
    app.profiles = ("monitoring",)
    app.variables |= {"PROMETHEUS_PORT": "0", "ALERTMANAGER_PORT": "0"}
    return app


def test_the_profile_watches_every_replica_and_alerts(
    project: Project, fake: Any, fakes: Any
) -> None:
    with Receiver(EVERY_ADDRESS) as receiver:
        hook = {"ALERT_WEBHOOK_URL": receiver.url.replace(EVERY_ADDRESS, MACHINE)}
        outside = {"extra_hosts": [f"{MACHINE}:host-gateway"], "healthcheck": OFTEN}
        settings = on_the_fake(fake)
        settings["environment"]["MAX_ATTEMPTS"] = "1"
        with project.running(
            **settings,
            deploy={"replicas": 2},
            secrets=SECRETS | hook,
            others={"prometheus": {"healthcheck": OFTEN}, "alertmanager": outside},
        ):
            port = project.compose("port", "prometheus", "9090").strip()
            prometheus = Monitoring(f"http://{port}")
            wait_for("both replicas", lambda: prometheus.value('count(up{job="app"} == 1) == 2'))
            for service in ("prometheus", "alertmanager"):
                container = project.container(service)
                assert container["Config"]["User"] == "65534:65534"
                assert container["HostConfig"]["ReadonlyRootfs"] is True
                assert container["HostConfig"]["CapDrop"] == ["ALL"]
                assert container["HostConfig"]["Memory"] > 0
                assert container["State"]["Health"]["Status"] == "healthy"

            fake.always(fakes.Status(500))
            with project.http(KEY) as client:
                for _ in range(25):
                    client.post("/v1/chat/completions", json=question("Hello"))
            page = wait_for(
                "the page", lambda: receiver.find("ErrorBudgetBurn", severity="page", window="1h")
            )
            assert page["annotations"]["on_call"] == "Kim Minji, +82 10 5550 0100"
            assert page["annotations"]["runbook"] == "RUNBOOK.md#availability"
