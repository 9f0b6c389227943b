"""At run time: AWS Secrets Manager is the last source, and one that fails stops the start."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import httpx2
import pytest

from tests.kit import run
from tests.secrets.conftest import Aws, MakeApp

EX_CONFIG = 78
LIMIT_SECONDS = 7.0  # secret_manager.LIMIT_SECONDS
SPARE_SECONDS = 3.0  # a busy machine's
CANARY = "canary-5d0c1e9a"

# What an app needs beside the secret. Nothing listens there: the start ends at the store.
ELSEWHERE = {"APP_ENV": "production", "REDIS_URL": "redis://127.0.0.1:1/0"}
KEYS = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "APP_API_KEYS": f"web:{CANARY}-web",
    "ADMIN_TOKEN": f"{CANARY}-admin",
}

# Runs in the app's folder: starts the app twice, and the secret is another in between.
ROTATE = """
import json, os, sys
from pathlib import Path
import boto3
from tests.fake_provider import FakeProvider
from tests.running import production, running_app

name, folder = sys.argv[1], Path(sys.argv[2])
client = boto3.client("secretsmanager", region_name=os.environ["AWS_REGION"])
seen = []
with FakeProvider() as fake:
    environment = production(fake, folder)
    del environment["ADMIN_TOKEN"]
    for token in ("first-admin-token", "second-admin-token"):
        secret = json.dumps({"ADMIN_TOKEN": token, "APP_ENV": "development"})
        client.put_secret_value(SecretId=name, SecretString=secret)
        with running_app({**environment, "AWS_SECRET_NAME": name}, folder) as app:
            for asked in ("first-admin-token", "second-admin-token"):
                with app.http(None, Authorization=f"Bearer {asked}") as http:
                    seen.append(http.get("/metrics").status_code)
            with app.http(None) as http:  # APP_ENV of the environment overrules the secret's
                seen.append(http.get("/docs").status_code)
print(json.dumps(seen))
"""

# Prints how long it takes to give up, when everything is loaded.
GIVE_UP = """
import time
import app.foundation.secret_manager
from app.foundation.checks import UnreadableSourceError
from app.foundation.settings import read_settings

began = time.monotonic()
try:
    read_settings()
except UnreadableSourceError:
    print(time.monotonic() - began)
"""


def clean(environment: dict[str, str]) -> dict[str, str]:
    """This process's environment without a word about AWS, and the given one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | environment


def serve(app: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Start the app; it must end by itself, in time."""
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import serve; serve()"],
        cwd=app,
        env=clean(environment),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture
def name(aws: Aws) -> str:
    """A secret that holds the app's keys."""
    name = f"app-{uuid4()}"
    aws.client.create_secret(Name=name, SecretString=json.dumps(KEYS))
    return name


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_the_secret_is_read(aws: Aws, make_app: MakeApp, name: str) -> None:
    ended = serve(make_app("aws"), aws.environment | ELSEWHERE | {"AWS_SECRET_NAME": name})
    assert ended.returncode == EX_CONFIG, ended.stderr
    # All that is wrong is the store that the test left out.
    assert "1 problem" in ended.stderr
    assert "  REDIS_URL: " in ended.stderr
    assert CANARY not in ended.stderr + ended.stdout


def test_the_environment_is_stronger(aws: Aws, make_app: MakeApp, name: str) -> None:
    given = {"AWS_SECRET_NAME": name, "ADMIN_TOKEN": "changeme"}
    ended = serve(make_app("aws"), aws.environment | ELSEWHERE | given)
    assert ended.returncode == EX_CONFIG
    assert "  ADMIN_TOKEN: " in ended.stderr


def test_a_process_that_starts_again_reads_the_new_value(
    aws: Aws, make_app: MakeApp, name: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROTATE, name, tmp_path],
        cwd=make_app("aws"),
        env=clean(aws.environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [200, 401, 401, 401, 200, 401]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("none", "there is no such secret"),
        ("deleted", "there is no such secret"),
        (f"{CANARY} is no JSON", "no JSON object"),
        (f'["{CANARY}"]', "no JSON object"),
        (CANARY.encode(), "no JSON object"),
    ],
)
def test_a_secret_that_is_none_stops_the_start(
    aws: Aws, make_app: MakeApp, content: str | bytes, told: str
) -> None:
    name = f"app-{uuid4()}"
    if isinstance(content, bytes):
        aws.client.create_secret(Name=name, SecretBinary=content)
    elif content != "none":
        aws.client.create_secret(Name=name, SecretString=content)
    if content == "deleted":
        aws.client.delete_secret(SecretId=name)
    ended = serve(make_app("aws"), aws.environment | ELSEWHERE | {"AWS_SECRET_NAME": name})
    refused(ended, told)


