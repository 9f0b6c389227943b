"""The AWS target: checked by AWS's tools, built by sam, and run as Lambda runs it.

The function is what `sam build` made, with the variables and the handler of its template, and its
settings come from Secrets Manager. The Web Adapter and the service around it have stand-ins
(web_adapter.py, lambda_service.py); AWS's own emulator of Lambda shows that they speak as it does.
"""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.deploy.aws import (
    ADAPTER,
    ALICE,
    SECRETS,
    Built,
    ask,
    client,
    free_port,
    money,
    running_aws,
)
from tests.deploy.aws_tools import AwsTools, install
from tests.deploy.lambda_service import LambdaService
from tests.deploy.stage import load_fakes, question, store_server, write_document
from tests.kit import answers, files, generate, read_yaml, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

CANARY = "canary-8b7e2f40"  # in every file that must stay out of the function
IN_THE_PROMPT = "prompt-c61d9e35"  # in a file that must be in it: the search finds what is there
HIDDEN = (".env", "app/.env", "app/yours/.env.local", "app/tls.pem", "app/a.key", "secrets/K")
OUTSIDE = (".git/config", "tests/yours/notes.txt", "checklist/notes.txt")
MOST_BYTES = 250 * 1024 * 1024  # of a function, unpacked
ONCE = {"Idempotency-Key": "paid-once"}
EX_CONFIG = 78


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
    documents = request.param == "redis"  # one of the two answers from documents
    given = answers(deploy="aws", store=request.param, knowledge=documents)
    app = generate(folder, tmp_path_factory.mktemp("aws") / "app", given)
    if documents:
        write_document(app)
    run(app, "git", "init", "--quiet")
    run(app, "uv", "lock", "--quiet")
    (app / "secrets").mkdir()
    for name in (*HIDDEN, *OUTSIDE):
        with (app / name).open("a") as file:
            file.write(f"\n# {CANARY}\n")
    (app / "app/yours/system_prompt.md").write_text(f"Be kind. {IN_THE_PROMPT}\n")
    (app / "app/checklist.json").write_text("{}")
    began = time.monotonic()
    tools.run(app, "sam", "build")
    print(f"sam build: {time.monotonic() - began:.1f} s")
    template = read_yaml((app / ".aws-sam/build/template.yaml").read_text())
    properties = template["Resources"]["AppFunction"]["Properties"]
    with store_server(app) as store, running_aws() as aws:
        yield Built(app, app / ".aws-sam/build/AppFunction", properties, store, aws)


@pytest.fixture(scope="module")
def fakes(built: Built) -> Any:
    """The package of the app's own fake provider."""
    return load_fakes(built.folder, "fake_of_aws")


@pytest.fixture
def fake(fakes: Any) -> Iterator[Any]:
    with fakes.FakeProvider() as running:
        yield running


@pytest.fixture
def function(built: Built, fake: Any, tmp_path: Path) -> Iterator[LambdaService]:
    """The function behind its URL, on the fake provider and a real store."""
    with built.running(built.settings(fake), tmp_path / "function.log") as service:
        yield service


def test_aws_and_its_linters_agree(tools: AwsTools, folder: Path, tmp_path: Path) -> None:
    app = generate(folder, tmp_path / "app", answers(deploy="aws", store="redis"))
    tools.run(app, "sam", "validate")
    quiet = ("--skip-download", "--compact", "--quiet", "--framework", "cloudformation")
    for name in ("deploy/aws/template.yaml", "deploy/aws/ecs.yaml"):
        tools.run(app, "cfn-lint", "--non-zero-exit-code", "informational", name)
        tools.run(app, "checkov", *quiet, "--file", name)


def test_the_linters_find_what_is_wrong(tools: AwsTools, folder: Path, tmp_path: Path) -> None:
    app = generate(folder, tmp_path / "app", answers(deploy="aws", store="redis"))
    template = app / "deploy/aws/template.yaml"
    good = template.read_text()
    template.write_text(good.replace("!Ref AppFunction.Version", "!GetAtt AppFunction.Version"))
    with pytest.raises(AssertionError, match="E6101"):
        tools.run(app, "sam", "validate")
    template.write_text(good.replace("- id: CKV_AWS_", "- id: CKV_OTHER_"))
    with pytest.raises(AssertionError) as failed:
        tools.run(app, "checkov", "--skip-download", "--compact", "--quiet", "--file", template)
    needed = set(re.findall(r"- id: (CKV_AWS_\d+)", good)) - {"CKV_AWS_45"}  # by the path's length
    assert needed <= set(re.findall(r"CKV_AWS_\d+", str(failed.value))), "no suppression is idle"


