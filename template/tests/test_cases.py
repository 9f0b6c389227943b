"""Bad inputs, each with what should become of it: a starter set, and yours in `yours/cases/`.

`uv run failures export` writes there what has failed; edit what a case expects as you like.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import httpx2
import pytest

from tests.fake_provider import FakeProvider
from tests.replay import RULES, STARTER, YOURS, Case, cases_in, play, unmet
from tests.running import production, running_app

Ask = Callable[[str | None], httpx2.Client]

# An answer that was kept may be longer than the app's default allows.
LONG_ANSWERS = 10_000


@pytest.fixture(scope="module")
def ask(shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A client of an app with these rules; None: yours."""
    with ExitStack() as stack:

        @cache
        def start(rules: str | None) -> httpx2.Client:
            changes = {} if rules is None else {"policy_file": rules}
            folder = tmp_path_factory.mktemp("cases")
            environment = production(shared_fake, folder, max_output_tokens=LONG_ANSWERS, **changes)
            app = stack.enter_context(running_app(environment, folder))
            return stack.enter_context(app.http())

        yield start


def named(case: Case) -> str:
    return f"{case.file}-{case.name}"


@pytest.mark.parametrize("case", cases_in(STARTER), ids=named)
def test_the_starter_set(case: Case, ask: Ask, fake: FakeProvider) -> None:
    assert not unmet(case, play(ask(RULES), fake, case))


def test_yours(ask: Ask, fake: FakeProvider) -> None:
    # Together, since an app may have none of its own yet, and no test is ever skipped.
    wrong = [unmet(case, play(ask(None), fake, case)) for case in cases_in(YOURS)]
    assert not list(filter(None, wrong))
