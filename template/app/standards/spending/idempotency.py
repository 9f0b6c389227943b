"""Idempotency keys, as draft-ietf-httpapi-idempotency-key-header and Stripe describe them.

One key of one caller on one route stands for one logical execution: its answer is replayed, an
equal request that comes meanwhile is told to wait, and another payload is refused.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from app.foundation import sealing
from app.foundation.errors import AppError
from app.stores.base import Claim, StoredAnswer

_KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Execution:
    """What a key stands for: the store's claim, and the seal of the answer."""

    claim: Claim
    seal: bytes


def execution(
    key: str, *, caller: str, route: str, payload: dict[str, Any], keep_seconds: int
) -> Execution:
    """The execution that a request's `Idempotency-Key` names.

    Raises `AppError` for a key that is not 1-255 visible ASCII characters.
    """
    if not _KEY.fullmatch(key):
        raise AppError("invalid_request_error", param="Idempotency-Key", detail="idempotency_key")
    content = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    scope = json.dumps([caller, route, key]).encode()
    claim = Claim(
        key=hashlib.sha256(scope).hexdigest(),
        fingerprint=hashlib.sha256(b"fingerprint" + scope + content).hexdigest(),
        keep_seconds=keep_seconds,
    )
    return Execution(claim, hashlib.sha256(b"seal" + scope + content).digest())


def sealed(
    execution: Execution, *, status: int, media_type: str, body: bytes, complete: bool = True
) -> StoredAnswer:
    """An answer as the store keeps it: only an equal request can open it."""
    return StoredAnswer(status, media_type, sealing.seal(body, execution.seal), complete)


def opened(execution: Execution, answer: StoredAnswer) -> bytes | None:
    """The stored answer's bytes; None when its owner died and nobody knows the outcome."""
    return None if answer.body is None else sealing.unseal(answer.body, execution.seal)
