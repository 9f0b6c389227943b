"""The Vercel target: built by Vercel's own builder, served by Vercel's own runtime.

Redis and PostgreSQL are real throwaway servers, the provider is the fake one. An instance is
always ended with SIGKILL, as no platform promises more.
"""

import json
import os
import shutil
import signal
import time
import tomllib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest

from tests.deploy.stage import UNCITED, load_fakes, question, store_server, write_document
from tests.deploy.vercel import PYTHON, Function, Instance, run_step
from tests.kit import answers, generate, run

pytestmark = pytest.mark.deploy

CANARY = "canary-7c21e0d4"  # in every file that must stay out of the bundle
IN_THE_PROMPT = "prompt-3f6b27d4"  # in a file that must be in it: the search finds what is there
HIDDEN = (
    ".env",
    ".env.local",
    ".vercel/.env.production.local",
    "a.key",
    "app/.env",
    "app/tls.pem",
    "app/yours/.env.local",
    "app/yours/.env.d/key",
    "app/yours/client.p12",
    "app/yours/tls.key",
    "checklist/notes.txt",
    "data/app.db",
    "notes.md",
    "secrets/ADMIN_TOKEN",
    "tests/yours/keys.txt",
)
ADMIN, ALICE, WRONG = "admin-0123456789", "alice-0123456789", "wrong-0123456789"
SECRETS = {
    "ADMIN_TOKEN": ADMIN,
    "APP_API_KEYS": f"alice:{ALICE}",
    "OPENAI_API_KEY": "sk-provider-0123456789",
}
MOST_BYTES = 250 * 1024 * 1024  # above, Vercel installs what is missing at each cold start
EX_CONFIG = 78
CHAT = "/v1/chat/completions"


@dataclass
class Deployment:
    """An app that was built, its bundle, and the settings that `vercel env add` would give it."""

    app: Path
    function: Function
    bundle: Path
    fakes: Any
    fake: Any
    store: dict[str, str]

    def settings(self, **changes: object) -> dict[str, str]:
        """A production environment on the fake provider; a change to None leaves one out."""
        provider = {"OPENAI_BASE_URL": self.fake.openai_base_url, **UNCITED}
        whole: dict[str, object] = {**SECRETS, **self.store, **provider, **changes}
        return {name: str(value) for name, value in whole.items() if value is not None}

    def instance(self, **changes: object) -> AbstractContextManager[Instance]:
        """Start an instance."""
        return self.function.instance(self.bundle, self.settings(**changes))


