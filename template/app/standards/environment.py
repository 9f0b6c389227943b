"""Standard 2: a fail-fast environment. Whatever is wrong is listed at once, and nothing starts.

Values are never printed: a mistyped key is still a key.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

from app.foundation.checks import Problem, UnreadableSourceError
from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.settings import (
    InvalidSettingsError,
    Settings,
    read_settings,
)
from app.foundation.sources import unreadable_secrets

EX_CONFIG = 78  # sysexits.h: something was found in an unconfigured or misconfigured state

Check = Callable[[Settings], list[Problem]]


def load_or_exit(*checks: Check) -> Settings:
    """The settings; or a report on standard error and exit code 78.

    `checks` know what no setting knows of itself, such as whether a model's price is known.
    """
    if unreadable := unreadable_secrets(Settings.model_fields):
        stop(unreadable)
    settings, problems = settings_so_far()
    for check in checks:
        problems += check(settings)
    if problems:
        stop(problems)
    return settings


def settings_so_far() -> tuple[Settings, list[Problem]]:
    """The settings, as far as they are right, and what is wrong with the others.

    A source that cannot be read ends with exit code 78.
    """
    try:
        return read_settings(), []
    except InvalidSettingsError as error:
        return error.settings, error.problems
    except UnreadableSourceError as error:
        stop([error.problem])  # what is missing without it is no news


def stop(problems: list[Problem]) -> NoReturn:
    """Print the problems, one a line, and exit with code 78."""
    project = load_project()
    messages = load_messages(project.language)
    # One complaint a setting, the first: what follows from it needs no line of its own.
    texts = {problem.name: in_words(problem) for problem in reversed(problems)}
    lines = [messages.text("environment.found", name=project.name, count=len(texts))]
    lines += [f"  {_title(name)}: {text}" for name, text in sorted(texts.items())]
    lines.append(messages.text("environment.hint"))
    print("\n".join(lines), file=sys.stderr)
    raise SystemExit(EX_CONFIG)


def _title(name: str) -> str:
    """A setting as it is set; a place in a file as it is."""
    return name.upper() if name.isidentifier() else name


def in_words(problem: Problem) -> str:
    """What is wrong and what to do, in the project's language, without the value."""
    messages = load_messages(load_project().language)
    key = f"setting.{problem.complaint}"
    if key not in messages.texts:
        return problem.other_words
    return messages.text(key, **problem.facts)
