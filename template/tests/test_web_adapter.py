"""Behind the Lambda Web Adapter: nothing is left to do when a response has ended.

Lambda freezes the process there, and may never wake it again. Here it is killed there.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Reply, Status
from tests.running import ROOT, RunningApp, clean_environment, production
from tests.servers import own_server
from tests.test_canary import ON_TRIAL
from tests.webhook import Webhook

ON_LAMBDA = [sys.executable, "-c", "from app.cli import serve; serve('app.web_adapter:create_app')"]
# Longer than an answer waits for the store by itself: see `patience` in spending/guard.py.
STORE_SECONDS = 1
STORE_IS_AWAY_SECONDS = STORE_SECONDS + 0.3
# Long enough to take the store away in the middle of it.
CALL_SECONDS = 1.0


def ask_and_kill(app: RunningApp, *, stream: bool) -> httpx2.Response:
    """Ask, read until the response has ended, and kill the app in that moment."""
    question = {"model": "auto", "stream": stream}
    with app.http(**{"X-Request-ID": "the-last"}) as http:
        answer = http.post(
            "/v1/chat/completions",
            json={**question, "messages": [{"role": "user", "content": "Hello"}]},
        )
    app.process.kill()
    app.process.wait()
    return answer


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_money_and_log_are_right_when_the_response_has_ended(
    start_app: StartApp, fake: FakeProvider, stream: bool
) -> None:
    fake.always(Reply(delay_before=CALL_SECONDS))
    with own_server() as server, ThreadPoolExecutor() as thread:
        proxied: Any = server
        app = start_app(
            command=ON_LAMBDA, store_url=proxied.proxied_url, store_timeout_seconds=STORE_SECONDS
        )
        asking = thread.submit(ask_and_kill, app, stream=stream)
        while not fake.ledger.calls:
            time.sleep(0.01)
        proxied.proxy.set("refuse")
        time.sleep(CALL_SECONDS + STORE_IS_AWAY_SECONDS)
        assert not asking.done(), "the response ended before the charge was settled"
        proxied.proxy.set("pass")
        assert asking.result().status_code == 200
        (line,) = [x for x in app.log_lines(request_id="the-last") if "duration_ms" in x]

        after = start_app(store_url=server.url)
        assert after.metric("daily_cost_usd") == pytest.approx(line["cost_usd"])
        assert line["cost_usd"] > 0
        assert after.metric("cost_reserved_usd") == 0


def test_an_alert_has_left_when_the_response_has_ended(
    start_app: StartApp, fake: FakeProvider, webhook: Webhook
) -> None:
    fake.always(Status(500))
    app = start_app(command=ON_LAMBDA, alert_urls=webhook.url, max_attempts=1)
    assert ask_and_kill(app, stream=False).status_code == 503
    assert len(webhook.received) == 1


def test_events_leave_at_once(start_app: StartApp, fake: FakeProvider) -> None:
    fake.always(Reply(chunks=5, delay_between=0.3))
    app = start_app(command=ON_LAMBDA)
    heard = []
    with app.client().chat.completions.create(
        model="auto", stream=True, messages=[{"role": "user", "content": "Hello"}]
    ) as stream:
        for _ in stream:
            heard.append(time.monotonic())
    assert heard[0] < (fake.ledger.calls[0].finished or 0.0)
    assert heard[-1] - heard[0] > 0.8


def test_shadow_traffic_is_refused(fake: FakeProvider, tmp_path: Path) -> None:
    environment = production(fake, tmp_path, shadow_percent=5, **ON_TRIAL)
    ended = subprocess.run(
        ON_LAMBDA,
        cwd=tmp_path,
        env={**clean_environment(), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 78
    assert "SHADOW_PERCENT: " in ended.stderr
