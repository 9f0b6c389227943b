"""Texts that a person reads, in English and Korean (`texts/en.json`, `texts/ko.json`)."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from app.foundation.project import Language

TEXTS = Path(__file__).parent / "texts"


@dataclass(frozen=True, slots=True)
class Messages:
    """One language's texts."""

    language: Language
    texts: dict[str, str]

    def text(self, key: str, **facts: Any) -> str:
        """The text of `key` with its gaps filled.

        Raises `KeyError` for an unknown key: a missing text is a bug, and the tests look for it.
        """
        return self.texts[key].format(**facts)


@cache
def load_messages(language: Language, folder: Path = TEXTS) -> Messages:
    """Read one catalogue of those in `folder`, which hold the same keys; by default the app's."""
    path = folder / f"{language}.json"
    return Messages(language, json.loads(path.read_text(encoding="utf-8")))


def choose_language(accept_language: str | None, default: Language) -> Language:
    """The best supported language of an `Accept-Language` header (RFC 9110, 12.5.4)."""
    best, best_weight = default, 0.0
    for entry in (accept_language or "").split(","):
        tag, _, parameters = entry.partition(";")
        primary = tag.strip().lower().split("-")[0]
        weight = _weight(parameters)
        if primary in get_args(Language) and weight > best_weight:
            best, best_weight = _as_language(primary), weight
    return best


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0


def _as_language(tag: str) -> Language:
    return "ko" if tag == "ko" else "en"
