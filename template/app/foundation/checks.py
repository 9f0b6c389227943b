"""Checks of single settings. None repeats the value: a mistyped key is still a key.

Each names its complaint; the text is under `setting.<complaint>` in `texts/`.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from pydantic import SecretStr
from pydantic_core import PydanticCustomError

MIN_SECRET_LENGTH = 8

# What people paste from examples. Matched against the whole value, in lower case.
_PLACEHOLDER = re.compile(
    r"(sk-)?(ant-|proj-)?x{3,}.*"
    r"|.*your[-_ ].*"
    r"|(change|replace|fill)[-_ ]?(me|this|it|in).*"
    r"|(sk-|key-)?(placeholder|example|dummy|todo|tbd|fixme|none|null|undefined)"
    r"|(secret|password|token|api[-_]?key)"
    r"|<.*>|\$?\{.*\}|\.{3,}|\*{3,}"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a setting. `other_words` stand in where `texts/` has none."""

    name: str
    complaint: str
    facts: dict[str, Any] = field(default_factory=dict)
    other_words: str = ""


class UnreadableSourceError(Exception):
    """A place where settings are kept cannot be read; `problem` says which and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.complaint)
        self.problem = problem


def wrong(complaint: str, **facts: Any) -> PydanticCustomError:
    """The error that a check raises."""
    return PydanticCustomError(complaint, complaint, facts)


def is_placeholder(value: str) -> bool:
    """True for what stands in examples where a real value belongs."""
    return _PLACEHOLDER.fullmatch(value.strip().lower()) is not None


def secret(value: SecretStr) -> SecretStr:
    """A key or token: no placeholder, long enough, safe inside a header."""
    _check_secret(value.get_secret_value())
    return value


def http_url(value: str) -> str:
    """An http or https URL with a host."""
    if is_placeholder(value):
        raise wrong("placeholder")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(letter.isspace() for letter in value):
        raise wrong("url")
    return value.rstrip("/")


def secret_http_url(value: SecretStr) -> SecretStr:
    """A URL that carries a credential (a Sentry DSN)."""
    http_url(value.get_secret_value())
    return value


def database_url(value: SecretStr, store: str) -> None:
    """`sqlite:///relative.db` or `sqlite:////absolute.db`; `postgresql://…` as libpq reads it."""
    schemes = {"sqlite": ("sqlite:///",), "postgres": ("postgresql://", "postgres://")}[store]
    url = value.get_secret_value()
    if not url.startswith(schemes) or url in schemes or any(c.isspace() for c in url):
        raise wrong(f"{store}_url")


def candidate(value: str) -> str:
    """`provider:model`."""
    provider, colon, model = value.partition(":")
    if not (provider and colon and model) or any(letter.isspace() for letter in value):
        raise wrong("candidate")
    return value


def redis_url(value: SecretStr) -> SecretStr:
    """`redis://…`, or `rediss://…` for TLS; with a number for a path it is that database."""
    try:
        parts = urlsplit(value.get_secret_value())
        valid = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not re.fullmatch(r"/?\d*", parts.path):
        raise wrong("redis_url")
    return value


def password_of(url: SecretStr) -> str:
    """The password inside a URL; empty where there is none."""
    try:
        return unquote(urlsplit(url.get_secret_value()).password or "")
    except ValueError:
        return ""


def timezone(value: str) -> str:
    """A name of the IANA time zone database."""
    try:
        ZoneInfo(value)
    except (ValueError, OSError, LookupError):
        raise wrong("timezone") from None
    return value


def named_keys(value: str) -> dict[str, Any]:
    """`name:key,name:key` with names and keys that occur once."""
    keys: dict[str, SecretStr] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, colon, key = (part.strip() for part in pair.partition(":"))
        if not colon or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
            raise wrong("named_keys")
        _check_secret(key)
        if name in keys:
            raise wrong("caller_twice")
        keys[name] = SecretStr(key)
    if len({key.get_secret_value() for key in keys.values()}) != len(keys):
        raise wrong("key_twice")
    return keys


def _check_secret(value: str) -> None:
    if is_placeholder(value):
        raise wrong("placeholder")
    if len(value) < MIN_SECRET_LENGTH:
        raise wrong("too_short", length=MIN_SECRET_LENGTH)
    if not re.fullmatch(r"[!-~]+", value):
        raise wrong("not_visible_ascii")
