"""Google's Gemini, through `generateContent`."""

from typing import Any

import httpx2
from google import genai
from google.genai.types import HttpOptions

from app.providers.base import (
    Answer,
    Connection,
    FinishReason,
    Piece,
    Prompt,
    Provider,
    Usage,
)
from app.providers.formats import clean, conversation, count
from app.providers.wire import HttpProvider, Reader, static_headers


class Gemini(HttpProvider):
    """The Gemini API (not Vertex AI).

    The SDK's own methods would also drop the timeouts of the phases, make further calls when an
    answer wants to be continued, and leave a stream open when it is closed.
    What the API has no field for: the end user's hash is not sent.
    """

    name = "gemini"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        options = HttpOptions(base_url=connection.base_url, httpx_async_client=self._client)
        sdk = genai.Client(api_key=connection.api_key, vertexai=False, http_options=options)
        model = self.model if "/" in self.model else f"models/{self.model}"
        self._whole_call, self._stream_call = (
            (httpx2.URL(found.url), static_headers(found.headers))
            for method in ("generateContent", "streamGenerateContent?alt=sse")
            for found in [sdk._api_client._build_request("post", f"{model}:{method}", {})]
        )

    def request(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        """The body of `generateContent`."""
        system, turns = conversation(prompt.messages)
        wanted = prompt.response_format
        config = {
            "maxOutputTokens": prompt.max_output_tokens,
            "temperature": prompt.temperature,
            "topP": prompt.top_p,
            "stopSequences": list(prompt.stop) or None,
            "seed": prompt.seed,
            "responseMimeType": "application/json" if wanted else None,
            "responseJsonSchema": wanted.schema if wanted else None,
        }
        body: dict[str, Any] = {
            "contents": [
                {"role": "model" if role == "assistant" else role, "parts": [{"text": text}]}
                for role, text in turns
            ],
            "generationConfig": {
                name: value for name, value in config.items() if value is not None
            },
        }
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        return body

    def call(self, body: dict[str, Any], *, stream: bool) -> tuple[httpx2.URL, httpx2.Headers]:
        """The address of the model's method."""
        return self._stream_call if stream else self._whole_call

    def answer(self, data: Any) -> Answer:
        """Read a whole response."""
        reader = _ChunkReader()
        piece = reader.read(data)
        if piece is None or piece.finish_reason is None:
            raise ValueError("no finish reason")
        return Answer(piece.text, piece.finish_reason, piece.usage)

    def reader(self) -> Reader:
        """Read the chunks of a stream, each of which is shaped like a whole response."""
        return _ChunkReader()


class _ChunkReader(Reader):
    # A stream has no end marker: it is complete when a reason to finish has come.

    def read(self, event: Any) -> Piece | None:
        usage = _usage(event.get("usageMetadata"))
        self.usage = usage or self.usage
        finish: FinishReason | None = None
        text = ""
        candidates = event.get("candidates")
        if candidates:
            content = candidates[0].get("content") or {}
            text = "".join(
                clean(part["text"])
                for part in content.get("parts") or ()
                if "text" in part and not part.get("thought")
            )
            finish = _finish_reason(candidates[0].get("finishReason"))
        elif (event.get("promptFeedback") or {}).get("blockReason"):
            finish = "content_filter"
        elif usage is None:
            raise ValueError("neither an answer nor a reason for its absence")
        self.complete = self.complete or finish is not None
        # Every chunk counts along; only what is final leaves.
        return Piece(text, finish, self.usage if self.complete else None)


def _finish_reason(reason: Any) -> FinishReason | None:
    match reason:
        case None | "FINISH_REASON_UNSPECIFIED":
            return None
        case "STOP":
            return "stop"
        case "MAX_TOKENS" | "CONTINUATION":
            return "length"
    return "content_filter"  # SAFETY, RECITATION, PROHIBITED_CONTENT and a dozen of the kind


def _usage(stated: Any) -> Usage | None:
    """`candidatesTokenCount` leaves out the thoughts."""
    if not isinstance(stated, dict) or not (prompt := count(stated.get("promptTokenCount"))):
        return None
    thoughts = count(stated.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=prompt + count(stated.get("toolUsePromptTokenCount")),
        output_tokens=count(stated.get("candidatesTokenCount")) + thoughts,
        cached_tokens=count(stated.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )


def connect(connection: Connection) -> Provider:
    """Open a client; no connection is made yet."""
    return Gemini(connection)
