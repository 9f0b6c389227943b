"""What the report says, in English and Korean (`texts/en.json`, `texts/ko.json`, equal keys)."""

from pathlib import Path
from typing import Any

from app.foundation.messages import Messages, load_messages
from app.foundation.project import Language, load_project

TEXTS = Path(__file__).parent / "texts"


def load_texts(language: Language | None = None) -> Messages:
    """The report's texts; by default in the project's language."""
    return load_messages(language or load_project().language, TEXTS)


def seen_as(key: str, **facts: Any) -> str:
    """What was seen, in words (`seen.<key>`)."""
    return load_texts().text(f"seen.{key}", **facts)
