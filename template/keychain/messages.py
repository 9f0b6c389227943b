"""What the command says, in English and Korean (`texts/en.json`, `texts/ko.json`, equal keys)."""

from pathlib import Path
from typing import Any

from app.foundation.messages import Messages, load_messages
from app.foundation.project import Language, load_project

TEXTS = Path(__file__).parent / "texts"


def load_texts(language: Language | None = None) -> Messages:
    """The command's texts; by default in the project's language."""
    return load_messages(language or load_project().language, TEXTS)


def say(key: str, **facts: Any) -> str:
    """The text of `key` in the project's language."""
    return load_texts().text(key, **facts)


class RefusedError(Exception):
    """The command cannot be carried out as it was given; the text (`refused.<key>`) says why."""

    def __init__(self, key: str, **facts: Any) -> None:
        super().__init__(say(f"refused.{key}", **facts))
