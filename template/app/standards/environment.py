"""Standard 2: a fail-fast environment. Whatever is wrong is listed at once, and nothing starts.

Values are never printed: a mistyped key is still a key.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.settings import InvalidSettingsError, Settings, read_settings

EX_CONFIG = 78  # sysexits.h: something was found in an unconfigured or misconfigured state

Problem = tuple[str, str]
Check = Callable[[Settings], list[Problem]]


def load_or_exit(*checks: Check) -> Settings:
    """The settings; or a report on standard error and exit code 78.

    `checks` know what no setting knows of itself: they return more pairs of a name and what to do.
    """
    problems: dict[str, str] = {}
    try:
        settings = read_settings()
    except InvalidSettingsError as error:
        settings, problems = error.settings, dict(error.problems)
    for check in checks:
        for name, text in check(settings):
            problems.setdefault(name, text)
    if problems:
        stop(list(problems.items()))
    return settings


def stop(problems: list[Problem]) -> NoReturn:
    """Print the problems, one a line, and exit with code 78."""
    project = load_project()
    messages = load_messages(project.language)
    lines = [messages.text("environment.found", name=project.name, count=len(problems))]
    lines += [f"  {name.upper()}: {text}" for name, text in sorted(problems)]
    lines.append(messages.text("environment.hint"))
    print("\n".join(lines), file=sys.stderr)
    raise SystemExit(EX_CONFIG)
