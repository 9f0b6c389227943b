"""What the operations page counts: the end of every request, over all processes, in the store.

The numbers are those of `/metrics`, by the minute and by the hour, and they survive a restart.
Nothing of it lies on a request's path. Every label's values come from a closed set, and at most
MOST_CALLERS callers an hour have a number of their own in each process.
"""

import time
from bisect import bisect_left

from app.foundation.errors import KINDS
from app.foundation.record import RequestRecord
from app.launch.tally import Tally
from app.standards.visibility.metrics import BUCKETS
from app.standards.visibility.request_log import RequestEnd

COUNTER = "ops"
# Between the parts of a label: in no name of a provider, a model, a caller or a rule.
BETWEEN = "\t"
MOST_CALLERS = 20
ANONYMOUS, OTHERS = "anonymous", ""
_HOUR = 3600
_BOUNDS = (*(str(bound) for bound in BUCKETS), "inf")


class Aggregates:
    """Counts in the tally that the error budget writes every few seconds."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._callers = Callers()

    def attempt(self, provider: str, model: str, outcome: str) -> None:
        """A call to a provider ended; `outcome` is `ok`, `cancelled` or the error's kind."""
        self._add("attempt", provider, model, outcome)

    def cut_off(self, provider: str, model: str) -> None:
        """A process has cut a target off."""
        self._add("cut_off", provider, model)

    def request_ended(self, end: RequestEnd) -> None:
        """A request has ended, however it ended."""
        record = end.record
        if record.error_code is not None:
            code = record.error_code if record.error_code in KINDS else "invalid_request_error"
            self._add("refused", code)
        if not asked_for_an_answer(end):
            return
        self._add("asked", end.outcome)
        if end.outcome == "ok":
            self._add("seconds", _BOUNDS[bisect_left(BUCKETS, end.seconds)])
        if record.cache != "none":
            self._add("cache", record.cache)
        if record.fallback:
            self._add("fallback")
        if record.retries:
            self._add("retry", amount=record.retries)
        if record.abstained is not None:
            self._add("abstained", record.abstained)
        for hit, count in record.policy.items():
            self._add("policy", hit.rule, hit.action, hit.side, amount=count)
        if record.cost_nano:
            self._add(
                "caller", self._caller(record.caller, record.cost_nano), amount=record.cost_nano
            )

    def charged(self, record: RequestRecord) -> None:
        """What a request, or a call beside it, has cost: by model, whoever it was for."""
        for charge in record.charges:
            if charge.nano:
                self._add("cost", charge.provider, charge.model, amount=charge.nano)

    def _add(self, *parts: str, amount: int = 1) -> None:
        self._tally.add(COUNTER, BETWEEN.join(parts), amount)

    def _caller(self, caller: str | None, nano: int) -> str:
        # What follows is an address: nobody's name, and there is no end of them.
        anonymous = caller is None or caller.startswith("anonymous@")
        return self._callers.label(ANONYMOUS if anonymous else str(caller), nano)


class Callers:
    """Which callers have a number of their own; the others of the hour share one.

    Those that cost most in the hour before keep theirs, the rest goes to who comes first.
    """

    def __init__(self, most: int = MOST_CALLERS) -> None:
        self._most = most
        self._hour = 0
        self._named: set[str] = set()
        self._nano: dict[str, int] = {}  # as many as there are keys

    def label(self, caller: str, nano: int) -> str:
        """The name that a caller's cost is counted under: its own, or OTHERS."""
        if (hour := int(time.time()) // _HOUR) != self._hour:
            dearest = sorted(self._nano, key=lambda name: self._nano[name], reverse=True)
            self._named = set(dearest[: self._most])
            self._hour, self._nano = hour, {}
        self._nano[caller] = self._nano.get(caller, 0) + nano
        if len(self._named) < self._most:
            self._named.add(caller)
        return caller if caller in self._named else OTHERS


def asked_for_an_answer(end: RequestEnd) -> bool:
    """True for what the objectives call an event: a known caller's question, however it ended."""
    record = end.record
    answered_nothing = record.cache == "none" and record.abstained is None
    return record.caller is not None and not (end.outcome == "ok" and answered_nothing)
