"""Where the deployed app gets its secrets from: one module a target, one interface."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from app.foundation.project import load_project
from keychain.messages import say


@dataclass(frozen=True, slots=True)
class Held:
    """What a place holds: the values that it shows, and the names of those that it hides.

    `problems` are those of keeping them there, such as a file that the app may not read.
    """

    values: dict[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Everything that is set there."""
        return {*self.values, *self.hidden}


class PlaceError(Exception):
    """The place gave no answer, or refused; the text says what to do. It holds no value."""

    def __init__(self, place: str, key: str, **facts: object) -> None:
        super().__init__(f"{place}: {say(key, **facts)}")


class Place(Protocol):
    """Where the deployed app gets its secrets from."""

    title: str

    def held(self) -> Held:
        """What is set there. Raises `PlaceError`, after a bounded time."""

    def seen_by_the_app(self, local: Mapping[str, str], held: Held) -> dict[str, str]:
        """What the app reads there: `held`, and what comes by another way from `local` (`.env`)."""

    def accepts(self, name: str) -> bool:
        """Whether the setting is one that this place keeps."""

    def send(self, values: Mapping[str, str]) -> Iterator[str]:
        """Set these; each name as soon as it is there. Raises `PlaceError`, after a bounded time.

        Whatever was sent before an error, or before the process is killed, stays whole.
        """

    def afterwards(self, names: set[str]) -> str:
        """What is left to do, once these names are there, for the app to see them."""


def place_of(folder: Path) -> Place:
    """The place of the target that this app was generated for."""
    place: Place = import_module(f"keychain.places.{load_project().deploy}").place(folder)
    return place
