"""Finding what a rule names. RE2 takes time in proportion to the text, whatever the pattern is."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import re2  # type: ignore[import-untyped]

from app.launch.policy.data import Check, Kind
from app.launch.policy.folding import Folded, bases, fold
from app.launch.policy.width import widest

# A word's or pattern's match is at most this long (characters): a stream must hold it back.
LONGEST = 200
PatternError = re2.error
_LARGE_BYTES = 64 << 20
_ASCII_WORD = re.compile(r"[A-Za-z0-9_]")


class Pattern(Protocol):
    """A compiled pattern of RE2, on UTF-8."""

    @property
    def pattern(self) -> str: ...

    def search(self, text: bytes, pos: int = 0) -> re.Match[bytes] | None: ...


class TooLongError(ValueError):
    """A match can be longer than `LONGEST`: `width` characters."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.width = width


class EmptyMatchError(ValueError):
    """A pattern finds something in an empty text, and so everywhere."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place in a folded text, in bytes. `open`: more text could still change it."""

    start: int
    end: int
    open: bool = False


@dataclass(frozen=True, slots=True)
class Finder:
    """What a rule looks for. `label` is its placeholder's.

    What has begun at the end of a text: `may_begin` finds it, or it is the last `reach` characters.
    `joined`: letters that may become one of a word's: see `folding.bases`.
    """

    label: str
    form: Pattern
    may_begin: Pattern | None = None
    reach: int = 0
    check: Check | None = None
    most_checks: int = 0
    joined: frozenset[str] = frozenset()

    def find(self, folded: Folded, *, final: bool, checked: Counter[str]) -> Iterator[Found]:
        """All places; the last one may be `open` in a text that goes on.

        `checked` counts the checks that were made, by label.
        """
        data, start = folded.data, folded.start
        while (match := self.form.search(data, start)) is not None:
            first, last = match.span()
            if last == len(data) and not final:
                yield Found(first, last, open=True)
                return
            start = max(last, first + 1)
            if self.check is None or checked[self.label] >= self.most_checks:
                yield Found(first, last)
                continue
            checked[self.label] += 1
            part = self.check(data[first:last].decode())
            if part is None:
                start = first + 1
            else:
                start = first + part[1]
                if part[0] < part[1]:
                    yield Found(first + part[0], start)

    def begins(self, folded: Folded, start: int) -> int:
        """Where (in bytes, from `start` on) something may have begun that is not complete yet."""
        if self.may_begin is None:
            return len(folded.data) - len(folded.text[-self.reach :].encode())
        match = self.may_begin.search(folded.data, start)
        return len(folded.data) if match is None else match.start()


def anything(finders: Iterable[Finder]) -> Pattern | None:
    """One pattern that finds something wherever one of these does; None where there is none.

    Most pieces of most answers are done with after this one look.
    """
    forms = []
    for finder in finders:
        if finder.may_begin is None:
            return None
        forms += [finder.form.pattern, finder.may_begin.pattern]
    try:
        return compiled("|".join(f"(?:{form})" for form in forms)) if forms else None
    except PatternError:
        return None  # too large together; each rule looks for itself


def compiled(pattern: str) -> Pattern:
    """A compiled pattern. Raises `PatternError`."""
    options = re2.Options()
    options.log_errors = False
    try:
        return cast(Pattern, re2.compile(pattern, options))
    except PatternError:
        # RE2 may use this memory while it searches too: only a large pattern gets so much.
        options.max_mem = _LARGE_BYTES
        return cast(Pattern, re2.compile(pattern, options))


def words(texts: Sequence[str], label: str) -> Finder:
    """Words and phrases, in any case and spacing; in Hangul also with what is joined to them.

    Each has at most `LONGEST` characters. Raises `PatternError` for more than one rule can hold.
    """
    forms, beginnings = [], []
    for text in texts:
        units = _units(fold(text).text)
        before, after = (r"\b" if _ASCII_WORD.search(edge) else "" for edge in (text[0], text[-1]))
        forms.append(f"{before}{''.join(units)}{after}")
        beginnings.append(before + _any_beginning(units))
    return Finder(
        label,
        compiled(f"(?i)(?:{'|'.join(forms)})"),
        compiled(rf"(?i)(?:{'|'.join(beginnings)})\z"),
        joined=bases("".join(texts)),
    )


def pattern(text: str, label: str) -> Finder:
    """An RE2 pattern, in any case unless it says otherwise.

    Raises `PatternError`, `UnboundedError`, `TooLongError` and `EmptyMatchError`.
    """
    compiled(text)  # what is wrong with it is said in its own words
    form, width = compiled(f"(?i)(?:{text})"), widest(text)
    if width > LONGEST:
        raise TooLongError(width)
    if form.search(b"") is not None:
        raise EmptyMatchError
    return Finder(label, form, reach=width, joined=bases(text))


def of_kind(kind: Kind) -> Finder:
    """A kind of personal data, or secrets."""
    form, may_begin = compiled(kind.form), compiled(kind.may_begin)
    return Finder(kind.label, form, may_begin, check=kind.check, most_checks=kind.most_checks)


def _units(text: str) -> list[str]:
    """A phrase as patterns of one letter or one gap each."""
    parts = text.split()
    units: list[str] = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        units += [re2.escape(letter) for letter in part]
        if following:
            hangul = _is_hangul(part[-1]) and _is_hangul(following[0])
            units.append(r"\s{0,3}" if hangul else r"[\s\p{P}]{1,3}")
    return units


def _any_beginning(units: list[str]) -> str:
    nested = ""
    for unit in reversed(units[1:]):
        nested = f"(?:{unit}{nested})?"
    return units[0] + nested


def _is_hangul(letter: str) -> bool:
    return "가" <= letter <= "힣"
