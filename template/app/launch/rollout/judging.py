"""Whether the candidate burns the error budget faster than the proven model."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from app.foundation.record import Arm
from app.launch.slo import Objective
from app.stores.base import Count

# Looked at are so many whole minutes and the one that has just begun.
WINDOW_MINUTES: Final = 10
# Counted at each cut-off: what was counted up to then is not held against the candidate again.
CUT_OFF: Final = "cut_off"
JUDGED: tuple[Objective, ...] = ("availability", "latency")
# It is cut off when its share of bad events is so many times what is granted, and when chance
# alone would bring so many of them less often than this.
FACTOR: Final = 2.0
CHANCE: Final = 1e-4

# `stand_in`: a proven model that answered, or did not, where the candidate had just failed.
Whose = Arm | Literal["stand_in"]


def label(whose: Whose, slo: Objective, good: bool) -> str:
    """What an event is counted under."""
    return f"{whose} {slo} {'good' if good else 'bad'}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the candidate is cut off: so many bad of all events, and the proven model's share."""

    slo: Objective
    bad: int
    events: int
    stable_share: float


def judged(counts: Iterable[Count], budgets: dict[str, float], min_events: int) -> Verdict | None:
    """The verdict on a window's counts; None where the candidate may go on.

    It is granted what the error budget grants or what the proven model needs, whichever is more:
    an outage that hits both cuts nothing off. Of its own events there are at least `min_events`,
    and for latency of the proven model's too: what is asked may just take long. A failure needs
    no such comparison.
    """
    total = _since_the_last_cut(list(counts))
    for slo in JUDGED:
        good, bad = _events(total, slo, "canary")
        stable_good, stable_bad = _events(total, slo, "stable", "stand_in")
        compared = stable_good + stable_bad
        if slo == "latency" and compared < min_events:
            continue
        stable = stable_bad / max(compared, 1)
        events, granted = good + bad, max(budgets[slo], stable)
        if events < min_events or bad <= FACTOR * granted * events:
            continue
        if chance_of(bad, events, granted) < CHANCE:
            return Verdict(slo, bad, events, stable)
    return None


def _since_the_last_cut(counts: list[Count]) -> Counter[str]:
    newest = min((count.age for count in counts if count.label == CUT_OFF), default=math.inf)
    total: Counter[str] = Counter()
    for count in counts:
        if count.age < newest:
            total[count.label] += count.value
    return total


def _events(total: Counter[str], slo: Objective, *whose: Whose) -> tuple[int, int]:
    return (
        sum(total[label(who, slo, good=True)] for who in whose),
        sum(total[label(who, slo, good=False)] for who in whose),
    )


def chance_of(bad: int, events: int, share: float) -> float:
    """How likely at least `bad` of so many events are, where `share` of them are bad on average.

    The binomial distribution's upper tail; `bad` lies above the average.
    """
    if share >= 1:
        return 1.0
    term = math.exp(
        math.lgamma(events + 1)
        - math.lgamma(bad + 1)
        - math.lgamma(events - bad + 1)
        + bad * math.log(share)
        + (events - bad) * math.log1p(-share)
    )
    total = term
    for k in range(bad, events):
        term *= (events - k) / (k + 1) * share / (1 - share)
        total += term
        if term < total * 1e-9:
            break
    return min(total, 1.0)
