"""A generated app and its containers, as the Docker tests drive them.

What the app needs in a test comes as a compose.override.yaml, as compose.yaml tells its readers.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import yaml

from tests.deploy.engine import Engine
from tests.deploy.stage import UNCITED, question
from tests.kit import answers, generate, run

P = TypeVar("P", bound="Project")

KEY = "alice-0123456789"
ADMIN = "admin-0123456789"
SECRETS = {
    "ADMIN_TOKEN": ADMIN,
    "APP_API_KEYS": f"alice:{KEY}",
    "OPENAI_API_KEY": "sk-provider-0123456789",
}
# Asked every second, so that tests wait less; what is asked stays as it is.
OFTEN = {"interval": "1s"}
DEMO = {"APP_ENV": "development", "PROVIDERS": "demo", **UNCITED}
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104
EX_CONFIG = 78
MACHINE = "host.docker.internal"
UP_SECONDS = 120
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
    name: str = "survival-kit-test"
    url: str = ""
    profiles: tuple[str, ...] = ()
    # What stands in .env or in the shell. Port 0 is a free one.
    variables: dict[str, str] = field(default_factory=lambda: {"PUBLISHED_PORT": "0"})

    def attempt(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `docker compose`; it may fail."""
        return subprocess.run(
            ["docker", "compose", "--project-name", self.name, *arguments],
            cwd=self.folder,
            env=os.environ
            | self.engine.environment
            | self.variables
            | {"COMPOSE_PROFILES": ",".join(self.profiles)},
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

    def release(self, *arguments: str, **environment: str) -> str:
        """Run deploy/docker/release.sh as somebody on the server does; what it prints."""
        known = {
            **self.engine.environment,
            **self.variables,
            "COMPOSE_PROJECT_NAME": self.name,
            "WAIT_SECONDS": str(UP_SECONDS),
        }
        return run(self.folder, "deploy/docker/release.sh", *arguments, **known | environment)

    def override(
        self,
        environment: dict[str, str],
        others: dict[str, Any] | None = None,
        secrets: dict[str, str] | None = None,
        **service: object,
    ) -> None:
        """Write the compose.override.yaml of a test: its app, `others` beside it, secret files."""
        # A throwaway engine has no way out of its own network: see engine.py.
        build = {"build": {"network": "host"}} if self.engine.throwaway else {}
        app = {"image": self.name, "environment": environment, **build, **service}
        whole: dict[str, Any] = {"services": {"app": app, **(others or {})}}
        if secrets:
            app["secrets"] = [name for name in secrets if name != "POSTGRES_PASSWORD"]
            whole["secrets"] = {name: {"file": f"./secrets/{name}"} for name in secrets}
            self.write_secrets(secrets)
        (self.folder / "compose.override.yaml").write_text(yaml.safe_dump(whole))

    def write_secrets(self, secrets: dict[str, str]) -> None:
        """One file a secret, as compose.yaml says: users of containers read it, others do not."""
        place = self.folder / "secrets"
        place.mkdir(exist_ok=True)
        place.chmod(0o700)
        for name, value in secrets.items():
            (place / name).write_text(f"{value}\n")
            (place / name).chmod(0o644)

    def up(self) -> float:
        """Start the app and wait until it is healthy; the seconds that it took."""
        began = time.monotonic()
        self.compose("up", "--wait", "--wait-timeout", str(UP_SECONDS))
        took = time.monotonic() - began
        self.find()
        return took

    def find(self) -> None:
        """Look up the published port: a container that was started again has another."""
        self.url = f"http://{self.compose('port', 'app', '8000').strip()}"

    @contextmanager
    def running(self, environment: dict[str, str], **service: Any) -> Iterator[None]:
        """The app, healthy, with these settings; its containers and its volume are gone after."""
        self.override(environment, **service)
        try:
            print(f"up --wait: {self.up():.1f} s")
            yield
        finally:
            print(self.compose("logs", "--no-color"))
            self.compose("down", "--volumes", "--timeout", "1")

    def container(self, service: str = "app") -> dict[str, Any]:
        """What the engine knows of a service's container, running or not."""
        identity = self.compose("ps", "--all", "--quiet", service).strip()
        (found,) = json.loads(self.engine.docker("inspect", identity))
        return dict(found)

    @contextmanager
    def events(self) -> Iterator[Callable[[], list[str]]]:
        """What the engine tells of the containers from now on, in its order: "app start".

        Heard as it happens: the engine keeps only the last few, and of a container's health five.
        """
        filters = ("event=start", "event=health_status")
        service = '{{index .Actor.Attributes "com.docker.compose.service"}}'
        with tempfile.NamedTemporaryFile() as told:
            listener = subprocess.Popen(
                [
                    *("docker", "events", "--since", str(time.time())),
                    *("--filter", f"label=com.docker.compose.project={self.name}"),
                    *(f"--filter={wanted}" for wanted in filters),
                    *("--format", f"{service} {{{{.Action}}}}"),
                ],
                env=os.environ | self.engine.environment,
                stdout=told,
            )
            try:
                yield lambda: Path(told.name).read_text().splitlines()
            finally:
                listener.terminate()
                listener.wait()

    def python(self, program: str, *arguments: str) -> str:
        """Run a Python program in the container of the app, as its user."""
        return self.compose("exec", "--no-TTY", "app", "python", "-c", program, *arguments)

    def wait_for_health(self, wanted: str, service: str = "app") -> None:
        """Wait until the container is `healthy` or `unhealthy`."""
        deadline = time.monotonic() + UP_SECONDS
        while (state := self.container(service)["State"]["Health"]["Status"]) != wanted:
            assert time.monotonic() < deadline, f"still {state}"
            time.sleep(0.5)

    def http(self, key: str | None = None) -> httpx2.Client:
        """An HTTP client of the published port."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


def built(engine: Engine, template: Path, folder: Path, kind: type[P], **given: str) -> P:
    """An app of these answers, built as its README says. The seconds are printed."""
    project = kind(generate(template, folder, answers(**given)), engine)
    run(project.folder, "git", "init", "--quiet")
    run(project.folder, "uv", "lock", "--quiet")
    build(project)
    return project


def build(project: Project) -> None:
    """Build the image. The seconds are printed."""
    project.override(DEMO)
    began = time.monotonic()
    project.compose("build")
    print(f"build: {time.monotonic() - began:.1f} s")


def on_the_fake(fake: Any) -> dict[str, Any]:
    """The settings of an app in production whose provider is the fake one on this machine."""
    return {
        "environment": {
            "OPENAI_BASE_URL": fake.openai_base_url.replace(EVERY_ADDRESS, MACHINE),
            **UNCITED,
        },
        "extra_hosts": [f"{MACHINE}:host-gateway"],
        "healthcheck": OFTEN,
    }


def spoken(lines: Iterator[str]) -> tuple[str, bool]:
    """The text of a stream, and whether it came to its end."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    finished = data[-1] == "[DONE]"
    chunks = [json.loads(item) for item in data if item != "[DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas), finished


def spent(project: Project) -> float:
    """Today's settled cost in US dollars, as the app exports it."""
    with project.http(ADMIN) as client:
        metrics = client.get("/metrics").text
    (line,) = [line for line in metrics.splitlines() if line.startswith("llm_app_daily_cost_usd ")]
    return float(line.split()[1])


def chats(project: Project) -> None:
    """A plain answer and a streamed one, and a refusal of who has no key."""
    with project.http("not-a-key-0123456789") as client:
        refused = client.post("/v1/chat/completions", json=question("Hello"))
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    with project.http(KEY) as client:
        answers_both_ways(client)


def answers_both_ways(client: httpx2.Client) -> None:
    """A plain answer and a streamed one."""
    answer = client.post("/v1/chat/completions", json=question("Hello"))
    assert answer.status_code == 200, answer.text
    assert "Hello" in answer.json()["choices"][0]["message"]["content"]
    with client.stream(
        "POST", "/v1/chat/completions", json=question("Hello", stream=True)
    ) as stream:
        text, finished = spoken(stream.iter_lines())
    assert "Hello" in text
    assert finished


def stop_in_mid_stream(project: Project, fake: Any, fakes: Any) -> None:
    """`compose stop app` while a stream of three seconds runs: it comes to its end, then exit 0."""
    fake.always(fakes.Reply(chunks=12, delay_between=0.25))
    with (
        project.http(KEY) as client,
        ThreadPoolExecutor() as thread,
        client.stream(
            "POST", "/v1/chat/completions", json=question("Tell me", stream=True)
        ) as stream,
    ):
        lines = stream.iter_lines()
        opening = [next(lines) for _ in range(5)]
        began = time.monotonic()
        stopping = thread.submit(project.compose, "stop", "app")
        _, finished = spoken(iter([*opening, *lines]))
        stopping.result()
    took = time.monotonic() - began
    print(f"stop in mid-stream: {took:.1f} s")
    assert finished
    assert 2 < took < 15
    assert project.container()["State"]["ExitCode"] == 0
    assert fake.ledger.calls[-1].outcome == "answered"


def kill_the_server(project: Project) -> None:
    """SIGKILL to the server in the app's container; the engine starts it again by itself."""
    assert project.python(SEND_TO_SERVER, "SIGKILL").split() == ["sent"]
    deadline = time.monotonic() + UP_SECONDS
    while project.container()["RestartCount"] == 0:
        assert time.monotonic() < deadline, "the engine did not start it again"
        time.sleep(0.2)
    project.wait_for_health("healthy")
    project.find()
