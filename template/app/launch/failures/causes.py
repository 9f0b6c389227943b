"""What counts as a failure: what the app or a provider did not do, never a caller's mistake."""

from typing import Literal

from app.foundation.errors import KINDS
from app.standards.visibility.request_log import RequestEnd

Kind = Literal["error", "abstained", "blocked", "cut", "rating"]

# An operator's decisions, which end in 503 too.
_DECIDED = frozenset({"daily_cost_cap", "switched_off"})
FAULTS = frozenset(code for code, kind in KINDS.items() if kind.status >= 500) - _DECIDED
RATED_DOWN = "rating:down"


def cause_of(end: RequestEnd) -> str | None:
    """Why a request failed, as `<kind>:<name>`; None where it did not, or is told once more.

    Names come from closed sets: error codes, the policy's rules, reasons to end an answer.
    """
    record = end.record
    if record.cache in {"replay", "hit"} or end.outcome == "client_left":
        return None
    if record.error_code in FAULTS:
        return None if record.slow_client else _cause("error", record.error_code)
    if record.abstained is not None:
        return _cause("abstained", record.abstained)
    blocked = next((hit.rule for hit in record.policy if hit.action == "block"), None)
    if blocked is not None:
        return _cause("blocked", blocked)
    if record.finish_reason in {"length", "content_filter"}:
        return _cause("cut", record.finish_reason)
    return None


def _cause(kind: Kind, name: str) -> str:
    return f"{kind}:{name}"
