"""The lists of words in `asking.toml`."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _lists() -> dict[str, Any]:
    with Path(__file__).with_name("asking.toml").open("rb") as file:
        return tomllib.load(file)


def listed(language: str, kind: str) -> list[str]:
    """The words of one list, each once."""
    return list(dict.fromkeys(_lists()[language][kind].split()))
