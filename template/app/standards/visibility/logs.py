"""Logging: one line per record on standard error, JSON in production, and nothing secret in it.

The app logs through loguru, `logger.info("what happened", name=value)`; the values become
top-level fields of the JSON line. What libraries log through `logging` takes the same way.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any

from loguru import logger
from opentelemetry.trace import get_current_span

from app.foundation.settings import Settings
from app.standards.visibility.redaction import MAX_TEXT, Redactor

if TYPE_CHECKING:
    from loguru import Message, Record

_LEVELS = {50: "CRITICAL", 40: "ERROR", 30: "WARNING", 20: "INFO"}
_COLOURS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 35}
# Other libraries write whole requests, prompts included, below WARNING.
_TRUSTED_BELOW_WARNING = ("app", "uvicorn")
# The request log replaces the one; the other names its URLs, which hold tokens.
_SILENCED = ("uvicorn.access", "apprise")
# The `module` of a record that came through `logging`.
LIBRARY = "logging"
# What could forge a line, drive a terminal or fail to be encoded.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def configure_logs(settings: Settings) -> Redactor:
    """Replace all log handlers of this process; every worker process calls it once.

    Returns the redactor, for the other sinks.
    """
    redactor = Redactor(settings.secret_values())
    sink = _Sink(redactor, json_lines=settings.json_logs)
    logger.remove()
    logger.configure(patcher=_cleaner(redactor))
    # The sink formats records itself. loguru's own way would write out the values of variables.
    logger.add(
        sink,
        level=settings.log_level,
        format=lambda _: "",
        colorize=False,
        backtrace=False,
        diagnose=False,
    )
    _intercept(settings.log_level)
    return redactor


def _cleaner(redactor: Redactor) -> Callable[["Record"], None]:
    """Clean every record before any sink sees it, also a sink that the user adds."""

    def clean(record: "Record") -> None:
        record["message"] = redactor.text(record["message"])[:MAX_TEXT]
        extra = record["extra"]
        for name, value in extra.items():
            extra[name] = redactor.data(value)
        if (trace_id := current_trace_id()) is not None:
            extra["trace_id"] = trace_id

    return clean


def current_trace_id() -> str | None:
    """The trace that this is a part of, as 32 hexadecimal digits; None where there is none."""
    trace = get_current_span().get_span_context()
    return f"{trace.trace_id:032x}" if trace.is_valid else None


class _Sink:
    """Writes to standard error; a closed pipe never becomes the request's problem."""

    def __init__(self, redactor: Redactor, *, json_lines: bool) -> None:
        self._redactor = redactor
        self._line = self._json if json_lines else self._text

    def write(self, message: "Message") -> None:
        line, stream = self._line(message.record), sys.stderr
        with suppress(OSError, ValueError, AttributeError):
            stream.write(line)
            stream.flush()

    def _json(self, record: "Record") -> str:
        own: dict[str, Any] = {
            "timestamp": f"{record['time'].astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "level": record["level"].name,
            "message": record["message"],
            "logger": record["name"],
        }
        fields = own | record["extra"] | own
        if record["exception"]:
            fields["stack"] = self._stack(record)
        utf8 = str(getattr(sys.stderr, "encoding", "")).lower() == "utf-8"
        line = json.dumps(fields, ensure_ascii=not utf8)
        if not line.isascii():
            line = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
        return line + "\n"

    def _text(self, record: "Record") -> str:
        level = f"{record['level'].name:<8}"
        # The old Windows console shows colour codes as they are.
        capable = os.name != "nt" or "WT_SESSION" in os.environ
        if capable and sys.stderr and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
            level = f"\x1b[{_COLOURS.get(level.strip(), 0)}m{level}\x1b[0m"
        fields = (f" {name}={value}" for name, value in record["extra"].items() if value)
        line = f"{record['time']:%H:%M:%S} {level} {_plain(record['message'] + ''.join(fields))}\n"
        if record["exception"]:
            # The margin keeps a line of the stack from looking like a record.
            rows = self._stack(record).splitlines()
            line += "".join(f"    | {_plain(row)}\n" for row in rows)
        return line

    def _stack(self, record: "Record") -> str:
        error = record["exception"].value if record["exception"] else None
        lines = traceback.format_exception(error) if error else []
        return self._redactor.text("".join(lines))[-MAX_TEXT:]


def _plain(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _intercept(level: str) -> None:
    """Lead the standard library's loggers to loguru, whatever their libraries attached."""
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[_Interceptor()], level=logging.WARNING, force=True)
    for name in list(logging.root.manager.loggerDict):
        found = logging.getLogger(name)
        found.handlers.clear()
        found.propagate = True
    for name in ("app", "uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(level)
    for name in _SILENCED:
        logging.getLogger(name).propagate = False
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class _Interceptor(logging.Handler):
    """Hands records of `logging` to loguru, with their level and their logger's name."""

    def emit(self, record: logging.LogRecord) -> None:
        trusted = record.name.split(".")[0] in _TRUSTED_BELOW_WARNING
        error = record.exc_info[1] if record.exc_info else None
        if (record.levelno < logging.WARNING and not trusted) or hasattr(error, "already_logged"):
            return
        try:
            text = record.getMessage()
        except Exception:  # a library's mistake in its format string
            text = str(record.msg)

        def name_source(line: "Record") -> None:
            line["name"], line["module"] = record.name, LIBRARY

        level = next((name for no, name in _LEVELS.items() if record.levelno >= no), "DEBUG")
        logger.patch(name_source).opt(exception=error).log(level, text)
