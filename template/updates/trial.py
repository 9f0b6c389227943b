"""Trying an update: in a worktree, a second folder of the same repository, which then goes away."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import copier
import psutil
import yaml
from copier.errors import CopierError, UnsafeTemplateError, UserMessageError

from updates.git import GitError, git
from updates.messages import RefusedError
from updates.project import ANSWERS, Project
from updates.template import Template

PREFIX = "survival-kit-update-"
# Who records the trial's own steps: nobody ever sees these commits.
NOBODY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "preview-update"), ("EMAIL", "preview-update@localhost"))
}


@dataclass(frozen=True, slots=True)
class Plan:
    """An update: to which release of which template, with which other answers.

    `trust` allows the template to run its migrations.
    """

    template: Template
    to: str
    data: Mapping[str, str]
    trust: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """An update that was tried: the project's folder in the worktree, and what it left behind.

    `old` is a folder with the app as the template wrote it when the project was last updated;
    `conflicts` are the paths in which git could not bring both sides together.
    """

    folder: Path
    old: Path
    conflicts: frozenset[str]


@contextmanager
def tried(project: Project, plan: Plan) -> Iterator[Trial]:
    """Update the project in a worktree. Raises `RefusedError` when Copier cannot."""
    with _worktree(project) as top, tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = top / project.below
        old = Path(name) / "old"
        with _rendering(project, plan.template, old):
            _point_to(folder, project, plan.template)
            _update(folder, plan)
        _point_back(folder, project)
        yield Trial(folder, old, _conflicts(folder))


def _update(folder: Path, plan: Plan) -> None:
    try:
        # Copier writes some notes whatever it is asked; they are no part of this command's report.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            copier.run_update(
                folder,
                data=dict(plan.data),
                defaults=True,
                overwrite=True,
                quiet=True,
                unsafe=plan.trust,
                vcs_ref=plan.to,
            )
    except UnsafeTemplateError:
        raise RefusedError("migrations") from None
    except (CopierError, UserMessageError, GitError, ValueError, OSError) as error:
        raise RefusedError("failed", str(error)) from None


def rendered(project: Project, template: Template, folder: Path) -> None:
    """Write the app as the template wrote it for this project's release and answers.

    Raises `RefusedError` when Copier cannot.
    """
    with _rendering(project, template, folder):
        pass


@contextmanager
def _rendering(project: Project, template: Template, folder: Path) -> Iterator[None]:
    """`rendered`, while the caller does something else: `folder` is there in the end.

    In a process of its own, since Copier changes the working directory of the one that it is in.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, tempfile.TemporaryFile() as said:
        answers = Path(name) / "answers.yml"
        answers.write_text(yaml.safe_dump(project.answers), encoding="utf-8")
        command = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults"]
        command += ["--data-file", str(answers), "--vcs-ref", project.release]
        process = subprocess.Popen(
            [*command, str(template.path), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        try:
            yield
            if process.wait():
                said.seek(0)
                raise RefusedError("failed", said.read().decode("utf-8", "replace"))
        finally:
            process.kill()
            process.wait()


@contextmanager
def _worktree(project: Project) -> Iterator[Path]:
    """A worktree of the project's last commit, on no branch."""
    remove_leftovers(project.top)
    with tempfile.TemporaryDirectory(
        prefix=f"{PREFIX}{os.getpid()}-", ignore_cleanup_errors=True
    ) as name:
        path = Path(name).resolve() / project.top.name
        try:
            git(project.top, "worktree", "add", "--detach", "--quiet", str(path), project.head)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            git(project.top, "worktree", "prune")


def remove_leftovers(top: Path) -> None:
    """Remove what a trial left that was killed, and nothing of one that still runs."""
    listed = git(top, "worktree", "list", "--porcelain")
    for path in re.findall(r"^worktree (.+)$", listed, flags=re.MULTILINE):
        found = re.fullmatch(rf"{PREFIX}(\d+)-.+", Path(path).parent.name)
        if found and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(Path(path).parent, ignore_errors=True)
    git(top, "worktree", "prune")


def _point_to(folder: Path, project: Project, template: Template) -> None:
    """Let Copier take the template from `template`, wherever the record says that it is."""
    if str(template.path) == project.source:
        return
    _rewrite_source(folder, str(template.path))
    git(folder, "commit", "--quiet", "--all", "--no-gpg-sign", "--message=.", **NOBODY)


def _point_back(folder: Path, project: Project) -> None:
    _rewrite_source(folder, project.source)


def _rewrite_source(folder: Path, source: str) -> None:
    path = folder / ANSWERS
    text = path.read_text(encoding="utf-8")
    # A plain YAML scalar in one line, as Copier writes it; quoted, it may hold anything.
    line = "_src_path: '" + source.replace("'", "''") + "'"
    if re.fullmatch(r"[A-Za-z0-9_./~@+-][A-Za-z0-9_./:~@+-]*", source):
        line = f"_src_path: {source}"
    text = re.sub(r"^_src_path:.*(\n[ \t].*)*$", lambda _: line, text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")


def _conflicts(folder: Path) -> frozenset[str]:
    """Paths that git calls unmerged, or that hold Copier's marker: it is not always recorded."""
    lines = git(folder, "ls-files", "--unmerged", "-z").split("\0")
    found = {line.partition("\t")[2] for line in lines if line}
    names = git(folder, "ls-files", "--modified", "--others", "--exclude-standard", "-z").split(
        "\0"
    )
    for name in filter(None, names):
        path = folder / name
        marked = path.is_file() and b"\n>>>>>>> after updating" in path.read_bytes()
        if marked or name.endswith(".rej"):
            found.add(name)
    return frozenset(found)
