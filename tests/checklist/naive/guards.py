"""A limiter, a budget and a cache, each in a dictionary of this process."""

import hashlib
import json
import time
from collections import deque
from datetime import date
from typing import Any


class Limiter:
    """So many requests a minute for each client."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._seen: dict[str, deque[float]] = {}

    def allows(self, client: str) -> bool:
        """Count a request, unless the client has used up its minute."""
        seen, now = self._seen.setdefault(client, deque()), time.time()
        while seen and seen[0] < now - 60:
            seen.popleft()
        if len(seen) >= self._per_minute:
            return False
        seen.append(now)
        return True


class Budget:
    """So many dollars a day."""

    def __init__(self, usd: float) -> None:
        self._usd = usd
        self._spent = 0.0
        self._day = date.today()

    @property
    def is_left(self) -> bool:
        """Whether anything is left of today's money."""
        if date.today() != self._day:
            self._day, self._spent = date.today(), 0.0
        return self._spent < self._usd

    def spend(self, usd: float) -> None:
        """Note what a call has cost."""
        self._spent += usd
        if self._spent > 0.8 * self._usd:
            print("warning: 80% of the daily budget is used")


class Answers:
    """Answers that were given already, by key or by content."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def key(self, client: str, key: str | None, body: dict[str, Any]) -> str:
        """What a request is known by."""
        text = key or json.dumps(body, sort_keys=True)
        return hashlib.sha256(f"{client}{text}".encode()).hexdigest()

    def get(self, key: str) -> Any:
        """The answer, if there is one."""
        return self._known.get(key)

    def keep(self, key: str, answer: Any) -> None:
        """Remember an answer."""
        self._known[key] = answer
