"""How an exchange lies in the store: facts in clear, as in the log, and a sealed text.

The seal's key comes from ADMIN_TOKEN: who reads the store alone sees no prompt and no answer. A new
token opens nothing that was sealed before. Without one (development) there are facts alone.
"""

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from app.foundation.sealing import seal, unseal


@dataclass(frozen=True, slots=True)
class Facts:
    """What the log says of the request too. `at` is ISO 8601, in UTC."""

    request_id: str
    at: str
    route: str
    status: int
    caller: str | None = None
    code: str | None = None
    model: str | None = None
    provider: str | None = None
    streamed: bool = False
    attempts: int = 0
    finish_reason: str | None = None
    rating: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """What was asked (role and text of each message) and answered, and what somebody said of it.

    `cut_before`: the first message has lost its beginning; `cut_after`: the answer its end.
    """

    question: tuple[tuple[str, str], ...]
    answer: str
    comment: str = ""
    cut_before: bool = False
    cut_after: bool = False


class Envelopes:
    """Closes and opens them, with the key that an ADMIN_TOKEN gives."""

    def __init__(self, admin_token: SecretStr | None) -> None:
        self._key = None if admin_token is None else _derived(admin_token.get_secret_value())

    @property
    def seals(self) -> bool:
        """False where there is no ADMIN_TOKEN, and no text is kept."""
        return self._key is not None

    def close(self, facts: Facts, text: Text | None) -> bytes:
        """The bytes to keep."""
        known = {name: value for name, value in asdict(facts).items() if value not in (None, False)}
        told = json.dumps(known, ensure_ascii=False).encode("utf-8", "replace")
        if self._key is None or text is None:
            return told
        content = json.dumps(asdict(text), ensure_ascii=False).encode("utf-8", "replace")
        return told + b"\0" + seal(content, self._key)

    def open(self, value: bytes) -> tuple[Facts, Text | None]:
        """What was kept; None for a text that is not there, or that another token has sealed."""
        sealed = value.partition(b"\0")[2]
        facts = facts_in(value)
        content = unseal(sealed, self._key) if sealed and self._key else None
        if content is None:
            return facts, None
        text: dict[str, Any] = json.loads(content)
        question = tuple((role, said) for role, said in text["question"])
        return facts, Text(**{**text, "question": question})

    def mark(self, *parts: str) -> str:
        """A name for something that was said. Only who has the key can guess what it was."""
        said = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._key or b"no token", said, hashlib.sha256).hexdigest()[:24]


def facts_in(value: bytes) -> Facts:
    """What lies in an envelope in clear."""
    return Facts(**json.loads(value.partition(b"\0")[0]))


def _derived(token: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"failures").derive(token.encode())
