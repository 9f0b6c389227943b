"""A generated app whose checklist is tried, and the matrix of what turned red."""

from pathlib import Path

import pytest

from tests.kit import answers, generate

# Item and name of a sabotage, and what state it left each item in: "red", or "green".
Matrix = dict[tuple[str, str], dict[str, str]]
_matrix = pytest.StashKey[Matrix]()


@pytest.fixture(scope="session")
def app(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A default app."""
    return generate(folder, tmp_path_factory.mktemp("app") / "app", answers())


@pytest.fixture(scope="session")
def matrix(request: pytest.FixtureRequest) -> Matrix:
    """What each sabotage turned red; printed at the end."""
    return request.config.stash.setdefault(_matrix, {})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the matrix: a row for each sabotage, a column for each item."""
    rows = config.stash.get(_matrix, {})
    if not rows:
        return
    marks = {"red": "☐", "green": "☑", "": "·"}
    items = sorted({item for states in rows.values() for item in states})
    terminalreporter.write_sep("=", "items x sabotages: ☐ red, ☑ green, · not run")
    terminalreporter.write_line(f"{'':60}{'  '.join(items)}")
    for (item, name), states in rows.items():
        cells = "    ".join(marks[states.get(number, "")] for number in items)
        terminalreporter.write_line(f"{f'{item} {name}':<61}{cells}")
