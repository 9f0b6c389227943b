"""What the report says, in English and Korean (`texts/en.json`, `texts/ko.json`, equal keys)."""

import json
from functools import cache
from pathlib import Path

from app.foundation.messages import Messages
from app.foundation.project import Language, load_project


@cache
def load_texts(language: Language | None = None) -> Messages:
    """The report's texts; by default in the project's language."""
    language = language or load_project().language
    path = Path(__file__).parent / "texts" / f"{language}.json"
    return Messages(language, json.loads(path.read_text(encoding="utf-8")))
