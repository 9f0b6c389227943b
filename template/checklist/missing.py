"""Files of the template that this project no longer has.

An update never brings back what was deleted: it takes that for a decision. A safeguard that went
away by accident would stay away for ever, unless somebody says so.
"""

import json
import tomllib
from pathlib import Path
from typing import Any


def expected_files(root: Path) -> list[str]:
    """What the template wrote for this project's answers, apart from what is the user's.

    Empty where the project is older than the list, or has lost it.
    """
    try:
        answers = json.loads((root / "app/project.json").read_text(encoding="utf-8"))
        groups = tomllib.loads((root / ".survival-kit/files.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return sorted(
        path for group in groups["files"] if _applies(group, answers) for path in group["paths"]
    )


def missing_files(root: Path) -> list[str]:
    """The expected files that are not there."""
    return [path for path in expected_files(root) if not (root / path).exists()]


def _applies(group: dict[str, Any], answers: dict[str, Any]) -> bool:
    """Whether each answer is among those that the group is for; of several answers, one."""
    for name, wanted in group.items():
        if name == "paths":
            continue
        given = answers.get(name)
        if not any(one in wanted for one in (given if isinstance(given, list) else [given])):
            return False
    return True
