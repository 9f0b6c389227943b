"""Where settings come from beside the environment: Docker's secret files, a secret manager."""

import difflib
import os
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from dotenv import dotenv_values
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.foundation.checks import Problem
from app.foundation.project import load_project

SECRETS = Path("/run/secrets")
# How much of a name must be a setting's for the rest to be a slip.
ALIKE = 0.85

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


def env_file() -> str | None:
    """`.env`, or None in production, where it is not read."""
    return None if os.environ.get("APP_ENV", "").strip() == "production" else ".env"


def mistyped(names: Collection[str]) -> dict[str, str]:
    """What `.env` sets that is nearly one of the settings `names`, with the one it may mean."""
    known, found = {name.upper() for name in names}, dict[str, str]()
    file = env_file()
    with suppress(UnicodeDecodeError):  # what is no text is said where it is read
        for name in dotenv_values(file) if file else ():
            # OpenTelemetry reads names of its own that begin like two settings.
            if name.upper() not in known and not name.startswith("OTEL_"):
                for meant in difflib.get_close_matches(name.upper(), known, n=1, cutoff=ALIKE):
                    found[name] = meant
    return found
