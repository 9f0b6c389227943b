"""`POST /v1/chat/completions` and `GET /v1/models`: the OpenAI wire."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import wire
from app.edge.responses import EventStream
from app.exchange import Live, Whole
from app.foundation.errors import AppError
from app.model import Model

router = APIRouter(prefix="/v1", tags=["OpenAI wire"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": wire.ChatRequest.model_json_schema()}},
    }
}


@router.post("/chat/completions", openapi_extra=_BODY)
async def chat_completions(request: Request, model: Model) -> Response:
    """Answer a conversation: JSON, or server-sent events with `"stream": true`."""
    asked = wire.parse(await _json(request))
    if not asked.stream:
        return _whole(await model.complete(asked))
    opened = await model.open_stream(asked)
    if isinstance(opened, Whole):
        return _whole(opened)
    return EventStream(_bytes(opened), opened.deadline)


@router.get("/models")
async def models(model: Model) -> dict[str, Any]:
    """The models that a request may name."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "app"}
            for name in model.models()
        ],
    }


async def _json(request: Request) -> Any:
    content_type = request.headers.get("content-type", "application/json")
    if "json" not in content_type.lower():
        # A web page elsewhere can send a form without asking, and would spend the app's money.
        raise AppError("invalid_request_error", param="Content-Type", detail="content_type")
    body = await request.body()
    try:
        return json.loads(body, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise AppError("invalid_request_error", detail="json") from None


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _whole(whole: Whole) -> Response:
    return Response(whole.body, whole.status, media_type=whole.media_type)


async def _bytes(live: Live) -> AsyncGenerator[bytes, None]:
    async with aclosing(live.events) as events:
        async for event in events:
            yield event.data
