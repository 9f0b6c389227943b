"""What an update does to each file, and whose file that is."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from checklist.missing import expected_files
from updates.git import blobs, git
from updates.messages import RefusedError, say
from updates.owners import Kind, Owners
from updates.project import ANSWERS, Project, listed
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


@dataclass(frozen=True, slots=True)
class Change:
    """One file: what happens to it, whose it is, and of a new one what it is for."""

    path: str
    what: What
    kind: Kind
    about: str = ""


def changes_of(project: Project, trial: Trial) -> tuple[Change, ...]:
    """Compare the project, the app as the template once wrote it, and the tried update.

    Raises `RefusedError` where the update would write over files that git does not keep.
    """
    # Without the temporary commit that may lie on top of the project's own.
    head = blobs(trial.folder, "ls-tree", "-r", project.head)
    owners = Owners(trial.folder)
    _take_in(trial, owners)
    after = blobs(trial.folder, "ls-files", "--stage")
    _nothing_in_the_way(project, trial, sorted(after.keys() - head.keys()))
    old = _written(trial)
    expected = set(expected_files(trial.folder))
    found = []
    for name in sorted(head.keys() | after.keys() | expected):
        kind, why = owners.of(name)
        what = _what(name, head, after, old, trial.conflicts)
        if what is None and name not in after and name in expected and kind == "template":
            what = "missing"
        if what is None and kind == "yours" and name in after and name in old:
            what = "yours"
        about, twin = "", _twin(name)
        if what == "new" and twin in head.keys() - old.keys():
            what, about = "conflict", say("about.twin", path=name, twin=twin)
        elif what == "new":
            about = _about(trial.folder / name, why)
        elif what == "conflict" and name not in old:
            about = say("about.taken", path=name)
        elif what == "missing" and (project.folder / name).exists():
            about = say("about.ignored", path=name)
        if what:
            found.append(Change(name, what, kind, about))
    return tuple(sorted(found, key=lambda change: (ORDER.index(change.what), change.path)))


def _twin(name: str) -> str:
    """The file that Python imports in a module's place, or the other way round."""
    stem = name.removesuffix("/__init__.py")
    return f"{stem}.py" if stem != name else f"{name.removesuffix('.py')}/__init__.py"


def _take_in(trial: Trial, owners: Owners) -> None:
    """Let git see what Copier wrote, also where a pattern of the user's ignores it."""
    git(trial.folder, "add", "--all", "--", ".")
    ignored = git(
        trial.folder, "ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", "."
    ).split("\0")
    paths = [name for name in ignored if name and owners.of(name)[0] != "yours"]
    if paths:
        command = ("add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul")
        git(trial.folder, "--literal-pathspecs", *command, stdin="\0".join(paths))


def _nothing_in_the_way(project: Project, trial: Trial, new: list[str]) -> None:
    """Everything is committed, so what lies at a new path is ignored: a merge writes over it."""
    found = set()
    for name in new:
        there = _standing(project.folder, name)
        if there and not _equal(there, trial.folder / name):
            found.add(there.relative_to(project.folder).as_posix())
    if found:
        raise RefusedError("in_the_way", listed(sorted(found)))


def _standing(folder: Path, name: str) -> Path | None:
    """What lies at the path of a file, or at that of a folder around it and is none."""
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        return path if any(path.iterdir()) else None
    around = [folder / part for part in Path(name).parents[:-1]]
    return next((one for one in (path, *around) if one.is_symlink() or one.is_file()), None)


def _equal(there: Path, fresh: Path) -> bool:
    return there.is_file() and fresh.is_file() and there.read_bytes() == fresh.read_bytes()


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
