"""Whether an error budget burns too fast: the counts of all processes, by windows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.launch.slo import BURNS, Burn, Objective
from app.stores.base import Count

MINUTE: Final = 60
HOUR: Final = 3600
# Windows up to here (in minutes) are looked at by the minute, longer ones by the hour: a look that
# read six hours by the minute would take three times as long.
LONGEST_BY_MINUTE = 60


def label(slo: str, good: bool) -> str:
    """What an event is counted under."""
    return f"{slo} {'good' if good else 'bad'}"


@dataclass(frozen=True, slots=True)
class Window:
    """The good and bad events of a stretch of time."""

    good: int
    bad: int

    @property
    def events(self) -> int:
        """All of them."""
        return self.good + self.bad

    def burn(self, budget: float) -> float:
        """How many times too fast the budget burns; 0 without events."""
        return self.bad / self.events / budget if self.events else 0.0


class Events:
    """Events by age, in minutes and in hours."""

    def __init__(self, minutes: Iterable[Count], hours: Iterable[Count]) -> None:
        self._minutes = _by_label(minutes)
        self._hours = _by_label(hours)

    def window(self, slo: Objective, minutes: int) -> Window:
        """The last `minutes`: so many whole spans, and the one that has just begun."""
        by_minute = minutes <= LONGEST_BY_MINUTE
        found = self._minutes if by_minute else self._hours
        length = minutes if by_minute else minutes * MINUTE // HOUR

        def total(good: bool) -> int:
            ages = found.get(label(slo, good), {})
            return sum(value for age, value in ages.items() if age <= length)

        return Window(total(good=True), total(good=False))

    def burning(self, slo: Objective, budget: float, min_events: int) -> dict[Burn, float]:
        """What burns too fast in both of its windows, and how fast in the long one."""
        found = {}
        for burn in BURNS[slo]:
            long, short = self.window(slo, burn.long), self.window(slo, burn.short)
            rate = long.burn(budget)
            fast = rate > burn.factor and short.burn(budget) > burn.factor
            if fast and long.events >= min_events:
                found[burn] = rate
        return found


def _by_label(counts: Iterable[Count]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for count in counts:
        found.setdefault(count.label, {})[count.age] = count.value
    return found
