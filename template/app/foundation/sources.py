"""Where settings come from beside the environment: Docker's secret files, a secret manager."""

import os
from collections.abc import Collection
from importlib import import_module
from pathlib import Path

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.foundation.checks import Problem
from app.foundation.project import load_project

SECRETS = Path("/run/secrets")

Sources = tuple[PydanticBaseSettingsSource, ...]


def with_secret_manager(settings: type[BaseSettings], usual: Sources) -> Sources:
    """The sources and, where one of them names it in AWS_SECRET_NAME, the manager behind them.

    Raises `UnreadableSourceError` when the manager does not give the secret.
    """
    named = (str(source().get("aws_secret_name") or "").strip() for source in usual)
    name = next(filter(None, named), None)
    if name is None or load_project().deploy != "aws":
        return usual
    manager = import_module("app.foundation.secret_manager")  # boto3 takes a while
    return (*usual, manager.source(settings, name))


def unreadable_secrets(names: Collection[str]) -> list[Problem]:
    """The settings, of `names`, that were given as files which this process may not read."""
    if not SECRETS.is_dir():
        return []
    return [
        Problem(path.name.lower(), "unreadable", {"path": str(path)})
        for path in sorted(SECRETS.iterdir())
        if path.name.lower() in names and not os.access(path, os.R_OK)
    ]
