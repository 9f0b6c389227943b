"""The day of the daily caps: it begins at midnight in APP_TIMEZONE."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Day:
    """A calendar day and its bounds, in Unix time: from `begins` on, until just before `ends`."""

    date: date
    begins: float
    ends: float


def day_of(now: float, timezone: ZoneInfo) -> date:
    """The calendar day of a Unix time."""
    return datetime.fromtimestamp(now, timezone).date()


def midnight(day: date, timezone: ZoneInfo) -> float:
    """When a day begins, in Unix time; the first instant of it where clocks skip midnight."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone).timestamp()


def seconds_to_midnight(now: float, timezone: ZoneInfo) -> float:
    """How long the day lasts from `now` on; days of 23 and 25 hours included."""
    return midnight(day_of(now, timezone) + timedelta(days=1), timezone) - now


def days_around(now: float, timezone: ZoneInfo) -> tuple[Day, ...]:
    """The day of `now` between its neighbours, for a store that knows no time zones."""
    today = day_of(now, timezone)
    days = [today + timedelta(days=offset) for offset in (-1, 0, 1, 2)]
    bounds = [midnight(day, timezone) for day in days]
    return tuple(
        Day(day, begins, ends) for day, begins, ends in zip(days, bounds, bounds[1:], strict=False)
    )
