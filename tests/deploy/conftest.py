"""The engine and the fake provider that all Docker tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.engine import Engine, running_engine
from tests.deploy.packages import NoEngineError
from tests.deploy.project import EVERY_ADDRESS
from tests.deploy.stage import load_fakes
from tests.releases.snapshot import ROOT


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
