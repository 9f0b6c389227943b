"""A store that fails: 503 in time, nobody is called, one alert, and it comes back by itself."""

import asyncio
import time
from urllib.parse import urlsplit

import pytest

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Hang, Reply
from tests.fire.crowd import Ask, Heard, billed, crowd, until
from tests.fire.faults import FAULTS, NUISANCES
from tests.running import ADMIN_TOKEN, CALLERS, PROVIDER_KEY, RunningApp
from tests.servers import own_server
from tests.webhook import Webhook

pytestmark = pytest.mark.fire

PROMPT = "a prompt that nobody may read"
STORE_SECONDS = 1.0
# What a refusal takes beside the store's timeout: this, and what one takes that asks no store.
SMALL = 0.9
STORE = load_messages(load_project().language).text("alert.what.store")
QUICK = {"time_budget_seconds": 5, "store_timeout_seconds": STORE_SECONDS}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_refused_alerted_once_and_survived(
    start_app: StartApp, fake: FakeProvider, webhook: Webhook, name: str
) -> None:
    fault = FAULTS[name]
    with own_server(**fault.configuration) as server:
        app = start_app(store_url=fault.url(server), alert_urls=webhook.url, **QUICK)
        assert (await crowd(app, [Ask()]))[0].code == "ok"
        before = len(fake.ledger.calls)
        with fault.happens(server, app):
            for many in (1, 1, 30):
                for _ in range(3):  # a busy machine may be slow once, and not each time
                    heard, took = await timed(app, [Ask(PROMPT)] * many)
                    assert {answer.code for answer in heard} == {"store_unavailable"}
                    _, without_store = await timed(app, [Ask(max_tokens=-1)] * many)
                    if in_time := took <= STORE_SECONDS + SMALL + without_store:
                        break
                assert in_time, (took, without_store)
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in heard)
            assert await status(app, "/healthz") == 200
            assert await status(app, "/readyz") == 503
            await asyncio.to_thread(webhook.wait_for, 1, 20, STORE)
            assert len(fake.ledger.calls) == before
        await until(lambda: answers(app), 20, "an answer after the fault")
        await end_is_told(app, webhook)
        assert await status(app, "/readyz") == 200
        assert "internal_error" not in app.log()
        for secret in secrets(fault.url(server)):
            assert secret not in app.log() + str(webhook.received)


async def test_four_processes_tell_of_it_once(
    start_app: StartApp, fake: FakeProvider, webhook: Webhook
) -> None:
    with own_server() as server:
        app = start_app(workers=4, store_url=server.url, alert_urls=webhook.url, **QUICK)
        await crowd(app, [Ask()] * 40)
        server.freeze()
        await crowd(app, [Ask()] * 60)
        await asyncio.to_thread(webhook.wait_for, 1, 20, STORE, 2.0)
        server.thaw()
        await until(lambda: answers(app), 20, "an answer after the fault")
        for _ in range(4):
            await crowd(app, [Ask()] * 20)
            await asyncio.sleep(1)
        await end_is_told(app, webhook)


@pytest.mark.parametrize("name", NUISANCES)
async def test_a_nuisance_is_not_noticed(
    start_app: StartApp, fake: FakeProvider, name: str
) -> None:
    nuisance = NUISANCES[name]
    with own_server(**nuisance.configuration) as server:
        app = start_app(workers=2, store_url=server.url, store_timeout_seconds=5)
        with nuisance.happens(server, app):
            heard = await crowd(app, [Ask()] * 200)
    assert {answer.code for answer in heard} == {"ok"}
    assert len(fake.ledger.calls) == 200


async def test_an_answer_outlives_its_store(start_app: StartApp, fake: FakeProvider) -> None:
    with own_server() as server:
        app = start_app(store_url=server.url, **QUICK)
        fake.always(Reply(chunks=10, delay_before=0.5))
        asking = asyncio.create_task(crowd(app, [Ask(key="kept")]))
        await asyncio.to_thread(fake.ledger.wait_for, 1)
        await asyncio.to_thread(server.freeze)
        (answer,) = await asking
        assert answer.code == "ok"
        server.thaw()

        async def is_settled() -> bool:
            return await asyncio.to_thread(app.metric, "cost_reserved_usd") == 0

        await until(is_settled, 20, "the settlement to be taken")
        assert app.metric("daily_cost_usd") * 1e9 == pytest.approx(billed(fake))
        (again,) = await crowd(app, [Ask(key="kept")])
        assert (again.body, again.replayed) == (answer.body, True)


async def test_workers_start_while_the_store_is_down(
    start_app: StartApp, fake: FakeProvider
) -> None:
    with own_server() as server:
        app = start_app(workers=2, store_url=server.url, **QUICK)
        old = {worker.pid for worker in app.workers()}
        server.freeze()
        for worker in app.workers():
            worker.kill()

        async def is_refused() -> bool:
            heard = (await crowd(app, [Ask(patience=10)]))[0].code
            assert heard in {"cut", "left", "store_unavailable"}
            return heard == "store_unavailable"

        await until(is_refused, 60, "a new worker that refuses")
        assert not old & {worker.pid for worker in app.workers()}
        server.thaw()
        await until(lambda: answers(app), 20, "an answer after the fault")


async def test_a_request_ends_in_time_whatever_its_store_does(
    start_app: StartApp, fake: FakeProvider
) -> None:
    with own_server() as server:
        app = start_app(store_url=server.url, **{**QUICK, "time_budget_seconds": 2})
        fake.always(Hang("connect"))
        began = time.monotonic()
        asking = asyncio.create_task(crowd(app, [Ask()]))
        await asyncio.to_thread(fake.ledger.wait_for, 1)
        await asyncio.to_thread(server.freeze)
        (answer,) = await asking
        assert answer.code == "time_budget_exceeded"
        # Nothing ends by itself meanwhile.
        assert time.monotonic() - began <= 2 + STORE_SECONDS + 3
        server.thaw()


async def end_is_told(app: RunningApp, webhook: Webhook) -> None:
    """Ask until it is told, once: where the store does not take that, the next success does it."""

    async def is_told() -> bool:
        return await answers(app) and len([x for x in webhook.titles if STORE in x]) > 1

    await until(is_told, 20, "the end of the fault to be told")
    await asyncio.to_thread(webhook.wait_for, 2, 1, STORE, 1.0)


async def timed(app: RunningApp, asked: list[Ask]) -> tuple[list[Heard], float]:
    """What was heard when all asked at once, and how long that took, in seconds."""
    began = time.monotonic()
    heard = await crowd(app, asked)
    return heard, time.monotonic() - began


def secrets(url: str) -> list[str]:
    """What no log line and no alert may hold."""
    password = urlsplit(url).password
    known = [PROVIDER_KEY, ADMIN_TOKEN, *CALLERS.values(), PROMPT]
    return [*known, password] if password else known


async def answers(app: RunningApp) -> bool:
    """Whether a request is answered."""
    return (await crowd(app, [Ask()]))[0].code == "ok"


async def status(app: RunningApp, path: str) -> int:
    """The status of a GET."""

    def get() -> int:
        with app.http(None) as http:
            return http.get(path).status_code

    return await asyncio.to_thread(get)
