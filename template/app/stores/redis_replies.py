"""What the script of the Redis store replies, in the words of `stores/base.py`."""

from datetime import date
from typing import Any

from app.stores.base import (
    IN_PROGRESS_SECONDS,
    Admission,
    Admitted,
    CapWarning,
    Decision,
    Entry,
    RateState,
    Refusal,
    Refused,
    Replay,
    StoredAnswer,
)


def decision(admission: Admission, reply: list[Any]) -> Decision:
    """What became of an admission."""
    match reply[0]:
        case b"admitted":
            return Admitted(_rates(admission, reply[2]))
        case b"replay":
            _, status, media_type, body, complete, left = reply
            answer = StoredAnswer(status, media_type.decode(), body, bool(complete))
            return Replay(answer, float(left))
        case b"rate":
            _, number, wait, states = reply
            rates = _rates(admission, states)
            return Refused("rate", float(wait), rates, admission.rates[number - 1])
        case b"cap":
            _, number, wait, states = reply
            reason: Refusal = (
                "app_cap" if admission.caps[number - 1].name == "app" else "caller_cap"
            )
            return Refused(reason, float(wait), _rates(admission, states))
        case b"in_progress":
            return Refused("in_progress", IN_PROGRESS_SECONDS)
    return Refused("key_reused", 0.0)


def _rates(admission: Admission, states: list[Any]) -> tuple[RateState, ...]:
    pairs = zip(admission.rates, states[::2], states[1::2], strict=True)
    return tuple(RateState(rate, int(left), float(reset)) for rate, left, reset in pairs)


def warning(reply: list[Any] | None) -> CapWarning | None:
    """The day's warning, where it is due."""
    if not reply:
        return None
    day, settled, limit = reply
    return CapWarning(date.fromisoformat(day.decode()), int(settled), int(limit))


def entries(reply: list[Any]) -> tuple[Entry, ...]:
    """What a collection holds."""
    found = (Entry(key.decode(), value, int(times), float(age)) for key, value, times, age in reply)
    return tuple(found)
