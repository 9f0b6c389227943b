"""AWS Secrets Manager: one secret, a JSON object of names and values, which the app reads."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from app.foundation.checks import UnreadableSourceError
from app.foundation.project import load_project
from app.foundation.secret_manager import client, within_limit
from keychain.messages import say
from keychain.places import Held, Place, PlaceError
from keychain.values import known_names

T = TypeVar("T")


def place(folder: Path) -> Place:
    """The secret that `samconfig.toml` names, since that is the one that the function reads."""
    try:
        content = tomllib.loads((folder / "samconfig.toml").read_text("utf-8"))
        overrides = content["default"]["deploy"]["parameters"]["parameter_overrides"]
        name = str(overrides["SecretName"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError):
        name = load_project().slug
    return _Aws(name)


class _Aws:
    def __init__(self, name: str) -> None:
        self._name = name
        self.title = say("aws.title", secret=name)

    def held(self) -> Held:
        """The secret's content; nothing where there is no such secret yet."""
        content = self._call(_read(self._name)) or {}
        known = set(known_names())
        named = {name.upper(): str(value) for name, value in content.items()}
        return Held({name: value for name, value in named.items() if name in known and value})

    def seen_by_the_app(self, local: Mapping[str, str], held: Held) -> dict[str, str]:
        """The secret alone: `.env` stays on this machine."""
        return dict(held.values)

    def accepts(self, name: str) -> bool:
        """Every setting: the function has no other place for them."""
        return True

    def send(self, values: Mapping[str, str]) -> Iterator[str]:
        """All in one step, beside what the secret holds already."""
        self._call(_put(self._name, dict(values)))
        yield from values

    def afterwards(self, names: set[str]) -> str:
        """How the function gets to read it again."""
        return say("aws.afterwards")

    def _call(self, work: Callable[[Any], T]) -> T:
        try:
            return within_limit(lambda: work(client()))
        except UnreadableSourceError as error:
            problem = error.problem
            raise PlaceError(
                f"aws.{problem.complaint}", secret=self._name, **problem.facts
            ) from None


def _read(name: str) -> Callable[[Any], dict[str, object] | None]:
    def work(aws: Any) -> dict[str, object] | None:
        try:
            text = aws.get_secret_value(SecretId=name).get("SecretString", "")
        except aws.exceptions.ResourceNotFoundException:
            return None
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError
        return content

    return work


def _put(name: str, values: dict[str, str]) -> Callable[[Any], None]:
    def work(aws: Any) -> None:
        content = _read(name)(aws)
        if content is None:
            aws.create_secret(Name=name, SecretString=json.dumps(values))
            return
        # A name that was written in small letters is the same setting.
        kept = {key: value for key, value in content.items() if key.upper() not in values}
        aws.put_secret_value(SecretId=name, SecretString=json.dumps({**kept, **values}))

    return work
