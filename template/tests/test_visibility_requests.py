"""The request log, under a real server: one true line per request, however it ends."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import KINDS
from app.foundation.settings import Settings
from app.standards.visibility.logs import configure_logs
from app.standards.visibility.request_log import RequestEnd, RequestLog
from checklist.listener import until

ENDS: list[RequestEnd] = []
WAITS = threading.Event()


def render_error(scope: Scope, code: str) -> ASGIApp:
    request_id = scope["state"]["record"].request_id
    body = {"error": {"code": code, "request_id": request_id}}
    return JSONResponse(body, status_code=KINDS[code].status)


def observe(end: RequestEnd) -> None:
    ENDS.append(end)
    if end.route == "/observed":
        raise RuntimeError("an observer's mistake")


class Shield:
    """Refuses before the router sees the request, as a limiter does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"] == b"shield":
            scope["state"]["record"].error_code = "rate_limit_exceeded"
            await PlainTextResponse("no", status_code=429)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def make_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(Shield)
    app.add_middleware(RequestLog, render_error=render_error, observers=[observe])
    inner, mounted = APIRouter(), FastAPI()

    @app.get("/ok")
    async def ok(request: Request) -> dict[str, str]:
        record = request.state.record
        record.caller, record.model, record.provider = "web", "gpt-5", "openai"
        record.input_tokens, record.output_tokens, record.cost_nano = 12, 34, 1_500_000
        record.attempts, record.fallback = 2, True
        record.headers["X-Provider"] = "openai"
        with record.timed("guard"), record.timed("provider"):
            pass
        return {"id": record.request_id}

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    @app.get("/observed")
    async def observed() -> str:
        return "ok"

    @inner.get("/things/{name:path}")
    @mounted.get("/deep/{number}")
    async def anything() -> str:
        return "ok"

    @app.get("/end/{status}")
    async def end(status: int, code: str, request: Request) -> PlainTextResponse:
        request.state.record.error_code = code
        return PlainTextResponse("no", status_code=status)

    @app.get("/boom")
    async def boom() -> None:
        raise ValueError("it broke\nERROR a forged line, key sk-canary-0123456789abcdef")

    @app.get("/panic")
    async def panic() -> None:
        class PanicException(BaseException):
            """As an extension written in Rust raises it."""

        raise PanicException

    @app.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def whole() -> AsyncIterator[bytes]:
            yield b"data: x\n\n"
            await asyncio.sleep(0)
            request.state.record.output_tokens = 7

        request.state.record.streamed = True
        return StreamingResponse(whole(), media_type="text/event-stream")

    async def chunks(*, fails: bool) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"data: x\n\n"
        if fails:
            raise ValueError("in mid-stream")
        while True:
            await asyncio.sleep(0.01)
            yield b"data: y\n\n" * 100

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        return StreamingResponse(chunks(fails=True), media_type="text/event-stream")

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        return StreamingResponse(chunks(fails=False), media_type="text/event-stream")

    @app.get("/waits")
    async def waits(request: Request) -> str:
        WAITS.set()
        for _ in range(500):
            if await request.is_disconnected():
                break
            await asyncio.sleep(0.01)
        return "nobody reads this"

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("half"):
            start: Message = {"type": "http.response.start", "status": 200, "headers": []}
            await send(start)

    app.include_router(inner, prefix="/v1")
    app.mount("/sub", mounted)
    app.mount("/raw", half)
    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(make_app(), port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(5)


class Log:
    """What standard error says, as it comes in."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    def lines(self) -> list[dict[str, Any]]:
        self.text += self._capsys.readouterr().err
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, route: str) -> dict[str, Any]:
        """The request line of a route; it must come, once."""
        for _ in range(300):
            found = [line for line in self.lines() if line.get("route") == route]
            if found:
                time.sleep(0.03)  # whatever else the server has to say about it
                found = [line for line in self.lines() if line.get("route") == route]
                assert len(found) == 1
                return found[0]
            time.sleep(0.01)
        raise AssertionError(f"no line for {route} in: {self.text}")


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    configure_logs(Settings.model_construct(app_env="production", log_level="DEBUG"))
    ENDS.clear()
    return Log(capsys)


def get(port: int, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()


def leave(port: int, path: str, *, after: bytes | threading.Event) -> None:
    """Ask, read until `after` has come or wait until it has happened, and reset the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if isinstance(after, threading.Event):
            assert after.wait(10)
        else:
            got = b""
            while after not in got:
                got += client.recv(4096)
        reset = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)