def test_the_function_holds_the_app_and_nothing_secret(built: Built) -> None:
    found = files(built.function)
    size = sum(path.stat().st_size for path in found.values())
    print(f"function: {size / 2**20:.0f} MiB of 250, {len(found)} files")
    assert size < MOST_BYTES
    contents = {name: path.read_bytes() for name, path in found.items()}
    assert not [name for name, content in contents.items() if CANARY.encode() in content]
    prompts = [name for name, content in contents.items() if IN_THE_PROMPT.encode() in content]
    assert prompts == ["app/yours/system_prompt.md"], "the search does not find what is there"
    outside = r"(tests|checklist|deploy|indexing|knowledge|pypdf|\.env|\.git)\b"
    assert not [name for name in found if re.match(outside, name)]
    # Without the index no instance would start. What made it is not needed any more.
    assert "app/checklist.json" in found
    assert ("app/knowledge.db" in found) == (built.folder / "indexing").exists()
    assert found["run.sh"].stat().st_mode & 0o111
    modules = [path for name, path in found.items() if re.match(r"app/.+\.py$", name)]
    compiled = [x.parent / f"__pycache__/{x.stem}.cpython-313.pyc" for x in modules]
    assert modules
    assert all(path.exists() for path in compiled), "each cold start would compile them"


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
    lines, arrived = [], []
    began = time.monotonic()
    with (
        client(function) as http,
        http.stream("POST", "/v1/chat/completions", json=question(stream=True)) as answer,
    ):
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
    assert ask(function, stream=stream).status_code == 200
    assert function.frozen, "the instance runs on after the response"
    lines = [json.loads(x) for x in function.log().splitlines() if x.startswith("{")]
    (cost,) = [x["cost_usd"] for x in lines if x.get("streamed") is stream and x["cost_usd"] > 0]
    function.end_instance()
    after, reserved = money(function)
    assert (after, reserved) == (round(settled + cost, 9), 0)


def test_an_instance_that_slept_goes_on(function: LambdaService) -> None:
    ask(function)
    time.sleep(6)  # the reaper's time has come, and the adapter's connection is old
    for _ in range(3):
        answer = ask(function)
        assert answer.status_code == 200, answer.text
    assert "ERROR" not in function.log()


def test_a_new_key_counts_for_a_new_instance(
    function: LambdaService, built: Built, fake: Any
) -> None:
    assert ask(function).status_code == 200
    new = "alice-9876543210"
    built.aws.put_secret(built.secret, built.settings(fake) | {"APP_API_KEYS": f"alice:{new}"})
    function.end_instance()
    assert ask(function, new).status_code == 200
    assert ask(function, ALICE).status_code == 401


def test_a_flood_is_counted_by_the_clients_address(built: Built, fake: Any, tmp_path: Path) -> None:
    few = built.settings(fake) | {"REQUESTS_PER_MINUTE_PER_IP": "2"}
    with built.running(few, tmp_path / "function.log") as function:
        function.client_address = "198.51.100.8"  # one that no other test has used
        forged = [{"X-Forwarded-For": f"203.0.113.{number}"} for number in range(3)]
        statuses = [ask(function, headers=headers).status_code for headers in forged]
    assert statuses == [200, 200, 429]


def test_a_bad_environment_is_told_in_the_log(built: Built, fake: Any, tmp_path: Path) -> None:
    secret = built.settings(fake) | {"ADMIN_TOKEN": "changeme", "TIME_BUDGET_SECONDS": "880"}
    with built.running(secret, tmp_path / "function.log") as function:
        assert function.exit_code(30) == EX_CONFIG
        said = function.log()
    for name in ("ADMIN_TOKEN", "TIME_BUDGET_SECONDS"):
        assert f"  {name}: " in said
    assert "exit status 78" in said
    for value in SECRETS.values():
        assert value not in said


def test_the_trial_of_a_deploy_tells_a_good_one_from_a_bad_one(
    tools: AwsTools, function: LambdaService, built: Built, fake: Any, fakes: Any
) -> None:
    stacks = built.aws.client("cloudformation")
    outputs = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"Url": {"Value": f"{function.url}/"}},
    }
    stacks.create_stack(StackName="my-llm-app", TemplateBody=json.dumps(outputs))

    def attempt(key: str) -> str:
        environment = tools.environment(**built.aws.environment, SMOKE_APP_KEY=key)
        return run(built.folder, "deploy/aws/release.sh", "try", **environment)

    try:
        assert attempt(ALICE).strip() == f"{function.url} answers"
        with pytest.raises(AssertionError, match="a question: 401"):
            attempt("not-a-key-0123456789")
        fake.always(fakes.Status(401))
        with pytest.raises(AssertionError, match="a question: 503"):
            attempt(ALICE)
    finally:
        stacks.delete_stack(StackName="my-llm-app")


def test_it_speaks_to_the_emulator_of_aws(
    tools: AwsTools, built: Built, fake: Any, tmp_path: Path
) -> None:
    built.aws.put_secret(built.secret, built.settings(fake))
    runtime, front = free_port(), free_port()
    command: list[str | Path] = [
        tools.emulator,
        f"--runtime-api-address=127.0.0.1:{runtime}",
        f"--runtime-interface-emulator-address=127.0.0.1:{front}",
        sys.executable,
        ADAPTER,
    ]
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
    environment = built.environment(AWS_LWA_INVOKE_MODE="buffered")  # it does not stream
    with (
        (tmp_path / "emulator.log").open("wb") as log,
        subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as emulator,
    ):
        try:
            wait_for_port(front)
            answer = httpx2.post(place, json=event, timeout=60, trust_env=False).json()
        finally:
            # The function has a process group of its own.
            whole = psutil.Process(emulator.pid)
            for process in (*whole.children(recursive=True), whole):
                process.kill()
    assert answer["statusCode"] == 200, answer
    assert "Hello" in json.loads(answer["body"])["choices"][0]["message"]["content"]
    assert len(fake.ledger.calls) == 1


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the emulator did not start")
