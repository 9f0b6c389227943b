"""The request log: one structured line for every request, however it ends."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

from loguru import logger
from opentelemetry.trace import get_current_span
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import KINDS
from app.foundation.record import Phase, RequestRecord
from app.foundation.settings import NANO_PER_USD
from app.standards.visibility.logs import current_trace_id
from app.standards.visibility.route_names import RouteNames

Outcome = Literal["ok", "refused", "failed", "client_left", "broken_stream"]
CLIENT_LEFT_STATUS = 499
# Of the request's span, as OpenTelemetry names what a response's header says.
REQUEST_ID_ATTRIBUTE = "http.response.header.x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FROM_RECORD = (
    "error_code",
    "caller",
    "end_user",
    "metadata",
    "model",
    "provider",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "attempts",
    "retries",
    "fallback",
    "cache",
    "arm",
    "summarised",
    "abstained",
    "finish_reason",
    "streamed",
)


class BrokenStreamError(Exception):
    """Makes the server cut a connection whose response cannot be finished.

    The failure is logged before this is raised; the log drops what the server says about it.
    """

    already_logged = True


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """How a request ended, for the log line and for those who count or alert.

    `status` is what the client got, or 499 when it left before it got one.
    """

    record: RequestRecord
    method: str
    route: str
    status: int
    seconds: float
    outcome: Outcome
    error: BaseException | None

    def fields(self) -> dict[str, Any]:
        """The line's fields, beside the request id that every line of the request has."""
        return {
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "duration_ms": round(self.seconds * 1000, 2),
            "outcome": self.outcome,
            **{name: getattr(self.record, name) for name in _FROM_RECORD},
            "cost_usd": self.record.cost_nano / NANO_PER_USD,
            "policy": [{**asdict(hit), "count": n} for hit, n in self.record.policy.items()],
            "evidence": None if self.record.evidence is None else asdict(self.record.evidence),
        }


class RequestLog:
    """Pure ASGI middleware, the outermost: nothing inside it can end a request unseen.

    It makes the `RequestRecord` (`scope["state"]["record"]`), sends the record's headers with
    the response, and answers an unhandled exception with `render_error(scope, code)`.
    `observers` hear of every end. Routes in `quiet` are logged at DEBUG when all is well.
    `span` makes the phases of a request parts of its trace.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        render_error: Callable[[Scope, str], ASGIApp],
        observers: Sequence[Callable[[RequestEnd], None]] = (),
        quiet: frozenset[str] = frozenset({"/healthz", "/ops/state"}),
        span: Callable[[Phase], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._app = app
        self._render_error = render_error
        self._observers = observers
        self._quiet = quiet
        self._span = span
        self._names: RouteNames | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, path = time.perf_counter(), _path(scope)
        record = RequestRecord(_request_id(scope), current_trace_id(), self._span)
        exchange = _Exchange(receive, send, record)
        scope.setdefault("state", {})["record"] = exchange.record
        get_current_span().set_attribute(REQUEST_ID_ATTRIBUTE, [record.request_id])
        with logger.contextualize(request_id=exchange.record.request_id):
            try:
                await self._run(scope, exchange)
            finally:
                if self._names is None:
                    self._names = RouteNames(getattr(scope.get("app"), "routes", ()))
                seconds = time.perf_counter() - started
                self._report(exchange.end(scope["method"], self._names.name(path), seconds))
        if exchange.broken:
            raise BrokenStreamError

    async def _run(self, scope: Scope, exchange: "_Exchange") -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            exchange.left = not exchange.complete
            raise
        except BaseException as error:  # the panic of an extension is no Exception
            if isinstance(error, ClientDisconnect):
                # It left, or it was given up because it read too slowly: then it is cut off.
                exchange.broken = not exchange.left and exchange.status is not None
                exchange.left = True
            elif not (exchange.left and isinstance(error, OSError)):
                exchange.error = error
        if exchange.complete or exchange.left:
            return
        exchange.error = exchange.error or RuntimeError("the app left its response unfinished")
        exchange.record.error_code = exchange.record.error_code or "internal_error"
        exchange.broken = exchange.status is not None
        if not exchange.broken:
            response = self._render_error(scope, "internal_error")
            await response(scope, exchange.receive, exchange.send)

    def _report(self, end: RequestEnd) -> None:
        level = "INFO"
        if end.error is not None or end.outcome in {"failed", "broken_stream"}:
            level = "ERROR"
        elif end.route in self._quiet and end.outcome == "ok":
            level = "DEBUG"
        line = logger.bind(**end.fields()).opt(exception=end.error)
        line.log(level, f"{end.method} {end.route} {end.status}")
        for observe in self._observers:
            try:
                observe(end)
            except Exception:
                logger.exception("an observer of the request log failed")


class _Exchange:
    """One request's receive and send, watched."""

    def __init__(self, receive: Receive, send: Send, record: RequestRecord) -> None:
        self._receive = receive
        self._send = send
        self.record = record
        self.status: int | None = None
        self.complete = False
        self.left = False
        self.broken = False
        self.error: BaseException | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        # After the last byte the server says the same, and means nothing by it.
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        starts = message["type"] == "http.response.start"
        if starts:
            message = {**message, "headers": self._headers(message.get("headers", ()))}
        try:
            await self._send(message)
        except OSError:
            self.left = True
            raise
        if starts and not self.left:
            self.status = message["status"]
        elif message["type"] == "http.response.body" and not self.left:
            self.complete = not message.get("more_body", False)

    def _headers(self, given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        record = self.record
        ours = {**record.headers, "X-Request-ID": record.request_id}
        if record.timings:
            spent = record.timings.items()
            ours["Server-Timing"] = ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in spent)
        added = {
            name.lower().encode("latin-1"): value.encode("latin-1") for name, value in ours.items()
        }
        return [*((name, value) for name, value in given if name not in added), *added.items()]

    def end(self, method: str, route: str, seconds: float) -> RequestEnd:
        """The end, once nothing more can happen."""
        status = self.status or (CLIENT_LEFT_STATUS if self.left else 500)
        outcome = self._outcome(status)
        return RequestEnd(self.record, method, route, status, seconds, outcome, self.error)

    def _outcome(self, status: int) -> Outcome:
        code = self.record.error_code
        if self.left:
            return "client_left"
        # A stream that failed ends with an error event, or not at all; so does one that the policy
        # ends, which is no failure.
        if self.broken or (status < 400 and code):
            refused = not self.broken and code in KINDS and KINDS[code].status < 500
            return "refused" if refused else "broken_stream"
        if self.error is not None:
            return "failed"
        if status < 400:
            return "ok"
        at_cap = code in KINDS and KINDS[code].type == "insufficient_quota"
        return "refused" if status < 500 or at_cap else "failed"


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    text = given.decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex


def _path(scope: Scope) -> str:
    path, root = scope["path"], scope.get("root_path", "")
    return str(path[len(root) :] if root and path.startswith(f"{root}/") else path)
