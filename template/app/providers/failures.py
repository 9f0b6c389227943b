"""Failures of HTTP providers, translated: transport errors, statuses, and errors inside answers.

Only kinds and numbers leave this module: a provider's text may echo the key or the prompt.
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from app.providers.base import ErrorKind, ProviderError, Usage

_KIND_OF_STATUS: dict[int, ErrorKind] = {
    401: "rejected_key",
    402: "quota",
    403: "rejected_key",
    404: "unknown_model",
    405: "unknown_model",
    407: "rejected_key",
    408: "overloaded",
    409: "overloaded",
    410: "unknown_model",
    429: "rate_limited",
}

# The words of the three wires, most telling first: OpenAI's `type` is often a mere
# "invalid_request_error" where its `code` says what happened.
_WORDS: dict[ErrorKind, str] = {
    "quota": "insufficient_quota billing_error billing_not_active billing_hard_limit_reached",
    "rejected_key": "invalid_api_key api_key_invalid authentication_error permission_error "
    "unauthenticated permission_denied failed_precondition",
    "rate_limited": "rate_limit_error rate_limit_exceeded resource_exhausted",
    "overloaded": "overloaded_error server_error api_error timeout_error internal unavailable "
    "deadline_exceeded",
    "unknown_model": "model_not_found not_found_error not_found",
    "invalid": "invalid_request_error invalid_argument request_too_large",
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS.items() for word in words.split()}


def not_transported(
    provider: str, error: BaseException | None, usage: Usage | None = None
) -> ProviderError:
    """No answer, or only a part of one: httpx2's exception says how far the call came."""
    kind: ErrorKind = "broken"
    match error:
        case (
            httpx2.ConnectError()
            | httpx2.ConnectTimeout()
            | httpx2.PoolTimeout()
            | httpx2.ProxyError()
            | httpx2.UnsupportedProtocol()
            | httpx2.InvalidURL()
        ):
            kind = "connect"
        case httpx2.TimeoutException():
            kind = "timeout"
        case httpx2.DecodingError():
            kind = "garbage"
    return ProviderError(kind, provider, usage=usage)


def refused(provider: str, response: httpx2.Response, body: bytearray) -> ProviderError:
    """An answer with a status that is not success, and its body."""
    error: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):
        error = _error_object(json.loads(body)) or {}
    status = response.status_code
    kind = _KIND_OF_STATUS.get(status)
    if kind is None:
        # A redirect is not followed: it could carry the key to another host.
        kind = "overloaded" if status >= 500 else "invalid" if status >= 400 else "unknown_model"
    if 400 <= status < 500:
        told = _kind_told(error)
        # An empty account and a bad key also hide behind 400 and 429.
        kind = told if told in ("quota", "rejected_key") else kind
    wait = _retry_after(response.headers)
    return ProviderError(
        kind, provider, status=status, retry_after=_retry_delay(error) if wait is None else wait
    )


def error_inside(provider: str, data: Any, usage: Usage | None = None) -> ProviderError | None:
    """The error that a 200 or a stream carries, if it does."""
    error = _error_object(data)
    if error is None:
        return None
    kind = _kind_told(error)
    # Gemini and OpenRouter state a status as `code`.
    with suppress(TypeError, ValueError, OverflowError):
        status = int(error.get("code"))  # type: ignore[arg-type]
        if 400 <= status < 600 and kind not in ("quota", "rejected_key"):
            kind = _KIND_OF_STATUS.get(status, "overloaded" if status >= 500 else "invalid")
    return ProviderError(kind or "garbage", provider, retry_after=_retry_delay(error), usage=usage)


def _error_object(data: Any) -> dict[str, Any] | None:
    if isinstance(data, list) and data:  # Gemini wraps the errors of a stream in a list
        data = data[0]
    if not isinstance(data, dict):
        return None
    error = data.get("error")
    if isinstance(error, dict):
        return error
    if error:
        return {"message": error}
    return data if data.get("object") == "error" else None


def _kind_told(error: dict[str, Any]) -> ErrorKind | None:
    told = {str(error.get(name)).lower() for name in ("code", "type", "status")}
    for detail in _details(error):
        told |= {str(detail.get(name)).lower() for name in ("reason", "error_code")}
        if "PerDay" in str(detail.get("violations")):  # Gemini, where a RetryInfo says "34s"
            return "quota"
    if "credit balance" in str(error.get("message")):  # Anthropic, with a plain 400
        return "quota"
    if any("spend_limit" in word for word in told):  # Anthropic, with a 429
        return "quota"
    return next((kind for word, kind in _KIND_OF_WORD.items() if word in told), None)


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    if isinstance(details, dict):
        return [details]
    return [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms`, or from `retry-after` as a number or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            seconds = float(headers[name]) * unit
            if math.isfinite(seconds):
                return max(seconds, 0.0)
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        when = parsedate_to_datetime(headers["retry-after"])
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max((when - datetime.now(UTC)).total_seconds(), 0.0)
    return None


def _retry_delay(error: dict[str, Any]) -> float | None:
    """Seconds, from the `RetryInfo` in a body of Gemini's ("34.5s")."""
    for detail in _details(error):
        with suppress(ValueError):
            seconds = float(str(detail.get("retryDelay")).removesuffix("s"))
            if math.isfinite(seconds):
                return max(seconds, 0.0)
    return None
