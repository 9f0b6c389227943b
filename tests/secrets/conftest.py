"""What the tests of secrets share: generated apps, and AWS as moto's server plays it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from mypy_boto3_secretsmanager import SecretsManagerClient

from tests.kit import answers, generate

MakeApp = Callable[..., Path]
STORES = {"docker": "sqlite", "vercel": "redis", "aws": "redis"}


@pytest.fixture(scope="session")
def make_app(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeApp:
    """An app for a place to run, generated once: look at it, and change a copy."""
    made: dict[tuple[str, str], Path] = {}

    def make(deploy: str, store: str = "") -> Path:
        store = store or STORES[deploy]
        if (deploy, store) not in made:
            target = tmp_path_factory.mktemp(deploy) / "app"
            given = answers(deploy=deploy, store=store, providers=["openai"])
            made[deploy, store] = generate(folder, target, given)
        return made[deploy, store]

    return make


class Aws:
    """AWS Secrets Manager over real HTTP, and the environment that leads to it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.environment = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def client(self) -> SecretsManagerClient:
        """boto3 as the owner of the account uses it."""
        return boto3.client(
            "secretsmanager",
            region_name="eu-central-1",
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106
        )


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield Aws(f"http://{host}:{port}")
    server.stop()
