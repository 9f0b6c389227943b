"""What every migration has to be: declared as `hooks/README.md` says, and tested."""

import re
from pathlib import Path
from typing import Any

from packaging.version import Version

PYTHON, RUN = "{{ _copier_python }}", "{{ _copier_conf.src_path }}/hooks/run.py"


def declaration(name: str) -> dict[str, Any]:
    """How `copier.yml` declares the migration of this name."""
    return {"version": f"v{version(name)}", "command": [PYTHON, RUN, name]}


def version(name: str) -> Version:
    """The release that brings the migration. Raises `ValueError` for another kind of name."""
    found = re.fullmatch(r"(\d+)_(\d+)_(\d+)_[a-z0-9_]+", name)
    if found is None:
        raise ValueError(f"{name} does not begin with a version")
    return Version(".".join(found.groups()))


def problems(declared: list[dict[str, Any]], hooks: Path, tests: Path) -> list[str]:
    """What is wrong with the declared migrations, or with the modules in `hooks`."""
    names = sorted(path.stem for path in hooks.glob("*.py") if path.stem != "run")
    try:
        names.sort(key=version)
    except ValueError as error:
        return [str(error)]
    found = [
        f"{name} has no test"
        for name in names
        if not (tests / f"test_migration_{name}.py").is_file()
    ]
    if declared != [declaration(name) for name in names]:
        found.append(f"_migrations in copier.yml has to declare, in this order: {names}")
    return found
