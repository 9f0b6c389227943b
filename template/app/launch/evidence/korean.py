"""What Korean words carry at their end, and which of them ask rather than tell.

No dictionary: a search needs the front of a word, and the index holds every pair of syllables.
"""

import re

from app.launch.evidence.asking import listed


def _any(words: list[str]) -> str:
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


_VERBS, _PARTICLE = listed("ko", "verbs"), _any(listed("ko", "particles"))
_ENDING = _any(listed("ko", "verbs") + listed("ko", "endings") + listed("ko", "particles"))
# Two syllables stay, so that 회의 (a meeting) does not lose what looks like a particle.
_TAIL = re.compile(f"(?<=..)(?:{_ENDING})$")
# What is short and takes a noun's particle is a noun: 한도 (a limit), 인가를 (a licence).
_EMPTY = re.compile(
    f"(?:{_any(listed('ko', 'pronouns'))})"
    f"|(?:{_any(listed('ko', 'asking'))})(?:{_ENDING})" + "{0,2}"
    f"|(?:{_any(listed('ko', 'stems'))})(?:{_any(listed('ko', 'endings'))})" + "{1,2}"
    f"|(?:{_any(listed('ko', 'small'))})[은는이가을를만]?"
    f"|(?:{_any([verb for verb in _VERBS if len(verb) > 2])})(?:{_PARTICLE})?"
    f"|(?:{_any([verb for verb in _VERBS if len(verb) == 2])})[은는도만]?"
    f"|(?:{_any([verb for verb in _VERBS if len(verb) == 1])})"
)
_NOUN = re.compile(f"(?:{_any(listed('ko', 'nouns'))})(?:{_PARTICLE})?")
# Of the syllables in Unicode, which are made of 19 consonants, 21 vowels and 28 endings.
_FIRST = ord("가")
_OPEN = {6: 20, 9: 8, 10: 11, 14: 13}  # the vowels that -어 makes, and what they come from: ㅕ ㅣ
_PARTICLE_ALONE = frozenset("은는이가을를의에와과도로만")


def is_empty(word: str, *, first: bool) -> bool:
    """True for a word that asks and says nothing of what it asks for.

    `first`: a sentence begins with it, so it belongs to no word before it.
    """
    if first and _NOUN.fullmatch(word):
        return False
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


def stem(word: str) -> str:
    """How a verb begins, whatever ending changed its second syllable: 바꿀, 바꿔요 are one.

    It is marked, so that it is no other word's pair of syllables.
    """
    if len(word) < 2:
        return f"v{word}"
    consonant, rest = divmod(ord(word[1]) - _FIRST, 21 * 28)
    vowel = rest // 28
    return f"v{word[0]}{chr(_FIRST + (consonant * 21 + _OPEN.get(vowel, vowel)) * 28)}"
