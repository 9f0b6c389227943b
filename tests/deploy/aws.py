"""A function that sam has built, and what it meets: Secrets Manager, a store, a caller."""

import json
import os
import socket
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx2
from moto.server import ThreadedMotoServer

from tests.deploy.lambda_service import LambdaService
from tests.deploy.stage import UNCITED, question
from tests.kit import interpreter

ADAPTER = Path(__file__).with_name("web_adapter.py")
ALICE = "alice-0123456789"
SECRETS = {
    "ADMIN_TOKEN": "admin-0123456789",
    "APP_API_KEYS": f"alice:{ALICE}",
    "OPENAI_API_KEY": "sk-provider-0123456789",
}
REGION = "us-east-1"


@dataclass(frozen=True)
class Aws:
    """AWS over real HTTP, as moto's server plays it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What Lambda gives to a function, and the way to this server."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
        }

    def client(self, service: Any) -> Any:
        """boto3 as the owner of the account uses it."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106
        )

    def put_secret(self, name: str, values: dict[str, str]) -> None:
        """Create the secret, or give it new values."""
        manager = self.client("secretsmanager")
        text = json.dumps(values)
        try:
            manager.create_secret(Name=name, SecretString=text)
        except manager.exceptions.ResourceExistsException:
            manager.put_secret_value(SecretId=name, SecretString=text)


@contextmanager
def running_aws() -> Iterator[Aws]:
    """AWS on this machine, empty."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Aws(f"http://{host}:{port}")
    finally:
        server.stop()


@dataclass(frozen=True)
class Built:
    """A generated app, and the function that sam has built of it."""

    folder: Path
    function: Path
    properties: dict[str, Any]  # of the function, as the built template has them
    store: dict[str, str]  # the setting that leads to a running store
    aws: Aws

    @property
    def secret(self) -> str:
        """The secret's name, which samconfig.toml gives to the template."""
        config = tomllib.loads((self.folder / "samconfig.toml").read_text(encoding="utf-8"))
        return str(config["default"]["deploy"]["parameters"]["parameter_overrides"]["SecretName"])

    def environment(self, **changes: str) -> dict[str, str]:
        """What the function's environment holds on Lambda, and nothing of this machine's.

        Its ports are free ones here, where many functions share one network.
        """
        named = self.properties["Environment"]["Variables"]
        assert named["AWS_SECRET_NAME"] == {"Ref": "SecretName"}
        assert named["AWS_LWA_PORT"] == named["PORT"]
        port = str(free_port())
        return {
            "PATH": f"{Path(interpreter('3.13')).parent}{os.pathsep}{os.defpath}",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "AWS_LAMBDA_FUNCTION_NAME": "test",
            "LAMBDA_TASK_ROOT": str(self.function),
            "_HANDLER": self.properties["Handler"],
            **named,
            **self.aws.environment,
            "AWS_SECRET_NAME": self.secret,
            "AWS_LWA_PORT": port,
            "PORT": port,
            **changes,
        }

    def settings(self, fake: Any) -> dict[str, str]:
        """A whole secret: the keys, the store, and a provider that is not the real one."""
        return {
            **SECRETS,
            **self.store,
            **UNCITED,
            "OPENAI_BASE_URL": fake.openai_base_url,
            "OPENAI_INPUT_USD_PER_MTOK": "1",
            "OPENAI_OUTPUT_USD_PER_MTOK": "2",
        }

    @contextmanager
    def running(self, secret: dict[str, str], log: Path, **changes: str) -> Iterator[LambdaService]:
        """The function behind its URL, with these values in its secret."""
        self.aws.put_secret(self.secret, secret)
        service = LambdaService([sys.executable, str(ADAPTER)], self.environment(**changes), log)
        try:
            yield service
        finally:
            service.close()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client(function: LambdaService, key: str | None = ALICE) -> httpx2.Client:
    """An HTTP client of the function's URL."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.Client(base_url=function.url, headers=headers, timeout=60, trust_env=False)


def ask(
    function: LambdaService,
    key: str | None = ALICE,
    stream: bool = False,
    headers: dict[str, str] | None = None,
) -> httpx2.Response:
    """Ask, and read until the response has ended."""
    with client(function, key) as http:
        return http.post("/v1/chat/completions", json=question(stream=stream), headers=headers)


def money(function: LambdaService) -> tuple[float, float]:
    """Today's settled cost and what is reserved, in US dollars, as the app exports them."""
    with client(function, SECRETS["ADMIN_TOKEN"]) as http:
        lines = http.get("/metrics").text.splitlines()
    plain = [line for line in lines if line.startswith("llm_app_") and "{" not in line]
    values = dict(line.split(" ") for line in plain)
    return float(values["llm_app_daily_cost_usd"]), float(values["llm_app_cost_reserved_usd"])
