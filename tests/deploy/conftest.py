"""The engine that all Docker tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.engine import Engine, NoEngineError, running_engine
from tests.releases.snapshot import ROOT


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[Engine]:
    """A running Docker engine. Without one the tests fail: a skipped proof proves nothing."""
    try:
        with running_engine(ROOT / "build/docker", folder / "template/Dockerfile") as found:
            yield found
    except NoEngineError as error:
        pytest.fail(str(error), pytrace=False)
