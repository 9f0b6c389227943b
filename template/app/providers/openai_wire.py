"""The wire of OpenAI's Chat Completions: for OpenAI, and for the servers that speak it too."""

from typing import Any, ClassVar

import httpx2
import openai

from app.providers.base import (
    Answer,
    Connection,
    FinishReason,
    Piece,
    Prompt,
    ResponseFormat,
    Usage,
)
from app.providers.formats import clean, count, section
from app.providers.wire import HttpProvider, Reader, static_headers

_FINISH_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "model_length": "length",  # Mistral
    "content_filter": "content_filter",
}


class OpenAIWire(HttpProvider):
    """Any server with `POST {base_url}/chat/completions`."""

    max_tokens_field: ClassVar[str]
    end_user_field: ClassVar[str]
    needs_end_marker: ClassVar[bool]

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        sdk = openai.AsyncOpenAI(
            api_key=connection.api_key, base_url=connection.base_url, http_client=self._client
        )
        self._url = httpx2.URL(f"{str(sdk.base_url).rstrip('/')}/chat/completions")
        self._headers = static_headers(sdk.default_headers, sdk.auth_headers)

    def request(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        """The body of a chat completion."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": item.role, "content": item.text} for item in prompt.messages],
            self.max_tokens_field: prompt.max_output_tokens,
        }
        optional = {
            "temperature": prompt.temperature,
            "top_p": prompt.top_p,
            "stop": list(prompt.stop) or None,
            "seed": prompt.seed,
            self.end_user_field: prompt.end_user,
            "response_format": _response_format(prompt.response_format),
        }
        body.update({name: value for name, value in optional.items() if value is not None})
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def call(self, body: dict[str, Any], *, stream: bool) -> tuple[httpx2.URL, httpx2.Headers]:
        """The one address of the wire."""
        return self._url, self._headers

    def answer(self, data: Any) -> Answer:
        """Read a whole chat completion."""
        choice = data["choices"][0]
        message, finish = choice["message"], _finish_reason(choice["finish_reason"])
        if refusal := message.get("refusal"):
            return Answer(clean(refusal), "content_filter", _usage(data.get("usage")))
        return Answer(_text(message["content"]), finish, _usage(data.get("usage")))

    def reader(self) -> Reader:
        """Read the chunks of a chat completion."""
        return _ChunkReader(self.needs_end_marker)


class _ChunkReader(Reader):
    def __init__(self, needs_end_marker: bool) -> None:
        self._needs_end_marker = needs_end_marker
        self._finished = self._refused = False

    def read(self, event: Any) -> Piece | None:
        usage = _usage(event.get("usage"))
        self.usage = usage or self.usage
        choices = event["choices"]
        if not choices:
            return Piece(usage=usage) if usage else None
        delta, finish = choices[0].get("delta") or {}, choices[0].get("finish_reason")
        text = _text(delta.get("content"))
        if refusal := delta.get("refusal"):
            self._refused = True
            text += clean(refusal)
        if finish is not None:
            finish = "content_filter" if self._refused else _finish_reason(finish)
            self._finished = True
            self.complete = not self._needs_end_marker
        # Some servers count along in every chunk; only what is final leaves.
        return Piece(text, finish, self.usage if finish else None) if text or finish else None

    def end(self) -> None:
        self.ended = True
        self.complete = self._finished


def _response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    schema = {"name": wanted.name, "schema": wanted.schema or {}, "strict": wanted.strict}
    if wanted.description is not None:
        schema["description"] = wanted.description
    return {"type": "json_schema", "json_schema": schema}


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, list):  # parts, as Mistral's reasoning models answer
        return "".join(clean(part["text"]) for part in content if part["type"] == "text")
    return clean(content)


def _finish_reason(reason: Any) -> FinishReason:
    if not isinstance(reason, str) or reason == "error":
        raise ValueError("no finish reason")
    return _FINISH_REASONS.get(reason, "stop")


def _usage(stated: Any) -> Usage | None:
    if not isinstance(stated, dict) or not (prompt := count(stated.get("prompt_tokens"))):
        return None
    read, written = (section(stated, f"{side}_tokens_details") for side in ("prompt", "completion"))
    total = count(stated.get("total_tokens"))
    return Usage(
        input_tokens=prompt,
        # Some servers leave the reasoning out of `completion_tokens`, but none out of the total.
        output_tokens=max(count(stated.get("completion_tokens")), total - prompt),
        cached_tokens=count(read.get("cached_tokens")),
        cache_write_tokens=count(read.get("cache_write_tokens")),
        reasoning_tokens=count(written.get("reasoning_tokens")),
    )
