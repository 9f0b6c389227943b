"""A fake of the OpenAI, Anthropic and Gemini APIs, on a real socket, for tests.

It speaks their true wires, JSON and SSE, misbehaves on demand down to the TCP reset, and keeps
a ledger of every call: what was asked, how it ended, and what it would have cost.

    with FakeProvider() as fake:
        fake.next(Status(429, retry_after=1), Reply("hello"))
        client = OpenAI(base_url=fake.openai_base_url, api_key="any")
        ...
        assert fake.ledger.calls[-1].outcome == "answered"
"""

from .behaviours import (
    Behaviour,
    Drip,
    ErrorInside,
    Garbage,
    Hang,
    Reply,
    Reset,
    Status,
    Truncate,
)
from .ledger import Call, Ledger, Usage
from .provider import FakeProvider

__all__ = [
    "Behaviour",
    "Call",
    "Drip",
    "ErrorInside",
    "FakeProvider",
    "Garbage",
    "Hang",
    "Ledger",
    "Reply",
    "Reset",
    "Status",
    "Truncate",
    "Usage",
]
