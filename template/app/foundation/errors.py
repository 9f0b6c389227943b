"""Every refusal and failure that a client can see, in the OpenAI error shape.

The codes are a contract: clients switch on them. The text comes from `messages.py`, in the
caller's language.
"""

from dataclasses import dataclass
from typing import Any

from app.foundation.messages import Messages
from app.foundation.record import RequestRecord


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One stable code. `retry_helps` is false where the same request can only fail again."""

    status: int
    type: str
    retry_helps: bool = False


KINDS: dict[str, ErrorKind] = {
    "invalid_request_error": ErrorKind(400, "invalid_request_error"),
    "unsupported_parameter": ErrorKind(400, "invalid_request_error"),
    "content_policy_violation": ErrorKind(400, "invalid_request_error"),
    "context_length_exceeded": ErrorKind(400, "invalid_request_error"),
    "invalid_api_key": ErrorKind(401, "authentication_error"),
    "forbidden": ErrorKind(403, "permission_error"),
    "not_found": ErrorKind(404, "invalid_request_error"),
    "model_not_found": ErrorKind(404, "invalid_request_error"),
    "method_not_allowed": ErrorKind(405, "invalid_request_error"),
    "idempotency_in_progress": ErrorKind(409, "idempotency_error", retry_helps=True),
    "request_too_large": ErrorKind(413, "invalid_request_error"),
    "idempotency_key_reused": ErrorKind(422, "idempotency_error"),
    "rate_limit_exceeded": ErrorKind(429, "rate_limit_error", retry_helps=True),
    "caller_cost_cap": ErrorKind(429, "insufficient_quota"),
    "internal_error": ErrorKind(500, "server_error"),
    "daily_cost_cap": ErrorKind(503, "insufficient_quota"),
    "providers_unavailable": ErrorKind(503, "server_error", retry_helps=True),
    "switched_off": ErrorKind(503, "server_error"),
    "store_unavailable": ErrorKind(503, "server_error", retry_helps=True),
    "time_budget_exceeded": ErrorKind(504, "server_error"),
}


class AppError(Exception):
    """A refusal or failure with a stable code.

    `param` names the field at fault; `retry_after` is in seconds; `detail` picks a more exact
    message (`messages.py` looks up `code.detail` first); `facts` fill its gaps. `told` is
    the message of an error that is told again.
    """

    def __init__(
        self,
        code: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
        headers: dict[str, str] | None = None,
        told: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(code if detail is None else f"{code}.{detail}")
        self.code = code
        self.kind = KINDS[code]
        self.param = param
        self.retry_after = retry_after
        self.detail = detail
        self.headers = headers or {}
        self.told = told
        self.facts = facts

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    def body(self, messages: Messages, record: RequestRecord) -> dict[str, Any]:
        """The OpenAI error object, for a person who reads `messages`' language.

        It says the request's id, and its trace's where there is one.
        """
        key = f"error.{self.code}"
        exact = f"{key}.{self.detail}" if self.detail else key
        return {
            "error": {
                "message": self.told or messages.text(exact, **self.facts),
                "type": self.kind.type,
                "code": self.code,
                "param": self.param,
                "request_id": record.request_id,
                **({"trace_id": record.trace_id} if record.trace_id else {}),
            }
        }
