"""The last line of defence: whatever looks like a secret is replaced before it leaves."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "[redacted]"
MAX_TEXT = 16_000
_SHORTEST = 6
_DEEPEST = 8

_PARAMETER = r"(?i:[\w-]*(?:key|token|secret|password|signature))=[^&\s\"'\\<>]+"
# Each begins with a literal: the regex engine then skips to candidates by their first letter.
_PATTERNS = (
    r"sk-(?<![A-Za-z0-9]sk-)[\w*-]{16,}",  # OpenAI, Anthropic and most servers on their wire
    r"AIza[\w-]{30,}",  # Google
    r"AQ\.[\w-]{30,}",
    r"AKIA[A-Z0-9]{16}",  # AWS
    r"eyJ(?<![\w-]eyJ)[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+",  # a JSON web token
    r"Bearer\s+[\w.~+/=*-]{8,}",
    r"bearer\s+[\w.~+/=*-]{8,}",
    r"Basic\s+[\w+/=]{8,}",
    r"://[^\s/\"'\\<>]+@",  # user and password in a URL
    rf"\?{_PARAMETER}",
    rf"&{_PARAMETER}",
    # pydantic quotes what it refuses, which may be what somebody wrote to the model.
    r"input_value=.{,500}?(?=, input_type=)",
)


class Redactor:
    """Replaces the given secrets, in any usual spelling, and everything that has a key's form."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST}
        known = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
        self._pattern = re.compile("|".join([*known, *_PATTERNS]), re.DOTALL)

    def text(self, value: str) -> str:
        """`value` without secrets."""
        return self._pattern.sub(_replacement, value)

    def data(self, value: object, depth: int = 0) -> object:
        """`value` as JSON without secrets; an object that JSON does not know becomes its type."""
        if isinstance(value, str):
            return self.text(value)[:MAX_TEXT]
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if depth < _DEEPEST and isinstance(value, dict):
            return {self.text(str(k)): self.data(v, depth + 1) for k, v in value.items()}
        if depth < _DEEPEST and isinstance(value, list | tuple):
            return [self.data(item, depth + 1) for item in value]
        return f"<{type(value).__name__}>"


def _replacement(match: re.Match[str]) -> str:
    found = match[0]
    if found.startswith("://") and found.endswith("@"):
        return f"://{HIDDEN}@"
    if found[0] in "?&" or found.startswith("input_value="):
        return f"{found.partition('=')[0]}={HIDDEN}"
    return HIDDEN


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be spelled: as it is, escaped, URL-encoded, or in part."""
    parts = [secret]
    if "://" in secret:
        parts += re.findall(r"[\w-]{16,}", secret)
        try:
            password = urlsplit(secret).password or ""
        except ValueError:
            password = ""
        parts += [password, unquote(password)]
    for part in parts:
        yield from (part, quote(part, safe=""), json.dumps(part)[1:-1], repr(part)[1:-1])
