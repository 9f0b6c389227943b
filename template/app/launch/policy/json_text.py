"""An answer in JSON, as it comes: what its escapes stand for, and where it is inside a string."""

import json
import re

_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[\"\\/bfnrt])"
)
# What may become an escape, or a pair of them, at the end of a text that goes on.
_BEGINNING = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z", re.DOTALL
)
_QUOTE = re.compile(r'\\.?|"', re.DOTALL)


def unescaped(text: str) -> tuple[str, list[int] | None]:
    """The text without its escapes, and where its characters and its end were.

    None: they are where they were.
    """
    if "\\" not in text:
        return text, None
    parts: list[str] = []
    origins: list[int] = []
    last = 0
    for found in _ESCAPE.finditer(text):
        letter = str(json.loads(f'"{found[0]}"'))
        parts += [text[last : found.start()], letter]
        origins += [*range(last, found.start()), found.start()]
        last = found.end()
    origins += range(last, len(text) + 1)
    return "".join([*parts, text[last:]]), origins


def complete(text: str) -> int:
    """How much of the text has no escape that only begins."""
    start = 0
    for found in _ESCAPE.finditer(text):
        start = found.start() if _BEGINNING.fullmatch(found[0]) else found.end()
    begun = _BEGINNING.search(text, start)
    return len(text) if begun is None else begun.start()


class Quotes:
    """Tells of a JSON text that comes in pieces whether it is inside a string."""

    def __init__(self) -> None:
        self.inside = False
        self._escaped = False

    def pass_by(self, text: str) -> None:
        """Go on over a piece."""
        start, self._escaped = int(self._escaped and bool(text)), self._escaped and not text
        for found in _QUOTE.finditer(text, start):
            self.inside ^= found[0] == '"'
            self._escaped = found[0] == "\\"  # what it escapes comes with the next piece
