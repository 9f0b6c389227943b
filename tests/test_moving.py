"""`stores move` between stores of different kinds, none of which one app has together."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit import STORES, answers, files, generate, run
from tests.releases.snapshot import ROOT

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA")


def test_every_kind_of_store_moves_to_every_other(folder: Path, tmp_path: Path) -> None:
    apps = [generate(folder, tmp_path / store, answers(store=store)) for store in STORES]
    app = apps[0]
    for other in apps[1:]:
        for name, path in files(other).items():
            if name.endswith((".py", ".lua", ".sql")) and not (app / name).exists():
                shutil.copy2(path, app / name)
    shutil.copy2(ROOT / "tests/moving/between.py", app / "tests/test_between.py")
    said = run(app, *PYTEST, "tests/test_between.py")
    print(said)
    assert " skipped" not in said.splitlines()[-1]


def test_a_missing_driver_is_named(folder: Path, tmp_path: Path) -> None:
    # The app of another store has no driver for this one: here it is hidden from the import.
    app = generate(folder, tmp_path / "app", answers())
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