class Receiver:
    """Receives alerts and traces."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def paths(self) -> list[str]:
        """Where something was sent to so far."""
        return [path for path, _ in self.received]

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    listening = Receiver()
    yield listening
    listening.close()


@pytest.fixture(scope="module", params=["redis", "postgres"])
def built(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """An app in whose bundle nothing secret may be, built as its README says."""
    app = tmp_path_factory.mktemp("vercel") / "app"
    documents = request.param == "redis"  # one of the two answers from documents
    generate(folder, app, answers(deploy="vercel", store=request.param, knowledge=documents))
    if documents:
        write_document(app)
    run(app, "git", "init", "--quiet")
    run(app, "uv", "lock", "--quiet")
    for name in HIDDEN:
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(f"{CANARY}\n")
    (app / "app/yours/system_prompt.md").write_text(f"Be kind. {IN_THE_PROMPT}\n")
    (app / "app/checklist.json").write_text("{}")
    began = time.monotonic()
    function = Function.built(app)
    print(f"vercel build: {time.monotonic() - began:.1f} s")
    bundle = tmp_path_factory.mktemp("task")
    print(f"bundle: {function.unpack(bundle) / 2**20:.0f} MiB, {len(function.files())} files")
    fakes = load_fakes(app, f"fake_of_vercel_{request.param}")
    with store_server(app) as store, fakes.FakeProvider() as fake:
        yield Deployment(app, function, bundle, fakes, fake, store)


@pytest.fixture
def deployment(built: Deployment) -> Iterator[Deployment]:
    """The deployment with an empty ledger, whose bundle nobody may have written to."""
    before = set(built.bundle.rglob("*"))
    built.fake.reset()
    yield built
    assert set(built.bundle.rglob("*")) == before, "on Vercel only /tmp can be written to"


def text_of(line: str) -> str:
    """What an event of a stream says."""
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def metric(instance: Instance, name: str) -> float:
    """A metric without labels."""
    with instance.http(ADMIN) as client:
        lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"llm_app_{name} "))


def test_the_bundle_holds_the_app_and_nothing_secret(built: Deployment) -> None:
    contents = {
        path.relative_to(built.bundle).as_posix(): path.read_bytes()
        for path in built.bundle.rglob("*")
        if path.is_file()
    }
    leaked = [name for name, content in contents.items() if CANARY.encode() in content]
    assert leaked == []
    found = [name for name, content in contents.items() if IN_THE_PROMPT.encode() in content]
    assert "app/yours/system_prompt.md" in found, "the search does not find what is there"
    top = {name.split("/")[0] for name in contents}
    assert top == {"_vendor", "app", "pyproject.toml", "uv.lock", "vc__handler__python.py"}
    assert sum(map(len, contents.values())) < MOST_BYTES
    # Without the index no instance would start. What made it is not needed any more.
    documents = (built.app / "indexing").exists()
    assert "app/checklist.json" in contents
    assert ("app/knowledge.db" in contents) == documents
    assert not [name for name in contents if name.startswith("_vendor/pypdf")]


def test_the_function_is_what_vercel_json_says(built: Deployment) -> None:
    # Vercel says nothing of a key or a pattern that it does not know: look at what came of it.
    configuration = built.function.configuration
    assert configuration["runtime"] == f"python{PYTHON}"
    assert configuration["supportsResponseStreaming"] is True
    assert configuration["maxDuration"] == 300
    refused = built.settings(TIME_BUDGET_SECONDS=280)
    with built.function.instance(built.bundle, refused) as instance:
        assert instance.ended() == EX_CONFIG
        assert "TIME_BUDGET_SECONDS" in instance.log()
    routes = json.loads((built.app / ".vercel/output/config.json").read_text())["routes"]
    assert routes[-1]["src"] == "/(.*)"


def test_the_bundle_has_the_versions_of_the_lock(built: Deployment) -> None:
    lock = tomllib.loads((built.app / "uv.lock").read_text())
    locked = {package["name"]: package["version"] for package in lock["package"]}
    installed = [
        path.name.removesuffix(".dist-info") for path in built.bundle.glob("_vendor/*-info")
    ]
    compared = 0
    for name, _, version in (entry.rpartition("-") for entry in installed):
        if (known := name.lower().replace("_", "-").replace(".", "-")) in locked:
            assert version == locked[known], name
            compared += 1
    assert compared > 30
    assert "pytest" not in {name.partition("-")[0] for name in installed}


def test_it_answers_whole_and_in_a_stream(deployment: Deployment) -> None:
    fake, reply = deployment.fake, deployment.fakes.Reply
    with deployment.instance() as instance, instance.http(ALICE) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        whole = client.post(CHAT, json=question("Hello"))
        assert whole.status_code == 200, whole.text
        assert "Hello" in whole.json()["choices"][0]["message"]["content"]

        fake.always(reply(chunks=6, delay_between=0.3))
        said, open_calls = [], []
        with client.stream("POST", CHAT, json=question("Hello", stream=True)) as stream:
            for line in stream.iter_lines():
                if text := text_of(line):
                    said.append(text)
                    open_calls.append(fake.ledger.calls[-1].outcome == "open")
        assert len(said) == 6
        assert open_calls[0], "the first piece came only when the last was there"
        instance.wait_for_invocations(4)
        lines = [line for line in instance.log_lines() if line.get("route") == CHAT]
    assert [line["status"] for line in lines] == [200, 200]
    assert [call.outcome for call in fake.ledger.calls] == ["answered"] * 2
    assert IN_THE_PROMPT in json.dumps(fake.ledger.calls[0].messages)


def test_a_refusal_reaches_no_provider(deployment: Deployment) -> None:
    with deployment.instance(DAILY_COST_CAP_USD="0.00001") as instance:
        for key in (None, "not-a-key-0123456789"):
            with instance.http(key) as client:
                refused = client.post(CHAT, json=question("Hello"))
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
        with instance.http(ALICE) as client:
            over = client.post(CHAT, json=question("Hello"))
            assert over.status_code == 503, over.text
            assert over.json()["error"]["code"] == "daily_cost_cap"
    assert deployment.fake.ledger.calls == []


def test_another_instance_remembers_what_was_spent_and_answered(deployment: Deployment) -> None:
    once = {"Idempotency-Key": "paid-once"}
    with deployment.instance() as instance, instance.http(ALICE, **once) as client:
        before = metric(instance, "daily_cost_usd")
        first = client.post(CHAT, json=question("Hello"))
        # No shutdown follows: what it cost is settled before the answer is complete.
        instance.kill()
    cost = first.json()["survival_kit"]["cost_usd"]
    assert cost > 0
    with deployment.instance() as instance, instance.http(ALICE, **once) as client:
        assert metric(instance, "daily_cost_usd") == pytest.approx(before + cost)
        assert metric(instance, "cost_reserved_usd") == 0
        again = client.post(CHAT, json=question("Hello"))
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.content == first.content
    assert len(deployment.fake.ledger.calls) == 1


def test_one_that_dies_in_mid_stream_is_charged_and_never_asked_again(
    deployment: Deployment,
) -> None:
    once = {"Idempotency-Key": "cut-off"}
    quick = {"TIME_BUDGET_SECONDS": 12, "STORE_TIMEOUT_SECONDS": 1}  # the lease: 21 seconds
    deployment.fake.always(deployment.fakes.Reply(chunks=40, delay_between=0.1))
    with deployment.instance(**quick) as instance, instance.http(ALICE, **once) as client:
        before = metric(instance, "daily_cost_usd")
        with client.stream("POST", CHAT, json=question("Hello", stream=True)) as stream:
            lines = stream.iter_lines()
            while not text_of(next(lines)):
                pass
            instance.kill()
            with pytest.raises(httpx2.TransportError):
                list(lines)
    with deployment.instance(**quick) as instance, instance.http(ALICE, **once) as client:
        reserved = metric(instance, "cost_reserved_usd")
        assert reserved > 0, "what the dead one may owe is held back"
        assert client.post(CHAT, json=question("Hello", stream=True)).status_code == 409
        deadline = time.monotonic() + 45
        while metric(instance, "cost_reserved_usd") and time.monotonic() < deadline:
            time.sleep(0.5)
        assert metric(instance, "daily_cost_usd") == pytest.approx(before + reserved)
        lost = client.post(CHAT, json=question("Hello", stream=True))
    assert "time_budget_exceeded" in lost.text
    assert len(deployment.fake.ledger.calls) == 1


@pytest.mark.parametrize("lacking", [list(SECRETS), ["ADMIN_TOKEN"]])
def test_missing_variables_are_listed_in_the_functions_log(
    deployment: Deployment, lacking: list[str]
) -> None:
    # APP_ENV is not set either: what Vercel serves is public, so it counts as production.
    with deployment.instance(**dict.fromkeys(lacking)) as instance:
        assert instance.ended() == EX_CONFIG
        for name, value in SECRETS.items():
            assert (f"  {name}: " in instance.log()) == (name in lacking), instance.log()
            assert value not in instance.log()


def test_a_store_that_can_never_work_ends_it_and_one_that_is_away_does_not(
    deployment: Deployment,
) -> None:
    ((name, url),) = deployment.store.items()
    wrong = httpx2.URL(url).copy_with(password=WRONG)
    with deployment.instance(**{name: wrong}) as instance:
        assert instance.ended() != 0
        assert WRONG not in instance.log()
        assert f"  {name}: " in instance.log(), instance.log()
    away = url.replace(str(httpx2.URL(url).port), "9")
    with deployment.instance(**{name: away}) as instance, instance.http(ALICE) as client:
        refused = client.post(CHAT, json=question("Hello"))
        assert refused.json()["error"]["code"] == "store_unavailable", refused.text
    assert deployment.fake.ledger.calls == []


def test_addresses_are_those_that_vercels_proxy_states(deployment: Deployment) -> None:
    def asked(instance: Instance, forwarded: str) -> int:
        with instance.http(ALICE, **{"X-Forwarded-For": forwarded}) as client:
            return client.post(CHAT, json=question("Hello")).status_code

    with deployment.instance(REQUESTS_PER_MINUTE_PER_IP=3) as instance:
        assert [asked(instance, "203.0.113.7") for _ in range(4)] == [200, 200, 200, 429]
        assert asked(instance, "203.0.113.8") == 200, "another client has a limit of its own"
        # Vercel writes the header anew; were something put in front of it, that would not help.
        assert asked(instance, "203.0.113.9, 203.0.113.7") == 429


def test_what_a_request_leaves_behind_is_done_before_its_invocation_ends(
    deployment: Deployment, receiver: Receiver
) -> None:
    deployment.fake.always(deployment.fakes.Status(500))
    telling = {
        "ALERT_URLS": f"json://{receiver.address}/alerts",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}",
        "MAX_ATTEMPTS": 1,
    }
    with deployment.instance(**telling) as instance, instance.http(ALICE) as client:
        failed = client.post(CHAT, json=question("Hello"))
        assert failed.json()["error"]["code"] == "providers_unavailable"
        assert "/alerts" not in receiver.paths(), "an answer waits for no alert"
        instance.wait_for_invocations(1)
        os.kill(instance.pid, signal.SIGSTOP)  # as Vercel does between two requests
        assert "/alerts" in receiver.paths()
        traces = b"".join(body for path, body in receiver.received if path == "/v1/traces")
        assert f"POST {CHAT}".encode() in traces


def test_the_workflow_tries_what_it_deployed(deployment: Deployment) -> None:
    def tried(instance: Instance) -> str:
        url = f"http://127.0.0.1:{instance.port}"
        return run_step(
            "Try what was deployed", deployment.app, PRODUCTION_URL=url, SMOKE_APP_KEY=ALICE
        )

    with deployment.instance() as instance:
        assert "data: [DONE]" in tried(instance)
    assert [call.stream for call in deployment.fake.ledger.calls] == [False, True]
    with (
        deployment.instance(APP_API_KEYS=f"bob:{ALICE}-of-bob") as instance,
        pytest.raises(AssertionError, match="invalid_api_key"),
    ):
        tried(instance)


def test_the_workflow_finds_a_stale_lock(built: Deployment, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(built.app / name, tmp_path)
    run_step("The lock fits", tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text().replace('"tzdata', '"idna>=3",\n    "tzdata'))
    with pytest.raises(AssertionError, match="lock"):
        run_step("The lock fits", tmp_path)
