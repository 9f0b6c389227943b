"""Text as the rules see it: what is written in another way must not pass for something else.

Full-width digits, ligatures, Hangul in pieces (NFKC), and characters that nobody sees.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

# What is looked at as one: normalising is quadratic in the marks that follow each other.
_BLOCK = 512
_MOST_MARKS = 32
# What Unicode calls default ignorable, the Hangul fillers among it, and interlinear marks.
_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
_UNSEEN_LETTERS = re.compile(f"[{_UNSEEN}]")
_ODD = re.compile(f"[{_UNSEEN}\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Folded:
    """A text to be searched, as UTF-8. `origins`: where its characters were; None: where they are.

    The first byte of the text is at `start`; what is before it is no part of it.
    """

    text: str
    data: bytes
    origins: list[int] | None = None
    start: int = 0

    def after(self, letter: str) -> "Folded":
        """The text with the letter that came before it, which tells whether a word goes on."""
        lead = letter.encode() if letter.isascii() else "\ufffd".encode()
        return Folded(self.text, lead + self.data, self.origins, len(lead))

    def places(self, offsets: list[int]) -> list[int]:
        """Where in the original text these bytes are; they are given in ascending order."""
        characters: list[int] = []
        last, count = self.start, 0
        ascii_only = len(self.data) == len(self.text) + self.start
        for offset in offsets:
            count += offset - last if ascii_only else len(self.data[last:offset].decode())
            last = offset
            characters.append(count)
        if self.origins is None:
            return characters
        return [self.origins[character] for character in characters]


def fold(text: str) -> Folded:
    """The text as the rules see it. Takes time in proportion to its length."""
    if text.isascii():
        return Folded(text, text.encode("ascii"))
    if all(map(_is_plain, _blocks(text))):
        return Folded(text, text.encode())
    parts: list[str] = []
    origins: list[int] = []
    start = 0
    while start < len(text):
        end = _end_of_cluster(text, min(start + _BLOCK, len(text)))
        if _is_plain(text[start:end]):
            parts.append(text[start:end])
            origins.extend(range(start, end))
            start = end
            continue
        while start < end:
            stop = _end_of_cluster(text, start + 1)
            part = _folded(text[start:stop])
            parts.append(part)
            origins.extend([start] * len(part))
            start = stop
    seen = "".join(parts)
    origins.append(len(text))
    return Folded(seen, seen.encode(), origins)


def bases(text: str) -> frozenset[str]:
    """The letters that become one of the text's once they are joined: e for é, 소 for 속."""
    found: set[str] = set()
    for letter in unicodedata.normalize("NFKC", text):
        parts = unicodedata.normalize("NFD", letter)
        if not _is_syllable(letter):
            found.update(parts[:1].lower() if len(parts) > 1 else "")
        elif len(parts) > 2:
            found.add(unicodedata.normalize("NFC", parts[:2]))
    return frozenset(found)


def unfinished(text: str, joined: frozenset[str]) -> int:
    """How many characters at the end may become another by what follows.

    Hangul comes in pieces, and one of the letters `joined` may get an accent.
    """
    start, first = len(text), max(0, len(text) - _MOST_MARKS)
    while start > first and _joins(text[start - 1]):
        start -= 1
    letter = text[start - 1 : start]
    if letter and ("\u1100" <= letter <= "\u1160" or _base(letter) in joined):
        return len(text) - start + 1
    return 0


@lru_cache(maxsize=4096)
def _base(letter: str) -> str:
    return letter if _is_syllable(letter) else unicodedata.normalize("NFKD", letter)[:1].lower()


def _is_syllable(letter: str) -> bool:
    return "가" <= letter <= "힣"


def _blocks(text: str) -> Iterator[str]:
    # Each begins with the last one's last character: it may be joined by what follows.
    for start in range(0, len(text), _BLOCK):
        yield text[max(start - 1, 0) : start + _BLOCK]


def _is_plain(block: str) -> bool:
    return unicodedata.is_normalized("NFKC", block) and not _ODD.search(block)


def _end_of_cluster(text: str, end: int) -> int:
    """The place from `end` on where no mark belongs to the letter before it."""
    last = min(end + _MOST_MARKS, len(text))
    while end < last and _joins(text[end]):
        end += 1
    return end


@lru_cache(maxsize=4096)
def _folded(cluster: str) -> str:
    seen = _UNSEEN_LETTERS.sub("", _SURROGATE.sub("\ufffd", cluster))
    return unicodedata.normalize("NFKC", seen)


@lru_cache(maxsize=4096)
def _joins(letter: str) -> bool:
    return unicodedata.combining(letter) != 0 or "\u1161" <= letter <= "\u11ff"
