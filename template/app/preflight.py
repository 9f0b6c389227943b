"""What is checked before anything starts: environment, prices, alerts, policy, documents, store."""

import errno
import os
import socket
import sys
from importlib import import_module
from pathlib import Path

from loguru import logger

from app.foundation.checks import Problem
from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.settings import Settings
from app.foundation.sources import mistyped
from app.hosting import hosting_problems
from app.launch.policy.rules import InvalidRulesError, read_rules
from app.launch.rollout.candidate import candidate_problems
from app.standards.environment import Check, load_or_exit, stop
from app.standards.visibility.delivery import alert_url_problems
from app.stores.base import Store, StoreSetupError, StoreUnavailableError
from app.stores.choose import choose_store
from app.targets import price_problems

# A concern is said once in this time (seconds), however many processes start together.
CONCERN_SECONDS = 60.0
PROMPT = Path(__file__).parent / "yours/system_prompt.md"


def check_environment(*more: Check) -> Settings:
    """The settings; or every problem at once on standard error, and exit code 78."""
    return load_or_exit(further_problems, _yours_problems, _index_problems, *more)


def tell_mistyped() -> None:
    """Say on standard error which names in `.env` are nearly a setting's, and do nothing."""
    messages = load_messages(load_project().language)
    for name, meant in mistyped(Settings.model_fields).items():
        print(messages.text("environment.mistyped", name=name, meant=meant), file=sys.stderr)


def taken_port(settings: Settings) -> list[Problem]:
    """That another process listens already where this one would."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name != "nt":  # there it would let two listen
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return [Problem("port", "taken", {"port": settings.port})]
    return []


def stale_index(settings: Settings) -> list[Problem]:
    """That documents in `knowledge/` have changed since they were indexed.

    `serve` refuses then. Under `dev` they may change while it runs, until it starts again.
    """
    if not load_project().knowledge or settings.knowledge_file:
        return []
    stale: list[Problem] = import_module("app.launch.evidence.ready").stale_index()
    return stale


def _index_problems(settings: Settings) -> list[Problem]:
    if not load_project().knowledge:
        return []
    ready = import_module("app.launch.evidence.ready")
    missing: list[Problem] = ready.missing_index(settings.knowledge_file)
    return missing


def further_problems(settings: Settings) -> list[Problem]:
    """What no setting knows of itself: prices, the place that it runs at, alert addresses."""
    alerts = [
        Problem("alert_urls", "alert_url", {"place": place})
        for place in alert_url_problems(settings)
    ]
    models = [*price_problems(settings), *candidate_problems(settings)]
    return [*models, *hosting_problems(settings), *alerts]


def _yours_problems(settings: Settings) -> list[Problem]:
    wrong: list[Problem] = []
    unreachable = not (settings.openai_api_key or settings.moderation_base_url)
    if settings.moderation != "off" and unreachable:
        wrong.append(Problem("moderation", "missing_moderation_key"))
    try:
        read_rules(settings.policy_file)
    except InvalidRulesError as error:
        wrong += error.problems
    try:
        read_instructions()
    except UnicodeDecodeError:
        wrong.append(Problem(f"app/yours/{PROMPT.name}", "not_utf8"))
    return wrong


def read_instructions() -> str:
    """The system prompt, which is yours."""
    # Windows editors write a mark at the start.
    return PROMPT.read_text(encoding="utf-8-sig").strip() if PROMPT.exists() else ""


async def check_store(settings: Settings) -> None:
    """Open the store and close it again; one that cannot be used ends with exit code 78."""
    store = choose_store(settings)
    try:
        await _open(store, settings)
    except StoreUnavailableError as error:
        facts = {"address": store.address, "reason": str(error)}
        stop([Problem(settings.store_setting, "store_unreachable", facts)])
    finally:
        await store.close()


async def open_store(store: Store, settings: Settings) -> None:
    """Open the store for a running app, and say what weakens its promises.

    One that is down for the moment is no reason to stop: requests are refused until it answers.
    """
    try:
        await _open(store, settings)
        for concern in await store.concerns():
            if await store.open_incident(f"concern:{concern.name}", CONCERN_SECONDS):
                messages = load_messages(load_project().language)
                logger.warning(messages.text(f"store.{concern.name}", **concern.facts))
    except StoreUnavailableError:
        logger.warning("the store does not answer yet: requests are refused until it does")


async def _open(store: Store, settings: Settings) -> None:
    try:
        await store.open()
    except StoreSetupError as error:
        stop([Problem(settings.store_setting, error.complaint, error.facts)])