def test_a_good_request_has_one_line_with_its_facts(port: int, log: Log) -> None:
    began = time.monotonic()
    response, body = get(port, "/ok", **{"X-Request-ID": "abc.1-2_3"})
    line = log.of("/ok")
    took = time.monotonic() - began
    assert json.loads(body) == {"id": "abc.1-2_3"}
    assert response.getheader("X-Request-ID") == "abc.1-2_3"
    assert response.getheader("X-Provider") == "openai"
    assert re.fullmatch(r"provider;dur=[\d.]+, guard;dur=[\d.]+", response.headers["Server-Timing"])
    assert 0 < line.pop("duration_ms") <= took * 1000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "message": "GET /ok 200",
        "logger": "app.standards.visibility.request_log",
        "request_id": "abc.1-2_3",
        "method": "GET",
        "route": "/ok",
        "status": 200,
        "outcome": "ok",
        "error_code": None,
        "caller": "web",
        "end_user": None,
        "metadata": None,
        "model": "gpt-5",
        "provider": "openai",
        "input_tokens": 12,
        "output_tokens": 34,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "attempts": 2,
        "retries": 0,
        "fallback": True,
        "cache": "none",
        "arm": None,
        "summarised": False,
        "abstained": None,
        "finish_reason": None,
        "policy": [],
        "evidence": None,
        "streamed": False,
        "cost_usd": 0.0015,
    }
    until(lambda: bool(ENDS), 5)  # observers hear of it after the log
    assert [end.outcome for end in ENDS] == ["ok"]


def test_a_stream_is_logged_when_it_has_ended(port: int, log: Log) -> None:
    _, body = get(port, "/stream")
    line = log.of("/stream")
    assert body == b"data: x\n\n"
    assert (line["outcome"], line["streamed"], line["output_tokens"]) == ("ok", True, 7)


@pytest.mark.parametrize("given", ["", "a" * 65, "a b", 'x"}', "a\tb"])
def test_a_malformed_request_id_is_replaced(port: int, log: Log, given: str) -> None:
    response, _ = get(port, "/ok", **{"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])
    assert log.of("/ok")["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/things/a/b", "/v1/things/{name}"),
        ("/sub/deep/7", "/sub/deep/{number}"),
        ("/sub/nothing", "/sub/{path}"),
        ("/wp-login.php", "unmatched"),
        ("/ok?shield", "/ok"),
        ("/v1/things/x?shield", "/v1/things/{name}"),
        ("/end/404?code=not_found", "/end/{status}"),
    ],
)
def test_routes_are_named_by_their_template(port: int, log: Log, path: str, route: str) -> None:
    get(port, path)
    assert log.of(route)["route"] == route


@pytest.mark.parametrize(
    ("status", "code", "outcome", "level"),
    [
        (400, "context_length_exceeded", "refused", "INFO"),
        (401, "invalid_api_key", "refused", "INFO"),
        (404, "model_not_found", "refused", "INFO"),
        (413, "request_too_large", "refused", "INFO"),
        (429, "rate_limit_exceeded", "refused", "INFO"),
        (503, "daily_cost_cap", "refused", "INFO"),
        (503, "providers_unavailable", "failed", "ERROR"),
        (504, "time_budget_exceeded", "failed", "ERROR"),
        # A stream that ended with an error event after its first byte.
        (200, "providers_unavailable", "broken_stream", "ERROR"),
    ],
)
def test_the_outcome_follows_from_status_and_code(
    port: int, log: Log, status: int, code: str, outcome: str, level: str
) -> None:
    get(port, f"/end/{status}?code={code}")
    line = log.of("/end/{status}")
    assert (line["status"], line["error_code"]) == (status, code)
    assert (line["outcome"], line["level"]) == (outcome, level)


