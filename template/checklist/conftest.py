"""What the items share: a provider, a way to start the app, and the report's record."""

import json
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from checklist.check import Check, Unchecked
from checklist.items import BY_NUMBER, number_of
from checklist.messages import load_texts
from tests.fake_provider import FakeProvider
from tests.running import APP, RunningApp, index_documents, production, running_app

# Where `uv run checklist` wants the findings; nowhere under plain pytest.
RESULTS = os.environ.get("CHECKLIST_RESULTS")
StartApp = Callable[..., RunningApp]
_check = pytest.StashKey[Check]()


@pytest.fixture(scope="session", autouse=True)
def documents() -> None:
    """The index of the app's documents is there, where it answers from some."""
    index_documents()


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Check:
    """What this test expects, sees and proves."""
    found = Check(number_of(request.module.__name__))
    request.node.stash[_check] = found
    return found


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeProvider]:
    """The provider of this item's apps, with a ledger of every call that reached it."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this item's apps run and keep their data."""
    return tmp_path_factory.mktemp("checklist")


@pytest.fixture(scope="module")
def start(fake: FakeProvider, folder: Path) -> Iterator[StartApp]:
    """Start the app in production with changed settings: `start(workers=2, max_attempts=1)`.

    Each app has a folder of its own below this item's, unless `at` names one.
    """
    with ExitStack() as stack:
        count = iter(range(1000))

        def begin(
            workers: int = 1,
            *,
            at: Path | None = None,
            source: Path = APP,
            provider: FakeProvider = fake,
            **changes: object,
        ) -> RunningApp:
            place = at or folder / str(next(count))
            place.mkdir(exist_ok=True)
            environment = production(provider, place, **changes)
            return stack.enter_context(running_app(environment, place, workers, source=source))

        yield begin


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write what a test found, one JSON line each."""
    report = yield
    if RESULTS and (report.when == "call" or report.failed):
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finding(item, call, report), ensure_ascii=False) + "\n")
    return report


def _finding(
    item: pytest.Item, call: "pytest.CallInfo[None]", report: pytest.TestReport
) -> dict[str, object]:
    found = item.stash.get(_check, None)
    finding: dict[str, object] = {
        "test": item.name,
        "passed": report.passed,
        "evidence": found.evidence if found and report.passed else [],
    }
    if call.excinfo is None:
        return finding
    error = call.excinfo.value
    if isinstance(error, Unchecked):
        return finding | {"expected": error.expected, "seen": error.seen, "look": error.look}
    # Something else went wrong on the way, such as an app that does not start.
    number = number_of(item.module.__name__)  # type: ignore[attr-defined]
    lines = str(error).strip().splitlines() or [""]
    seen = f"{type(error).__name__}: {lines[0]}" + (f" … {lines[-1]}" if len(lines) > 1 else "")
    return finding | {
        "expected": load_texts().text(f"{number}.what"),
        "seen": seen,
        "look": BY_NUMBER[number].look,
    }
