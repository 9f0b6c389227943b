"""The chosen providers: loaded and connected once, at start, in the order of fallback."""

from dataclasses import dataclass
from importlib import import_module

from app.foundation.settings import Settings
from app.providers.base import Connection, Provider, Timeouts
from app.providers.prices import Price, find_price

# By name, because an app holds only the modules that were chosen, and a process should import
# only the SDKs that its settings name: each costs about half a second of CPU.
_MODULES = {
    "openai": "app.providers.openai",
    "anthropic": "app.providers.anthropic",
    "gemini": "app.providers.gemini",
    "compatible": "app.providers.compatible",
    "demo": "app.providers.demo",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A provider that can answer, and what its answers cost."""

    provider: Provider
    price: Price


def connect_providers(settings: Settings) -> tuple[Target, ...]:
    """Everything in PROVIDERS, ready to be called; no connection is made yet.

    Raises `UnknownPriceError` before anything is connected.
    """
    prices = [price_of(settings, name) for name in settings.providers]
    return tuple(
        Target(_connect(settings, name, getattr(settings, f"{name}_model", name)), price)
        for name, price in zip(settings.providers, prices, strict=True)
    )


def connect_candidate(settings: Settings) -> Target:
    """The model that CANDIDATE names, by its provider's key. Raises `UnknownPriceError`."""
    name, _, model = (settings.candidate or "").partition(":")
    return Target(_connect(settings, name, model), candidate_price(settings))


def _connect(settings: Settings, name: str, model: str) -> Provider:
    key = getattr(settings, f"{name}_api_key", None)
    connection = Connection(
        api_key=key.get_secret_value() if key else "",
        model=model,
        base_url=getattr(settings, f"{name}_base_url", None),
        timeouts=Timeouts(
            connect=settings.connect_timeout_seconds,
            read=settings.read_timeout_seconds,
            write=settings.write_timeout_seconds,
            pool=settings.pool_timeout_seconds,
        ),
    )
    provider: Provider = import_module(_MODULES[name]).connect(connection)
    return provider


def price_of(settings: Settings, name: str) -> Price:
    """What the model of a provider costs: as stated, or as known. Raises `UnknownPriceError`."""
    return _price(settings, name, getattr(settings, f"{name}_model", name), name)


def candidate_price(settings: Settings) -> Price:
    """What the candidate costs. Raises `UnknownPriceError`."""
    name, _, model = (settings.candidate or "").partition(":")
    return _price(settings, name, model, "candidate")


def _price(settings: Settings, name: str, model: str, whose: str) -> Price:
    told = getattr(settings, f"{whose}_input_usd_per_mtok", None)
    said = getattr(settings, f"{whose}_output_usd_per_mtok", None)
    return find_price(
        name,
        model,
        getattr(settings, f"{name}_base_url", None),
        None if told is None or said is None else (told, said),
    )
