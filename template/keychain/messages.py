"""What the command says, in English and Korean (`texts/en.json`, `texts/ko.json`, equal keys)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from app.foundation.messages import Messages
from app.foundation.project import Language, load_project


@cache
def load_texts(language: Language | None = None) -> Messages:
    """The command's texts; by default in the project's language."""
    language = language or load_project().language
    path = Path(__file__).parent / "texts" / f"{language}.json"
    return Messages(language, json.loads(path.read_text(encoding="utf-8")))


def say(key: str, **facts: Any) -> str:
    """The text of `key` in the project's language."""
    return load_texts().text(key, **facts)


class RefusedError(Exception):
    """The command cannot be carried out as it was given; the text (`refused.<key>`) says why."""

    def __init__(self, key: str, **facts: Any) -> None:
        super().__init__(say(f"refused.{key}", **facts))
