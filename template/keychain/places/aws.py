"""AWS Secrets Manager: one secret, a JSON object of names and values, which the app reads."""

import json
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from app.foundation.checks import UnreadableSourceError
from app.foundation.secret_manager import client, within_limit
from keychain.messages import RefusedError, say
from keychain.places import Held, Place, PlaceError

T = TypeVar("T")


def place(folder: Path) -> Place:
    """The secret that `samconfig.toml` names, where it is: that is what the function reads.

    Raises `RefusedError` where the file does not say it.
    """
    try:
        content = tomllib.loads((folder / "samconfig.toml").read_text("utf-8"))["default"]
        parameters = content["deploy"]["parameters"]
        overrides = parameters["parameter_overrides"]
        if not isinstance(overrides, dict):  # as `sam deploy --guided` writes it
            words = shlex.split(overrides if isinstance(overrides, str) else " ".join(overrides))
            overrides = dict(word.split("=", 1) for word in words)
        region = parameters.get("region") or content["global"]["parameters"].get("region")
        return _Aws(str(overrides["SecretName"]), region and str(region))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        raise RefusedError("broken_samconfig") from None


class _Aws:
    def __init__(self, name: str, region: str | None) -> None:
        self._name = name
        self._region = region
        self.title = say("aws.title", secret=name)

    def held(self) -> Held:
        """The secret's content; nothing where there is no such secret yet."""
        content = self._call(_read(self._name)) or {}
        named = {name.upper(): str(value) for name, value in content.items()}
        return Held({name: value for name, value in named.items() if value})

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
            return within_limit(lambda: work(client(self._region)))
        except UnreadableSourceError as error:
            problem = error.problem
            raise PlaceError(
                self.title, f"aws.{problem.complaint}", secret=self._name, **problem.facts
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
