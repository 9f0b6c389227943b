"""The AWS target: checked by AWS's tools, built by sam, and run as Lambda runs it.

The function is what `sam build` made, with the variables and the handler of its template. The
Web Adapter and the service around it have stand-ins (web_adapter.py, lambda_service.py); AWS's own
emulator of Lambda shows that they speak as Lambda does.
"""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.deploy.aws_tools import AwsTools, install
from tests.deploy.lambda_service import LambdaService
from tests.kit import answers, files, generate, interpreter, read_yaml, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

CANARY = "canary-8b7e2f40"  # in every file that must stay out of the function
IN_THE_PROMPT = "prompt-c61d9e35"  # in a file that must be in it: the search finds what is there
MOST_BYTES = 250 * 1024 * 1024  # of a function, unpacked
ADAPTER = Path(__file__).with_name("web_adapter.py")
ALICE = "alice-0123456789"
SECRETS = {
    "ADMIN_TOKEN": "admin-0123456789",
    "APP_API_KEYS": f"alice:{ALICE}",
    "OPENAI_API_KEY": "sk-provider-0123456789",
}
ONCE = {"Idempotency-Key": "paid-once"}
EX_CONFIG = 78
# Run in an app's folder: the servers of its own tests.
STORE_SERVER = """
import sys
from pathlib import Path
from tests.servers import own_server, store_environment
with own_server() as server:
    for name, value in store_environment(Path("."), server.url).items():
        print(f"{name}={value}", flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Built:
    """A generated app, and the function that sam has built of it."""

    folder: Path
    function: Path
    properties: dict[str, Any]  # of the function, as the built template has them
    store: dict[str, str]  # the setting that leads to a running store

    def environment(self, **settings: str) -> dict[str, str]:
        """What the function's environment holds on Lambda, and nothing of this machine's."""
        named = self.properties["Environment"]["Variables"]
        told = {name: value for name, value in named.items() if isinstance(value, str)}
        python = Path(interpreter("3.13")).parent
        return {
            "PATH": f"{python}{os.pathsep}{os.defpath}",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "AWS_REGION": "us-east-1",
            "AWS_LAMBDA_FUNCTION_NAME": "test",
            "LAMBDA_TASK_ROOT": str(self.function),
            "_HANDLER": self.properties["Handler"],
            **told,
            **settings,
        }


@pytest.fixture(scope="module")
def tools() -> AwsTools:
    return install(ROOT / "build/aws")


@pytest.fixture(scope="module", params=["redis", "postgres"])
def built(
    request: pytest.FixtureRequest,
    tools: AwsTools,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Built]:
    """An app in whose function nothing secret may be, built as its README says."""
    given = answers(deploy="aws", store=request.param)
    app = generate(folder, tmp_path_factory.mktemp("aws") / "app", given)
    run(app, "git", "init", "--quiet")
    run(app, "uv", "lock", "--quiet")
    (app / "secrets").mkdir()
    hidden = (".env", "app/.env", "app/yours/.env.local", "app/tls.pem", "app/a.key", "secrets/K")
    for name in (*hidden, ".git/config", "tests/yours/notes.txt"):
        with (app / name).open("a") as file:
            file.write(f"\n# {CANARY}\n")
    (app / "app/yours/system_prompt.md").write_text(f"Be kind. {IN_THE_PROMPT}\n")
    began = time.monotonic()
    tools.run(app, "sam", "build")
    print(f"sam build: {time.monotonic() - began:.1f} s")
    template = read_yaml((app / ".aws-sam/build/template.yaml").read_text())
    properties = template["Resources"]["AppFunction"]["Properties"]
    with running_store(app) as store:
        yield Built(app, app / ".aws-sam/build/AppFunction", properties, store)


@contextmanager
def running_store(app: Path) -> Iterator[dict[str, str]]:
    """A throwaway server of the app's store."""
    command = [sys.executable, "-c", STORE_SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=app, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        name, _, url = process.stdout.readline().strip().partition("=")
        assert url, "the store's server did not start"
        yield {name: url}


@pytest.fixture(scope="module")
def fakes(built: Built) -> Any:
    """The package of the app's own fake provider."""
    package = built.folder / "tests/fake_provider"
    spec = importlib.util.spec_from_file_location(
        "fake_of_aws", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake(fakes: Any) -> Iterator[Any]:
    with fakes.FakeProvider() as running:
        yield running


def settings(built: Built, fake: Any) -> dict[str, str]:
    """What the function is told beside its template, with ports that are free here."""
    port = str(free_port())
    price = {"OPENAI_INPUT_USD_PER_MTOK": "1", "OPENAI_OUTPUT_USD_PER_MTOK": "2"}
    return {
        **SECRETS,
        **price,
        **built.store,
        "AWS_LWA_PORT": port,
        "OPENAI_BASE_URL": fake.openai_base_url,
        "PORT": port,
    }


@pytest.fixture
def function(built: Built, fake: Any, tmp_path: Path) -> Iterator[LambdaService]:
    """The function behind its URL, on the fake provider and a real store."""
    service = LambdaService(
        [sys.executable, str(ADAPTER)],
        built.environment(**settings(built, fake)),
        tmp_path / "function.log",
    )
    try:
        yield service
    finally:
        service.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client(function: LambdaService, key: str | None = ALICE) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.Client(base_url=function.url, headers=headers, timeout=60, trust_env=False)


def question(text: str = "Hello", stream: bool = False) -> dict[str, object]:
    return {"model": "auto", "stream": stream, "messages": [{"role": "user", "content": text}]}


def ask(
    function: LambdaService, key: str | None = ALICE, headers: dict[str, str] | None = None
) -> httpx2.Response:
    with client(function, key) as http:
        return http.post("/v1/chat/completions", json=question(), headers=headers)


def money(function: LambdaService) -> tuple[float, float]:
    """Today's settled cost and what is reserved, in US dollars, as the app exports them."""
    with client(function, SECRETS["ADMIN_TOKEN"]) as http:
        lines = http.get("/metrics").text.splitlines()
    values = dict(
        line.split(" ") for line in lines if line.startswith("llm_app_") and "{" not in line
    )
    return float(values["llm_app_daily_cost_usd"]), float(values["llm_app_cost_reserved_usd"])


def test_aws_and_its_linters_agree(tools: AwsTools, folder: Path, tmp_path: Path) -> None:
    app = generate(folder, tmp_path / "app", answers(deploy="aws", store="redis"))
    print(tools.run(app, "sam", "validate"))
    for name in ("deploy/aws/template.yaml", "deploy/aws/ecs.yaml"):
        tools.run(app, "cfn-lint", "--non-zero-exit-code", "informational", name)
        quiet = ("--skip-download", "--compact", "--quiet", "--framework", "cloudformation")
        tools.run(app, "checkov", *quiet, "--file", name)


def test_the_function_holds_the_app_and_nothing_secret(built: Built) -> None:
    found = files(built.function)
    size = sum(path.stat().st_size for path in found.values())
    print(f"function: {size / 2**20:.0f} MiB of 250, {len(found)} files")
    assert size < MOST_BYTES
    contents = {name: path.read_bytes() for name, path in found.items()}
    assert not [name for name, content in contents.items() if CANARY.encode() in content]
    prompts = [name for name, content in contents.items() if IN_THE_PROMPT.encode() in content]
    assert prompts == ["app/yours/system_prompt.md"], "the search does not find what is there"
    assert not [name for name in found if re.match(r"(tests|checklist|deploy|\.env|\.git)\b", name)]
    assert found["run.sh"].stat().st_mode & 0o111
    uncompiled = [
        name
        for name in found
        if name.startswith("app/")
        and name.endswith(".py")
        and not list(found[name].parent.glob(f"__pycache__/{Path(name).stem}.cpython-313.pyc"))
    ]
    assert not uncompiled, "each cold start would compile these"


def test_it_chats_streams_and_refuses(function: LambdaService, built: Built, fake: Any) -> None:
    before = set(files(built.function))
    for key in (None, "not-a-key-0123456789"):
        refused = ask(function, key)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
    assert not fake.ledger.calls

    answer = ask(function)
    assert answer.status_code == 200, answer.text
    assert "Hello" in answer.json()["choices"][0]["message"]["content"]
    assert IN_THE_PROMPT in json.dumps(fake.ledger.calls[0].messages)
    assert set(files(built.function)) == before, "its disk is read-only on Lambda"


def test_a_stream_arrives_as_it_is_spoken(function: LambdaService, fake: Any, fakes: Any) -> None:
    ask(function)  # the cold start
    fake.always(fakes.Reply(chunks=6, delay_between=0.3))
    began = time.monotonic()
    arrived: list[float] = []
    with (
        client(function) as http,
        http.stream("POST", "/v1/chat/completions", json=question(stream=True)) as answer,
    ):
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            arrived.append(time.monotonic() - began)
    print(f"first event after {arrived[0]:.2f} s, last after {arrived[-1]:.2f} s")
    assert [line for line in lines if line][-1] == "data: [DONE]"
    assert arrived[0] < 1.0
    assert arrived[-1] - arrived[0] > 1.2


def test_a_new_instance_remembers_keys_and_spending(function: LambdaService, fake: Any) -> None:
    first = ask(function, headers=ONCE)
    settled, reserved = money(function)
    assert settled >= first.json()["survival_kit"]["cost_usd"] > 0
    assert reserved == 0
    function.end_instance()
    again = ask(function, headers=ONCE)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.content == first.content
    assert len(fake.ledger.calls) == 1
    assert money(function) == (settled, 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_instance_that_is_never_woken_again_has_settled(
    function: LambdaService, stream: bool
) -> None:
    settled, _ = money(function)
    with client(function) as http:
        answer = http.post("/v1/chat/completions", json=question(stream=stream))
    assert answer.status_code == 200
    assert function.frozen, "the instance runs on after the response"
    lines = [json.loads(x) for x in function.log().splitlines() if x.startswith("{")]
    (cost,) = [x["cost_usd"] for x in lines if x.get("streamed") is stream and x["cost_usd"] > 0]
    function.end_instance()
    after, reserved = money(function)
    assert (after, reserved) == (round(settled + cost, 9), 0)


def test_an_instance_that_slept_goes_on(function: LambdaService, fake: Any) -> None:
    ask(function)
    time.sleep(6)  # the reaper's time has come, and the adapter's connection is old
    for _ in range(3):
        answer = ask(function)
        assert answer.status_code == 200, answer.text
    assert "ERROR" not in function.log()


def test_addresses_are_the_clients_own(function: LambdaService) -> None:
    with client(function, None) as http:
        for _ in range(3):
            assert http.get("/healthz").status_code == 200
    limited = ask(function)
    assert '"ip";q=120' in limited.headers["RateLimit-Policy"]


def test_a_bad_environment_is_told_in_the_log(built: Built, fake: Any, tmp_path: Path) -> None:
    told = settings(built, fake)
    del told["ADMIN_TOKEN"]
    service = LambdaService(
        [sys.executable, str(ADAPTER)],
        built.environment(**told, TIME_BUDGET_SECONDS="880"),
        tmp_path / "function.log",
    )
    try:
        assert service.wait(30) == EX_CONFIG
        for name in ("ADMIN_TOKEN", "TIME_BUDGET_SECONDS"):
            assert f"  {name}: " in service.log()
        assert "exit status 78" in service.log()
        for value in SECRETS.values():
            assert value not in service.log()
    finally:
        service.close()


def test_it_speaks_to_the_emulator_of_aws(
    tools: AwsTools, built: Built, fake: Any, tmp_path: Path
) -> None:
    runtime, front = free_port(), free_port()
    environment = {**built.environment(**settings(built, fake)), "AWS_LWA_INVOKE_MODE": "buffered"}
    command: list[str | Path] = [
        tools.emulator,
        f"--runtime-api-address=127.0.0.1:{runtime}",
        f"--runtime-interface-emulator-address=127.0.0.1:{front}",
        sys.executable,
        ADAPTER,
    ]
    with (tmp_path / "emulator.log").open("wb") as log:
        emulator = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        event = {
            "version": "2.0",
            "rawPath": "/v1/chat/completions",
            "rawQueryString": "",
            "headers": {"authorization": f"Bearer {ALICE}", "content-type": "application/json"},
            "requestContext": {"http": {"method": "POST", "path": "/v1/chat/completions"}},
            "body": json.dumps(question()),
            "isBase64Encoded": False,
        }
        place = f"http://127.0.0.1:{front}/2015-03-31/functions/function/invocations"
        wait_for_port(front)
        answer = httpx2.post(place, json=event, timeout=60, trust_env=False).json()
        assert answer["statusCode"] == 200, answer
        assert "Hello" in json.loads(answer["body"])["choices"][0]["message"]["content"]
        assert answer["headers"]["x-request-id"]
        assert len(fake.ledger.calls) == 1
    finally:
        os.killpg(emulator.pid, signal.SIGKILL)
        emulator.wait()
        print((tmp_path / "emulator.log").read_text()[-3000:])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the emulator did not start")
