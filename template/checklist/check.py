"""How a test of the checklist speaks: what it expects, what it saw, and the evidence it found."""

from dataclasses import dataclass, field
from typing import Any

from checklist.items import BY_NUMBER
from checklist.messages import load_texts


class Unchecked(AssertionError):
    """An expectation that the app does not meet."""

    def __init__(self, expected: str, seen: str, look: str) -> None:
        super().__init__(f"{expected}\n  seen: {seen}\n  look at: {look}")
        self.expected = expected
        self.seen = seen
        self.look = look


@dataclass(slots=True)
class Check:
    """One test's findings. Texts are under `<item>.<key>` in `texts/`."""

    number: str
    evidence: list[str] = field(default_factory=list)

    def that(
        self, holds: bool, key: str, *, seen: object, look: str | None = None, **facts: Any
    ) -> None:
        """Raises `Unchecked` unless it holds. `look` is the file to open; by default the item's."""
        if not holds:
            expected = load_texts().text(f"{self.number}.{key}", **facts)
            raise Unchecked(expected, str(seen), look or BY_NUMBER[self.number].look)

    def found(self, key: str, **facts: Any) -> None:
        """Note evidence: numbers, statuses, log lines; it becomes a part of the report's line."""
        self.evidence.append(load_texts().text(f"{self.number}.{key}", **facts))
