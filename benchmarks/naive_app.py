"""What the guarded app is measured against: FastAPI and the official SDK, the obvious way.

No key, no limit, no cap, no log line, no metric, no timeout of its own: every guard is missing.
It asks the same provider (OPENAI_BASE_URL) and speaks the same wire.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

MODEL = os.environ["OPENAI_MODEL"]

app = FastAPI()
client = AsyncOpenAI()


class Ask(BaseModel):
    messages: list[Any]
    stream: bool = False


@app.post("/v1/chat/completions", response_model=None)
async def chat(ask: Ask) -> ChatCompletion | StreamingResponse:
    if ask.stream:
        return StreamingResponse(events(ask.messages), media_type="text/event-stream")
    return await client.chat.completions.create(model=MODEL, messages=ask.messages)


async def events(messages: list[Any]) -> AsyncIterator[str]:
    stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    async for chunk in stream:
        yield f"data: {chunk.model_dump_json()}\n\n"
    yield "data: [DONE]\n\n"
