"""The app: one route that answers, and one that says it lives."""

import json
import logging
import time
import uuid
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from . import settings as env
from .guards import Answers, Budget, Limiter
from .model import Model

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
log = logging.getLogger("naive")

settings = env.load()
limiter = Limiter(settings.requests_per_minute)
budget = Budget(settings.daily_cost_cap_usd)
answers = Answers()
model = Model(settings)
app = FastAPI()


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """It lives."""
    return {"status": "ok"}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Answer a conversation."""
    started = time.time()
    body: dict[str, Any] = await request.json()
    client = request.headers.get("x-forwarded-for") or str(request.client and request.client.host)
    if not limiter.allows(client):
        return JSONResponse({"error": "Too many requests"}, 429)
    key = answers.key(client, request.headers.get("idempotency-key"), body)
    if (known := answers.get(key)) is not None:
        return reply(known, bool(body.get("stream")))
    if not budget.is_left:
        return JSONResponse({"error": "The budget of today is used up"}, 503)
    messages = shorten(body["messages"])
    # About four characters a token.
    if sum(len(message["content"]) for message in messages) / 4 > settings.max_input_tokens:
        return JSONResponse({"error": "Too long"}, 400)
    text, told, said = await model.ask(messages)
    budget.spend(told * 1e-6 + said * 2e-6)
    answers.keep(key, text)
    log.info("chat status=200 duration=%.3fs", time.time() - started)
    return reply(text, bool(body.get("stream")))


def shorten(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The system messages and the newest of the others."""
    system = [message for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    return system + others[-settings.max_history_messages :]


def reply(text: str, stream: bool) -> Response:
    """The answer on OpenAI's wire."""
    name = f"chatcmpl-{uuid.uuid4().hex}"
    if stream:
        return StreamingResponse(pieces(name, text), media_type="text/event-stream")
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({"id": name, "object": "chat.completion", "choices": [choice]})


def pieces(name: str, text: str) -> Iterator[str]:
    """The answer in words."""
    for word in text.split(" "):
        choice = {"index": 0, "delta": {"content": f"{word} "}}
        yield f"data: {json.dumps({'id': name, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"
