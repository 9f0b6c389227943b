"""Running `preview-update` in an app, and a template whose next release meets the user's edits."""

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit import answers, export, generate
from tests.releases.snapshot import ROOT, commit, git

COMMAND = [sys.executable, "-c", "from app.cli import preview_update; preview_update()"]
OLD, NEW = "v1.0.0", "v2.0.0"
# The file whose old text item 4.3 of the checklist finds wanting.
GUARD = "app/standards/spending/idempotency.py"
# What else the next release does, some of it to lines that users change too.
REPLACED = {
    "app/health.py": ("app knows of its own state", "app knows of itself"),
    "Dockerfile": ("USER 999:999", "USER 998:998"),
    "README.md.jinja": ("daily_cost_cap_usd=10`", "daily_cost_cap_usd=20`"),
}
CHANGELOG = """\
# Changelog

## 2.0.0

A key is kept **again**.

## 1.0.0

The first.
"""


@dataclass(frozen=True)
class Said:
    """How the command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Its report as JSON."""
        content: dict[str, Any] = json.loads(self.out)
        return content

    @property
    def files(self) -> dict[str, str]:
        """What happens to each file that the report names."""
        return {change["path"]: change["what"] for change in self.report["changes"]}


def preview(app: Path, *arguments: str, **environment: str) -> Said:
    """Run `preview-update` as `uv run` would."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=app,
        env={**os.environ, "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def sabotage() -> tuple[str, str]:
    """A change of the checklist's trial that opens item 4.3."""
    with (ROOT / "tests/checklist/sabotage.toml").open("rb") as file:
        entries = tomllib.load(file)["sabotage"]
    return next((entry["old"], entry["new"]) for entry in entries if entry["file"] == GUARD)


def two_releases(repository: Path) -> Path:
    """A template of about the working tree as v2.0.0, whose v1.0.0 lacked a safeguard."""
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    export(repository)
    template = repository / "template"
    guard = template / GUARD
    good = guard.read_text(encoding="utf-8")
    bad = good.replace(*sabotage())
    assert bad != good
    guard.write_text(bad, encoding="utf-8")
    (template / "app/gone.py").write_text('"""Gone in the next release."""\n')
    listed = template / ".survival-kit/files.toml"
    listed.write_text(
        listed.read_text().replace('"app/guarded.py"', '"app/gone.py",\n    "app/guarded.py"')
    )
    (repository / "CHANGELOG.md").write_text(CHANGELOG.replace("## 2.0.0", "## Unreleased"))
    commit(repository, "The first", OLD)
    export(repository)
    (template / "app/gone.py").unlink()
    for name, change in REPLACED.items():
        path = template / name
        text = path.read_text(encoding="utf-8")
        assert change[0] in text, name
        path.write_text(text.replace(*change), encoding="utf-8")
    (template / "app/standards/new_safeguard.py").write_text('"""Guards what nobody did."""\n')
    (repository / "CHANGELOG.md").write_text(CHANGELOG)
    commit(repository, "The next", NEW)
    return repository


def project(repository: Path, folder: Path, release: str = OLD, **given: Any) -> Path:
    """An app of a release, committed as its user would."""
    generate(repository, folder, answers(**given), ref=release)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return save(folder)


def save(folder: Path) -> Path:
    """Commit everything."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "mine")
    return folder


def untouched(app: Path, head: str) -> None:
    """Nothing is left of a preview: no change, no branch, no worktree."""
    assert git(app, "status", "--porcelain", "--untracked-files=all") == b""
    assert state(app) == head
    assert git(app, "branch", "--format=%(refname)") == b"refs/heads/main\n"
    assert git(app, "worktree", "list").count(b"\n") == 1


def state(app: Path) -> str:
    """The commit that the app is at."""
    return git(app, "rev-parse", "HEAD").decode().strip()
