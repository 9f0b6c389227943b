"""What the report says, in English and Korean (`texts/en.json`, `texts/ko.json`, equal keys)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from app.foundation.messages import Messages
from app.foundation.project import Language, load_project


@cache
def load_texts(language: Language | None = None) -> Messages:
    """The report's texts; by default in the project's language."""
    language = language or load_project().language
    path = Path(__file__).parent / "texts" / f"{language}.json"
    return Messages(language, json.loads(path.read_text(encoding="utf-8")))


def seen_as(key: str, **facts: Any) -> str:
    """What was seen, in words (`seen.<key>`)."""
    return load_texts().text(f"seen.{key}", **facts)
