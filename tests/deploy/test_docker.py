"""The Docker target on a real engine: built, started, called, stopped and started again.

Every test speaks to the app from outside, over HTTP and the `docker` command. What the app needs
in a test comes as a compose.override.yaml, as compose.yaml tells its readers to do.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.deploy.engine import Engine
from tests.kit import answers, generate, run

pytestmark = pytest.mark.deploy

NAME = "survival-kit-test"
CANARY = "canary-5d0c1e9a"  # in every file that must stay out of the image
IN_THE_PROMPT = "prompt-3f6b27d4"  # in a file that must be in it: the search finds what is there
SECRETS = {
    "ADMIN_TOKEN": "admin-0123456789",
    "APP_API_KEYS": "alice:alice-0123456789",
    "OPENAI_API_KEY": "sk-provider-0123456789",
}
DEMO = {"APP_ENV": "development", "PROVIDERS": "demo"}
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104
EX_CONFIG = 78
UP_SECONDS = 60
COMMAND_SECONDS = 240

# Runs in the container. The server is the process that `serve` became.
SEND_TO_SERVER = """
import os, signal, sys
from pathlib import Path
for process in Path("/proc").glob("[0-9]*"):
    if (process / "cmdline").read_bytes().endswith(b"/bin/serve\\0") and process.name != "1":
        os.kill(int(process.name), signal.Signals[sys.argv[1]])
        print("sent")
"""
TRY_TO_WRITE = """
import sys
for folder in sys.argv[1:]:
    try:
        open(folder + "/written", "w").close()
        print(folder, "open")
    except OSError as error:
        print(folder, error.strerror)
