"""Sentry: what is logged at ERROR, with its stack, and nothing of requests or variables.

Imported only where SENTRY_DSN is set.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sentry_sdk
from loguru import logger

from app.standards.visibility.redaction import Redactor

if TYPE_CHECKING:
    from loguru import Message


def start(dsn: str, environment: str, redactor: Redactor) -> Callable[[], object]:
    """Send error lines from now on; returns what flushes them, within two seconds."""

    def scrub(event: Any, _: object) -> Any:
        return redactor.data(event)

    sentry_sdk.init(
        dsn,
        environment=environment,
        before_send=scrub,
        # The integrations read requests, arguments and logs on their own.
        default_integrations=False,
        auto_enabling_integrations=False,
        data_collection={"user_info": False, "http_bodies": [], "stack_frame_variables": False},
        max_breadcrumbs=0,
        shutdown_timeout=2,
    )
    logger.add(_report, level="ERROR", format=lambda _: "", backtrace=False, diagnose=False)
    return lambda: sentry_sdk.flush(2)


def _report(message: "Message") -> None:
    record = message.record
    # An alert repeats what is reported one by one; Sentry's own trouble must not feed itself.
    if "alert" in record["extra"] or (record["name"] or "").startswith("sentry_sdk"):
        return
    with sentry_sdk.new_scope() as scope:
        scope.set_tags({k: v for k, v in record["extra"].items() if isinstance(v, str)})
        if record["exception"] and record["exception"].value:
            scope.capture_exception(record["exception"].value)
        else:
            scope.capture_message(record["message"], level="error")
