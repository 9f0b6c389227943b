"""One copy of the template for all tests: as a folder, and as a repository of every release."""

from pathlib import Path

import pytest

from tests.kit import export, forget_this_machine, releases


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is trusted, and git knows no one's configuration."""
    forget_this_machine(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template of the working tree as a plain folder."""
    return export(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept releases, and the working tree as v9999.0.0."""
    return releases(tmp_path_factory.mktemp("repository"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A whole app takes longest: it begins first, and the rest runs beside it."""
    items.sort(key=lambda item: item.path.name != "test_apps.py")
