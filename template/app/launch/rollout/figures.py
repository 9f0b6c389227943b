"""What is counted for `uv run rollout report`, in the store, over all processes."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from app.foundation.record import Arm
from app.launch.tally import Tally
from app.standards.visibility.metrics import BUCKETS
from app.stores.base import Store

HOUR: Final = 3600


class Figures:
    """Adds up requests, failures, durations and cost for each arm; of mirrored ones also how alike
    they are. Labels are `<kind> <arm> <what>`, and `shadow similarity` and the like.
    """

    def __init__(self, tally: Tally, candidate: str) -> None:
        self._tally = tally
        self._counter = counter_of(candidate)

    def answered(self, arm: Arm, seconds: float, nano: int, *, good: bool) -> None:
        """A request of the canary's or of the stable arm."""
        self._side(f"canary {arm}", seconds, nano, good=good)

    def shadowed(self, arm: Arm, seconds: float, nano: int, *, good: bool) -> None:
        """One side of a mirrored answer."""
        self._side(f"shadow {arm}", seconds, nano, good=good)

    def compared(self, fields: Mapping[str, Any]) -> None:
        """A comparison; see `comparison.py`."""
        self._add("shadow compared", 1)
        self._add("shadow similarity", round(fields["similarity"] * 1000))
        for side in ("stable", "candidate"):
            if f"{side}_json_valid" in fields:
                arm = "canary" if side == "candidate" else side
                self._add(f"shadow {arm} json", 1)
                self._add(f"shadow {arm} json_good", int(fields[f"{side}_json_valid"]))

    def _side(self, side: str, seconds: float, nano: int, *, good: bool) -> None:
        self._add(f"{side} requests", 1)
        self._add(f"{side} bad", int(not good))
        self._add(f"{side} nano", nano)
        bucket = next((bound for bound in BUCKETS if seconds <= bound), "more")
        self._add(f"{side} le {bucket}", 1)

    def _add(self, label: str, amount: int) -> None:
        if amount:
            self._tally.add(self._counter, label, amount)


def counter_of(candidate: str) -> str:
    """Under which name the figures of a candidate are counted."""
    return f"rollout:{candidate}"


async def read(store: Store, candidate: str, hours: int) -> Counter[str]:
    """What the last `hours` add up to, and the one that has just begun."""
    total: Counter[str] = Counter()
    for count in await store.counted(counter_of(candidate), HOUR, hours + 1):
        total[count.label] += count.value
    return total


def quantile(total: Mapping[str, int], side: str, share: float) -> float | None:
    """The duration (seconds) that `share` of a side's requests do not exceed; None without any.

    As Prometheus estimates it: evenly spread inside a bucket, and no more than the last bound.
    """
    counts = [total.get(f"{side} le {bound}", 0) for bound in (*BUCKETS, "more")]
    rank, below, lower = share * sum(counts), 0, 0.0
    if not sum(counts):
        return None
    for bound, count in zip(BUCKETS, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return float(BUCKETS[-1])
