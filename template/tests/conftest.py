"""What the tests share: a fake provider, the whole app running against it, and a store alone."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.stores.base import Store
from tests.collector import Collector
from tests.fake_provider import FakeProvider
from tests.running import SERVE, RunningApp, index_documents, production, running_app
from tests.servers import store_url
from tests.stores import Clock, make_store
from tests.webhook import Webhook

StartApp = Callable[..., RunningApp]


@pytest.fixture(scope="session", autouse=True)
def documents() -> None:
    """The index of the app's documents is there, where it answers from some."""
    index_documents()


@pytest.fixture(scope="session")
def shared_fake() -> Iterator[FakeProvider]:
    """One fake provider for all tests; use `fake`."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
def fake(shared_fake: FakeProvider) -> FakeProvider:
    """The fake provider, with an empty ledger and on its best behaviour."""
    shared_fake.reset()
    return shared_fake


@pytest.fixture(scope="session")
def shared_app(
    shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """An app with the default limits that many tests can use; use `app`."""
    folder = tmp_path_factory.mktemp("app")
    with running_app(production(shared_fake, folder), folder) as app:
        yield app


@pytest.fixture
def app(shared_app: RunningApp, fake: FakeProvider) -> RunningApp:
    """A running app whose provider is `fake`."""
    return shared_app


@pytest.fixture
def start_app(fake: FakeProvider, tmp_path: Path) -> Iterator[StartApp]:
    """Start an app with changed settings: `start_app(workers=4, max_attempts=1)`.

    All apps of a test have one store; `store_url` leads an app to another. `command` is what
    is run in place of `serve`.
    """
    with ExitStack() as stack:

        def start(
            workers: int = 1, command: Sequence[str] = SERVE, **changes: object
        ) -> RunningApp:
            environment = production(fake, tmp_path, **changes)
            return stack.enter_context(running_app(environment, tmp_path, workers, command))

        yield start


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A webhook that listens: give its `url` to ALERT_URLS."""
    hook = Webhook()
    yield hook
    hook.close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A listener for traces and error reports; give its `port` to their settings."""
    with Collector() as listening:
        yield listening


@pytest.fixture
def clock() -> Clock:
    """What `store` takes for the time."""
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """An empty store of the kind that this app was generated for."""
    opened = make_store(store_url(tmp_path), clock)
    await opened.open()
    yield opened
    await opened.close()
