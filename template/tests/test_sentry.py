"""Sentry hears of the whole app's failures: each once, and of nothing that was written."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.foundation.project import load_project
from checklist.listener import until
from checklist.starting import copy_of_app
from tests.collector import Collector
from tests.fake_provider import FakeProvider, Reply, Status
from tests.running import ADMIN_TOKEN, CALLERS, PROVIDER_KEY, RunningApp, production, running_app

CHAT = "/v1/chat/completions"
PROMPT = "My neighbour Hong Gildong was born on 1 April"
ANSWER = "Nobody must read this answer"
HIDDEN = (
    PROMPT,
    "Gildong",
    ANSWER,
    PROVIDER_KEY,
    ADMIN_TOKEN,
    *CALLERS.values(),
    "alice",
    "biscuit",
)
SAID = {"prompt": PROMPT, "answer": ANSWER}
# Features of a user who quotes what was asked wherever one can, with a key beside it.
LEAKS = f"""

import asyncio as _asyncio
import logging as _logging


async def _raise(prompt: str, answer: str, **_: str) -> None:
    header = "Bearer {PROVIDER_KEY}"
    try:
        raise KeyError(prompt)
    except KeyError as error:
        error.add_note(prompt + answer)
        wrong = [ValueError(header), RuntimeError({{"asked": prompt, "said": answer}})]
        raise ExceptionGroup(prompt, wrong) from error


async def _raises(asked: dict[str, str]) -> None:
    await _raise(**asked)


async def _logs(asked: dict[str, str]) -> None:
    _logging.getLogger("a.library").error("cannot read %s", asked["prompt"])


async def _forgets(asked: dict[str, str]) -> None:
    await _asyncio.wait([_asyncio.create_task(_raise(**asked))])


_prefix, router.prefix = router.prefix, ""
for _leak in (_raises, _logs, _forgets):
    router.add_api_route(f"/{{_leak.__name__}}", _leak, methods=["POST"])
router.prefix = _prefix
"""


@pytest.fixture(scope="module")
def reporting(
    collector: Collector, shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """An app that reports to Sentry, and has features that leak."""
    folder = tmp_path_factory.mktemp("reporting")
    source = copy_of_app(folder, "leaking")
    routes = source / "app/yours/routes.py"
    routes.write_text(routes.read_text(encoding="utf-8") + LEAKS, encoding="utf-8")
    settings = {
        "providers": load_project().providers[0],
        "max_attempts": 2,
        "app_release": "1.2.3+abc",
        "sentry_dsn": f"http://public@127.0.0.1:{collector.port}/1",
        "otel_exporter_otlp_endpoint": f"http://127.0.0.1:{collector.port}",
    }
    environment = production(shared_fake, folder, **settings)
    with running_app(environment, folder, source=source) as app:
        yield app


def events(collector: Collector) -> list[dict[str, Any]]:
    """The events that came; Sentry's envelopes are lines, of which each third is one."""
    bodies = (body for path, body in collector.received if path.startswith("/api/"))
    return [json.loads(body.splitlines()[2]) for body in bodies]


def told(collector: Collector, request_id: str) -> dict[str, Any]:
    """The one event of a request."""

    def found() -> list[dict[str, Any]]:
        return [e for e in events(collector) if e["tags"].get("request_id") == request_id]

    until(lambda: bool(found()), 10)
    until(lambda: len(found()) > 1, 0.3)  # another one would be one too many
    (event,) = found()
    return event


def send(app: RunningApp, path: str, body: dict[str, Any]) -> str:
    """The request's id."""
    with app.http(cookie="session=biscuit") as http:
        return str(http.post(path, json=body).headers["x-request-id"])


def nothing_leaks(collector: Collector) -> None:
    sent = b"".join(body for path, body in collector.received if path.startswith("/api/"))
    assert [hidden for hidden in HIDDEN if hidden.encode() in sent] == []
    assert b'"vars"' not in sent
    assert b'"request":' not in sent
    assert b'"user":' not in sent


def test_an_error_is_one_event_that_quotes_nobody(
    reporting: RunningApp, collector: Collector
) -> None:
    request_id = send(reporting, "/_raises", SAID)
    event = told(collector, request_id)
    line = reporting.request_line(request_id)
    assert event["release"] == "1.2.3+abc"
    assert event["environment"] == "production"
    assert event["tags"]["trace_id"] == line["trace_id"]
    assert event["tags"]["route"] == "/_raises"
    errors = event["exception"]["values"]
    kinds = {error["type"] for error in errors}
    assert kinds == {"ExceptionGroup", "ValueError", "RuntimeError", "KeyError"}
    assert {error["value"] for error in errors} == {"[its text is in the log]"}
    assert "_raise" in {frame["function"] for frame in errors[-1]["stacktrace"]["frames"]}
    nothing_leaks(collector)


def test_what_libraries_say_of_others_words_is_not_sent(
    reporting: RunningApp, collector: Collector
) -> None:
    request_id = send(reporting, "/_logs", SAID)
    event = told(collector, request_id)
    assert event["tags"]["logger"] == "a.library"
    send(reporting, "/_forgets", SAID)
    until(lambda: any(e["tags"]["logger"] == "asyncio" for e in events(collector)), 5)
    assert [e["level"] for e in events(collector) if e["tags"]["logger"] == "asyncio"] == ["error"]
    nothing_leaks(collector)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_provider_is_one_event_a_request(
    reporting: RunningApp, collector: Collector, fake: FakeProvider, stream: bool
) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
    refused, before = {"model": "auto", "messages": []}, len(events(collector))
    fake.next(Status(500), Status(500), Reply(text=ANSWER))
    failed = send(reporting, CHAT, body)
    send(reporting, CHAT, body)
    send(reporting, CHAT, refused)
    assert told(collector, failed)["tags"]["error_code"] == "providers_unavailable"
    assert len(events(collector)) == before + 1
    nothing_leaks(collector)


def test_without_a_release_of_its_own_the_code_has_one() -> None:
    from app.foundation.release import release_of
    from app.foundation.settings import Settings

    made = [release_of(Settings.model_construct(), "shop-help") for _ in range(2)]
    assert made[0] == made[1]
    assert re.fullmatch(r"shop-help@[0-9a-f]{12}", made[0])
