"""What tests of several modules share: the engine, the fake provider, a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.deploy.browser import chromium, fetch_axe
from tests.deploy.engine import Engine, running_engine
from tests.deploy.packages import NoEngineError
from tests.deploy.project import EVERY_ADDRESS
from tests.deploy.screenshots import RENEW
from tests.deploy.served import APPS
from tests.deploy.stage import load_fakes
from tests.kit import answers, generate
from tests.releases.snapshot import ROOT


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "write the documentation's screenshots where they differ from the pages"
    parser.addoption(RENEW, action="store_true", help=told)


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[Engine]:
    """A running Docker engine. Without one the tests fail: a skipped proof proves nothing."""
    try:
        with running_engine(ROOT / "build/docker", folder / "template") as found:
            yield found
    except NoEngineError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def fakes(folder: Path) -> Any:
    """The package of the app's own fake provider."""
    return load_fakes(folder / "template", "fake_of_docker")


@pytest.fixture
def fake(fakes: Any) -> Iterator[Any]:
    """The fake provider, on every address of this machine: containers come from their own."""
    with fakes.FakeProvider(EVERY_ADDRESS) as running:
        yield running


# Of a module: while its driver lives, nothing else in this process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running browser."""
    with chromium(ROOT / "build/browser") as found:
        yield found


@pytest.fixture(scope="session")
def browsed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The apps that a browser looks at, by their language."""
    path = tmp_path_factory.mktemp("browsed")
    both = ["openai", "anthropic"]
    return {
        language: generate(
            folder, path / language, answers(providers=both, language=language, **given)
        )
        for language, given in APPS.items()
    }


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe."""
    return fetch_axe(ROOT / "build/axe")


# First, since `-m` is looked at in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on Docker's engine: `make test-deploy` runs the rest beside it."""
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker("engine")
