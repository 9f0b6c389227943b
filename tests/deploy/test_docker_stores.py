"""The stores that are services of their own, beside the app on a real engine."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.engine import Engine
from tests.deploy.project import (
    EX_CONFIG,
    KEY,
    OFTEN,
    SECRETS,
    Project,
    built,
    chats,
    kill_the_server,
    on_the_fake,
    spent,
    stop_in_mid_stream,
)
from tests.deploy.stage import question

pytestmark = pytest.mark.deploy

PASSWORD = "stored0123456789"  # noqa: S105
# The files that a store needs beside those of the app, and the settings that its service then has.
SECRETS_OF_STORE = {
    "redis": {},
    "postgres": {
        "DATABASE_URL": f"postgresql://app:{PASSWORD}@postgres:5432/app",
        "POSTGRES_PASSWORD": PASSWORD,
    },
}
SERVICE: dict[str, dict[str, Any]] = {
    "redis": {"healthcheck": OFTEN},
    "postgres": {
        "healthcheck": OFTEN,
        "environment": {"POSTGRES_PASSWORD_FILE": "/run/secrets/POSTGRES_PASSWORD"},
        "secrets": ["POSTGRES_PASSWORD"],
    },
}
USER_OF_STORE = {"redis": "999", "postgres": "70"}
ONCE = {"Idempotency-Key": "paid-once"}


@pytest.fixture(scope="module", params=["redis", "postgres"])
def project(
    request: pytest.FixtureRequest,
    engine: Engine,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Project:
    path = tmp_path_factory.mktemp("docker") / request.param
    return built(engine, folder, path, Project, store=request.param)


@pytest.fixture
def production(project: Project, fake: Any) -> Iterator[Project]:
    """The app in production and its store, started after it: every secret is a file."""
    store = project.folder.name
    secrets = SECRETS | SECRETS_OF_STORE[store]
    services = {store: SERVICE[store]}
    with (
        project.events() as events,
        project.running(**on_the_fake(fake), secrets=secrets, others=services),
    ):
        told = events()
        assert told.index(f"{store} health_status: healthy") < told.index("app start"), told
        yield project


def test_with_its_store_it_chats_and_remembers_whatever_is_killed(
    production: Project, fake: Any, fakes: Any
) -> None:
    store = production.folder.name
    for line in status_of_first_process(production, store):
        assert line in {
            f"Uid: {' '.join([USER_OF_STORE[store]] * 4)}",
            *(f"{name}: 0000000000000000" for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")),
            "NoNewPrivs: 1",
        }
    refused = production.attempt("exec", "--no-TTY", store, "sh", "-c", "> /written")
    assert "Read-only file system" in refused.stderr
    chats(production)
    assert len(fake.ledger.calls) == 2

    with production.http(KEY) as client:
        first = client.post("/v1/chat/completions", json=question("Hello"), headers=ONCE)
    assert first.status_code == 200
    calls = len(fake.ledger.calls)
    money = spent(production)
    assert money > 0

    def remembers() -> None:
        with production.http(KEY) as client:
            again = client.post("/v1/chat/completions", json=question("Hello"), headers=ONCE)
        assert again.headers["Idempotency-Replayed"] == "true", again.text
        assert again.content == first.content
        assert spent(production) == money
        assert len(fake.ledger.calls) == calls

    kill_the_server(production)
    remembers()

    began = production.container()["State"]["StartedAt"]
    production.compose("kill", "--signal", "SIGKILL", store)
    with production.http(KEY) as client:
        asked = time.monotonic()
        down = client.post("/v1/chat/completions", json=question("Are you there?"))
    assert down.status_code == 503
    assert down.json()["error"]["code"] == "store_unavailable"
    assert time.monotonic() - asked < 3
    assert len(fake.ledger.calls) == calls, "nothing is sent that cannot be accounted for"
    production.compose("up", "--wait", "--no-recreate", store)
    deadline = time.monotonic() + 15
    with production.http(KEY) as client:
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, "it does not find its store again"
            time.sleep(0.2)
    assert production.container()["State"]["StartedAt"] == began
    remembers()

    stop_in_mid_stream(production, fake, fakes)
    calls = len(fake.ledger.calls)
    production.compose("down")  # both containers are gone, the volume stays
    production.up()
    assert spent(production) > money
    money = spent(production)
    remembers()


def status_of_first_process(project: Project, service: str) -> list[str]:
    """What the kernel says of the service's user and its rights."""
    wanted = ("Uid:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:")
    shown = project.compose("exec", "--no-TTY", service, "cat", "/proc/1/status")
    lines = [" ".join(line.split()) for line in shown.splitlines() if line.startswith(wanted)]
    assert len(lines) == len(wanted)
    return lines


@pytest.mark.parametrize("project", ["postgres"], indirect=True)
def test_without_a_password_both_say_what_is_missing(project: Project) -> None:
    project.override({}, secrets=SECRETS)
    try:
        done = project.attempt("run", "--rm", "--no-deps", "--no-TTY", "app")
        assert done.returncode == EX_CONFIG
        assert "  DATABASE_URL: " in done.stderr
        assert project.attempt("up", "--wait", "postgres").returncode != 0
        assert "password is not specified" in project.compose("logs", "postgres")
    finally:
        project.compose("down", "--volumes", "--timeout", "1")
