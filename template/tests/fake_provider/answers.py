"""The answers of the fake model, and its way of counting tokens."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from .behaviours import Finish, Reply
from .ledger import Call, Usage

PIECE = re.compile(r"\s*\S+|\s+$")
ECHO_CHARACTERS = 400
DEPTH = 6  # below it optional things are left out, so that recursive schemas end
FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


@dataclass(frozen=True)
class Answer:
    """What the model says: its pieces, why it stopped, what the wire states and what is billed."""

    chunks: tuple[str, ...]
    finish: Finish
    usage: Usage | None
    billed: Usage

    @property
    def text(self) -> str:
        return "".join(self.chunks)


def compose(call: Call, reply: Reply) -> Answer:
    """The answer to `call` as `reply` shapes it."""
    if isinstance(reply.chunks, tuple):
        chunks = reply.chunks
    else:
        chunks = tuple(PIECE.findall(reply.text if reply.text is not None else _text(call)))
        if reply.chunks is not None:
            chunks = tuple(islice(cycle(chunks or (" ",)), reply.chunks))
    finish = reply.finish
    if call.max_tokens is not None and len(chunks) > call.max_tokens:
        chunks, finish = chunks[: call.max_tokens], "length"
    stated = reply.usage or Usage(prompt_tokens(call.messages), len(chunks))
    return Answer(chunks, finish, None if reply.omit_usage else stated, reply.billed or stated)


def prompt_tokens(messages: list[tuple[str, str]]) -> int:
    """About four bytes a token and four tokens a message; never more tokens than UTF-8 bytes."""
    sizes = (len(text.encode(errors="replace")) for _, text in messages)
    return sum(min(size, math.ceil(size / 4) + 4) for size in sizes)


def _text(call: Call) -> str:
    temperature = None if call.temperature is None else float(call.temperature)
    told = json.dumps([call.messages, temperature, call.seed])
    mark = hashlib.sha256(told.encode()).hexdigest()[:8]
    if call.response_format is None:
        last = next((text for role, text in reversed(call.messages) if role == "user"), "")
        return f"You said: {last[:ECHO_CHARACTERS]} (fake answer {mark})"
    document = example(call.response_format) if call.response_format else {"answer": mark}
    return json.dumps(document, ensure_ascii=False)


def example(schema: Any) -> Any:
    """A document that is valid for a JSON schema, or for Google's dialect of one.

    Every property is filled in. Of strings, `pattern` is not obeyed.
    """
    return _example(schema, schema, 0)


def _example(schema: Any, root: Any, depth: int) -> Any:
    schema = _resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        null_last = sorted(options, key=lambda option: option == {"type": "null"})
        return _example(null_last[-1 if depth > DEPTH else 0], root, depth + 1)
    kinds = schema.get("type") or ("object" if schema["properties"] else "string")
    kind = next((k for k in kinds if k != "null"), "null") if isinstance(kinds, list) else kinds
    match kind.lower():
        case "object":
            required = schema.get("required", ())
            return {
                name: _example(part, root, depth + 1)
                for name, part in schema["properties"].items()
                if depth <= DEPTH or name in required
            }
        case "array":
            firsts = schema.get("prefixItems", [])
            few = 0 if depth > DEPTH or schema.get("maxItems") == 0 else 1
            least = int(schema.get("minItems", few))
            rest = [schema.get("items", {})] * (least - len(firsts))
            return [_example(part, root, depth + 1) for part in [*firsts, *rest]]
        case "string":
            text = FORMATS.get(schema.get("format", ""), "text")
            text = text.ljust(int(schema.get("minLength", 0)), "x")
            return text[: int(schema.get("maxLength", len(text)))]
        case "integer":
            return int(_number(schema, 1))
        case "number":
            return _number(schema, 0)
        case "boolean":
            return True
        case _:
            return None


def _resolve(schema: Any, root: Any) -> dict[str, Any]:
    """The schema as one dict: references followed, and the parts of `allOf` merged."""
    if not isinstance(schema, dict):  # `true`: anything goes
        return {}
    while "$ref" in schema:
        target = root
        for step in schema["$ref"].lstrip("#/").split("/"):
            target = target[step] if step else target
        schema = target
    merged = {_camel(key): value for key, value in schema.items()}
    merged["properties"] = dict(merged.get("properties", {}))
    for part in merged.get("allOf", ()):
        resolved = _resolve(part, root)
        properties = {**merged["properties"], **resolved["properties"]}
        required = [*merged.get("required", ()), *resolved.get("required", ())]
        merged = {**merged, **resolved, "properties": properties, "required": required}
    return merged


def _camel(key: str) -> str:
    """`min_items` as `minItems`: Google's SDK sends the first, and its API takes both."""
    first, *rest = key.split("_")
    return first + "".join(word.title() for word in rest)


def _number(schema: dict[str, Any], step: float) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", step)
    if not step and low is not None and high is not None:
        return float(low + high) / 2
    step = step or 1
    if low is not None:
        value = math.ceil(low / step) * step
        return value + step if value <= schema.get("exclusiveMinimum", -math.inf) else value
    if high is not None:
        value = math.floor(high / step) * step
        return value - step if value >= schema.get("exclusiveMaximum", math.inf) else value
    return step
