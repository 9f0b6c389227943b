"""Cases in which every two answers meet at least once, in few cases."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any


def pairwise(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Greedy and deterministic: each case takes, one name after the other, what meets most anew."""
    names = list(choices)
    open_pairs = {
        ((one, i), (two, j))
        for one, two in combinations(names, 2)
        for i in range(len(choices[one]))
        for j in range(len(choices[two]))
    }
    cases = []
    while open_pairs:
        chosen: dict[str, int] = dict(min(open_pairs))
        for name in names:
            if name not in chosen:
                chosen[name] = max(
                    range(len(choices[name])),
                    key=lambda i: sum(
                        pair in open_pairs for pair in _pairs(chosen | {name: i}, names, name)
                    ),
                )
        open_pairs -= set(_pairs(chosen, names))
        cases.append({name: choices[name][chosen[name]] for name in names})
    return cases


def _pairs(
    chosen: Mapping[str, int], names: Sequence[str], about: str | None = None
) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    items = [(name, chosen[name]) for name in names if name in chosen]
    return [pair for pair in combinations(items, 2) if about is None or about in dict(pair)]
