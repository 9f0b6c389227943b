"""What was hidden of one request, and what stands in its place: `[EMAIL_1]`."""

import json
import re

_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z0-9_]{0,39})_(\d{1,6})\]", re.IGNORECASE)
# What may become a placeholder at the end of a text that goes on.
_BEGINNING = re.compile(r"\[[A-Za-z0-9_]{0,48}\Z")


def without_placeholders(text: str) -> str:
    """A text with blanks for what was hidden of it."""
    return _PLACEHOLDER.sub(" ", text) if "[" in text else text


class Vault:
    """The same value has the same placeholder in the whole request, in the order of its turns.

    So an unchanged history is hidden as it was the last time, and its summary is found again.
    """

    def __init__(self) -> None:
        self._placeholders: dict[tuple[str, str], str] = {}
        self._values: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._taken: set[str] = set()

    def keep_clear_of(self, text: str) -> None:
        """No placeholder may be one that the text already has."""
        if "[" in text:
            self._taken.update(found[0].upper() for found in _PLACEHOLDER.finditer(text))

    def hide(self, label: str, value: str, *, restore: bool) -> str:
        """The placeholder of a value; `restore`: an answer has the value in its place again."""
        if (label, value) not in self._placeholders:
            self._placeholders[label, value] = self._next(label)
        placeholder = self._placeholders[label, value]
        if restore:
            self._values[placeholder] = value
        return placeholder

    def _next(self, label: str) -> str:
        count = self._counts.get(label, 0) + 1
        while (placeholder := f"[{label}_{count}]") in self._taken:
            count += 1
        self._counts[label] = count
        return placeholder

    def restored(self, text: str, *, in_json: bool) -> str:
        """The text with the values that an answer may have."""
        if not self._values or "[" not in text:
            return text

        def value(found: re.Match[str]) -> str:
            hidden = self._values.get(found[0].upper(), found[0])
            return json.dumps(hidden, ensure_ascii=False)[1:-1] if in_json else hidden

        return _PLACEHOLDER.sub(value, text)

    def begins(self, text: str) -> int:
        """Where a placeholder may have begun that is not complete yet; else the text's length."""
        found = _BEGINNING.search(text) if self._values else None
        return len(text) if found is None else found.start()
