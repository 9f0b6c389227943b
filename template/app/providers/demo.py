"""The demo provider: it needs no key and no network, and its answers say so."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator

from app.providers.base import (
    Answer,
    Connection,
    FinishReason,
    Piece,
    Prompt,
    Provider,
    ProviderError,
    Usage,
)
from app.providers.demo_schema import example

SECONDS_PER_WORD = 0.02
_QUOTED_CHARACTERS = 60
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
# The first of the passages that the app's knowledge gives to a question (`launch/evidence/fence`).
_PASSAGE = re.compile(r"^=[0-9a-f]{16} \[1\]\n(.+)", re.MULTILINE)
_TEXTS = {
    "en": (
        "This is the demo provider: no model was asked.",
        'You said: "{}".',
        "The passage that fits it best: {} [1].",
        "For real answers, put a provider's key into .env and start the app again.",
    ),
    "ko": (
        "데모 제공자의 답변입니다. 실제 모델은 호출되지 않았습니다.",
        '보내신 내용: "{}".',
        "가장 잘 맞는 단락: {} [1].",
        "실제 답변을 받으려면 .env 파일에 제공자의 키를 넣고 앱을 다시 시작하세요.",
    ),
}


class Demo:
    """Free and deterministic: the same prompt always gets the same answer.

    A word counts as a token. It answers in Korean where the user's last message has Hangul, and
    with a JSON document where JSON is asked for. It cites the first passage where it is given some.
    """

    name = "demo"

    def __init__(self, model: str) -> None:
        self.model = model

    async def complete(self, prompt: Prompt) -> Answer:
        """Answer after a moment."""
        await asyncio.sleep(SECONDS_PER_WORD)
        words, finish, usage = _answer(prompt)
        return Answer("".join(words), finish, usage)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """Answer word by word."""
        words, finish, usage = _answer(prompt)
        for word in words:
            await asyncio.sleep(SECONDS_PER_WORD)
            yield Piece(word)
        yield Piece(finish_reason=finish, usage=usage)

    async def close(self) -> None:
        """Nothing is open."""


def _answer(prompt: Prompt) -> tuple[list[str], FinishReason, Usage]:
    text = _text(prompt)
    for stop in prompt.stop:
        text = text.split(stop)[0]
    words = re.findall(r"\s*\S+", text)
    finish: FinishReason = "stop" if len(words) <= prompt.max_output_tokens else "length"
    words = words[: prompt.max_output_tokens]
    read = sum(len(message.text.split()) for message in prompt.messages)
    return words, finish, Usage(input_tokens=read, output_tokens=len(words))


def _text(prompt: Prompt) -> str:
    asked = [message.text for message in prompt.messages if message.role == "user"]
    said = " ".join(asked[-1].split()) if asked else ""
    hello, quote, cite, advice = _TEXTS["ko" if _HANGUL.search(said) else "en"]
    if len(said) > _QUOTED_CHARACTERS:
        said = said[:_QUOTED_CHARACTERS].rstrip() + "…"
    wanted = prompt.response_format
    if wanted is None:
        own = "\n".join(message.text for message in prompt.messages if message.role == "system")
        passage = _PASSAGE.search(own)
        parts = [said and quote.format(said), passage and cite.format(passage[1])]
        return " ".join([hello, *filter(None, parts), advice])
    try:
        document = {"answer": hello} if wanted.schema is None else example(wanted.schema)
    except ValueError:
        raise ProviderError("invalid", Demo.name) from None
    return json.dumps(document, ensure_ascii=False)


def connect(connection: Connection) -> Provider:
    """There is nothing to connect to."""
    return Demo(connection.model)