@pytest.mark.parametrize(("path", "error"), [("/boom", "ValueError"), ("/panic", "PanicException")])
def test_an_unhandled_exception_is_answered_and_logged_once(
    port: int, log: Log, path: str, error: str
) -> None:
    response, body = get(port, path)
    line = log.of(path)
    request_id = response.headers["X-Request-ID"]
    assert response.status == 500
    assert json.loads(body) == {"error": {"code": "internal_error", "request_id": request_id}}
    assert (line["status"], line["outcome"], line["level"]) == (500, "failed", "ERROR")
    assert line["error_code"] == "internal_error"
    assert error in line["stack"]
    assert "canary" not in log.text
    assert [entry["level"] for entry in log.lines()].count("ERROR") == 1


def test_a_stream_that_breaks_is_cut_and_logged_once(port: int, log: Log) -> None:
    with pytest.raises(http.client.IncompleteRead):
        get(port, "/broken")
    line = log.of("/broken")
    assert (line["status"], line["outcome"]) == (200, "broken_stream")
    assert "in mid-stream" in line["stack"]
    assert [entry["level"] for entry in log.lines()].count("ERROR") == 1


def test_a_response_that_is_left_unfinished_is_no_success(port: int, log: Log) -> None:
    with pytest.raises(http.client.HTTPException):
        get(port, "/raw/half")
    line = log.of("/raw/{path}")
    assert (line["status"], line["outcome"]) == (200, "broken_stream")


def test_a_response_that_never_begins_is_an_error(port: int, log: Log) -> None:
    response, _ = get(port, "/raw/nothing")
    assert response.status == 500
    assert log.of("/raw/{path}")["outcome"] == "failed"


def test_a_client_that_leaves_a_stream(port: int, log: Log) -> None:
    leave(port, "/endless", after=b"data: y")
    line = log.of("/endless")
    assert (line["status"], line["outcome"], line["level"]) == (200, "client_left", "INFO")


def test_a_client_that_leaves_before_the_answer(port: int, log: Log) -> None:
    leave(port, "/waits", after=WAITS)
    line = log.of("/waits")
    assert (line["status"], line["outcome"]) == (499, "client_left")


def test_health_checks_are_logged_at_debug(port: int, log: Log) -> None:
    get(port, "/healthz")
    assert log.of("/healthz")["level"] == "DEBUG"


def test_an_observers_mistake_harms_nobody(port: int, log: Log) -> None:
    response, _ = get(port, "/observed")
    assert response.status == 200
    assert log.of("/observed")["outcome"] == "ok"
    assert until(lambda: any("an observer" in line["message"] for line in log.lines()), 5)


def test_requests_do_not_mix(port: int, log: Log) -> None:
    def ask(number: int) -> None:
        get(port, "/ok", **{"X-Request-ID": f"id-{number}"})

    threads = [threading.Thread(target=ask, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(log.lines()) >= 20, 5)
    assert sorted(line["request_id"] for line in log.lines()) == sorted(
        f"id-{number}" for number in range(20)
    )


async def test_a_cancelled_request_counts_as_left(log: Log) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    async def nothing(*_: object) -> Message:
        return {}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    middleware = RequestLog(app, render_error=render_error)
    task = asyncio.create_task(middleware(scope, nothing, nothing))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    line = log.of("unmatched")
    assert (line["status"], line["outcome"]) == (499, "client_left")
