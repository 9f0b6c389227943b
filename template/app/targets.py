"""The fallback list: each provider that PROVIDERS names, with its price and its breaker."""

from collections.abc import Callable
from dataclasses import replace

from app.foundation.checks import Problem
from app.foundation.settings import Settings
from app.providers.prices import UnknownPriceError
from app.providers.registry import connect_candidate, connect_providers, price_of
from app.standards.availability.breaker import Breaker
from app.standards.availability.relay import Target


def price_problems(settings: Settings) -> list[Problem]:
    """A model whose price is unknown stops the start: its spending could not be limited."""
    problems: list[Problem] = []
    for name in settings.providers:
        try:
            price_of(settings, name)
        except UnknownPriceError:
            facts = {"provider": name.upper()}
            problems.append(Problem(f"{name}_model", "unknown_price", facts))
    return problems


def build_targets(
    settings: Settings, on_breaker: Callable[[str, str, bool], None]
) -> tuple[Target, ...]:
    """Load the chosen providers, in fallback order. `on_breaker` hears name, model and is_open."""

    def breaker(name: str, model: str) -> Breaker:
        return Breaker(lambda is_open: on_breaker(name, model, is_open))

    return tuple(
        Target(found.provider, found.price, breaker(found.provider.name, found.provider.model))
        for found in connect_providers(settings)
    )


def build_candidate(
    settings: Settings,
    targets: tuple[Target, ...],
    on_breaker: Callable[[str, str, bool], None],
) -> Target | None:
    """The model that is on trial; None where no request goes to one.

    One that stands further down in the fallback order is the same there, breaker included.
    """
    if not settings.candidate or not (settings.canary_percent or settings.shadow_percent):
        return None
    for target in targets:
        if f"{target.provider.name}:{target.provider.model}" == settings.candidate:
            return replace(target, on_trial=True)
    found = connect_candidate(settings)
    name, model = found.provider.name, found.provider.model
    breaker = Breaker(lambda is_open: on_breaker(name, model, is_open))
    return Target(found.provider, found.price, breaker, on_trial=True)


def all_connected(targets: tuple[Target, ...], candidate: Target | None) -> tuple[Target, ...]:
    """Every provider that is connected, once: the candidate may be one of the targets."""
    if candidate is None or any(target.provider is candidate.provider for target in targets):
        return targets
    return (*targets, candidate)
