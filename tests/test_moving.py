"""`stores move` between stores of different kinds, none of which one app has together."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import STORES, answers, files, generate, run
from tests.releases.snapshot import ROOT

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA")
LEFT = """
from updates.remaining import remaining_steps
print(remaining_steps({"store": "redis"}, {"store": "sqlite"}, ()))
"""


@pytest.fixture(scope="module")
def app(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app whose store is SQLite."""
    return generate(folder, tmp_path_factory.mktemp("sqlite") / "app", answers(store="sqlite"))


def test_every_kind_of_store_moves_to_every_other(app: Path, folder: Path, tmp_path: Path) -> None:
    together = shutil.copytree(app, tmp_path / "together")
    for store in STORES[1:]:
        other = generate(folder, tmp_path / store, answers(store=store))
        for name, path in files(other).items():
            if name.endswith((".py", ".lua", ".sql")) and not (together / name).exists():
                shutil.copy2(path, together / name)
    shutil.copy2(ROOT / "tests/moving/between.py", together / "tests/test_between.py")
    said = run(together, *PYTEST, "tests/test_between.py")
    print(said)
    assert " skipped" not in said.splitlines()[-1]


def test_a_missing_driver_is_named(app: Path) -> None:
    # The app of another store has no driver for this one: here it is hidden from the import.
    for scheme, module, package in (
        ("redis", "redis", "redis[hiredis]"),
        ("postgresql", "psycopg", "psycopg[binary]"),
    ):
        code = f"import sys; sys.modules['{module}'] = None; from app.cli import stores; stores()"
        done = subprocess.run(
            [sys.executable, "-c", code, "move", "--from", f"{scheme}://nowhere"],
            cwd=app,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 64, done.stderr
        assert f"uv run --with '{package}' stores move" in done.stderr


def test_a_preview_of_another_store_names_the_command(app: Path) -> None:
    assert "`uv run stores move --from URL`" in run(app, sys.executable, "-c", LEFT)
    assert 'stores = "app.cli:stores"' in (app / "pyproject.toml").read_text(encoding="utf-8")
