"""Rate limits under fire: exactly so many pass, over all processes, and Retry-After is true."""

import time
from collections import Counter

import pytest

from tests.conftest import StartApp
from tests.fake_provider import FakeProvider
from tests.fire.crowd import Ask, crowd
from tests.running import RunningApp

pytestmark = pytest.mark.fire

PER_CALLER, PER_ADDRESS = 60, 90


async def test_exactly_so_many_pass_and_retry_after_is_exact(
    start_app: StartApp, fake: FakeProvider
) -> None:
    app = start_app(
        workers=4, requests_per_minute=PER_CALLER, requests_per_minute_per_ip=PER_ADDRESS
    )
    asked = [Ask(caller="alice")] * (PER_CALLER + 40) + [Ask(caller="bob")] * PER_CALLER
    began = time.monotonic()
    first, rest = await passed(app, asked[: PER_CALLER + 40]), await passed(app, asked[PER_CALLER + 40 :])