"""


@dataclass
class Project:
    """A generated app and its containers."""

    folder: Path
    engine: Engine
    url: str = ""

    def attempt(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `docker compose`; it may fail."""
        return subprocess.run(
            ["docker", "compose", "--project-name", NAME, *arguments],
            cwd=self.folder,
            env=os.environ | self.engine.environment | {"PUBLISHED_PORT": "0"},  # a free one
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def compose(self, *arguments: str) -> str:
        """Run `docker compose`; it must succeed. What it prints on standard output."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def override(self, environment: dict[str, str], **service: object) -> None:
        """Write the compose.override.yaml of a test."""
        # A throwaway engine has no way out of its own network: see engine.py.
        build = {"build": {"network": "host"}} if self.engine.throwaway else {}
        app = {"image": NAME, "environment": environment, **build, **service}
        whole: dict[str, object] = {"services": {"app": app}}
        if "secrets" in service:
            whole["secrets"] = {name: {"file": f"./secrets/{name}"} for name in SECRETS}
        (self.folder / "compose.override.yaml").write_text(yaml.safe_dump(whole))

    def up(self) -> float:
        """Start the app and wait until it is healthy; the seconds that it took."""
        began = time.monotonic()
        self.compose("up", "--wait", "--wait-timeout", str(UP_SECONDS))
        took = time.monotonic() - began
        self.url = f"http://{self.compose('port', 'app', '8000').strip()}"
        return took

    @contextmanager
    def running(self, environment: dict[str, str], **service: object) -> Iterator[None]:
        """The app, healthy, with these settings; its containers and its volume are gone after."""
        self.override(environment, **service)
        try:
            print(f"up --wait: {self.up():.1f} s")
            yield
        finally:
            print(self.compose("logs", "--no-color", "app"))
            self.compose("down", "--volumes", "--timeout", "1")

    def container(self) -> dict[str, Any]:
        """What the engine knows of the app's container, running or not."""
        identity = self.compose("ps", "--all", "--quiet", "app").strip()
        (found,) = json.loads(self.engine.docker("inspect", identity))
        return dict(found)

    def python(self, program: str, *arguments: str) -> str:
        """Run a Python program in the container of the app, as its user."""
        return self.compose("exec", "--no-TTY", "app", "python", "-c", program, *arguments)

    def wait_for_health(self, wanted: str) -> None:
        """Wait until the container is `healthy` or `unhealthy`."""
        deadline = time.monotonic() + UP_SECONDS
        while (state := self.container()["State"]["Health"]["Status"]) != wanted:
            assert time.monotonic() < deadline, f"still {state}"
            time.sleep(0.5)

    def http(self, key: str | None = None) -> httpx2.Client:
        """An HTTP client of the published port."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def project(engine: Engine, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """An app in whose image nothing secret may be, built as its README says."""
    app = generate(folder, tmp_path_factory.mktemp("docker") / "app", answers())
    run(app, "git", "init", "--quiet")
    run(app, "uv", "lock", "--quiet")
    for name in (".env", ".git/config", "app/.env", "app/yours/.env.local", "app/tls.key"):
        with (app / name).open("a") as file:
            file.write(f"\n# {CANARY}\n")
    (app / "secrets").mkdir()
    for name, value in SECRETS.items():
        (app / "secrets" / name).write_text(f"{value}\n")
        (app / "secrets" / name).chmod(0o644)
    (app / "app/yours/system_prompt.md").write_text(f"Be kind. {IN_THE_PROMPT}\n")
    built = Project(app, engine)
    built.override(DEMO)
    began = time.monotonic()
    built.compose("build")
    print(f"build: {time.monotonic() - began:.1f} s")
    return built


@pytest.fixture(scope="module")
def fakes(project: Project) -> Any:
    """The package of the app's own fake provider."""
    package = project.folder / "tests/fake_provider"
    spec = importlib.util.spec_from_file_location(
        "fake_of_docker", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake(fakes: Any) -> Iterator[Any]:
    """The fake provider, on every address of this machine: containers come from their own."""
    with fakes.FakeProvider(EVERY_ADDRESS) as running:
        yield running


@pytest.fixture
def production(project: Project, fake: Any) -> Iterator[Project]:
    """The app in production: its secrets are files, its provider is the fake one."""
    machine = "host.docker.internal"
    with project.running(
        {"OPENAI_BASE_URL": fake.openai_base_url.replace(EVERY_ADDRESS, machine)},
        extra_hosts=[f"{machine}:host-gateway"],
        secrets=list(SECRETS),
    ):
        yield project


def question(text: str, stream: bool = False) -> dict[str, object]:
    return {"model": "auto", "stream": stream, "messages": [{"role": "user", "content": text}]}


def spoken(lines: Iterator[str]) -> tuple[str, bool]:
    """The text of a stream, and whether it came to its end."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    finished = data[-1] == "[DONE]"
    chunks = [json.loads(item) for item in data if item != "[DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas), finished


def spent(project: Project) -> float:
    """Today's settled cost in US dollars, as the app exports it."""
    with project.http("admin-0123456789") as client:
        metrics = client.get("/metrics").text
    (line,) = [line for line in metrics.splitlines() if line.startswith("llm_app_daily_cost_usd ")]
    return float(line.split()[1])


def test_the_image_holds_the_app_and_nothing_secret(project: Project, tmp_path: Path) -> None:
    (image,) = json.loads(project.engine.docker("image", "inspect", NAME))
    print(f"image: {image['Size'] / 1e6:.0f} MB")
    assert image["Config"]["User"] == "999:999"
    assert image["Config"]["Healthcheck"]["Test"][0] == "CMD"

    project.engine.docker("save", "--output", tmp_path / "image.tar", NAME)
    with tarfile.open(tmp_path / "image.tar") as layers:
        layers.extractall(tmp_path, filter="data")
    names: set[str] = set()
    prompts = 0
    leaked = False
    for path in [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]:
        if path.name == "image.tar" or not tarfile.is_tarfile(path):
            continue
        content = path.read_bytes()
        leaked |= CANARY.encode() in content
        prompts += IN_THE_PROMPT.encode() in content
        with tarfile.open(path) as layer:
            names |= set(layer.getnames())
    assert not leaked, "a file that .dockerignore must keep out is in the image"
    assert prompts == 1, "the search does not find what is there"
    assert "app/.venv/bin/serve" in names
    inside = {name for name in names if name.startswith("app/") and "/site-packages/" not in name}
    assert {name.split("/")[1] for name in inside} == {".venv", "data"}
    assert not [name for name in names if name.endswith(("/bin/uv", "/uv-cache"))]
    assert not [name for name in names if re.search(r"/site-packages/(checklist|tests)/", name)]


def test_an_image_built_again_has_the_new_code(project: Project) -> None:
    prompt = project.folder / "app/yours/system_prompt.md"
    before = prompt.read_text()
    prompt.write_text("Be brief.\n")
    try:
        project.override(DEMO)
        project.compose("build")
        inside = "from app.main import read_instructions as read; print(read())"
        shown = project.compose("run", "--rm", "--no-TTY", "app", "python", "-c", inside)
        assert "Be brief." in shown
    finally:
        prompt.write_text(before)
        project.compose("build")
        project.compose("down", "--volumes")


def test_it_chats_on_the_demo_provider_and_can_write_nowhere_else(project: Project) -> None:
    with project.running(DEMO):
        with project.http() as client:
            answer = client.post("/v1/chat/completions", json=question("Hello"))
            assert answer.status_code == 200, answer.text
            assert "Hello" in answer.json()["choices"][0]["message"]["content"]
            with client.stream(
                "POST", "/v1/chat/completions", json=question("Hello", stream=True)
            ) as stream:
                text, finished = spoken(stream.iter_lines())
            assert "Hello" in text
            assert finished

        status = project.python("print(open('/proc/1/status').read())")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["999"] * 4
        assert fields["Gid"].split() == ["999"] * 4
        assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert fields["NoNewPrivs"] == "1"
        places = ("/", "/app", "/app/.venv", "/etc", "/app/data", "/tmp")  # noqa: S108
        written = project.python(TRY_TO_WRITE, *places).splitlines()
        assert written[:4] == [f"{place} Read-only file system" for place in places[:4]]
        assert written[4:] == [f"{place} open" for place in places[4:]]


def test_production_starts_with_secrets_from_files_and_answers_who_has_a_key(
    production: Project, fake: Any
) -> None:
    for key in (None, "not-a-key-0123456789"):
        with production.http(key) as client:
            refused = client.post("/v1/chat/completions", json=question("Hello"))
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
    assert not fake.ledger.calls

    with production.http("alice-0123456789") as client:
        answer = client.post("/v1/chat/completions", json=question("Hello"))
        assert answer.status_code == 200, answer.text
        assert "Hello" in answer.json()["choices"][0]["message"]["content"]
        with client.stream(
            "POST", "/v1/chat/completions", json=question("Hello", stream=True)
        ) as stream:
            text, finished = spoken(stream.iter_lines())
        assert "Hello" in text
        assert finished
    assert [call.outcome for call in fake.ledger.calls] == ["answered"] * 2
    assert IN_THE_PROMPT in json.dumps(fake.ledger.calls[0].messages)


def test_a_stop_lets_the_stream_finish_and_a_restart_remembers(
    production: Project, fake: Any, fakes: Any
) -> None:
    once = {"Idempotency-Key": "paid-once"}
    with production.http("alice-0123456789") as client:
        first = client.post("/v1/chat/completions", json=question("Hello"), headers=once)
        fake.always(fakes.Reply(chunks=12, delay_between=0.25))  # three seconds
        with (
            ThreadPoolExecutor() as thread,
            client.stream(
                "POST", "/v1/chat/completions", json=question("Tell me", stream=True)
            ) as stream,
        ):
            lines = stream.iter_lines()
            opening = [next(lines) for _ in range(5)]
            began = time.monotonic()
            stopping = thread.submit(production.compose, "stop", "app")
            _, finished = spoken(iter([*opening, *lines]))
            stopping.result()
    took = time.monotonic() - began
    print(f"stop in mid-stream: {took:.1f} s")
    assert finished
    assert 2 < took < 15
    assert production.container()["State"]["ExitCode"] == 0
    calls = len(fake.ledger.calls)
    assert fake.ledger.calls[-1].outcome == "answered"

    production.compose("down")  # the container is gone, the volume stays
    production.up()
    assert spent(production) > first.json()["survival_kit"]["cost_usd"] > 0
    with production.http("alice-0123456789") as client:
        again = client.post("/v1/chat/completions", json=question("Hello"), headers=once)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.content == first.content
    assert len(fake.ledger.calls) == calls


def test_a_hanging_app_becomes_unhealthy(project: Project) -> None:
    often = {"interval": "1s", "timeout": "1s", "retries": 2}
    with project.running(DEMO, healthcheck=often):
        assert project.python(SEND_TO_SERVER, "SIGSTOP").split() == ["sent"]
        project.wait_for_health("unhealthy")
        project.python(SEND_TO_SERVER, "SIGCONT")
        project.wait_for_health("healthy")


@pytest.mark.parametrize("lacking", [list(SECRETS), ["ADMIN_TOKEN"]])
def test_missing_secrets_stop_it_with_the_list_of_problems(
    project: Project, lacking: list[str]
) -> None:
    project.override({name: value for name, value in SECRETS.items() if name not in lacking})
    try:
        done = project.attempt("run", "--rm", "--no-TTY", "app")
        assert done.returncode == EX_CONFIG
        for name in SECRETS:
            assert (f"  {name}: " in done.stderr) == (name in lacking), done.stderr
        for value in SECRETS.values():
            assert value not in done.stderr

        began = time.monotonic()
        assert project.attempt("up", "--wait").returncode != 0
        assert time.monotonic() - began < 30, "a deploy that cannot start must say so soon"
        assert f"  {lacking[0]}: " in project.compose("logs", "app")
    finally:
        project.compose("down", "--volumes")


def test_a_secret_that_the_app_may_not_read_is_a_problem_it_names(project: Project) -> None:
    for name in SECRETS:
        (project.folder / "secrets" / name).chmod(0o600)
    project.override({}, secrets=list(SECRETS))
    try:
        done = project.attempt("run", "--rm", "--no-TTY", "app")
        assert done.returncode == EX_CONFIG, done.stderr
        assert "  ADMIN_TOKEN: " in done.stderr
    finally:
        project.compose("down", "--volumes")
        for name in SECRETS:
            (project.folder / "secrets" / name).chmod(0o644)
