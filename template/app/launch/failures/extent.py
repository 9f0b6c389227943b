"""How much of an exchange is kept, in bytes: it lies in the store that guards money.

What somebody writes decides neither how many bytes an entry has nor how many entries there are.
"""

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from app.launch.failures.envelope import Text

# What a turn takes beside its text, and what an entry takes beside its texts: its facts, the seal.
_TURN_BYTES = 24
_FACTS_BYTES = 1_000


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes of the newest turns, of an answer's beginning and of a comment, as JSON."""

    question: int
    answer: int
    comment: int

    @property
    def entry(self) -> int:
        """No entry of the store has more bytes."""
        return self.question + self.answer + self.comment + _FACTS_BYTES

    def of(self, text: Text) -> Text:
        """The text, cut to fit. A cut may go through a secret: see `hiding`."""
        question = newest(text.question, self.question)
        answer = first(text.answer, self.answer)
        whole = text.question[len(text.question) - len(question) :]
        return Text(
            question,
            answer,
            first(text.comment, self.comment),
            cut_before=text.cut_before or question != whole,
            cut_after=text.cut_after or answer != text.answer,
        )


# 1,000 exchanges are 6 MB at most; 50 failures of one cause 950 kB.
OF_AN_EXCHANGE = Extent(2_500, 2_500, 0)
OF_A_FAILURE = Extent(8_000, 4_000, 6_000)


def newest(question: tuple[tuple[str, str], ...], room: int) -> tuple[tuple[str, str], ...]:
    """The newest turns, as many as fit; the one that does not is cut at its beginning."""
    kept: list[tuple[str, str]] = []
    for role, text in reversed(question):
        room -= _TURN_BYTES
        if room <= 0:
            break
        part = last(text, room)
        kept.append((role, part))
        if len(part) < len(text):
            break
        room -= _bytes(part)
    return tuple(reversed(kept))


def first(text: str, room: int) -> str:
    """As much of a text's beginning as fits into `room` bytes."""
    text = text[:room]
    return text[: _fitting(len(text), room, lambda count: text[:count])]


def last(text: str, room: int) -> str:
    """As much of a text's end as fits into `room` bytes."""
    text = text[-room:]
    return text[len(text) - _fitting(len(text), room, lambda count: text[len(text) - count :]) :]


def _fitting(most: int, room: int, part: Callable[[int], str]) -> int:
    """How many characters fit, of `most`."""
    if _bytes(part(most)) <= room:
        return most
    return max(0, bisect_right(range(most), room, key=lambda count: _bytes(part(count))) - 1)


def _bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) - 2
