"""What the last whole run of `uv run checklist` found, as the operations page shows it.

The command writes it into the app's own folder, and a build takes it along: so an app that runs
elsewhere tells what was found out about its own code. No evidence is in it, only what was asked.
"""

from pathlib import Path
from typing import Annotated, Any

from loguru import logger
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.foundation.project import Language

FILE = Path(__file__).parents[1] / "checklist.json"
MOST_BYTES = 64 * 1024

Line = Annotated[str, Field(max_length=300)]


class Item(BaseModel):
    """A question of the checklist, and whether the app answered it."""

    model_config = ConfigDict(frozen=True)

    number: Annotated[str, Field(max_length=8)]
    title: dict[Language, Line]
    checked: bool


class Found(BaseModel):
    """A whole run. `commit` is what git called the code, `kit` the template's release."""

    model_config = ConfigDict(frozen=True)

    when: AwareDatetime
    commit: Line | None
    kit: Line | None
    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=100)]


class LastRun:
    """Reads the file once, and again where it has been written anew."""

    def __init__(self, file: Path = FILE) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._state: dict[str, Any] = {"state": "none"}

    def state(self) -> dict[str, Any]:
        """`state` is `found`, with what was found; `none`; or `unreadable`."""
        try:
            facts = self._file.stat()
        except OSError:
            self._seen, self._state = None, {"state": "none"}
            return self._state
        seen = (facts.st_mtime_ns, facts.st_size)
        if seen != self._seen:
            self._seen, self._state = seen, self._read(facts.st_size)
        return self._state

    def _read(self, size: int) -> dict[str, Any]:
        try:
            if size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
            found = Found.model_validate_json(self._file.read_bytes())
        except (OSError, ValueError) as error:
            logger.warning("the checklist's result cannot be read", error=type(error).__name__)
            return {"state": "unreadable"}
        return {"state": "found", **found.model_dump(mode="json")}
