"""Text as terms: what the index keeps of a passage, and what a question looks for in it.

Hangul, Han and kana are kept in pairs of letters, so that neither particles nor compounds hide a
word. Other words are folded and stemmed. A term holds letters and digits alone: no text can be read
as a query's syntax.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from snowballstemmer.english_stemmer import EnglishStemmer  # type: ignore[import-untyped]

from app.launch.evidence import korean
from app.launch.evidence.asking import listed
from app.launch.policy.folding import fold

_HANGUL = "가-힣"
_HAN = "々\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN = re.compile(f"([{_HANGUL}]+)|([{_HAN}]+)|((?:(?![{_HANGUL}{_HAN}])[^\\W_])+)")
_SENTENCE = re.compile(r"[.?!。．？！\n]+")
_LONGEST_WORD = 48  # letters; what is longer is no word, and counts by its beginning
# Of a long question only its beginning and its end are looked at, this many characters of each.
_LOOKED_AT = 1_000
# What a question is made of whatever it asks.
_ASKING = frozenset(listed("en", "asking"))


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a question: found as a whole where `whole` is; else by its pairs of letters.

    `stem` is as good as the first pair: so a verb begins, however it ends.
    """

    terms: tuple[str, ...]
    whole: str = ""
    stem: str = ""

    def share(self, there: frozenset[str]) -> float:
        """How much of the word is among these terms, by letters, from 0 to 1."""
        if self.whole in there:
            return 1.0
        found = [term in there for term in self.terms]
        found[0] = found[0] or self.stem in there
        if len(found) < 2:
            return float(any(found))
        pairs = zip([False, *found], [*found, False], strict=True)
        return sum(before or after for before, after in pairs) / (len(found) + 1)


def terms(text: str) -> list[str]:
    """The terms of a passage, as often as they occur. Takes time in proportion to its length."""
    found: list[str] = []
    for hangul, han, word in _runs(text):
        if word:
            found.append(_stem(word))
            continue
        pairs = _pairs(hangul or han)
        found += pairs
        if hangul:
            found.append(korean.stem(hangul))
        if lone := korean.lone_syllable(hangul) if hangul else "":
            found.append(lone)
    return found


def asked(question: str) -> list[Word]:
    """The words that a question looks for, each once; none where it only asks."""
    if len(question) > 2 * _LOOKED_AT:
        question = f"{question[:_LOOKED_AT]}\n{question[-_LOOKED_AT:]}"
    found: dict[Word, None] = {}
    for first, (hangul, han, word) in _in_sentences(question):
        if word and word not in _ASKING:
            found[Word((_stem(word),))] = None
        elif han:
            found[Word(_pairs(han))] = None
        elif hangul and not korean.is_empty(hangul, first=first):
            front = korean.front(hangul)
            pairs = _pairs(front)
            found[Word(pairs, korean.lone_syllable(front), korean.stem(front))] = None
    return list(found)


def _in_sentences(text: str) -> Iterator[tuple[bool, tuple[str, str, str]]]:
    """The runs of a text, and of each whether a sentence begins with it."""
    for sentence in _SENTENCE.split(text):
        for number, run in enumerate(_runs(sentence)):
            yield number == 0, run


def _runs(text: str) -> Iterator[tuple[str, str, str]]:
    for match in _RUN.finditer(fold(text).text.casefold()):
        hangul, han, word = match.groups(default="")
        yield hangul, han, _plain(word[:_LONGEST_WORD]) if word else ""


def _pairs(run: str) -> tuple[str, ...]:
    if len(run) == 1:
        return (run,)
    return tuple(run[at : at + 2] for at in range(len(run) - 1))


def _plain(word: str) -> str:
    """The word without its accents."""
    if word.isascii():
        return word
    apart = unicodedata.normalize("NFD", word)
    letters = "".join(letter for letter in apart if letter.isalnum())
    return unicodedata.normalize("NFC", letters) or word


@lru_cache(maxsize=16_384)
def _stem(word: str) -> str:
    # One stemmer a word: it keeps its word in itself, and threads share this.
    stem: str = EnglishStemmer().stemWord(word)
    return stem
