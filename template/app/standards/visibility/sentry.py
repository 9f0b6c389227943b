"""Sentry: what is logged at ERROR, with its stack, and nothing of requests or variables.

An exception's text may quote what somebody wrote, and so may a line that a library logs: of both
only the kind is sent, and the log line that has the rest is found by its request id. The app's own
texts hold codes and numbers, and are sent. Imported only where SENTRY_DSN is set.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sentry_sdk
from loguru import logger

from app.standards.visibility.logs import LIBRARY
from app.standards.visibility.redaction import Redactor

if TYPE_CHECKING:
    from loguru import Message

# Fields of the log line that are sent: codes and names of the app's own, and no person's.
TAGS = (
    "abstained",
    "arm",
    "cache",
    "candidate",
    "counter",
    "error_code",
    "finish_reason",
    "kind",
    "label",
    "method",
    "model",
    "objective",
    "outcome",
    "provider",
    "request_id",
    "route",
    "trace_id",
)
UNSAID = "[its text is in the log]"


def start(
    dsn: str, environment: str, release: str, redactor: Redactor, *, prompts: bool
) -> Callable[[], object]:
    """Send error lines from now on; returns what flushes them, within two seconds.

    With `prompts` texts are sent that may quote what somebody wrote (LOG_PROMPTS).
    """

    def scrub(event: Any, _: object) -> Any:
        for error in (event.get("exception") or {}).get("values") or ():
            if not (prompts or _is_ours(error.get("module"))):
                error["value"] = UNSAID
        return redactor.data(event)

    sentry_sdk.init(
        dsn,
        environment=environment,
        release=release,
        before_send=scrub,
        # The integrations read requests, arguments and logs on their own.
        default_integrations=False,
        auto_enabling_integrations=False,
        data_collection={"user_info": False, "http_bodies": [], "stack_frame_variables": False},
        max_breadcrumbs=0,
        shutdown_timeout=2,
    )

    def report(message: "Message") -> None:
        record = message.record
        extra, name = record["extra"], record["name"] or ""
        # An alert repeats what is reported one by one; Sentry's own trouble must not feed itself.
        if "alert" in extra or name.startswith("sentry_sdk"):
            return
        with sentry_sdk.new_scope() as scope:
            scope.set_tags({tag: extra[tag] for tag in TAGS if isinstance(extra.get(tag), str)})
            scope.set_tag("logger", name)
            if record["exception"] and record["exception"].value:
                scope.capture_exception(record["exception"].value)
            else:
                said = prompts or record["module"] != LIBRARY
                scope.capture_message(record["message"] if said else UNSAID, level="error")

    logger.add(report, level="ERROR", format=lambda _: "", backtrace=False, diagnose=False)
    return lambda: sentry_sdk.flush(2)


def _is_ours(module: str | None) -> bool:
    """Of the app itself, and not of the user's features in it."""
    return (module or "").startswith("app.") and not (module or "").startswith("app.yours")