def test_a_role_that_may_not_read_stops_the_start(aws: Aws, make_app: MakeApp, name: str) -> None:
    iam = boto3.client(
        "iam",
        region_name="eu-central-1",
        endpoint_url=aws.endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106
    )
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    given = {
        "AWS_SECRET_NAME": name,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    set_enforcement(aws, "0")
    try:
        ended = serve(make_app("aws"), aws.environment | ELSEWHERE | given)
        statement = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        set_enforcement(aws, "inf")
        iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=policy)
        set_enforcement(aws, "0")
        allowed = serve(make_app("aws"), aws.environment | ELSEWHERE | given)
    finally:
        set_enforcement(aws, "inf")
    refused(ended, "refuses to give the secret (")
    assert "  REDIS_URL: " in allowed.stderr, allowed.stderr
    assert key["SecretAccessKey"] not in ended.stderr


def set_enforcement(aws: Aws, after: str) -> None:
    """From how many calls on moto looks at who may do what."""
    done = httpx2.post(f"{aws.endpoint}/moto-api/reset-auth", content=after, trust_env=False)
    assert done.status_code == 200


def test_one_that_is_down_stops_the_start(aws: Aws, make_app: MakeApp) -> None:
    given = {"AWS_SECRET_NAME": "app", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    ended = serve(make_app("aws"), aws.environment | ELSEWHERE | given)
    refused(ended, "gave no answer within 7 s (EndpointConnectionError)")


def test_one_that_hangs_stops_the_start_in_time(aws: Aws, make_app: MakeApp, silent: str) -> None:
    given = {"AWS_SECRET_NAME": "app", "AWS_ENDPOINT_URL": silent}
    refused(serve(make_app("aws"), aws.environment | ELSEWHERE | given), "no answer within 7 s")
    took = run(make_app("aws"), sys.executable, "-c", GIVE_UP, **clean(aws.environment | given))
    print(f"\na silent secret manager: given up after {float(took):.1f} s")
    assert float(took) < LIMIT_SECONDS + SPARE_SECONDS


def test_without_credentials_or_region_the_start_says_so(aws: Aws, make_app: MakeApp) -> None:
    names = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    anonymous = {name: value for name, value in aws.environment.items() if name not in names}
    ended = serve(make_app("aws"), anonymous | ELSEWHERE | {"AWS_SECRET_NAME": "app"})
    refused(ended, "no AWS credentials were found")
    nowhere = {name: value for name, value in aws.environment.items() if name != "AWS_REGION"}
    ended = serve(make_app("aws"), nowhere | ELSEWHERE | {"AWS_SECRET_NAME": "app"})
    refused(ended, "set AWS_REGION")


def test_an_app_for_another_place_refuses_the_name(make_app: MakeApp) -> None:
    ended = serve(make_app("docker"), {"AWS_SECRET_NAME": "app", "PROVIDERS": "demo"})
    refused(ended, "deploy=aws")


def refused(ended: "subprocess.CompletedProcess[str]", told: str) -> None:
    """It ended with the one thing that is wrong, in words, and no value."""
    assert ended.returncode == EX_CONFIG, ended.stderr
    assert "1 problem" in ended.stderr, ended.stderr
    assert "  AWS_SECRET_NAME: " in ended.stderr
    assert told in ended.stderr, ended.stderr
    assert CANARY not in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
