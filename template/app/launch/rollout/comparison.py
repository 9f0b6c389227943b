"""What an answer of the candidate's is like, beside the proven model's: numbers, and no text."""

import json
from dataclasses import dataclass
from typing import Any

from app.providers.base import Usage

# So much of each answer is compared (characters): cheap, and enough to tell.
COMPARED = 4000


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer: what it says, how it ended, how long it took and what it cost."""

    text: str
    finish_reason: str
    usage: Usage | None
    seconds: float
    nano: int


def compared(stable: Heard, candidate: Heard, *, in_json: bool) -> dict[str, Any]:
    """The fields of the log line."""
    sides = {"stable": stable, "candidate": candidate}
    fields: dict[str, Any] = {}
    for side, heard in sides.items():
        fields |= {
            f"{side}_ms": round(heard.seconds * 1000, 1),
            f"{side}_finish_reason": heard.finish_reason,
            f"{side}_input_tokens": heard.usage.input_tokens if heard.usage else None,
            f"{side}_output_tokens": heard.usage.output_tokens if heard.usage else None,
            f"{side}_cost_usd": heard.nano / 10**9,
        }
        if in_json:
            fields[f"{side}_json_valid"] = is_json(heard.text)
    fields["length_ratio"] = round(len(candidate.text) / max(len(stable.text), 1), 3)
    fields["similarity"] = round(similarity(stable.text, candidate.text), 3)
    return fields


def similarity(one: str, other: str) -> float:
    """The overlap of what two texts are made of, from 0 to 1: shared pairs of letters by all pairs.

    Pairs of letters, because words would not do for Korean, whose particles change them.
    """
    left, right = _pairs(one), _pairs(other)
    return len(left & right) / len(left | right) if left or right else 1.0


def _pairs(text: str) -> set[str]:
    plain = " ".join(text[:COMPARED].casefold().split())
    return {plain[at : at + 2] for at in range(max(len(plain) - 1, min(len(plain), 1)))}


def is_json(text: str) -> bool:
    """Whether a text is one JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
