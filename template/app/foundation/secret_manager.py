"""AWS Secrets Manager, the weakest source of settings: one secret, a JSON object by their names.

It is read at start, where AWS_SECRET_NAME is set. A process that starts again reads it again, so a
key is rotated without a new build.
"""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)
from pydantic_settings import AWSSecretsManagerSettingsSource, BaseSettings

from app.foundation.checks import Problem, UnreadableSourceError

T = TypeVar("T")

# Seconds. Two attempts of at most 1 + 2 each; the limit also holds for what has no timeout of its
# own, such as a name server. Lambda gives a start ten.
CONNECT_SECONDS = 1.0
READ_SECONDS = 2.0
ATTEMPTS = 2
LIMIT_SECONDS = 7.0

_UNKNOWN = {"ResourceNotFoundException", "InvalidRequestException"}  # the second: being deleted
_BUSY = {"InternalServiceError", "ServiceUnavailable", "ThrottlingException", "RequestTimeout"}


class _BoundedSource(AWSSecretsManagerSettingsSource):
    """pydantic-settings' own source, with a client that gives up soon."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        self._secretsmanager_client = client()
        return super()._load_env_vars()


def source(settings: type[BaseSettings], name: str) -> AWSSecretsManagerSettingsSource:
    """The source, already read. Raises `UnreadableSourceError` after `LIMIT_SECONDS` at most."""
    return within_limit(lambda: _BoundedSource(settings, name, region(), case_sensitive=False))


def client(where: str | None = None) -> Any:
    """A client of Secrets Manager that gives up soon, in the region `where` or in `region()`."""
    return boto3.client(
        "secretsmanager",
        region_name=where or region(),
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        ),
    )


def within_limit(work: Callable[[], T]) -> T:
    """What `work` returns. Raises `UnreadableSourceError`, after `LIMIT_SECONDS` at most."""
    done: list[T] = []
    failed: list[Problem] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:
            failed.append(_problem(error))

    # A daemon: one that hangs holds nobody up when the process ends.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_SECONDS)
    if done:
        return done[0]
    raise UnreadableSourceError(failed[0] if failed else _no_answer("timeout"))


def region() -> str | None:
    """The region, as Lambda and ECS name it; or None: boto3 then looks into its own files."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def _problem(error: Exception) -> Problem:
    """What to tell. Never the error's own words: they may hold what was read."""
    kind = type(error).__name__
    match error:
        case NoRegionError():
            return _told("secret_no_region")
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            return _told("secret_no_credentials", reason=kind)
        case ClientError():
            details = error.response.get("Error", {})
            code = str(details.get("Code") or kind)
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _UNKNOWN:
                return _told("secret_unknown", reason=code)
            if code in _BUSY or status >= 500:
                return _no_answer(code)
            return _told("secret_refused", reason=code)
        case BotoCoreError():
            return _no_answer(kind)
        case _:
            return _told("secret_form")


def _no_answer(reason: str) -> Problem:
    return _told("secret_no_answer", reason=reason, limit=LIMIT_SECONDS)


def _told(complaint: str, **facts: Any) -> Problem:
    return Problem("aws_secret_name", complaint, facts)
