"""Anthropic Messages."""

from typing import Any

from .answers import Answer
from .behaviours import Status
from .ledger import Call, Usage
from .wire import Frames, Incoming, Refusal, Wire, dump, text_of

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
SAMPLING = ("temperature", "top_p", "top_k")
SAMPLING_REMOVED = "2026-10-21"  # the API version that answers 400 to them, even at the default


class Anthropic(Wire):
    """`POST /v1/messages`. `input_tokens` leaves out what was read from or written to the cache."""

    name = "anthropic"
    request_id = "request-id"

    def serves(self, path: str) -> bool:
        return path.startswith("/v1/messages")

    def key(self, incoming: Incoming) -> str:
        # SDKs from 2.0 on send a bearer token, older ones and most other clients x-api-key.
        key = incoming.headers.get("x-api-key") or incoming.bearer
        if key is None:
            raise Refusal(401, "x-api-key or authorization header is required")
        return key

    def read(self, call: Call, incoming: Incoming) -> None:
        if incoming.path != "/v1/messages":
            raise Refusal(404, "Not found")
        version = incoming.headers.get("anthropic-version")
        if version is None:
            raise Refusal(400, "anthropic-version: header is required")
        body = call.body
        call.model = str(body["model"])
        call.stream = body.get("stream") is True
        if body.get("system"):
            call.messages.append(("system", text_of(body["system"])))
        call.messages += [(m["role"], text_of(m["content"])) for m in body["messages"]]
        call.temperature = body.get("temperature")
        call.max_tokens = int(body["max_tokens"])
        wanted = (body.get("output_config") or {}).get("format")
        call.response_format = wanted["schema"] if wanted else None
        for name in SAMPLING:
            if name in body and version >= SAMPLING_REMOVED:
                raise Refusal(400, f"{name}: Extra inputs are not permitted")

    def whole(self, call: Call, answer: Answer) -> bytes:
        message = self._message(call, [{"type": "text", "text": answer.text, "citations": None}])
        message["stop_reason"] = STOP_REASONS[answer.finish]
        if answer.usage:
            message["usage"] = _usage(answer.usage, answer.usage.completion)
        return dump(message)

    def frames(self, call: Call, answer: Answer) -> Frames:
        start: dict[str, Any] = self._message(call, [])
        if answer.usage:
            start["usage"] = _usage(answer.usage, 1)
        block = {"type": "text", "text": ""}
        delta = {"stop_reason": STOP_REASONS[answer.finish], "stop_sequence": None}
        ending: dict[str, Any] = {"delta": delta}
        if answer.usage:
            ending["usage"] = _usage(answer.usage, answer.usage.completion)
        text = {"index": 0, "delta": {"type": "text_delta", "text": "\0"}}
        before, after = _event("content_block_delta", **text).split(b'"\\u0000"')
        return Frames(
            _event("message_start", message=start)
            + _event("content_block_start", index=0, content_block=block)
            + _event("ping"),
            [before + dump(piece) + after for piece in answer.chunks],
            _event("content_block_stop", index=0)
            + _event("message_delta", **ending)
            + _event("message_stop"),
        )

    def error(self, call: Call, status: Status) -> dict[str, Any]:
        default = "api_error" if status.code >= 500 else "invalid_request_error"
        kind = status.kind or TYPES.get(status.code, default)
        error = {"type": kind, "message": status.message}
        return {"type": "error", "error": error, "request_id": f"req_fake{call.number:08}"}

    def error_frame(self, call: Call, status: Status) -> bytes:
        return _event("error", **self.error(call, status))

    def frame(self, data: bytes) -> bytes:
        return b"event: content_block_delta\ndata: " + data + b"\n\n"

    def _message(self, call: Call, content: list[Any]) -> dict[str, Any]:
        return {
            "id": f"msg_fake{call.number:08}",
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
        }


def _event(kind: str, **fields: Any) -> bytes:
    data = dump({**fields, "type": kind})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _usage(usage: Usage, completion: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt - usage.cached - usage.cache_written,
        "cache_creation_input_tokens": usage.cache_written,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": completion,
        "output_tokens_details": {"thinking_tokens": min(usage.reasoning, completion)},
        "service_tier": "standard",
    }
