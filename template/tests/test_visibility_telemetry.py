"""Sentry and OpenTelemetry: what reaches their servers, and that neither can hang the app."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
import uvicorn
from fastapi import FastAPI
from loguru import logger
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Scope

from app.foundation.settings import Settings
from app.providers.base import Message, Prompt, Usage
from app.standards.visibility.logs import configure_logs
from app.standards.visibility.request_log import RequestLog
from app.standards.visibility.telemetry import Telemetry
from tests.collector import Collector
from tests.running import ROOT, clean_environment
from tests.servers import store_environment

CANARY = "canary-key-0123456789"
PROMPT = Prompt((Message("user", "hello"),), max_output_tokens=10, seed=7)
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector() -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """A server that takes everything: its port, and the paths and bodies it was sent."""
    with Collector() as listening:
        yield listening.port, listening.received


@pytest.fixture(autouse=True)
def _no_sentry_afterwards() -> Iterator[None]:
    yield
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False)
    logger.remove()


def make(**values: Any) -> Telemetry:
    settings = Settings.model_construct(
        app_env="production", openai_api_key=SecretStr(CANARY), **values
    )
    return Telemetry(settings, "shop-help", configure_logs(settings))


@contextmanager
def serving(telemetry: Telemetry) -> Iterator[int]:
    def render_error(scope: Scope, code: str) -> ASGIApp:
        return PlainTextResponse(code, status_code=500)

    app = FastAPI(telemetry=telemetry.fastapi())
    app.add_middleware(RequestLog, render_error=render_error)

    @app.get("/things/{name}")
    async def things(name: str) -> str:
        call = telemetry.model_call("openai", "gpt-5", PROMPT)
        with call.current():
            call.answered(Usage(12, 3), "stop")
        call.end("ok")
        return "ok"

    @app.get("/boom")
    async def boom(prompt: str) -> None:
        local = prompt + CANARY
        with telemetry.phase("guard"):
            raise ValueError(f"key {CANARY}, {len(local)}")

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(5)


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        return connection.getresponse().status
    finally:
        connection.close()


async def test_traces_reach_the_collector(
    collector: tuple[int, list[tuple[str, bytes]]], capsys: pytest.CaptureFixture[str]
) -> None:
    port, received = collector
    telemetry = make(otel_exporter_otlp_endpoint=f"http://127.0.0.1:{port}", app_release="v7")
    with serving(telemetry) as app:
        assert get(app, f"/things/x?api_key={CANARY}&q=private") == 200
        assert get(app, "/nowhere/private") == 404
        assert get(app, "/boom?prompt=hello") == 500
        assert get(app, "/healthz") == 200
    await telemetry.close(5)
    assert {path for path, _ in received} == {"/v1/traces"}
    assert CANARY not in str(received)
    assert "private" not in str(received)
    spans: dict[str, Span] = {}
    for _, body in received:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = {a.key: a.value.string_value for a in resource.resource.attributes}
            assert about["service.name"] == "shop-help"
            assert about["service.version"] == "v7"
            assert about["deployment.environment.name"] == "production"
            spans |= {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"GET /things/{name}", "GET /boom", "chat gpt-5", "guard", "GET"}
    server = spans["GET /things/{name}"]
    assert server.trace_id.hex() == TRACE
    assert server.parent_span_id.hex() == "b7ad6b7169203331"
    assert spans["chat gpt-5"].trace_id.hex() == TRACE
    assert not spans["guard"].events, "what failed is for the log"
    assert spans["GET /boom"].status.code == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    traced = {line["route"]: line["trace_id"] for line in lines if "trace_id" in line}
    assert traced == {"/things/{name}": TRACE, "/boom": TRACE, "unmatched": TRACE}


async def test_errors_reach_sentry_once_and_without_secrets(
    collector: tuple[int, list[tuple[str, bytes]]],
) -> None:
    port, received = collector
    telemetry = make(sentry_dsn=SecretStr(f"http://canarypublickey@127.0.0.1:{port}/1"))
    with serving(telemetry) as app:
        assert get(app, "/things/x") == 200
        assert get(app, f"/boom?prompt=the-prompt-{CANARY}") == 500
    logger.error("no stack", kind="lost", key=CANARY)
    logger.bind(alert="providers").error("alert")
    await telemetry.close(5)
    events = [json.loads(body.splitlines()[2]) for _, body in received]
    assert {path for path, _ in received} == {"/api/1/envelope/"}
    assert "canary-" not in str(events)
    assert "the-prompt" not in str(events)
    assert '"vars"' not in str(received)
    failed, lost = events
    assert failed["exception"]["values"][0]["type"] == "ValueError"
    assert failed["exception"]["values"][0]["stacktrace"]["frames"][-1]["function"] == "boom"
    assert failed["tags"]["route"] == "/boom"
    assert len(failed["tags"]["request_id"]) == 32
    assert failed["environment"] == "production"
    assert (lost["message"], lost["level"]) == ("no stack", "error")


async def test_who_asks_for_prompts_gets_texts_and_still_no_key(
    collector: tuple[int, list[tuple[str, bytes]]],
) -> None:
    port, received = collector
    dsn = SecretStr(f"http://canarypublickey@127.0.0.1:{port}/1")
    for log_prompts in (False, True):
        telemetry = make(sentry_dsn=dsn, log_prompts=log_prompts)
        logger.opt(exception=ValueError(f"asked: the-prompt {CANARY}")).error("it failed")
        await telemetry.close(5)
    quiet, asked_for = (json.loads(body.splitlines()[2]) for _, body in received)
    assert "the-prompt" not in str(quiet)
    assert asked_for["exception"]["values"][0]["value"] == "asked: the-prompt [redacted]"
    assert quiet["release"] == asked_for["release"]
    assert quiet["release"].startswith("shop-help@")


@pytest.mark.parametrize("name", ["sentry_dsn", "otel_exporter_otlp_endpoint"])
async def test_a_hanging_server_delays_nobody(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = {
            "sentry_dsn": SecretStr(f"http://public@127.0.0.1:{port}/1"),
            "otel_exporter_otlp_endpoint": f"http://127.0.0.1:{port}",
        }[name]
        telemetry = make(**{name: url})
        with serving(telemetry) as app:
            started = time.monotonic()
            assert get(app, "/boom?prompt=x") == 500
            assert time.monotonic() - started < 3  # it would hang for five or more
        started = time.monotonic()
        await telemetry.close(0.3)
        assert time.monotonic() - started < 3


def test_without_settings_nothing_is_loaded_and_spans_are_nothing() -> None:
    program = (
        "import sys; from app.foundation.settings import Settings\n"
        "from app.standards.visibility import alerts, logs, metrics, request_log\n"
        "from app.standards.visibility.telemetry import Telemetry\n"
        "settings = Settings.model_construct()\n"
        "telemetry = Telemetry(settings, 'x', logs.configure_logs(settings))\n"
        "with telemetry.phase('guard'): pass\n"
        "from app.providers.base import Prompt\n"
        "call = telemetry.model_call('openai', 'x', Prompt((), 1))\n"
        "with call.current(): call.answered(None, 'stop')\n"
        "call.end('ok')\n"
        "heavy = {'apprise', 'sentry_sdk', 'opentelemetry.sdk', 'opentelemetry.exporter'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n"


def test_an_app_without_telemetry_loads_none_of_it(tmp_path: Path) -> None:
    program = (
        "import sys; from app.main import create_app; create_app()\n"
        # Of OpenTelemetry the client of Redis loads the metrics on its own.
        "heavy = ('apprise', 'sentry_sdk', 'opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])\n"
    )
    settings = {"PROVIDERS": "demo", **store_environment(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**clean_environment(), **settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n"
