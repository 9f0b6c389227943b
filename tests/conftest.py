"""One copy of the template for all tests: as a folder, and as a repository of every release."""

import os
from pathlib import Path

import pytest

from tests.kit import export
from tests.releases.snapshot import commit, git, rebuild


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is trusted, and git knows no one's configuration."""
    home = tmp_path_factory.mktemp("settings")
    (home / "gitconfig").write_text("[user]\nname = Kit\nemail = kit@survival.test\n")
    (home / "copier.yml").write_text("{}\n")
    os.environ["COPIER_SETTINGS_PATH"] = str(home / "copier.yml")
    os.environ["GIT_CONFIG_GLOBAL"] = str(home / "gitconfig")
    os.environ["GIT_CONFIG_NOSYSTEM"] = "1"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template of the working tree as a plain folder."""
    return export(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept releases, and the working tree as v9999.0.0."""
    path = tmp_path_factory.mktemp("repository")
    rebuild(path)
    git(path, "rm", "-r", "--quiet", "--force", "--ignore-unmatch", ".")
    export(path)
    commit(path, "The working tree", "v9999.0.0")
    return path
