"""The app's day: a time zone in which it does not turn while we look."""

from datetime import UTC, datetime


def around_noon() -> str:
    """The name of a time zone in which it is about noon."""
    hour = datetime.now(UTC).hour
    # POSIX counts the other way: Etc/GMT-3 is three hours ahead of UTC.
    return f"Etc/GMT{hour - 12:+d}" if hour != 12 else "Etc/GMT"
