"""Checks of single settings. Each says what to do, and none repeats the value."""

import re
from typing import Any
from urllib.parse import urlsplit
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
        raise PydanticCustomError("placeholder", "is a placeholder: set the real URL")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(letter.isspace() for letter in value):
        raise PydanticCustomError("url", "must be a URL that begins with http:// or https://")
    return value.rstrip("/")


def secret_http_url(value: SecretStr) -> SecretStr:
    """A URL that carries a credential (a Sentry DSN)."""
    http_url(value.get_secret_value())
    return value


def sqlite_url(value: str) -> str:
    """`sqlite:///relative.db`, or `sqlite:////absolute.db`."""
    if not value.startswith("sqlite:///") or value == "sqlite:///":
        raise PydanticCustomError(
            "database_url", "must be sqlite:///path: this app was generated for SQLite"
        )
    return value


def timezone(value: str) -> str:
    """A name of the IANA time zone database."""
    try:
        ZoneInfo(value)
    except (ValueError, OSError, LookupError):
        raise PydanticCustomError(
            "timezone", "must be an IANA time zone such as UTC or Asia/Seoul"
        ) from None
    return value


def named_keys(value: str) -> dict[str, Any]:
    """`name:key,name:key` with names and keys that occur once."""
    keys: dict[str, SecretStr] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, colon, key = (part.strip() for part in pair.partition(":"))
        if not colon or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
            raise PydanticCustomError(
                "app_api_keys", "must be name:key pairs; a name is 1-64 of A-Z a-z 0-9 . _ -"
            )
        _check_secret(key)
        if name in keys:
            raise PydanticCustomError("app_api_keys", "names a caller twice")
        keys[name] = SecretStr(key)
    if len({key.get_secret_value() for key in keys.values()}) != len(keys):
        raise PydanticCustomError("app_api_keys", "gives two callers the same key")
    return keys


def _check_secret(value: str) -> None:
    if is_placeholder(value):
        raise PydanticCustomError("placeholder", "is a placeholder: set the real value")
    if len(value) < MIN_SECRET_LENGTH:
        raise PydanticCustomError(
            "too_short",
            "is too short: use at least {length} characters",
            {"length": MIN_SECRET_LENGTH},
        )
    if not re.fullmatch(r"[!-~]+", value):
        raise PydanticCustomError("malformed", "must be visible ASCII characters without spaces")
