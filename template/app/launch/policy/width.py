"""How long a match of an RE2 pattern can be: what a stream must hold back to judge it whole."""

import re

_REPEATED = re.compile(r"\{(\d+)(,(\d*))?\}")
_NO_WIDTH = frozenset("AbBz")


class UnboundedError(ValueError):
    """A repetition without an upper bound, such as `*`."""


def widest(pattern: str) -> int:
    """The most characters that a match can have. The pattern is one that RE2 has compiled.

    Raises `UnboundedError`.
    """
    return _Reader(pattern).alternatives()


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def alternatives(self) -> int:
        most = self._sequence()
        while self._take("|"):
            most = max(most, self._sequence())
        return most

    def _sequence(self) -> int:
        total = 0
        while self._next not in ("", "|", ")"):
            total += self._repeated(self._atom())
        return total

    def _repeated(self, width: int) -> int:
        found = _REPEATED.match(self._pattern, self._at)
        if found is not None:
            self._at = found.end()
            most = found[1] if found[2] is None else found[3]
            if not most and width:
                raise UnboundedError(found[0])
            width *= int(most or 0)
        elif self._next and self._next in "*+":
            if width:
                raise UnboundedError(self._next)
            self._at += 1
        elif not self._take("?"):
            return width
        self._take("?")  # lazy: it matches no more than it would
        return width

    def _atom(self) -> int:
        letter = self._next
        self._at += 1
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._class()
        if letter == "\\":
            return self._escape()
        return 0 if letter in "^$" else 1

    def _group(self) -> int:
        if self._take("?"):
            end = min(
                place for letter in ":)>" if (place := self._pattern.find(letter, self._at)) >= 0
            )
            self._at = end + 1
            if self._pattern[end] == ")":  # flags alone
                return 0
        width = self.alternatives()
        self._at += 1
        return width

    def _class(self) -> int:
        self._take("^")
        self._take("]")
        while not self._take("]"):
            if self._pattern.startswith("[:", self._at):
                self._at = self._pattern.index(":]", self._at) + 2
            elif self._take("\\"):
                self._escape()
            else:
                self._at += 1
        return 1

    def _escape(self) -> int:
        letter = self._next
        self._at += 1
        if letter == "Q":
            end = self._pattern.find("\\E", self._at)
            last = end if end >= 0 else len(self._pattern)
            width, self._at = last - self._at, last + 2
            return width
        if letter in "pPx":
            if self._take("{"):
                self._at = self._pattern.index("}", self._at) + 1
            else:
                self._at += 2 if letter == "x" else 1
        return 0 if letter in _NO_WIDTH else 1

    @property
    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, letter: str) -> bool:
        found = self._next == letter
        self._at += found
        return found
