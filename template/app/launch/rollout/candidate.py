"""What is checked of CANDIDATE before anything starts."""

from app.foundation.checks import Problem
from app.foundation.project import load_project
from app.foundation.settings import Settings
from app.providers.prices import UnknownPriceError
from app.providers.registry import candidate_price


def candidate_problems(settings: Settings) -> list[Problem]:
    """Its provider must be there with its key, its price known, and some traffic have a model.

    The model that already answers first is no candidate.
    """
    if settings.candidate is None:
        wanted = settings.canary_percent or settings.shadow_percent
        return [Problem("candidate", "missing_candidate")] if wanted else []
    name, _, model = settings.candidate.partition(":")
    known = (*load_project().providers, *settings.providers)
    if name not in known:
        facts = {"known": ", ".join(dict.fromkeys(known))}
        return [Problem("candidate", "unknown_provider", facts)]
    wrong: list[Problem] = []
    first = settings.providers[0] if settings.providers else ""
    if name == first and model == getattr(settings, f"{name}_model", name):
        wrong.append(Problem("candidate", "candidate_is_first"))
    wrong += _reachable(settings, name)
    stated = [
        setting
        for setting in ("candidate_input_usd_per_mtok", "candidate_output_usd_per_mtok")
        if getattr(settings, setting) is None
    ]
    if len(stated) == 1:
        wrong.append(Problem(stated[0], "missing_price"))
    else:
        try:
            candidate_price(settings)
        except UnknownPriceError:
            wrong.append(Problem("candidate", "unknown_price", {"provider": "CANDIDATE"}))
    return wrong


def _reachable(settings: Settings, name: str) -> list[Problem]:
    """PROVIDERS need not name its provider; what a call needs is asked for all the same."""
    if name == "compatible" and settings.compatible_base_url is None:
        return [Problem("compatible_base_url", "missing_base_url")]
    if name not in ("compatible", "demo") and getattr(settings, f"{name}_api_key") is None:
        return [Problem(f"{name}_api_key", "missing_provider_key")]
    return []
