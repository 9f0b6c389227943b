"""Putting a tried update on a branch, with the checklist before and after it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from updates.changes import UNSETTLED, Change
from updates.git import GitError, git
from updates.messages import RefusedError, say
from updates.project import Project
from updates.trial import Trial

LOCK = "uv.lock"


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the checklist: whether it is checked before the update, and after it."""

    number: str
    title: str
    before: bool | None
    after: bool | None

    @property
    def turned_green(self) -> bool:
        """Open before, checked now."""
        return self.before is False and self.after is True

    @property
    def turned_red(self) -> bool:
        """Checked before, open now."""
        return self.before is True and self.after is False


@dataclass(frozen=True, slots=True)
class Applied:
    """The branch that holds the update, what the checklist said, and what else is to be known."""

    branch: str
    items: tuple[Item, ...]
    notes: tuple[str, ...]


def require_free(project: Project, branch: str) -> None:
    """Raises `RefusedError` where the branch exists already."""
    try:
        git(project.top, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
    except GitError:
        return
    raise RefusedError("branch_exists", branch=branch)


def run_checklist(folder: Path, items: list[str], python: str = sys.executable) -> dict[str, Any]:
    """The items of the checklist in `folder` by number, as its JSON report has them."""
    only = [word for number in items for word in ("--item", number)]
    command = [python, "-c", "from app.cli import checklist; checklist()", "--format", "json"]
    done = subprocess.run(
        [*command, *only],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    try:
        return {item["item"]: item for item in json.loads(done.stdout)["items"]}
    except (ValueError, KeyError, TypeError):
        raise RefusedError("no_checklist", done.stdout[-2000:], code=done.returncode) from None


def apply(
    project: Project,
    trial: Trial,
    changes: tuple[Change, ...],
    branch: str,
    message: str,
    check: Callable[[Path, str], dict[str, Any]] | None,
) -> Applied:
    """Commit the tried update to a new branch; the project's own folder stays as it is.

    `check` runs the checklist in a folder with a Python. The branch appears in one step, at the
    end: whatever ends this earlier leaves none.
    """
    before = check(project.folder, sys.executable) if check else {}
    notes: list[str] = []
    depends = any(change.path == "pyproject.toml" for change in changes)
    unsettled = [change.path for change in changes if change.what in UNSETTLED]
    python: str | None = sys.executable
    if depends and not unsettled:
        python = _install(project, trial.folder, notes)
    tree = git(trial.folder, "write-tree").strip()
    try:
        commit = git(trial.folder, "commit-tree", tree, "-p", project.head, "-m", message).strip()
    except GitError as error:
        raise RefusedError("no_identity", str(error)) from None
    after = {}
    if check and unsettled:
        notes.append(say("apply.unsettled", files=", ".join(unsettled)))
    elif check and python:
        after = check(trial.folder, python)
    git(project.top, "branch", "--no-track", branch, commit)
    return Applied(branch, _compared(before, after), tuple(notes))


def _install(project: Project, folder: Path, notes: list[str]) -> str | None:
    """Lock and install what the updated app needs; its Python, or None where that failed."""
    uv = shutil.which("uv")
    locked = bool(git(project.folder, "ls-files", "--", LOCK))
    if uv is None:
        notes.append(say("apply.no_uv"))
        return None
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        [uv, "sync", "--quiet"],
        cwd=folder,
        env={**environment, "UV_PROJECT_ENVIRONMENT": str(folder / ".venv")},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        notes.append(say("apply.no_install", reason=done.stderr.strip()[-500:]))
        return None
    if locked:
        git(folder, "add", "--", LOCK)
    return str(folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def _compared(before: dict[str, Any], after: dict[str, Any]) -> tuple[Item, ...]:
    return tuple(
        Item(
            number,
            str((after.get(number) or before[number])["title"]),
            before[number]["checked"] if number in before else None,
            after[number]["checked"] if number in after else None,
        )
        for number in sorted(before.keys() | after.keys())
    )
