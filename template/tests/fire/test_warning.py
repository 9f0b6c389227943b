"""The 80 % warning under fire: once a day, over all processes."""

import asyncio
from functools import partial
from typing import Any

import pytest

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.standards.spending.guard import REAP_EVERY_SECONDS
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Reply, Usage
from tests.fire.crowd import Ask, crowd, until
from tests.running import RunningApp
from tests.servers import Clock, own_server
from tests.webhook import Webhook

pytestmark = pytest.mark.fire

FIRST = load_project().providers[0]
WARNING = load_messages(load_project().language).text("alert.what.cost_warning")
DAY_SECONDS = 86_400
REAP_SECONDS = REAP_EVERY_SECONDS + 3


def warnings(app: RunningApp) -> list[dict[str, Any]]:
    """The log's lines of the 80 %, those of alerts aside."""
    lines = [line for line in app.log_lines() if "spent_usd" in line and "cap_usd" in line]
    return [line for line in lines if "alert" not in line]


async def told(app: RunningApp, day: int) -> bool:
    """Whether the day's warning is in the log."""
    return len(warnings(app)) >= day


async def test_the_warning_comes_once_a_day(
    start_app: StartApp, fake: FakeProvider, webhook: Webhook
) -> None:
    clock = Clock()
    fake.always(Reply("word", usage=Usage(prompt=50, completion=500)))  # 1.05 thousandths a call
    with own_server(clock) as server:
        app = start_app(
            workers=4,
            providers=FIRST,
            max_attempts=1,
            daily_cost_cap_usd=0.05,
            store_timeout_seconds=5,
            alert_urls=webhook.url,
            store_url=server.url,
            **server.app_environment,
        )
        for day in (1, 2):
            heard = await crowd(app, [Ask()] * 120)
            assert {answer.code for answer in heard} == {"ok", "daily_cost_cap"}
            # Of so many at once most are refused for what the others hold; these spend the rest.
            while (last := (await crowd(app, [Ask()]))[0].code) == "ok":
                pass
            assert last == "daily_cost_cap"
            await until(partial(told, app, day), 20, f"warning {day}")
            assert 0.04 <= warnings(app)[-1]["spent_usd"] <= 0.05
            # A process that has told it once takes ten seconds to tell it again.
            await asyncio.to_thread(webhook.wait_for, day, 30, WARNING)
            # Settlements at one instant may miss each other, and reaping makes up for it: no twice.
            await asyncio.sleep(REAP_SECONDS)
            assert len(warnings(app)) == day
            clock.jump(DAY_SECONDS)
