"""The checklist's last result: written by the command, taken along by a build, shown by the app."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.ops.checklist import FILE, MOST_BYTES, LastRun
from checklist import record
from checklist.items import BY_NUMBER, ITEMS
from checklist.messages import load_texts
from checklist.results import Report, Result
from checklist.scan import git
from tests.fake_provider import FakeProvider
from tests.running import ROOT, RunningApp, production, running_app

COMMAND = [sys.executable, "-c", "from app.cli import checklist; checklist()"]
PARTS = ("app", "checklist", "tests", "indexing", "knowledge")
ABOVE = (".gitignore", "pytest.ini")
EVIDENCE = "evidence-5d0c21aa"  # what an item saw, and is for those who ran the checklist
# Two items that need no app, of which one is open: what runs and keeps them is the real thing.
CHECKED = """
def test_it(check):
    check.found("exact_limit", sent=1, limit=1, status="{seen}")
"""
OPEN = """
def test_it(check):
    check.that(False, "contact", seen="{seen}", name="x", contact="x")
"""
SHORT = {"5.1": CHECKED, "L10": OPEN}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project with a short checklist, in a git of its own."""
    folder = tmp_path_factory.mktemp("project")
    for name in PARTS:
        if (ROOT / name).is_dir():
            left_out = shutil.ignore_patterns(FILE.name)
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in ABOVE:
        shutil.copy(ROOT / name, folder)
    (folder / ".copier-answers.yml").write_text("_commit: v9.8.7\n", encoding="utf-8")
    items = folder / "checklist/items.py"
    chosen = ", ".join(f"BY_NUMBER[{number!r}]" for number in SHORT)
    with items.open("a", encoding="utf-8") as file:
        file.write(f"ITEMS = ({chosen})\n")
    for number, test in SHORT.items():
        module = folder / "checklist" / BY_NUMBER[number].module.name
        module.write_text(test.format(seen=EVIDENCE), encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "An app")
    git(folder, "tag", "r1")
    return folder


@pytest.fixture(scope="module")
def app(
    project: Path, shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """The copy, running."""
    folder = tmp_path_factory.mktemp("app")
    with running_app(production(shared_fake, folder), folder, source=project) as running:
        yield running


def run(project: Path, *arguments: str) -> int:
    """Run the copy's checklist; its exit code."""
    inherited = {name: value for name, value in os.environ.items() if name != "CHECKLIST_APP"}
    done = subprocess.run(
        [*COMMAND, "--format", "json", *arguments],
        cwd=project,
        env={**inherited, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert EVIDENCE in done.stdout, done.stderr
    return done.returncode


def shown(app: RunningApp) -> dict[str, Any]:
    with app.http("admin") as http:
        state = http.get("/ops/state")
    assert state.status_code == 200, state.text
    assert EVIDENCE not in state.text
    found: dict[str, Any] = state.json()["checklist"]
    return found


def test_what_a_whole_run_found_is_shown_and_its_evidence_is_not(
    app: RunningApp, project: Path
) -> None:
    file = project / "app" / FILE.name
    assert shown(app) == {"state": "none"}
    assert run(project, "--item", "5.1") == 0
    assert not file.exists(), "a part of the checklist says nothing of the rest"
    assert run(project) == 1
    found = shown(app)
    assert {name: found[name] for name in ("state", "commit", "kit")} == {
        "state": "found",
        "commit": git(project, "rev-parse", "--short", "HEAD").decode().strip(),
        "kit": "v9.8.7",
    }
    assert found["when"].endswith("Z")
    titles = {language: load_texts(language).texts for language in ("en", "ko")}
    assert found["items"] == [
        {
            "number": number,
            "title": {language: texts[f"{number}.title"] for language, texts in titles.items()},
            "checked": checked,
        }
        for number, checked in (("5.1", True), ("L10", False))
    ]
    assert EVIDENCE not in file.read_text(encoding="utf-8")
    assert git(project, "status", "--porcelain") == b"", "git would see an edit"
    assert [path.name for path in file.parent.glob("checklist*")] == [file.name]


TOO_MUCH = b" " * (MOST_BYTES + 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"items": []}', TOO_MUCH])
def test_a_broken_file_is_told_and_stops_nothing(
    app: RunningApp, project: Path, content: bytes
) -> None:
    (project / "app" / FILE.name).write_bytes(content)
    assert shown(app) == {"state": "unreadable"}
    assert app.log_lines(message="the checklist's result cannot be read")


def test_a_file_that_is_gone_is_none(app: RunningApp, project: Path) -> None:
    file = project / "app" / FILE.name
    file.write_text("{}")
    assert shown(app) == {"state": "unreadable"}
    file.unlink()
    assert shown(app) == {"state": "none"}


def test_the_whole_checklist_fits(tmp_path: Path) -> None:
    results = [Result(item, 1.0, evidence=["x"]) for item in ITEMS]
    record.keep(Report("app", datetime.now(UTC), results, len(ITEMS), 1.0), tmp_path / "a.json")
    state = LastRun(tmp_path / "a.json").state()
    assert state["state"] == "found"
    assert len(json.dumps(state, ensure_ascii=False).encode()) <= 6_000
