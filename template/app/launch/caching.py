"""The cache policy: which answers serve equal questions again, for whom, and for how long.

Kept is the whole answer to a deterministic question (temperature 0), for the caller who asked it,
for CACHE_TTL_SECONDS (300; 0 keeps nothing). Equal means the same model order, messages,
parameters, system prompt and knowledge: when one changes, nothing old is found. A request with an
`Idempotency-Key` or `Cache-Control: no-store` passes the cache by. Never kept: an answer that was
cut, refused or broken off, and a fallback's.

The store claims a question as it claims an idempotency key, in the same atomic step: of equal
questions that come at once, over all processes, one goes to the provider and the others wait.
"""

import hashlib
import json
from typing import Any

from app.standards.spending import idempotency
from app.standards.spending.idempotency import Execution

# A change to what an answer looks like on the wire changes this: old answers are then not found.
FORMAT = 1
# Who waits for an equal question's answer looks again after this long (seconds).
LOOK_AGAIN_SECONDS = 0.2


def execution(question: dict[str, Any], *, caller: str, keep_seconds: int) -> Execution:
    """What stands for a question. `question` is all that its answer depends on, as JSON."""
    content = json.dumps([FORMAT, question], sort_keys=True, separators=(",", ":"))
    return idempotency.execution(
        hashlib.sha256(content.encode()).hexdigest(),
        caller=caller,
        route="the answer cache",
        payload=question,
        keep_seconds=keep_seconds,
    )
