"""What an update does to each file, and whose file that is."""

import ast
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from checklist.missing import expected_files
from updates.git import blobs, git
from updates.project import ANSWERS, Project
from updates.trial import Trial

What = Literal["conflict", "lost", "new", "updated", "merged", "removed", "yours", "missing"]
# What needs somebody to decide: the update is not taken as it is.
UNSETTLED: tuple[What, ...] = ("conflict", "lost")
# In which order they are shown.
ORDER: tuple[What, ...] = (
    "conflict",
    "lost",
    "new",
    "updated",
    "merged",
    "removed",
    "missing",
    "yours",
)
Kind = Literal["template", "mergeable", "yours"]


@dataclass(frozen=True, slots=True)
class Change:
    """One file: what happens to it, whose it is, and of a new one what it is for."""

    path: str
    what: What
    kind: Kind
    about: str = ""


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


def changes_of(project: Project, trial: Trial) -> tuple[Change, ...]:
    """Compare the project, the app as the template once wrote it, and the tried update."""
    # Without the temporary commit that may lie on top of the project's own.
    head = blobs(trial.folder, "ls-tree", "-r", project.head)
    git(trial.folder, "add", "--all", "--", ".")
    after = blobs(trial.folder, "ls-files", "--stage")
    old = _written(trial)
    owners = Owners(trial.folder)
    expected = set(expected_files(trial.folder))
    found = []
    for name in sorted(head.keys() | after.keys() | expected):
        kind, why = owners.of(name)
        what = _what(name, head, after, old, trial.conflicts)
        if what is None and name not in after and name in expected and kind == "template":
            what = "missing"
        if what is None and kind == "yours" and name in after and name in old:
            what = "yours"
        if what:
            about = _about(trial.folder / name, why) if what == "new" else ""
            found.append(Change(name, what, kind, about))
    return tuple(sorted(found, key=lambda change: (ORDER.index(change.what), change.path)))


def _what(
    name: str,
    head: dict[str, str],
    after: dict[str, str],
    old: dict[str, str],
    conflicts: frozenset[str],
) -> What | None:
    if name in conflicts:
        return "conflict"
    if head.get(name) == after.get(name):
        return None
    # The record of the answers differs by where the template was taken from.
    pristine = name == ANSWERS or head.get(name) == old.get(name)
    if name not in head:
        return "new"
    if name not in after:
        return "removed" if pristine else "lost"
    return "updated" if pristine else "merged"


def _written(trial: Trial) -> dict[str, str]:
    """The blobs that the template once wrote."""
    names = [
        path.relative_to(trial.old).as_posix() for path in trial.old.rglob("*") if path.is_file()
    ]
    paths = "".join(f"{trial.old / name}\n" for name in names)
    out = git(trial.folder, "hash-object", "--no-filters", "--stdin-paths", stdin=paths)
    return dict(zip(names, out.split(), strict=True))


def _about(path: Path, why: str) -> str:
    """What a file says of itself in its first line; otherwise what the list says of its folder."""
    if path.suffix != ".py":
        return why
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return text.split("\n\n")[0].replace("\n", " ") if text else why


def difference(project: Project, trial: Trial, *, colour: bool) -> str:
    """The whole update as git shows it; after `changes_of`, which takes in the new files."""
    shown = f"--color={'always' if colour else 'never'}"
    return git(trial.folder, "diff", shown, "--cached", "--no-ext-diff", project.head, "--", ".")
