"""Whose a file is: the list in `.survival-kit/ownership.toml`."""

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Literal

Kind = Literal["template", "mergeable", "yours"]


class Owners:
    """The list in `.survival-kit/ownership.toml`: the longest path around a file counts."""

    def __init__(self, folder: Path) -> None:
        with (folder / ".survival-kit/ownership.toml").open("rb") as file:
            self._entries = tomllib.load(file)["files"]

    @cached_property
    def _kinds(self) -> dict[str, tuple[Kind, str]]:
        return {entry["path"]: (entry["kind"], entry["why"]) for entry in self._entries}

    def of(self, name: str) -> tuple[Kind, str]:
        """The kind of a file, and the list's reason. What it does not name is yours."""
        around = [
            path
            for path in self._kinds
            if name == path or (path[-1] == "/" and name.startswith(path))
        ]
        return self._kinds[max(around, key=len)] if around else ("yours", "")
