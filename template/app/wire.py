"""The OpenAI Chat Completions wire: what is accepted, and how answers are written.

A field that the wire knows and the app does not support is refused by name; nothing that a client
asked for is silently dropped. Neutral values (`n: 1`, `tools: []`) ask for nothing, and pass.
"""

import json
import time
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from app.foundation.errors import AppError
from app.foundation.record import RequestRecord
from app.foundation.settings import NANO_PER_USD
from app.providers.base import Answer, Message, ResponseFormat, Usage

# Fields of the wire that the app does not support, with the values that ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "reasoning_effort": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}

# Fields of an answer's message that ask for nothing where they are empty.
_EMPTY_IN_ANSWERS = {"annotations", "audio", "function_call", "name", "refusal", "tool_calls"}
# What the app adds to the message of an answer: see `abstained`, and `launch/evidence`.
_OWN_IN_ANSWERS = {"abstained", "reason", "citations", "grounded"}

_Strict = ConfigDict(extra="forbid", frozen=True)


class TextPart(BaseModel):
    """A content part; other types than text are not supported."""

    model_config = _Strict
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message. `developer` means the same as `system`."""

    model_config = _Strict
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, value: Any) -> Any:
        # Clients send an answer back as they got it, with all its fields.
        if not isinstance(value, dict):
            return value
        own = _OWN_IN_ANSWERS if value.get("role") == "assistant" else ()
        return {
            name: item
            for name, item in value.items()
            if name not in own and (name not in _EMPTY_IN_ANSWERS or item not in (None, []))
        }

    def message(self) -> Message:
        """The message in the app's own words."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return Message("system" if self.role == "developer" else self.role, text)


class JsonSchema(BaseModel):
    """The schema of a structured answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    content: dict[str, JsonValue] = Field(alias="schema", default_factory=dict)
    strict: bool | None = None


class Format(BaseModel):
    """`response_format`."""

    model_config = _Strict
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        # Half a surrogate pair and hundreds of lists in each other can be read, but not written.
        self.model_dump_json()
        return self

    def response_format(self) -> ResponseFormat | None:
        """The format in the app's own words; None for text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return ResponseFormat("json_object")
        schema = self.json_schema
        if schema is None:
            raise AppError("invalid_request_error", param="response_format", detail="schema")
        return ResponseFormat(
            "json_schema", schema.name, schema.content, bool(schema.strict), schema.description
        )


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = _Strict
    include_usage: bool = False
    include_obfuscation: bool = False


Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`. Unset numbers mean the provider's default."""

    model_config = _Strict

    model: str = "auto"
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=20_000, fail_fast=True)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Format | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None


def parse(body: Any) -> ChatRequest:
    """Check a request's body. Raises `AppError` that names the first field at fault."""
    if not isinstance(body, dict):
        raise AppError("invalid_request_error", detail="json_object")
    asked = {}
    for name, value in body.items():
        if name not in _UNSUPPORTED:
            asked[name] = value
        elif value is not None and value not in _UNSUPPORTED[name]:
            raise AppError("unsupported_parameter", param=name, field=name)
    try:
        request = ChatRequest.model_validate(asked)
    except ValidationError as error:
        raise _refusal(error) from None
    if request.response_format is not None:
        request.response_format.response_format()
    return request


def _refusal(error: ValidationError) -> AppError:
    # Of a union's complaints the deepest one is about what the client meant.
    first = max(error.errors(include_url=False), key=lambda item: len(item["loc"]))
    where = [part for part in first["loc"] if not _is_branch(part)]
    field = ".".join(str(part) for part in where) or "body"
    unknown_kind = first["type"] == "literal_error" and where[-1:] in (["type"], ["role"])
    if first["type"] == "extra_forbidden" or unknown_kind:
        return AppError("unsupported_parameter", param=field, field=field)
    return AppError(
        "invalid_request_error", param=field, detail="field", field=field, reason=first["msg"]
    )


def _is_branch(part: int | str) -> bool:
    """True for the names that pydantic gives to a union's members."""
    return isinstance(part, str) and (part in {"str", "constrained-str", "TextPart"} or "[" in part)


def usage_object(usage: Usage) -> dict[str, Any]:
    """The wire's `usage`."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def facts(record: RequestRecord) -> dict[str, Any]:
    """The extension field `survival_kit`: what this answer took."""
    return {
        "cost_usd": record.cost_nano / NANO_PER_USD,
        "provider": record.provider,
        "model": record.model,
        "fallback": record.fallback,
        "attempts": record.attempts,
        "summarised": record.summarised,
    }


def abstained(reason: str) -> dict[str, Any]:
    """What a message says beside its text where the app gave no answer of its own, and why."""
    return {"abstained": True, "reason": reason}


def completion(answer: Answer, record: RequestRecord, beside: dict[str, Any]) -> bytes:
    """The body of a whole answer; `beside` is what the message says beside its text."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {
        "index": 0,
        "message": message | beside,
        "logprobs": None,
        "finish_reason": answer.finish_reason,
    }
    body: dict[str, Any] = {
        "id": f"chatcmpl-{record.request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": record.model,
        "choices": [choice],
    }
    if answer.usage is not None:
        body["usage"] = usage_object(answer.usage)
    body["survival_kit"] = facts(record)
    return _dump(body)


class ChunkWriter:
    """Writes a streamed answer's events. What is equal in all of them is encoded once."""

    def __init__(self, record: RequestRecord) -> None:
        self._head = {
            "id": f"chatcmpl-{record.request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": record.model,
        }
        head = _dump(self._head)[:-1]
        self._before = b"data: " + head + b',"choices":[{"index":0,"delta":{"content":'
        self._after = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def role(self) -> bytes:
        """The first event: who speaks."""
        return self._event({"role": "assistant", "content": ""}, None)

    def text(self, text: str) -> bytes:
        """Some text."""
        return self._before + _dump(text) + self._after

    def finish(self, reason: str, beside: dict[str, Any]) -> bytes:
        """Why the answer ended; `beside` is what it says beside its text."""
        return self._event(beside, reason)

    def usage(self, usage: Usage, record: RequestRecord) -> bytes:
        """What the answer took: the last event before the end."""
        body = {
            **self._head,
            "choices": [],
            "usage": usage_object(usage),
            "survival_kit": facts(record),
        }
        return b"data: " + _dump(body) + b"\n\n"

    def _event(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b"data: " + _dump({**self._head, "choices": [choice]}) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def error_event(body: dict[str, Any]) -> bytes:
    """How a stream ends that failed after its first byte."""
    return b"data: " + _dump(body) + b"\n\n" + DONE


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _dump(body: Any) -> bytes:
    # Half of a surrogate pair, which JSON can smuggle in, has no place in UTF-8.
    return _encode(body).encode("utf-8", "replace")
