"""The index of `knowledge/`: one SQLite file, only ever read, and searched by full text.

It is opened as a file that nobody changes, so it works on a read-only disk and for any number of
processes. `uv run knowledge index` writes it (`indexing/`).
"""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from app.launch.evidence.folder import FORMAT
from app.launch.evidence.words import Word, asked

# BM25 proposes this many passages; of these, those that hold most of the question come first.
_PROPOSED = 40
_MOST_TERMS = 64
# The rarest terms propose; a common one only while all of them are in no more passages than this,
# which bounds the time.
_MOST_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document.

    `place` is `p. 3` or `lines 4-9`. `score` is the share of the question that the passage holds,
    from 0 to 1: each word counts by how rare it is in the documents, and a word of several
    syllables by those that are found. So it compares over questions, and a low one is weak
    evidence however good the passage is beside others.
    """

    id: str
    file: str
    heading: str
    place: str
    text: str
    score: float


class UnusableIndexError(Exception):
    """The file is no index that this release can read: it was cut off, or is of another release."""


class Knowledge:
    """The passages of all documents. May be used by several threads."""

    def __init__(self, path: Path) -> None:
        """Raises `FileNotFoundError` without the file, `UnusableIndexError` for a broken one."""
        if not path.is_file():
            raise FileNotFoundError(path)
        self._lock = Lock()
        self._connection = _open(path)
        try:
            about = dict(self._connection.execute("SELECT name, value FROM about"))
            self._connection.execute("SELECT term FROM vocabulary LIMIT 1")  # FTS5 is there
            if about["format"] != str(FORMAT):
                raise UnusableIndexError(path)
            self.version: str = about["version"]
            self.sources: str = about["sources"]
            self.passages = int(about["passages"])
            self.files = int(about["files"])
        except (sqlite3.Error, KeyError, ValueError) as error:
            self.close()
            raise UnusableIndexError(path) from error
        except UnusableIndexError:
            self.close()
            raise

    def search(self, question: str, at_most: int) -> list[Passage]:
        """The passages that hold most of the question, best first, in a few milliseconds.

        Any text is a question, of any length; one that names nothing finds nothing.
        """
        words = asked(question)
        if not words:
            return []
        with self._lock:
            common = self._common(words)
            weights = {word: self._weight(word, common) for word in words}
            rows = self._propose(common)
        whole = sum(weights.values())
        found: list[tuple[float, float, Passage]] = []
        for key, file, heading, place, text, held, rank in rows:
            there = frozenset(held.split(" "))
            score = sum(weight * word.share(there) for word, weight in weights.items()) / whole
            found.append((-score, rank, Passage(key, file, heading, place, text, round(score, 4))))
        found.sort(key=lambda entry: (round(entry[0], 1), entry[1], entry[2].id))
        return [passage for _, _, passage in found[: max(at_most, 0)]]

    def close(self) -> None:
        """Let go of the file; a search that is running ends first."""
        with self._lock:
            self._connection.close()

    def _common(self, words: Sequence[Word]) -> dict[str, int]:
        """In how many passages each term of the question is."""
        every = {term for word in words for term in (*word.terms, word.stem, word.whole) if term}
        query = "SELECT doc FROM vocabulary WHERE term = ?"
        counts: dict[str, int] = {}
        for term in every:
            row = self._connection.execute(query, (term,)).fetchone()
            counts[term] = row[0] if row else 0
        return counts

    def _weight(self, word: Word, common: dict[str, int]) -> float:
        """How much a word says: the rarer, the more; one that no document has counts as rarest."""
        if common.get(word.whole):
            return self._rarity(common[word.whole])
        counts = [common[term] for term in word.terms]
        counts[0] = max(counts[0], common.get(word.stem, 0))
        return sum(map(self._rarity, counts)) / len(counts)

    def _rarity(self, passages: int) -> float:
        return math.log(1 + self.passages / (1 + passages))

    def _propose(self, common: dict[str, int]) -> list[tuple[str, str, str, str, str, str, float]]:
        there = sorted((count, term) for term, count in common.items() if count)
        entries = accumulate(count for count, _ in there)
        chosen = [
            term
            for number, ((_, term), so_far) in enumerate(zip(there, entries, strict=True))
            if number == 0 or (so_far <= _MOST_ENTRIES and number < _MOST_TERMS)
        ]
        if not chosen:
            return []
        # In quotation marks a term is a term: it holds letters and digits alone (`words.py`).
        query = " OR ".join(f'"{term}"' for term in chosen)
        return self._connection.execute(
            "SELECT key, file, heading, place, text, held, found.rank FROM"
            " (SELECT rowid, rank FROM terms WHERE terms MATCH ? ORDER BY rank LIMIT ?) AS found"
            " JOIN passages ON passages.id = found.rowid",
            (query, _PROPOSED),
        ).fetchall()


def _open(path: Path) -> sqlite3.Connection:
    # Immutable: no lock, no journal, and no look whether another process changed it.
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, check_same_thread=False)
