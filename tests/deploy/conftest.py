"""The engine and the fake provider that all Docker tests share."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.engine import Engine, running_engine
from tests.deploy.packages import NoEngineError
from tests.deploy.project import EVERY_ADDRESS
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
    package = folder / "template/tests/fake_provider"
    spec = importlib.util.spec_from_file_location(
        "fake_of_docker", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake(fakes: Any) -> Iterator[Any]:
    """The fake provider, on every address of this machine: containers come from their own."""
    with fakes.FakeProvider(EVERY_ADDRESS) as running:
        yield running
