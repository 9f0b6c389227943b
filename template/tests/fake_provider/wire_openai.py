"""OpenAI Chat Completions."""

import time
from typing import Any

from .answers import Answer
from .behaviours import Status
from .ledger import Call, Usage
from .wire import Frames, Incoming, Refusal, Wire, dump, text_of

CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class OpenAI(Wire):
    """`POST /v1/chat/completions`. Cached and reasoning tokens are part of the two totals."""

    name = "openai"
    request_id = "x-request-id"

    def serves(self, path: str) -> bool:
        return True

    def key(self, incoming: Incoming) -> str:
        if incoming.bearer is None:
            raise Refusal(401, "You didn't provide an API key.")
        return incoming.bearer

    def read(self, call: Call, incoming: Incoming) -> None:
        if incoming.path != "/v1/chat/completions":
            raise Refusal(404, f"Invalid URL (POST {incoming.path})", "unknown_url")
        body = call.body
        call.model = str(body["model"])
        call.stream = body.get("stream") is True
        call.messages = [(m["role"], text_of(m.get("content"))) for m in body["messages"]]
        call.temperature = body.get("temperature")
        call.seed = body.get("seed")
        call.max_tokens = body.get("max_completion_tokens", body.get("max_tokens"))
        wanted = body.get("response_format") or {"type": "text"}
        if wanted["type"] == "json_schema":
            call.response_format = wanted["json_schema"].get("schema", {})
        elif wanted["type"] == "json_object":
            call.response_format = {}

    def whole(self, call: Call, answer: Answer) -> bytes:
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish}
        body = {**self._stem(call, "chat.completion"), "choices": [choice]}
        if answer.usage:
            body["usage"] = _usage(answer.usage)
        return dump(body)

    def frames(self, call: Call, answer: Answer) -> Frames:
        options = call.body.get("stream_options") or {}
        with_usage = options.get("include_usage") is True and answer.usage is not None
        stem = self._stem(call, "chat.completion.chunk")
        nothing = {"usage": None} if with_usage else {}

        def chunk(delta: dict[str, Any], finish: str | None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return self.frame(dump({**stem, "choices": [choice], **nothing}))

        before, after = chunk({"content": "\0"}, None).split(b'"\\u0000"')
        closing = chunk({}, answer.finish)
        if with_usage and answer.usage:
            closing += self.frame(dump({**stem, "choices": [], "usage": _usage(answer.usage)}))
        return Frames(
            chunk({"role": "assistant", "content": "", "refusal": None}, None),
            [before + dump(piece) + after for piece in answer.chunks],
            closing + self.frame(b"[DONE]"),
        )

    def error(self, call: Call, status: Status) -> dict[str, Any]:
        kind = "server_error" if status.code >= 500 else "invalid_request_error"
        if status.code == 429:
            kind = "insufficient_quota" if status.kind == "insufficient_quota" else "requests"
        code = status.kind or CODES.get(status.code)
        error = {"message": status.message, "type": kind, "param": None, "code": code}
        return {"error": error}

    def _stem(self, call: Call, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-fake{call.number:08}",
            "object": kind,
            "created": int(time.time()),
            "model": call.model,
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_written,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
