"""Several replicas behind the proxy, on a real engine: limits, addresses, deaths and releases."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.engine import Engine
from tests.deploy.project import (
    EVERY_ADDRESS,
    KEY,
    SECRETS,
    SEND_TO_SERVER,
    built,
    chats,
    on_the_fake,
    spoken,
)
from tests.deploy.proxied import CHAT, Proxied, asked_all_along
from tests.deploy.stage import question

pytestmark = pytest.mark.deploy

PER_ADDRESS = 400
LIMITS = {
    "REQUESTS_PER_MINUTE": "100000",
    "REQUESTS_PER_MINUTE_PER_IP": str(PER_ADDRESS),
}
REPLICAS = 3
# Each look starts a process, and there are many containers: a slow machine is no sick replica.
SELDOM = {"interval": "2s", "timeout": "20s"}


@pytest.fixture(scope="module")
def fake(fakes: Any) -> Iterator[Any]:
    """One fake provider for the module: its replicas run all the while."""
    with fakes.FakeProvider(EVERY_ADDRESS) as running:
        yield running


@pytest.fixture(scope="module")
def project(
    engine: Engine, folder: Path, tmp_path_factory: pytest.TempPathFactory, fake: Any
) -> Iterator[Proxied]:
    """Three replicas in production, with Redis, behind the proxy."""
    path = tmp_path_factory.mktemp("docker") / "app"
    found = built(engine, folder, path, Proxied, store="redis")
    settings = on_the_fake(fake)
    settings["environment"] |= LIMITS
    settings["healthcheck"] = SELDOM
    others = {"redis": {"healthcheck": SELDOM}, "proxy": {"healthcheck": SELDOM}}
    with found.running(**settings, secrets=SECRETS, others=others):
        yield found


@pytest.fixture(autouse=True)
def _plain_answers(fake: Any, fakes: Any) -> None:
    fake.always(fakes.Reply("Hello"))


def test_it_chats_over_tls_and_a_stream_is_not_held_back(
    project: Proxied, fake: Any, fakes: Any
) -> None:
    assert "not formatted" not in project.compose("logs", "proxy")
    chats(project)
    fake.always(fakes.Reply(chunks=8, delay_between=0.25))
    came = []
    with (
        project.http(KEY) as client,
        client.stream("POST", CHAT, json=question("Tell me", stream=True)) as stream,
    ):
        for line in stream.iter_lines():
            if line.startswith("data: "):
                came.append(time.monotonic())
    gaps = [later - sooner for sooner, later in pairwise(came)]
    assert sum(gap > 0.1 for gap in gaps) >= 6, gaps


def test_limits_hold_over_the_replicas_and_a_claimed_address_gains_nothing(
    project: Proxied, fake: Any
) -> None:
    before = len(fake.ledger.calls)
    first, second = project.gateway("bridge"), project.gateway(f"{project.name}_default")
    assert first != second
    with project.client_from(first) as one, project.client_from(second) as two:
        claims = [f"203.0.{number // 250}.{number % 250 + 1}" for number in range(PER_ADDRESS + 5)]
        with ThreadPoolExecutor(6) as threads:
            statuses = Counter(threads.map(one.ask, claims))
        assert statuses == {200: PER_ADDRESS, 429: 5}
        assert two.ask(first) == 200, "another address has limits of its own"
        assert one.ask(second) == 429
    assert len(fake.ledger.calls) - before == PER_ADDRESS + 1

    answered = [
        project.engine.docker("logs", replica["Id"]).count("POST /v1/chat/completions 200")
        for replica in project.replicas()
    ]
    print(f"answers of each replica: {answered}")
    assert len(answered) == REPLICAS
    assert min(answered) > PER_ADDRESS / REPLICAS / 2
    # No replica is open to this machine's other networks.
    for replica in project.replicas():
        assert not replica["HostConfig"]["PortBindings"]


def test_a_replica_that_dies_costs_no_request(project: Proxied, fake: Any) -> None:
    replica = project.replicas()[0]["Id"]
    with project.http(KEY) as client:
        project.engine.docker("exec", replica, "python", "-c", SEND_TO_SERVER, "SIGKILL")
        # A question that reaches it while it dies breaks off: sent again, it might be paid twice.
        wait_for_death(project, replica)
        statuses = [client.post(CHAT, json=question("Hello")).status_code for _ in range(30)]
    assert statuses == [200] * 30
    project.compose("up", "--wait", "--no-recreate")
    (again,) = [found for found in project.replicas() if found["Id"] == replica]
    assert again["RestartCount"] == 1


def wait_for_death(project: Proxied, container: str) -> None:
    """Wait until a container's first process has ended; the engine starts it again by itself."""
    deadline = time.monotonic() + 30
    state = "{{.State.Running}} {{.RestartCount}}"
    while project.engine.docker("inspect", "--format", state, container).split() == ["true", "0"]:
        assert time.monotonic() < deadline, "it does not die"
        time.sleep(0.05)


def test_a_replica_that_is_stopped_finishes_its_stream_and_costs_no_request(
    project: Proxied, fake: Any, fakes: Any
) -> None:
    fake.always(fakes.Reply(chunks=28, delay_between=0.25))

    def stream(_: int) -> bool:
        with (
            project.http(KEY) as client,
            client.stream("POST", CHAT, json=question("Tell me", stream=True)) as answer,
        ):
            return answer.status_code == 200 and spoken(answer.iter_lines())[1]

    stopped = project.replicas()[0]["Id"]
    before = len(fake.ledger.calls)
    with ThreadPoolExecutor() as threads:
        streams = [threads.submit(stream, number) for number in range(2 * REPLICAS)]
        fake.ledger.wait_for(before + len(streams), timeout=30)
        fake.always(fakes.Reply("Hello"))
        stopping = threads.submit(project.engine.docker, "stop", stopped)
        with project.http(KEY) as client:
            statuses = [client.post(CHAT, json=question("Hello")).status_code for _ in range(10)]
        assert not all(answer.done() for answer in streams), "it was stopped too late"
        assert statuses == [200] * 10
        assert all(answer.result() for answer in streams)
        stopping.result()
    assert len(project.replicas()) == REPLICAS - 1
    project.compose("up", "--wait", "--no-recreate")
    assert len(project.replicas()) == REPLICAS


def test_releases_and_rollbacks_cost_no_request(project: Proxied, fake: Any) -> None:
    first = {replica["Image"] for replica in project.replicas()}
    prompt = project.folder / "app/yours/system_prompt.md"
    before = prompt.read_text()
    with asked_all_along(project) as statuses:
        prompt.write_text("Be brief.\n")
        print(project.release("deploy"))
        second = {replica["Image"] for replica in project.replicas()}
        assert len(second) == 1
        assert second != first
        assert "Be brief." in str(fake.ledger.calls[-1].messages)

        prompt.write_text(before)
        (project.folder / "app/main.py").write_text("raise SystemExit('broken')\n")
        with pytest.raises(AssertionError, match="the version before serves"):
            project.release("deploy", WAIT_SECONDS="5")
        assert {replica["Image"] for replica in project.replicas()} == second

        print(project.release("rollback"))
        assert {replica["Image"] for replica in project.replicas()} == first
        assert len(project.replicas()) == REPLICAS
    print(f"asked meanwhile: {len(statuses)}")
    assert len(statuses) > 20
    assert set(statuses) == {200}
    known = {"URL": project.url, "SMOKE_APP_KEY": KEY, "CURL_CA_BUNDLE": str(project.authority())}
    assert "answers" in project.release("try", **known)
