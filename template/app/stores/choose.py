"""The store that the settings name."""

from app.foundation.settings import Settings
from app.stores.base import Store
from app.stores.sqlite import SqliteStore


def choose_store(settings: Settings) -> Store:
    """The store, not yet connected: `open` does that."""
    return SqliteStore(
        settings.database_url,
        timeout=settings.store_timeout_seconds,
        timezone=settings.timezone,
    )
