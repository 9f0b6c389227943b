"""Gemini generateContent and streamGenerateContent."""

import re
from typing import Any

from .answers import Answer
from .behaviours import Status
from .ledger import Call, Usage
from .wire import Frames, Incoming, Refusal, Wire, dump, text_of

PATH = re.compile(r"/v1\w*/models/([^:]+):(generateContent|streamGenerateContent)")
FINISH_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Gemini(Wire):
    """`POST /v1beta/models/{model}:generateContent`, under any API version.

    `promptTokenCount` includes cached tokens, `candidatesTokenCount` leaves out thoughts. A
    stream has no end marker: its last event is the one with a `finishReason`.
    """

    name = "gemini"
    request_id = "x-goog-request-id"
    line_end = b"\r\n"

    def serves(self, path: str) -> bool:
        return ":" in path and "/models/" in path

    def key(self, incoming: Incoming) -> str:
        key = incoming.headers.get("x-goog-api-key") or incoming.query.get("key")
        if not key:
            # Google answers 403 here, and 400 to a key that is not valid: never 401.
            raise Refusal(403, "Method doesn't allow unregistered callers. Please use API Key.")
        return key

    def read(self, call: Call, incoming: Incoming) -> None:
        path = PATH.fullmatch(incoming.path)
        if path is None:
            raise Refusal(404, "Requested entity was not found.")
        call.model = path[1]
        call.stream = path[2] == "streamGenerateContent"
        if call.stream and incoming.query.get("alt") != "sse":
            raise Refusal(400, "The fake provider streams with alt=sse only.")
        body = call.body
        if system := body.get("systemInstruction") or body.get("system_instruction"):
            call.messages.append(("system", text_of(system["parts"])))
        for content in body["contents"]:
            role = "assistant" if content.get("role") == "model" else content.get("role", "user")
            call.messages.append((role, text_of(content["parts"])))
        config = body.get("generationConfig") or {}
        call.temperature = config.get("temperature")
        call.seed = config.get("seed")
        call.max_tokens = config.get("maxOutputTokens")
        if config.get("responseMimeType") == "application/json":
            schema = config.get("responseJsonSchema") or config.get("responseSchema")
            call.response_format = schema or {}

    def whole(self, call: Call, answer: Answer) -> bytes:
        count = len(answer.chunks)
        return dump(self._response(call, answer, answer.text, count, FINISH_REASONS[answer.finish]))

    def frames(self, call: Call, answer: Answer) -> Frames:
        ending = self._response(call, answer, "", len(answer.chunks), FINISH_REASONS[answer.finish])
        return Frames(
            b"",
            [
                self.frame(dump(self._response(call, answer, piece, i, None)))
                for i, piece in enumerate(answer.chunks, 1)
            ],
            self.frame(dump(ending)),
        )

    def error(self, call: Call, status: Status) -> dict[str, Any]:
        default = "INTERNAL" if status.code >= 500 else "UNKNOWN"
        kind = status.kind or STATUSES.get(status.code, default)
        error: dict[str, Any] = {"code": status.code, "message": status.message, "status": kind}
        if status.retry_after is not None:
            info = "type.googleapis.com/google.rpc.RetryInfo"
            error["details"] = [{"@type": info, "retryDelay": f"{status.retry_after:g}s"}]
        return {"error": error}

    def headers(self, call: Call, wait: float | None = None) -> dict[str, str]:
        # Gemini says when to retry in the error's body, never in a Retry-After header.
        return super().headers(call)

    def _response(
        self, call: Call, answer: Answer, text: str, count: int, finish: str | None
    ) -> dict[str, Any]:
        candidate: dict[str, Any] = {"index": 0}
        if finish:
            candidate["finishReason"] = finish
        if finish != "SAFETY":  # what the filter blocks comes without any content
            candidate["content"] = {"parts": [{"text": text}], "role": "model"}
        response: dict[str, Any] = {
            "candidates": [candidate],
            "modelVersion": call.model,
            "responseId": f"fake{call.number:08}",
        }
        if answer.usage:
            response["usageMetadata"] = _usage(answer.usage, None if finish else count)
        return response


def _usage(usage: Usage, so_far: int | None) -> dict[str, Any]:
    candidates = usage.completion - usage.reasoning
    if so_far is not None:
        candidates = min(candidates, so_far)
    stated = {
        "promptTokenCount": usage.prompt,
        "candidatesTokenCount": candidates,
        "totalTokenCount": usage.prompt + candidates + usage.reasoning,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.prompt}],
    }
    if usage.cached:
        stated["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        stated["thoughtsTokenCount"] = usage.reasoning
    return stated
