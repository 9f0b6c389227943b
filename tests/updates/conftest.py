"""Two releases of the template, and an app of the first, for whoever tries an update."""

import shutil
from pathlib import Path

import pytest

from tests.updates.preview import project, two_releases


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template whose next release meets the user's edits."""
    return two_releases(tmp_path_factory.mktemp("releases") / "template")


@pytest.fixture(scope="session")
def pristine(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app of the first release, committed; no test changes it."""
    return project(releases, tmp_path_factory.mktemp("pristine") / "app")


@pytest.fixture
def app(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the app, for one test to change."""
    return shutil.copytree(pristine, tmp_path / "app", symlinks=True)
