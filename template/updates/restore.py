"""Bringing back files of the template that were deleted."""

import shutil
import tempfile
from pathlib import Path

from updates.messages import RefusedError
from updates.owners import Owners
from updates.project import Project
from updates.template import Template
from updates.trial import rendered


def restore(project: Project, template: Template, names: list[str]) -> list[str]:
    """Write the named files as the project's release has them; all of them, or none.

    Raises `RefusedError` for a file that is there, or that this app never had.
    """
    owners = Owners(project.folder)
    paths = [_inside(project.folder, name) for name in names]
    for path in paths:
        if (project.folder / path).exists():
            raise RefusedError("restore_exists", path=path)
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name) / "app"
        rendered(project, template, fresh)
        for path in paths:
            if not (fresh / path).is_file() or owners.of(path)[0] == "yours":
                raise RefusedError("restore_unknown", path=path, release=project.release)
        for path in paths:
            target = project.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(fresh / path, target)
    return paths


def _inside(folder: Path, name: str) -> str:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise RefusedError("restore_unknown", path=name, release="")
    return path.relative_to(folder.resolve()).as_posix()
