"""Anthropic, through its Messages API."""

from typing import Any

import anthropic
import httpx2

from app.providers.base import (
    Answer,
    Connection,
    FinishReason,
    Piece,
    Prompt,
    Provider,
    Usage,
)
from app.providers.formats import clean, conversation, count, section
from app.providers.wire import HttpProvider, Reader, static_headers

_FINISH_REASONS: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_JSON_ONLY = "Answer with one JSON object and nothing else."
_SAMPLING_VERSION = "2023-06-01"


class Anthropic(HttpProvider):
    """Anthropic's own API.

    What it has no field for: `seed` is not sent. A JSON object without a schema is asked for in a
    system message. `temperature` and `top_p` exist only in API version 2023-06-01, and there only
    for models older than Claude Opus 4.7 and temperatures up to 1: a prompt that sets one of them
    is sent under that version, unchanged, and the API refuses what it does not know ("invalid").
    """

    name = "anthropic"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        sdk = anthropic.AsyncAnthropic(
            api_key=connection.api_key,
            base_url=connection.base_url,
            http_client=self._client,
            open_telemetry=False,
        )
        self._url = httpx2.URL(f"{str(sdk.base_url).rstrip('/')}/v1/messages")
        self._headers = static_headers(sdk.default_headers, sdk.auth_headers)
        self._sampling = self._headers.copy()
        self._sampling["anthropic-version"] = _SAMPLING_VERSION

    def request(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        """The body of a message."""
        system, turns = conversation(prompt.messages)
        wanted = prompt.response_format
        if wanted and wanted.type == "json_object":
            system = f"{system}\n\n{_JSON_ONLY}".strip()
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": prompt.max_output_tokens,
            "messages": [{"role": role, "content": text} for role, text in turns],
        }
        optional = {
            "system": system or None,
            "temperature": prompt.temperature,
            "top_p": prompt.top_p,
            "stop_sequences": list(prompt.stop) or None,
            "metadata": {"user_id": prompt.end_user} if prompt.end_user else None,
            "stream": stream or None,
        }
        body.update({name: value for name, value in optional.items() if value is not None})
        if wanted and wanted.type == "json_schema":
            output = {"type": "json_schema", "schema": wanted.schema or {"type": "object"}}
            body["output_config"] = {"format": output}
        return body

    def call(self, body: dict[str, Any], *, stream: bool) -> tuple[httpx2.URL, httpx2.Headers]:
        """The one address of the API, under the version that the body needs."""
        sampled = "temperature" in body or "top_p" in body
        return self._url, self._sampling if sampled else self._headers

    def answer(self, data: Any) -> Answer:
        """Read a whole message."""
        texts = [clean(block["text"]) for block in data["content"] if block["type"] == "text"]
        return Answer(
            "".join(texts), _finish_reason(data["stop_reason"]), _usage(data.get("usage"))
        )

    def reader(self) -> Reader:
        """Read the events of a message."""
        return _EventReader()


class _EventReader(Reader):
    def __init__(self) -> None:
        self._stated: dict[str, Any] = {}
        self._finished = False

    def read(self, event: Any) -> Piece | None:
        match event["type"]:
            case "content_block_delta":
                text = clean(event["delta"].get("text", ""))
                return Piece(text) if text else None
            case "content_block_start":
                text = clean(event["content_block"].get("text", ""))
                return Piece(text) if text else None
            case "message_start":
                self._add(event["message"].get("usage"))
            case "message_delta":
                self._add(event.get("usage"))
                if reason := event["delta"]["stop_reason"]:
                    self._finished = True
                    return Piece(finish_reason=_finish_reason(reason), usage=self.usage)
            case "message_stop":
                self.ended, self.complete = True, self._finished
        return None  # pings, the ends of blocks, and what later versions of the API may add

    def _add(self, stated: Any) -> None:
        # The counts are cumulative, and an event states only some of them.
        if isinstance(stated, dict):
            self._stated |= {name: value for name, value in stated.items() if value is not None}
        self.usage = _usage(self._stated)


def _finish_reason(reason: Any) -> FinishReason:
    if not isinstance(reason, str):
        raise TypeError("no stop reason")
    return _FINISH_REASONS.get(reason, "stop")


def _usage(stated: Any) -> Usage | None:
    """`input_tokens` leaves out what was read from the cache and what was written to it."""
    if not isinstance(stated, dict) or not isinstance(stated.get("input_tokens"), int):
        return None
    cached = count(stated.get("cache_read_input_tokens"))
    written = count(stated.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=count(stated["input_tokens"]) + cached + written,
        output_tokens=count(stated.get("output_tokens")),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=count(section(stated, "output_tokens_details").get("thinking_tokens")),
    )


def connect(connection: Connection) -> Provider:
    """Open a client; no connection is made yet."""
    return Anthropic(connection)
