"""`uv run checklist --url https://…`: what can be shown from outside, on a live deployment.

It asks little, says beforehand what that can cost at most, and works for the owner alone: the app's
ADMIN_TOKEN proves that (a caller's key does not, callers have those), and one of APP_API_KEYS pays
for the questions. Both come from the environment (CHECKLIST_ADMIN_TOKEN, CHECKLIST_APP_KEY) or are
asked for, and are never on the command line, where others on the machine could read them.
"""

import getpass
import os
import sys
import time
from datetime import datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2

from app.foundation.project import load_project
from app.foundation.settings import NANO_PER_USD, Settings
from app.preflight import read_instructions
from app.providers.prices import UnknownPriceError, find_price
from app.standards.tokens.counting import byte_bound
from checklist.items import BY_NUMBER, Item
from checklist.messages import load_texts
from checklist.outside_checks import CHECKS, UNSEEN, Deployment, Finding
from checklist.results import Failure, RefusedError, Report, Result

ADMIN_TOKEN = "CHECKLIST_ADMIN_TOKEN"
APP_KEY = "CHECKLIST_APP_KEY"
TIMEOUT_SECONDS = 30.0


def run(url: str) -> Report:
    """Look at a deployment. Raises `RefusedError` before anything is asked that costs."""
    text = load_texts().text
    base = _base(url)
    token, key = _secret(ADMIN_TOKEN), _secret(APP_KEY)
    with httpx2.Client(base_url=base, timeout=TIMEOUT_SECONDS) as http:
        deployment = Deployment(http, token, key)
        _prove_ownership(deployment)
        before = deployment.spent()
        print(_announce(deployment), file=sys.stderr, flush=True)
        started = time.monotonic()
        results = [_look(name, deployment) for name in CHECKS if _applies(name, base)]
        seconds = time.monotonic() - started
        after = deployment.spent()
    notes = [text("url.spent", before=f"{before:.6f}", after=f"{after:.6f}")]
    notes.append(text("url.unseen"))
    notes += [f"{n} {text(f'{n}.title')} {text(f'url.unseen.{n}')}" for n in UNSEEN]
    if not _applies("tls", base):
        notes.append(text("url.no_tls"))
    name = urlsplit(base).netloc
    now = datetime.now().astimezone()
    return Report(name, now, results, len(results), seconds, notes=notes, outside=True)


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or "")):
        return url.rstrip("/")
    raise RefusedError(load_texts().text("url.not_https"))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _applies(name: str, base: str) -> bool:
    return name != "tls" or base.startswith("https://")


def _secret(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value and sys.stdin.isatty():
        value = getpass.getpass(f"{name}: ").strip()
    if not value:
        raise RefusedError(load_texts().text("url.no_key", name=name))
    return value


def _prove_ownership(deployment: Deployment) -> None:
    text = load_texts().text
    try:
        proved = deployment.metrics()
    except httpx2.HTTPError as error:
        raise RefusedError(text("url.unreachable", error=type(error).__name__)) from error
    if proved.status_code != 200 or "llm_app_" not in proved.text:
        raise RefusedError(text("url.not_owner", name=ADMIN_TOKEN, status=proved.status_code))


def _announce(deployment: Deployment) -> str:
    """The most that it can cost, by the models and prices of this folder."""
    calls, attempts = deployment.MOST_CALLS, Settings.model_fields["max_attempts"].default
    tokens = byte_bound([read_instructions(), deployment.longest_text], 2)
    worst = 0
    try:
        for name, model in load_project().models.items():
            worst += find_price(name, model, None, None).worst_nano(tokens, deployment.MAX_OUTPUT)
    except UnknownPriceError:
        key, cost = "url.announce_tokens", ""
    else:
        key, cost = "url.announce", f"{calls * attempts * worst / NANO_PER_USD:.2f}"
    facts = {"requests": deployment.MOST_REQUESTS, "calls": calls, "attempts": attempts}
    return load_texts().text(key, cost=cost, tokens=tokens, **facts)


def _look(name: str, deployment: Deployment) -> Result:
    number, check = CHECKS[name]
    look = BY_NUMBER[number].look if number in BY_NUMBER else "app/edge/headers.py"
    item = Item(f"url.{name}", look)
    expected = load_texts().text(f"url.{name}.what")
    started = time.monotonic()
    try:
        found = check(deployment)
    except (httpx2.HTTPError, LookupError, ValueError) as error:
        found = Finding(False, f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - started
    if found.holds:
        return Result(item, seconds, evidence=[found.seen])
    return Result(item, seconds, failures=[Failure(name, expected, found.seen, look)])
