"""1.2 Do you get alerts on errors?

You should know before your users tell you. But an alert for every error is no better than none:
after the fortieth message nobody reads. So one kind of trouble is one message, whatever the number
of requests and of processes that see it; it says who is called and which requests failed; another
kind is another message; and the end of the trouble is one more.

How we see it: a webhook of ours is the only alert address of two processes that share a store.
Requests fail in both; then the provider recovers; then a feature has a bug.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.foundation.project import load_project
from checklist.asking import ask, ask_many
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import Listener
from checklist.messages import seen_as
from checklist.starting import BUG, app_with_a_bug
from tests.fake_provider import FakeProvider, Status

# Of each process; fewer in a row than open a circuit breaker, which is item 3.3.
BURST = 2
PATIENCE_SECONDS = 10.0
# As long as a second message about the same trouble would need to come.
SILENCE_SECONDS = 1.5


def test_trouble_is_one_message_and_so_is_its_end(
    start: StartApp, fake: FakeProvider, folder: Path, check: Check
) -> None:
    with Listener() as webhook, ThreadPoolExecutor(2) as pool:
        settings = {
            "at": folder / "shared",
            "source": app_with_a_bug(folder),
            "alert_urls": f"json://{webhook.address}/hook",
            "max_attempts": 1,
            "providers": load_project().providers[0],
        }
        app, other = pool.map(lambda _: start(**settings), range(2))

        fake.always(Status(500))
        failed = ask_many(app, BURST) + ask_many(other, BURST)
        ids = [answer.headers.get("x-request-id", "-") for answer in failed]
        webhook.wait_for(1, PATIENCE_SECONDS)
        alerts = webhook.wait_for(2, SILENCE_SECONDS)
        seen = seen_as("alerts", count=len(alerts))
        check.that(len(alerts) == 1, "once", count=len(failed), seen=seen)
        text = _text(alerts[0])
        on_call = load_project().on_call
        check.that(
            on_call.name in text and on_call.contact in text, "on_call", seen=_first_line(text)
        )
        check.that(any(name in text for name in ids), "request_ids", seen=_first_line(text))

        fake.reset()
        ask(app)
        alerts = webhook.wait_for(2, PATIENCE_SECONDS)
        check.that(len(alerts) == 2, "recovery", seen=seen_as("alerts", count=len(alerts) - 1))

        with app.http() as http:
            http.get(BUG)
        alerts = webhook.wait_for(3, PATIENCE_SECONDS)
        titles = [_first_line(_text(alert)) for alert in alerts]
        check.that(
            len(alerts) == 3 and len(set(titles)) == 3, "another_kind", seen=" | ".join(titles)
        )
        check.found("alerts", count=len(failed), titles=" | ".join(titles))


def _text(alert: str) -> str:
    """Title and message of apprise's JSON notification."""
    content = json.loads(alert)
    return f"{content.get('title', '')}\n{content.get('message', '')}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
