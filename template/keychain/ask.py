"""`secrets init`: ask for what is missing, check it, and write each answer at once."""

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import questionary

from keychain import env_file
from keychain.messages import RefusedError, say
from keychain.places import Held, Place
from keychain.values import POSTGRES_PASSWORD, is_secret, known_names, problems_of

TOKEN_BYTES = 32
# What no one needs to think of. A password inside a URL is best of letters and digits.
MADE: dict[str, Callable[[], str]] = {
    "ADMIN_TOKEN": lambda: secrets.token_urlsafe(TOKEN_BYTES),
    "APP_API_KEYS": lambda: f"web:{secrets.token_urlsafe(TOKEN_BYTES)}",
    POSTGRES_PASSWORD: lambda: secrets.token_hex(TOKEN_BYTES),
}


class Missing:
    """What the file lacks for this machine (`local`), for the target, or for both (None)."""

    def __init__(self, path: Path, place: Place, environment: str | None) -> None:
        self._path = path
        self._place = place
        self._environment = environment

    def problems(self, **new: str) -> dict[str, str]:
        """Name to words, with `new` instead of what is in the file."""
        values = {**env_file.read(self._path), **new}
        found: dict[str, str] = {}
        if self._environment != "local":
            seen = self._place.seen_by_the_app(values, Held(values))
            found = problems_of(seen, production=True)
        if self._environment != "target":
            found = {**found, **problems_of(values, production=False)}
        return {name: found[name] for name in known_names() if name in found}


def fill(path: Path, missing: Missing, names: list[str], generate: bool) -> dict[str, str]:
    """Ask for `names`, or for all that is missing; what is missing of these afterwards.

    With `generate`, what can be made and is missing is made unasked. Raises `RefusedError` where
    there is nobody to ask, and `KeyboardInterrupt` where somebody ends the questions: what was
    answered is kept.
    """
    env_file.close_to_others(path)
    problems = missing.problems()
    wanted = [*names] if names else [*problems]
    if generate:
        there = env_file.read(path)
        for name in filter(MADE.__contains__, [*wanted]):
            wanted.remove(name)
            # One that is in use is not replaced unasked: callers have their keys from it.
            if name in problems or not there.get(name):
                _write(path, name, MADE[name]())
    if wanted and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise RefusedError("no_terminal", names=", ".join(wanted), file=path.name)
    for name in wanted:
        value = _ask(name, missing, problems.get(name, ""))
        if value:
            _write(path, name, value)
    left = missing.problems()
    return {name: words for name, words in left.items() if not names or name in names}


def _write(path: Path, name: str, value: str) -> None:
    env_file.write(path, name, value)
    print(say("init.written", name=name, file=path.name), flush=True)


def _ask(name: str, missing: Missing, problem: str) -> str:
    """The answer; empty where it is left out."""
    print(f"\n{name}: {problem or say('init.anew')}")
    if name in MADE:
        make, own = say("init.make"), say("init.type")
        chosen = questionary.select(name, choices=[make, own, say("init.leave")]).unsafe_ask()
        if chosen == make:
            return MADE[name]()
        if chosen != own:
            return ""

    def right(value: str) -> bool | str:
        value = value.strip()
        return not value or missing.problems(**{name: value}).get(name, "") or True

    ask = questionary.password if is_secret(name) else questionary.text
    message = say("init.ask", name=name)
    return str(ask(message, validate=right, validate_while_typing=False).unsafe_ask()).strip()
