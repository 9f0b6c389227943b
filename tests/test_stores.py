"""Every store under fire: an app is generated for it, and its own tests of the invariants run."""

import re
import sys
from pathlib import Path

import pytest

from tests.kit import COMPILED, STORES, TEMPLATE, answers, generate, run

pytestmark = pytest.mark.apps

FIRE = (sys.executable, "-m", "pytest", "-m", "fire", "-p", "no:cacheprovider", "-q")


@pytest.mark.parametrize("store", STORES)
def test_the_invariants_hold_under_fire(folder: Path, tmp_path: Path, store: str) -> None:
    app = generate(folder, tmp_path / "app", answers(store=store))
    found = set(re.findall(r"^(tests/\S+)::", run(app, *FIRE, "--collect-only"), re.MULTILINE))
    themes = {f"tests/fire/{path.name}" for path in (TEMPLATE / "tests/fire").glob("test_*.py")}
    assert found == themes
    said = run(app, *FIRE, "-rA", "--durations=0", **COMPILED)
    print(said)
    assert not re.search(r"\d+ (skipped|xfailed|xpassed|failed|error)", said.splitlines()[-1])
