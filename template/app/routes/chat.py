"""`POST /v1/chat/completions` and `GET /v1/models`: the OpenAI wire."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import wire
from app.edge.responses import EventStream
from app.foundation.errors import AppError
from app.guarded import Live, Whole
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
    return EventStream(_bytes(opened))


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
    body = await request.body()
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise AppError("invalid_request_error", detail="json") from None


def _whole(whole: Whole) -> Response:
    return Response(whole.body, whole.status, media_type=whole.media_type)


async def _bytes(live: Live) -> AsyncGenerator[bytes, None]:
    async with aclosing(live.events) as events:
        async for event in events:
            yield event.data
