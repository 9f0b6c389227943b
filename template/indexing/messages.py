"""What the command says, in English and Korean (`texts/en.json`, `texts/ko.json`, equal keys)."""

from pathlib import Path
from typing import Any

from app.foundation.messages import load_messages
from app.foundation.project import load_project

TEXTS = Path(__file__).parent / "texts"


def say(key: str, **facts: Any) -> str:
    """The text of `key` in the project's language."""
    return load_messages(load_project().language, TEXTS).text(key, **facts)


class UnreadableError(Exception):
    """A document that cannot be read; the text (`unreadable.<key>`) says why and what to do."""

    def __init__(self, key: str, **facts: Any) -> None:
        super().__init__(say(f"unreadable.{key}", **facts))


class RefusedError(Exception):
    """The command cannot be carried out as it was given; the text (`refused.<key>`) says why."""

    def __init__(self, key: str, **facts: Any) -> None:
        super().__init__(say(f"refused.{key}", **facts))
