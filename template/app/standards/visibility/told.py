"""What was told while the store was away: the workers of one `serve` agree through a folder.

It is the folder that `serve` makes for the workers' metrics. A process alone remembers it itself.
"""

import os
import time
from contextlib import suppress
from pathlib import Path


class Told:
    """Kinds of trouble that were reported without the store, each by one worker."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._since: dict[str, float] = {}

    @classmethod
    def by_this_app(cls) -> "Told":
        """Shared by all workers of the app on this host."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        return cls(Path(folder) if folder else None)

    def tell(self, kind: str, remind_seconds: float) -> bool:
        """True for the one process that should report it: it is new, or due for a reminder."""
        now = time.time()
        if self._folder is None:
            if now - self._since.get(kind, 0.0) < remind_seconds:
                return False
            self._since[kind] = now
            return True
        note = self._note(self._folder, kind)
        try:
            with suppress(FileNotFoundError):
                if now - note.stat().st_mtime < remind_seconds:
                    return False
                note.unlink()
            note.touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:
            return True  # better twice than not at all
        return True

    def forget(self, kind: str) -> bool:
        """It is over, or known to the store; True for the one process that finds it told."""
        if self._folder is None:
            return self._since.pop(kind, None) is not None
        try:
            self._note(self._folder, kind).unlink()
        except OSError:
            return False
        return True

    def _note(self, folder: Path, kind: str) -> Path:
        return folder / f"told-{kind}"
