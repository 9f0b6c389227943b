"""The day of the daily caps: it begins at midnight in APP_TIMEZONE."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo


def day_of(now: float, timezone: ZoneInfo) -> date:
    """The calendar day of a Unix time."""
    return datetime.fromtimestamp(now, timezone).date()


def seconds_to_midnight(now: float, timezone: ZoneInfo) -> float:
    """How long the day lasts from `now` on; days of 23 and 25 hours included."""
    tomorrow = day_of(now, timezone) + timedelta(days=1)
    midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=timezone)
    return midnight.timestamp() - now
