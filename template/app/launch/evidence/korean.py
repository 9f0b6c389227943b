"""What Korean words carry at their end, and which of them ask rather than tell.

No dictionary: a search needs the front of a word, and the index holds every pair of syllables.
"""

import re

from app.launch.evidence.asking import listed


def _any(words: list[str]) -> str:
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


_ENDING = _any(listed("ko", "verbs") + listed("ko", "endings") + listed("ko", "particles"))
_ASKING, _PRONOUN = _any(listed("ko", "asking")), _any(listed("ko", "pronouns"))
# Two syllables stay, so that 회의 (a meeting) does not lose what looks like a particle.
_TAIL = re.compile(f"(?<=..)(?:{_ENDING})$")
_EMPTY = re.compile(f"(?:{_PRONOUN})|(?:{_ASKING})(?:{_ENDING}){{0,2}}")
_PARTICLE_ALONE = frozenset("은는이가을를의에와과도로만")


def is_empty(word: str) -> bool:
    """True for a word that asks and says nothing of what it asks for."""
    return _EMPTY.fullmatch(word) is not None


def front(word: str) -> str:
    """The word without its particle or ending; two syllables stay at least."""
    for _ in range(2):  # 환불받을까지는: an ending, and a particle behind it
        shorter = _TAIL.sub("", word)
        if shorter == word:
            break
        word = shorter
    return word


def lone_syllable(word: str) -> str:
    """The noun of one syllable that this word may be (돈 of 돈은, or 돈 itself); or nothing."""
    if len(word) == 1 or (len(word) == 2 and word[1] in _PARTICLE_ALONE):
        return word[0]
    return ""
