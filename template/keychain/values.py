"""What a set of values is worth to the app: the checks of its start, on values from anywhere."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import get_args
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.foundation.checks import Problem
from app.foundation.project import load_project
from app.foundation.settings import InvalidSettingsError, Settings
from app.preflight import further_problems
from app.standards.environment import in_words
from keychain.messages import say

# What is true of one machine alone: it is never sent to another.
OF_THIS_MACHINE = {
    "APP_ENV",
    "AWS_SECRET_NAME",
    "HOST",
    "LOG_FORMAT",
    "PORT",
    "TRUSTED_PROXIES",
    "WEB_CONCURRENCY",
}
NAME = re.compile(r"[A-Z][A-Z0-9_]*")
# PostgreSQL's own, where compose.yaml brings it.
POSTGRES_PASSWORD = "POSTGRES_PASSWORD"  # noqa: S105


class _Given(Settings):
    """The settings from what they are called with, whatever this machine's environment says."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, and nothing else."""
        return (init_settings,)


def known_names() -> list[str]:
    """The names that mean something to this app, in the order of its settings."""
    others = {"database_url" if load_project().store == "redis" else "redis_url"}
    others |= {
        name
        for name in Settings.model_fields
        for provider in ("openai", "anthropic", "gemini", "compatible")
        if name.startswith(f"{provider}_") and provider not in load_project().providers
    }
    names = [name.upper() for name in Settings.model_fields if name not in others]
    return [*names, POSTGRES_PASSWORD] if brings_postgres() else names


def brings_postgres() -> bool:
    """True where compose.yaml has a PostgreSQL of its own."""
    project = load_project()
    return (project.deploy, project.store) == ("docker", "postgres")


def is_secret(name: str) -> bool:
    """True for what must not be shown: by the type of the setting, or unknown to the app."""
    field = Settings.model_fields.get(name.lower())
    return field is None or _holds_secret(field.annotation)


def _holds_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))


def problems_of(values: Mapping[str, str], *, production: bool) -> dict[str, str]:
    """What the app would say about these values when it starts: name to words, never a value."""
    fields = Settings.model_fields
    given = {name.lower(): value for name, value in values.items() if name.lower() in fields}
    given["app_env"] = "production" if production else "development"
    try:
        settings: Settings = _Given.model_validate(given)
        found: list[Problem] = []
    except InvalidSettingsError as error:
        settings, found = error.settings, error.problems
    found = [*found, *further_problems(settings)]
    words = {problem.name.upper(): in_words(problem) for problem in reversed(found)}
    if production and values.get("APP_ENV", "").strip() == "development":
        words["APP_ENV"] = say("value.development")
    if production and brings_postgres() and "DATABASE_URL" not in values:
        # compose.yaml makes the address from the password.
        words.pop("DATABASE_URL", None)
        words[POSTGRES_PASSWORD] = say("value.no_password")
    return words


def sent_elsewhere(values: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Those of `values` that mean the same on another machine; `names` are those that may go."""
    return {
        name: values[name]
        for name in names
        if values.get(name) and name not in OF_THIS_MACHINE and not _is_here(name, values[name])
    }


def _is_here(name: str, value: str) -> bool:
    """True for a store's address that is this machine itself, or a file on its disk."""
    if name not in {"DATABASE_URL", "REDIS_URL"}:
        return False
    try:
        host = urlsplit(value).hostname
        return host in {None, "", "localhost"} or ip_address(host or "").is_loopback
    except ValueError:
        return False
