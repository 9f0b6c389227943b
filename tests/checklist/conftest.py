"""A generated app whose checklist is tried, and the matrix of what turned red."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.kit import answers, generate

# The property in which a test reports a row of the matrix.
ROW = "row"


STORES = {"docker": "sqlite", "vercel": "redis"}


@pytest.fixture(scope="session")
def app_for(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """An app for a place to run, with knowledge or without, generated once."""

    @cache
    def make(deploy: str, knowledge: bool) -> Path:
        given = answers(deploy=deploy, store=STORES[deploy], knowledge=knowledge)
        return generate(folder, tmp_path_factory.mktemp(deploy) / "app", given)

    return make


@pytest.fixture(scope="session")
def app(app_for: Callable[[str, bool], Path]) -> Path:
    """A default app."""
    return app_for("docker", False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix: a row for each sabotage, a column for each item."""
    reports = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    rows: dict[str, dict[str, bool]] = {
        row["name"]: row["checked"]
        for report in reports
        for name, text in report.user_properties
        if name == ROW and (row := json.loads(text))
    }
    if not rows:
        return
    items = sorted({item for checked in rows.values() for item in checked})
    marks = {True: "☑", False: "☐", None: "·"}
    terminalreporter.write_sep("=", "items and sabotages: ☑ stays green, ☐ turns red, · not run")
    terminalreporter.write_line(f"{'':74}{'  '.join(items)}")
    for name, checked in sorted(rows.items()):
        cells = "    ".join(marks[checked.get(item)] for item in items)
        terminalreporter.write_line(f"{name:<75}{cells}")
