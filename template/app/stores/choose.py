"""The store that this app was generated for. The other stores' modules are not copied into it."""

from importlib import import_module

from app.foundation.project import load_project
from app.foundation.settings import Settings
from app.stores.base import Connection, Store


def choose_store(settings: Settings) -> Store:
    """The store, not yet connected: `open` does that."""
    project = load_project()
    connection = Connection(
        url=settings.store_url,
        namespace=project.slug,
        timeout=settings.store_timeout_seconds,
        timezone=settings.timezone,
    )
    store: Store = import_module(f"app.stores.{project.store}").connect(connection)
    return store
