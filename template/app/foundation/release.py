"""Which release of the app this is, for those who look at its errors and traces."""

import hashlib
import os
from pathlib import Path

from app.foundation.settings import Settings

APP = Path(__file__).parents[1]
# What is large and no part of a release, or made by running and building.
_SKIPPED = frozenset({"ranks", "__pycache__", "checklist.json", "knowledge.db"})


def release_of(settings: Settings, name: str) -> str:
    """APP_RELEASE, or Vercel's commit; else `name` and a fingerprint of the code that runs.

    The same files have the same fingerprint wherever they run.
    """
    return settings.app_release or os.environ.get("VERCEL_GIT_COMMIT_SHA") or _fingerprint(name)


def _fingerprint(name: str) -> str:
    known = hashlib.sha256()
    for path in sorted(APP.rglob("*")):
        if path.is_file() and _SKIPPED.isdisjoint(path.parts):
            known.update(path.relative_to(APP).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{name}@{known.hexdigest()[:12]}"
