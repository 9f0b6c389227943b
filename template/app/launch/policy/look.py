"""Looking at one text with all rules of a side."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.launch.policy.folding import fold
from app.launch.policy.json_text import unescaped
from app.launch.policy.rules import OneSide, Rule


@dataclass(frozen=True, slots=True)
class Hit:
    """What a rule found: a place in the text, in characters."""

    rule: Rule
    label: str
    start: int
    end: int


def look(
    side: OneSide,
    text: str,
    *,
    final: bool = True,
    before: str = "",
    at_most: int | None = None,
    checked: Counter[str] | None = None,
    in_json: bool = False,
) -> tuple[list[Hit], int]:
    """All that the rules find, in the order of the places, and how much of the text is decided.

    A text that is not `final` goes on; what may have begun counts in its last `at_most` characters.
    `before` is the character before it, if any. `checked`: see `Finder.find`; None: none so far.
    `in_json`: an escape in it is the letter that it stands for.
    """
    if not side.rules:
        return [], len(text)
    seen, origins = unescaped(text) if in_json else (text, None)
    folded = fold(seen)
    if before:
        folded = folded.after(before)
    if side.anything is not None and side.anything.search(folded.data, folded.start) is None:
        return [], len(text)
    decided = len(folded.data)
    tail = folded.start if at_most is None else max(folded.start, decided - 4 * at_most)
    whole = final or at_most is not None
    checked = Counter() if checked is None else checked
    found: list[tuple[int, int, Rule, str]] = []
    for rule in side.rules:
        for finder in rule.finders:
            for place in finder.find(folded, final=whole, checked=checked):
                if place.open:
                    decided = min(decided, place.start)
                else:
                    found.append((place.start, place.end, rule, finder.label))
            if not final:
                decided = min(decided, finder.begins(folded, tail))
    if not found and decided == len(folded.data):
        return [], len(text)
    found.sort(key=lambda item: item[0])  # stable: at one place the earlier rule comes first
    offsets = sorted({decided, *(end for _, end, *_ in found), *(start for start, *_ in found)})
    at = folded.places(offsets)
    places = dict(zip(offsets, at if origins is None else [origins[n] for n in at], strict=True))
    return [Hit(r, label, places[a], places[b]) for a, b, r, label in found], places[decided]


def merged(hits: Iterable[Hit]) -> list[Hit]:
    """The hits of rules that hide something; where two overlap, one that covers both."""
    apart: list[Hit] = []
    for hit in hits:
        if hit.rule.action != "redact" or hit.start == hit.end:
            continue
        if apart and hit.start < apart[-1].end:
            apart[-1] = replace(apart[-1], end=max(apart[-1].end, hit.end))
        else:
            apart.append(hit)
    return apart
