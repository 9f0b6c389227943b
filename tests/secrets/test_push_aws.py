"""`uv run secrets push` and `check` with AWS Secrets Manager, as moto's server plays it."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from tests.secrets.conftest import Aws, MakeApp
from tests.secrets.keychain import CANARY, COMMAND, environment, secrets
from tests.secrets.test_run_time import LIMIT_SECONDS, SPARE_SECONDS, serve, set_enforcement

EX_OPEN, EX_USAGE, EX_UNAVAILABLE, EX_CONFIG = 1, 64, 69, 78
SENT = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "REDIS_URL": f"rediss://:{CANARY}@redis.invalid:6379/0",
    "APP_API_KEYS": f"web:{CANARY}-web",
    "ADMIN_TOKEN": f"{CANARY}-admin",
}


@pytest.fixture
def name() -> str:
    return f"app/{uuid4()}"


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path, name: str) -> Path:
    """An app whose samconfig.toml names the secret."""
    app = Path(shutil.copytree(make_app("aws"), tmp_path / "app"))
    config = app / "samconfig.toml"
    text = config.read_text(encoding="utf-8")
    assert 'SecretName = "my-llm-app"' in text
    config.write_text(text.replace('"my-llm-app"\n\n#', f'"{name}"\n\n#'), encoding="utf-8")
    write(app, SENT | {"HOST": "::1", "AWS_SECRET_NAME": "another"})
    return app


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def write(app: Path, values: dict[str, str]) -> None:
    (app / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    (app / ".env").chmod(0o600)


def content(aws: Aws, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(aws.client.get_secret_value(SecretId=name)["SecretString"])
    return found


def versions(aws: Aws, name: str) -> int:
    listed = aws.client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)
    return len(listed["Versions"])


def test_the_app_starts_with_what_was_sent(aws: Aws, app: Path, name: str) -> None:
    done = secrets(app, "check", "--env", "target", **aws.environment)
    assert done.returncode == EX_OPEN
    assert "ADMIN_TOKEN: is missing" in done.stdout
    done = secrets(app, "push", "--yes", **aws.environment)
    assert done.returncode == 0, done.stderr
    assert content(aws, name) == SENT
    assert secrets(app, "check", **aws.environment).returncode == 0
    # The app reads it: all that stops the start is that nobody answers at the store's address.
    (app / ".env").unlink()
    given = {"APP_ENV": "production", "AWS_SECRET_NAME": name}
    ended = serve(app, aws.environment | given)
    assert ended.returncode == EX_CONFIG
    assert "1 problem" in ended.stderr
    assert "  REDIS_URL: " in ended.stderr
    assert CANARY not in ended.stderr


def test_only_what_changed_is_sent(aws: Aws, app: Path, name: str) -> None:
    before = SENT | {"mine": f"{CANARY}-mine", "MAX_ATTEMPTS": "4"}
    before["admin_token"] = before.pop("ADMIN_TOKEN")
    aws.client.create_secret(Name=name, SecretString=json.dumps(before))
    done = secrets(app, "push", "--yes", **aws.environment)
    assert done.returncode == 0
    assert "unchanged: OPENAI_API_KEY, REDIS_URL, APP_API_KEYS, ADMIN_TOKEN" in done.stdout
    assert versions(aws, name) == 1
    write(app, SENT | {"ADMIN_TOKEN": f"{CANARY}-rotated"})
    done = secrets(app, "check", "--env", "target", **aws.environment)
    assert done.returncode == 0
    assert "not as in .env: ADMIN_TOKEN" in done.stdout
    done = secrets(app, "push", "--yes", **aws.environment)
    assert "changed: ADMIN_TOKEN\n" in done.stdout
    assert "ADMIN_TOKEN: sent" in done.stdout
    assert "OPENAI_API_KEY: sent" not in done.stdout
    # What stands there beside it stays, and the name is there once.
    del before["admin_token"]
    assert content(aws, name) == before | {"ADMIN_TOKEN": f"{CANARY}-rotated"}
    assert versions(aws, name) == 2


def test_what_is_wrong_there_is_named(aws: Aws, app: Path, name: str) -> None:
    wrong = SENT | {"ADMIN_TOKEN": "changeme", "REDIS_URL": f"http://{CANARY}", "MAX_ATTEMPTS": 99}
    aws.client.create_secret(Name=name, SecretString=json.dumps(wrong))
    done = secrets(app, "check", "--env", "target", **aws.environment)
    assert done.returncode == EX_OPEN
    assert "3 missing or wrong" in done.stdout
    assert "  ADMIN_TOKEN: is a placeholder" in done.stdout
    assert "  MAX_ATTEMPTS: must be at most 10" in done.stdout
    assert "  REDIS_URL: must be redis://" in done.stdout


def test_it_goes_where_sam_deploys(aws: Aws, app: Path) -> None:
    elsewhere = f"app/{uuid4()}"
    guided = f'parameter_overrides = "OnCall=\\"Kim Minji\\" SecretName=\\"{elsewhere}\\""\n'
    deploy = f'version = 0.1\n[default.deploy.parameters]\nregion = "us-west-2"\n{guided}'
    (app / "samconfig.toml").write_text(deploy)
    done = secrets(app, "push", "--yes", "OPENAI_API_KEY", **aws.environment)
    assert done.returncode == 0, done.stderr
    there = boto3.client(
        "secretsmanager",
        region_name="us-west-2",
        endpoint_url=aws.endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106
    )
    text = there.get_secret_value(SecretId=elsewhere)["SecretString"]
    assert json.loads(text) == {"OPENAI_API_KEY": SENT["OPENAI_API_KEY"]}
    (app / "samconfig.toml").write_text("[default.deploy.parameters]\n")
    done = secrets(app, "push", "--yes", **aws.environment)
    assert done.returncode == EX_USAGE
    assert "samconfig.toml" in done.stderr


@pytest.mark.parametrize("stored", [f"{CANARY} is no JSON", f'["{CANARY}"]'])
def test_a_secret_of_another_kind_is_left_alone(
    aws: Aws, app: Path, name: str, stored: str
) -> None:
    aws.client.create_secret(Name=name, SecretString=stored)
    done = secrets(app, "push", "--yes", **aws.environment)
    assert done.returncode == EX_UNAVAILABLE
    assert "no JSON object" in done.stderr
    assert aws.client.get_secret_value(SecretId=name)["SecretString"] == stored


def test_a_user_who_may_not_is_told_what_is_needed(aws: Aws, app: Path, name: str) -> None:
    iam = boto3.client(
        "iam",
        region_name="eu-central-1",
        endpoint_url=aws.endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106
    )
    user = str(uuid4())
    iam.create_user(UserName=user)
    statement = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=policy)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    given = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    set_enforcement(aws, "0")
    try:
        done = secrets(app, "push", "--yes", **aws.environment | given)
    finally:
        set_enforcement(aws, "inf")
    assert done.returncode == EX_UNAVAILABLE
    assert f"PutSecretValue and CreateSecret on {name}" in done.stderr
    assert "Not sent: OPENAI_API_KEY, REDIS_URL, APP_API_KEYS, ADMIN_TOKEN" in done.stderr
    assert key["SecretAccessKey"] not in done.stdout + done.stderr


def test_one_that_is_down_or_not_known_is_said(aws: Aws, app: Path) -> None:
    down = aws.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    done = secrets(app, "push", "--yes", **down)
    assert done.returncode == EX_UNAVAILABLE
    assert "no answer within 7 s (EndpointConnectionError)" in done.stderr
    names = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    anonymous = {name: value for name, value in aws.environment.items() if name not in names}
    assert "aws configure" in secrets(app, "push", "--yes", **anonymous).stderr
    # What needs no network is looked at all the same.
    done = secrets(app, "check", **down)
    assert done.returncode == EX_UNAVAILABLE
    assert done.stdout.startswith(".env: complete")


def test_one_that_is_silent_is_given_up_in_time(aws: Aws, app: Path, silent: str) -> None:
    given = environment(**aws.environment | {"AWS_ENDPOINT_URL": silent})
    loaded = f"import sys, keychain.cli, keychain.places.aws; print(flush=True); {COMMAND[-1]}"
    with subprocess.Popen(
        [sys.executable, "-c", loaded, "push", "--yes"],
        cwd=app,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert process.returncode == EX_UNAVAILABLE
    assert "no answer within 7 s" in err
    assert CANARY not in err
    print(f"\na silent Secrets Manager: given up after {took:.1f} s")
    assert took < LIMIT_SECONDS + SPARE_SECONDS
