"""While a new version takes an old one's place, both serve on one store."""

import shutil
import sys
from pathlib import Path

from tests.kit import HERE, answers, generate, run
from tests.releases.snapshot import ROOT, kept


def test_the_newest_release_and_the_working_tree_share_a_store(
    repository: Path, tmp_path: Path
) -> None:
    older, newer = tmp_path / "older", tmp_path / "newer"
    generate(repository, older, answers(), ref=f"v{kept()[-1]}")
    generate(repository, newer, answers(), ref=HERE)
    shutil.copy2(ROOT / "tests/updates/side_by_side.py", newer / "tests/test_side_by_side.py")
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q")
    said = run(newer, *command, "tests/test_side_by_side.py", OLDER=str(older))
    assert said.splitlines()[-1].startswith("1 passed"), said
