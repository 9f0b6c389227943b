"""Whether there is an index of `knowledge/` to answer from, looked at before anything starts."""

from pathlib import Path

from app.foundation.checks import Problem
from app.launch.evidence.folder import FOLDER, INDEX, digest
from app.launch.evidence.index import Knowledge, UnusableIndexError

_PLACE = "knowledge/"


def missing_index(file: str | None = None) -> list[Problem]:
    """What stands in the way of any answer: no index, or one that cannot be read.

    `file` is what KNOWLEDGE_FILE names, where it names one.
    """
    place = "knowledge_file" if file else _PLACE
    try:
        Knowledge(Path(file) if file else INDEX).close()
    except FileNotFoundError:
        return [Problem(place, "no_index")]
    except UnusableIndexError:
        return [Problem(place, "unusable_index")]
    return []


def stale_index() -> list[Problem]:
    """That the documents have changed since they were indexed, where they are there to compare."""
    if missing_index() or not FOLDER.is_dir():
        return []
    knowledge = Knowledge(INDEX)
    knowledge.close()
    return [] if knowledge.sources == digest(FOLDER) else [Problem(_PLACE, "stale_index")]
