"""Every error leaves in the OpenAI shape, in the caller's language, with the headers it needs."""

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from app.edge.scope import messages_of, record_of
from app.foundation.errors import AppError
from app.stores.base import StoreUnavailableError

STORE_RETRY_SECONDS = 5.0
_BY_STATUS = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    504: "time_budget_exceeded",
}


def render(scope: Scope, error: AppError) -> Response:
    """The response of an error; notes its code for the request's log line."""
    record = record_of(scope)
    record.error_code = error.code
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(math.ceil(error.retry_after), 1))
    if not error.kind.retry_helps:
        # OpenAI and Anthropic clients honour this.
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = error.body(messages_of(scope), record)
    return JSONResponse(body, error.status, headers)


def render_code(scope: Scope, code: str) -> Response:
    """The response of an error that has nothing more to say than its code."""
    return render(scope, AppError(code))


def install(app: FastAPI) -> None:
    """Translate whatever FastAPI, Starlette and the app raise."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(StoreUnavailableError, _store_unavailable)


async def _app_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AppError):
        raise error
    if error.status >= 500:
        logger.opt(exception=error).warning("request failed", code=error.code)
    return render(request.scope, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first: dict[str, Any] = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return render(
        request.scope,
        AppError(
            "invalid_request_error", param=field, detail="field", field=field, reason=first["msg"]
        ),
    )


async def _store_unavailable(request: Request, error: Exception) -> Response:
    """What is no question (those have an answer of their own) and cannot be read or changed."""
    refusal = AppError("store_unavailable", detail="no_question", retry_after=STORE_RETRY_SECONDS)
    return render(request.scope, refusal)


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _BY_STATUS.get(error.status_code)
    if code is None:
        code = "internal_error" if error.status_code >= 500 else "invalid_request_error"
        response = render(request.scope, AppError(code, detail=None))
        response.status_code = error.status_code
        return response
    headers = dict(error.headers or {})
    return render(request.scope, AppError(code, headers=headers))
