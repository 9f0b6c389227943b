"""A small document that a JSON schema allows, for the demo provider."""

import math
from typing import Any

_DETAILED_LEVELS = 4
_MOST_NODES = 500
_SIMPLE = {"null", "boolean", "integer", "number", "string"}
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: dict[str, Any]) -> Any:
    """A document that `schema` allows: properties filled in, arrays as short as can be.

    Not known: `pattern`, `not`, `if`, and references to other documents. Raises `ValueError` where
    no document of a reasonable size exists, or the schema is none.
    """
    try:
        return _Writer(schema).write(schema)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise ValueError("not a JSON schema") from None


class _Writer:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._nodes = 0

    def write(self, schema: Any, level: int = 0, nth: int = 0) -> Any:
        """`level`: how deep; below the first ones only what is required is written, so that
        recursive schemas end. `nth`: the number of an array's item, to tell the items apart."""
        schema = self._flat(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][nth % len(schema["enum"])]
        if options := schema.pop("anyOf", None) or schema.pop("oneOf", None):
            flat = [self._flat(option) for option in options]
            if level >= _DETAILED_LEVELS:
                flat.sort(key=lambda option: _kind(option) not in _SIMPLE)
            return self.write(_merge(schema, flat[0]), level + 1, nth)
        match _kind(schema):
            case "object":
                return self._object(schema, level)
            case "array":
                first = schema.get("prefixItems", [])
                rest = schema.get("minItems", 0) - len(first)
                parts = [*first, *[schema.get("items", True)] * rest]
                return [self.write(part, level + 1, i) for i, part in enumerate(parts)]
            case "integer":
                return int(_number(schema, nth))
            case "number":
                return _number(schema, nth)
            case "boolean":
                return nth % 2 == 0
            case "null":
                return None
        text = _FORMATS.get(schema.get("format", ""), f"demo{nth or ''}")
        return text.ljust(schema.get("minLength", 0), "o")[: schema.get("maxLength")]

    def _object(self, schema: dict[str, Any], level: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        names = list(properties) if level < _DETAILED_LEVELS else required
        extra = schema.get("additionalProperties", True)
        return {
            name: self.write(properties.get(name, extra), level + 1)
            for name in dict.fromkeys([*names, *required])
        }

    def _flat(self, schema: Any) -> dict[str, Any]:
        """A copy of a schema, with what it refers to and what `allOf` adds merged in."""
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise ValueError("the schema has no end")
        if not isinstance(schema, dict):
            return {}
        flat = {name: value for name, value in schema.items() if name not in ("$ref", "allOf")}
        parts = list(schema.get("allOf", ()))
        if "$ref" in schema:
            parts.append(self._resolve(schema["$ref"]))
        for part in parts:
            flat = _merge(self._flat(part), flat)
        return flat

    def _resolve(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = found[step.replace("~1", "/").replace("~0", "~")]
        return found


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = {**first, **second}
    if "properties" in merged:
        merged["properties"] = {**first.get("properties", {}), **second.get("properties", {})}
    if "required" in merged:
        merged["required"] = [*first.get("required", ()), *second.get("required", ())]
    return merged


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((name for name in kind if name != "null"), "null")
    if kind is not None:
        return str(kind)
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema or "minItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _number(schema: dict[str, Any], nth: int) -> float:
    """The `nth` multiple of the step that the bounds allow, or else the middle between them."""
    step = schema.get("multipleOf", 1)
    low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
    high, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
    multiple = nth
    if low > -math.inf:
        multiple = max(multiple, math.ceil(low / step) + nth)
    if above > -math.inf:
        multiple = max(multiple, math.floor(above / step) + 1 + nth)
    if high < math.inf:
        multiple = min(multiple, math.floor(high / step))
    if below < math.inf:
        multiple = min(multiple, math.ceil(below / step) - 1)
    number: float = round(multiple * step, 9)
    if low <= number and above < number:
        return number
    middle: float = (max(low, above) + min(high, below)) / 2
    return middle
