"""An edit that somebody makes in an app, and what an update did to it."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Outcome = Literal["kept", "conflict", "lost"]
BEGIN, MIDDLE, END = "<<<<<<< before updating", "=======", ">>>>>>> after updating"


class Entry(NamedTuple):
    """What lies at a path: its bytes, or the target of a link."""

    content: bytes
    executable: bool
    link: bool

    @property
    def lines(self) -> list[str]:
        """Its lines; where a line ends with CR LF or LF is no part of what it says."""
        return self.content.decode("utf-8").splitlines()


def entry(path: Path) -> Entry | None:
    """What lies at `path` now."""
    if path.is_symlink():
        return Entry(os.readlink(path).encode(), False, True)
    if not path.is_file():
        return None
    return Entry(path.read_bytes(), bool(path.stat().st_mode & 0o100), False)


@dataclass(frozen=True)
class Edit:
    """One thing that people do to an app.

    The first of `paths` says whose file it is about, and has to be in the new app too where the
    edit does not bring it. `works` looks, after the update, at what the edit was for.
    """

    what: str
    paths: tuple[str, ...]
    make: Callable[[Path], None]
    works: Callable[[Path], bool] | None = None
    brings: bool = False

    def done(self, app: Path) -> "Done":
        """Make the edit."""
        before = {name: entry(app / name) for name in self.paths}
        self.make(app)
        after = {name: entry(app / name) for name in self.paths}
        assert before != after, f"{self.what}: changes nothing"
        return Done(self, before, after)


@dataclass(frozen=True)
class Done:
    """An edit that was made, with its files before and after."""

    edit: Edit
    before: dict[str, Entry | None]
    after: dict[str, Entry | None]

    def outcome(self, app: Path, reported: frozenset[str]) -> Outcome:
        """What became of it; `reported` are the paths that git calls unmerged."""
        found = {self._of(app, name, name in reported) for name in self.after}
        worst = next(one for one in ("lost", "conflict", "kept") if one in found)
        # A file with another conflict in it cannot be read as what it is.
        readable = not reported & self.after.keys()
        if worst == "kept" and self.edit.works and readable and not self.edit.works(app):
            return "lost"
        return worst

    def _of(self, app: Path, name: str, reported: bool) -> Outcome:
        before, mine, now = self.before[name], self.after[name], entry(app / name)
        if now == mine:
            return "kept"
        if (
            now is None
            or mine is None
            or (now.link, now.executable) != (mine.link, mine.executable)
        ):
            return "lost"
        try:
            added, removed = difference(before.lines if before else [], mine.lines)
            clean, ours = sides(now.lines)
        except UnicodeDecodeError:
            return "lost"
        outcome: Outcome = "lost"
        if all(holds(ours, block) for block in added) and reported:
            outcome = "conflict"
        if all(holds(clean, block) for block in added) and not any(
            count(clean, block) > count(mine.lines, block) for block in removed
        ):
            outcome = "kept"
        return outcome


def difference(before: list[str], after: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """The blocks of lines that came, and those that went; of the latter, none that is empty."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changed = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    added = [after[j1:j2] for _, _, _, j1, j2 in changed if j1 < j2]
    removed = [before[i1:i2] for _, i1, i2, _, _ in changed if i1 < i2]
    return added, [block for block in removed if any(line.strip() for line in block)]


def sides(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines outside of every conflict, and those with the user's side of each."""
    clean: list[str] = []
    ours: list[str] = []
    place = "outside"
    for line in lines:
        if line == BEGIN:
            place = "ours"
        elif line == MIDDLE and place == "ours":
            place = "theirs"
        elif line == END:
            place = "outside"
            clean.append(END)  # what stands around a conflict does not stand together
        elif place == "outside":
            clean.append(line)
            ours.append(line)
        elif place == "ours":
            ours.append(line)
    return clean, ours


def count(lines: list[str], block: list[str]) -> int:
    """How often the block's lines stand in `lines`, one after the other."""
    size = len(block)
    return sum(lines[at : at + size] == block for at in range(len(lines) - size + 1))


def holds(lines: list[str], block: list[str]) -> bool:
    """Whether the block stands in `lines`."""
    return count(lines, block) > 0


def expected_lines(
    fresh: list[str], done: Sequence[tuple[Entry | None, Entry | None]] = ()
) -> Counter[str]:
    """How often each line, if not empty, stands in a file that these edits were merged into."""
    lines = Counter(fresh)
    for before, after in done:
        added, removed = difference(before.lines if before else [], after.lines if after else [])
        for block in added:
            lines.update(block)
        for block in removed:
            lines.subtract(block)
    del lines[""]
    return +lines
