"""Writes the index: cuts every document into passages, and keeps them for full-text search."""

import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from app.launch.evidence.folder import FORMAT, PDF, READABLE, digest, documents, files, name_of
from app.launch.evidence.words import terms
from indexing.messages import UnreadableError
from indexing.passages import join
from indexing.reading import read

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, file TEXT NOT NULL, heading TEXT NOT NULL,
    place TEXT NOT NULL, text TEXT NOT NULL, held TEXT NOT NULL
);
-- The ascii tokenizer takes a term as it is: only spaces part them, and nothing is folded anew.
CREATE VIRTUAL TABLE terms USING fts5(word, content='', tokenize='ascii');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(terms, row);
"""
# In a PDF, Korean lines break within words.
_BROKEN = re.compile("([가-힣])\n([가-힣])")
_KEY_LENGTH = 12

Row = tuple[str, str, str, str, str]


@dataclass
class Report:
    """What was indexed: passages by file; what could not be read, and why; what was left out."""

    version: str = ""
    size: int = 0  # bytes of the index
    passages: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def build(folder: Path, target: Path, tell: Callable[[str, int], None] | None = None) -> Report:
    """Index the folder into the file `target`, which is replaced once all of it is written.

    With a document that cannot be read nothing is written. `tell` hears each file and how many
    passages it has. The same documents give the same version.
    """
    report = Report()
    report.left_out = [
        name_of(path, folder) for path in files(folder) if path.suffix.lower() not in READABLE
    ]
    sources = digest(folder)
    rows: list[Row] = []
    for path in documents(folder):
        name = name_of(path, folder)
        try:
            found = list(_rows(path, name))
        except UnreadableError as error:
            report.unreadable[name] = str(error)
            continue
        report.passages[name] = len(found)
        rows += found
        if tell is not None:
            tell(name, len(found))
    if report.unreadable:
        return report
    report.version = _version(rows)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _write(draft, rows, sources, report)
        report.size = draft.stat().st_size
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return report


def _rows(path: Path, name: str) -> Iterator[Row]:
    paged = path.suffix.lower() in PDF
    seen: dict[str, int] = {}
    for block in join(read(path), paged=paged):
        content = f"{name}\0{block.heading}\0{block.text}"
        seen[content] = again = seen.get(content, 0) + 1
        key = hashlib.sha256(f"{content}\0{again}".encode()).hexdigest()[:_KEY_LENGTH]
        lines = f"{block.first}" if block.first == block.last else f"{block.first}-{block.last}"
        place = f"p. {block.first}" if paged else f"line{'s' if '-' in lines else ''} {lines}"
        yield key, name, block.heading, place, block.text


def _version(rows: list[Row]) -> str:
    whole = hashlib.sha256(f"format {FORMAT}".encode())
    for row in rows:
        whole.update(("\0".join(row) + "\0\0").encode())
    return whole.hexdigest()[:16]


def _held(row: Row) -> list[str]:
    """The terms that a passage is found by: its own, its heading's, its file's name."""
    _, file, heading, place, text = row
    held = terms(f"{file.rsplit('.', 1)[0]}\n{heading}\n{text}")
    if place.startswith("p."):
        held += [before + after for before, after in _BROKEN.findall(text)]
    return held


def _write(path: Path, rows: list[Row], sources: str, report: Report) -> None:
    about = {
        "format": str(FORMAT),
        "version": report.version,
        "sources": sources,
        "passages": str(len(rows)),
        "files": str(len(report.passages)),
    }
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(_TABLES)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO about VALUES (?, ?)", sorted(about.items()))
        for number, row in enumerate(rows, 1):
            held = _held(row)
            kept = " ".join(sorted(set(held)))
            connection.execute(
                "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)", (number, *row, kept)
            )
            connection.execute(
                "INSERT INTO terms (rowid, word) VALUES (?, ?)", (number, " ".join(held))
            )
        connection.execute("INSERT INTO terms (terms) VALUES ('optimize')")
        connection.commit()
