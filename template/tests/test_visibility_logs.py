"""Log lines: their form, what may not be in them, and what the libraries' loggers become."""

import http.client
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from pydantic import SecretStr

from app.foundation.settings import Settings
from app.standards.visibility.logs import configure_logs
from app.standards.visibility.redaction import HIDDEN, Redactor

SECRETS = {
    "openai": "canary-plain-0123456789",
    "quoted": "canary\"'\\quoted-0123",
    "alert": "slack://canaryTokenA0123456789/canaryTokenB0123456789/",
    "database": "postgresql://app:canary%40pass@db.internal/app",
}


def settings(app_env: str = "production", **values: Any) -> Settings:
    values |= {
        "app_env": app_env,
        "openai_api_key": SecretStr(SECRETS["openai"]),
        "admin_token": SecretStr(SECRETS["quoted"]),
        "alert_urls": (SecretStr(SECRETS["alert"]),),
        "app_api_keys": {"web": SecretStr(SECRETS["database"])},
    }
    return Settings.model_construct(**values)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_is_flat(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings())
    with logger.contextualize(request_id="r1"):
        logger.info("something happened", count=3, spent=0.5, who=None, nested={"a": ["b", 1]})
    (line,) = lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "message": "something happened",
        "logger": __name__,
        "request_id": "r1",
        "count": 3,
        "spent": 0.5,
        "who": None,
        "nested": {"a": ["b", 1]},
    }


def test_fields_cannot_replace_the_lines_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings())
    logger.bind(level="DEBUG", message="x", timestamp="y", object=object()).warning("true")
    (line,) = lines(capsys)
    assert (line["level"], line["message"], line["object"]) == ("WARNING", "true", "<object>")
    assert line["timestamp"] != "y"


@pytest.mark.parametrize("app_env", ["production", "development"])
@pytest.mark.parametrize(
    "secret",
    [
        *SECRETS.values(),
        "canary%22%27%5Cquoted-0123",
        "canaryTokenB0123456789",
        "canary@pass",
        "sk-ant-api03-canary_0123456789-abc",
        "sk-proj-canary0123456789abcdef",
        "AIzaSyCanary-0123456789_0123456789abcdefg",
        "Bearer canary.0123/45+6789==",
        "redis://:canary@host:6379",
        "https://host/path?api_key=canary&x=1",
        "eyJhbGciOiJcanary.eyJzdWIiOiJcanary.c2lnbmF0dXJl",
    ],
)
def test_no_secret_gets_out(app_env: str, secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings(app_env))

    def fail(local: str) -> None:
        raise ValueError(f"with {local}")

    logger.info(f"in the text: {secret}")
    logger.info("in a field", field=f"({secret})", nested={secret: [secret]})
    logging.getLogger("library").warning("in a library's text: %s", secret)
    try:
        fail(secret)
    except ValueError:
        logger.exception("in a stack")
        logging.getLogger("library").exception("in a library's stack")
    written = capsys.readouterr().err
    assert "canary" not in written.lower()
    assert written.count(HIDDEN) >= 7
    assert "with" in written
    assert "local =" not in written


@pytest.mark.parametrize(
    "text",
    ["task-management-systems-and-more", "see https://example.com/a@b", "risk-0123456789abcdef"],
)
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor(["secret-0123"]).text(text) == text


def test_what_a_validation_refused_is_not_repeated() -> None:
    error = "name [type=int_parsing, input_value='what a person wrote', input_type=str]"
    assert "person" not in Redactor().text(error)
    assert "input_type=str" in Redactor().text(error)


@pytest.mark.parametrize("text", ["eyJ" * 40_000, "://" * 40_000, "input_value=" * 10_000])
def test_hostile_text_costs_little(text: str) -> None:
    started = time.process_time()
    Redactor().text(text)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("app_env", ["production", "development"])
@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\x1b[2K\x1b[1A"])
def test_no_line_can_be_forged(app_env: str, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings(app_env))
    forged = f'x{end}{{"level": "ERROR"}}'
    logger.bind(field=forged).info(forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logger.exception("failed")
    written = capsys.readouterr().err
    assert not [line for line in written.splitlines() if line.startswith('{"level"')]
    assert "\x1b" not in written
    if app_env == "production":
        assert len(written.splitlines()) == 2


def test_text_in_any_script_stays_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings())
    logger.info("안녕하세요 \ud800")
    assert "안녕하세요" in capsys.readouterr().err


def test_text_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings("development"))
    logger.bind(request_id="r1", route="/ok", error_code=None).info("GET /ok 200")
    written = capsys.readouterr().err
    assert re.fullmatch(r"[\d:]{8} INFO     GET /ok 200 request_id=r1 route=/ok\n", written)


def test_libraries_log_through_the_same_sink(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings())
    logging.getLogger("uvicorn.error").info("started on %s", "port 1")
    logging.getLogger("openai._base_client").error("broken format: %d", "text")
    found = [(line["logger"], line["level"], line["message"]) for line in lines(capsys)]
    assert found == [
        ("uvicorn.error", "INFO", "started on port 1"),
        ("openai._base_client", "ERROR", "broken format: %d"),
    ]


def test_what_libraries_say_below_warning_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    talkative = logging.getLogger("openai._base_client")
    talkative.setLevel(logging.DEBUG)
    configure_logs(settings(log_level="DEBUG"))
    talkative.debug("Request options: a prompt")
    logging.getLogger("uvicorn.access").info("GET / 200")
    logging.getLogger("apprise").error("a URL")
    logger.debug("ours")
    talkative.setLevel(logging.NOTSET)
    assert [line["message"] for line in lines(capsys)] == ["ours"]


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_level_holds_for_both(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(settings(log_level=level))
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("ours")
        getattr(logging.getLogger("uvicorn.error"), name)("theirs")
    above = {"DEBUG": 4, "INFO": 3, "WARNING": 2, "ERROR": 1}[level]
    assert len(lines(capsys)) == 2 * above


class _Broken(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_sink_that_fails_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logs(settings())
    closed = io.StringIO()
    closed.close()
    for stream in (_Broken(), closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        logger.info("into the void")


WORKERS = """
import sys, warnings
import uvicorn
from app.foundation.settings import Settings
from app.standards.visibility.logs import configure_logs
from loguru import logger

configure_logs(Settings.model_construct(app_env="production"))
warnings.warn("a library's warning")

async def app(scope, receive, send):
    logger.info("asked")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})

if __name__ == "__main__":
    uvicorn.run("workers:app", port=int(sys.argv[1]), workers=2, log_config=None, lifespan="off")
"""


def ask(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_every_worker_process_writes_the_same_lines(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "workers.py", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            started: list[str] = []
            while sum("Started server" in line for line in started) < 2:
                started.append(server.stderr.readline())
            assert [ask(port) for _ in range(10)] == [200] * 10
            written = [server.stderr.readline() for _ in range(10)]
            found = [json.loads(line) for line in [*started, *written]]
            assert [line["message"] for line in found[-10:]] == ["asked"] * 10
            assert [line["logger"] for line in found].count("py.warnings") >= 3
            # Nobody reads the log any more: the requests do not care.
            server.stderr.close()
            assert [ask(port) for _ in range(10)] == [200] * 10
        finally:
            server.terminate()
