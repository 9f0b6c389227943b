"""The folder `knowledge/`, which is yours, and where the index of its documents lies."""

import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path

APP = Path(__file__).parents[2]
# Inside the app, so that it goes where the app goes: into a wheel, an image, a function.
INDEX = APP / "knowledge.db"
FOLDER = APP.parent / "knowledge"

MARKDOWN = frozenset({".md", ".markdown"})
TEXT = frozenset({".txt"})
PDF = frozenset({".pdf"})
READABLE = MARKDOWN | TEXT | PDF

# Counts up when passages are cut or kept in another way: older indexes are built anew.
FORMAT = 1


def name_of(path: Path, folder: Path) -> str:
    """A document's name, the same on every system: its path below the folder."""
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())


def files(folder: Path) -> Iterator[Path]:
    """Every file in the folder that is not hidden, in the order of the names."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    yield from sorted(found, key=lambda path: name_of(path, folder))


def documents(folder: Path) -> list[Path]:
    """The documents that are indexed: Markdown, text and PDF."""
    return [path for path in files(folder) if path.suffix.lower() in READABLE]


def digest(folder: Path) -> str:
    """What the documents are, in one word: the same names and bytes, the same word."""
    whole = hashlib.sha256(f"format {FORMAT}".encode())
    for path in documents(folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"\0{name_of(path, folder)}\0{content}".encode())
    return whole.hexdigest()
