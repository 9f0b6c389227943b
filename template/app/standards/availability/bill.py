"""What a request may have cost so far, at every instant, also when it is cancelled half-way."""

from dataclasses import dataclass

from loguru import logger

from app.foundation.record import Charge, RequestRecord
from app.providers.base import Usage
from app.providers.prices import Price

# No tokenizer makes longer tokens of text: fewer than these are not believed.
MAX_CHARACTERS_PER_TOKEN = 128


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A call under way: whom it asks, what that costs, and the most that it can cost."""

    provider: str
    model: str
    price: Price
    worst_nano: int


class Bill:
    """Adds up attempts in nano-dollars, and notes each in the request's record.

    An attempt whose outcome is unknown costs its worst case. Every `begin` is followed by one of
    `nothing`, `used`, `unknown` and `close`.
    """

    def __init__(self, record: RequestRecord) -> None:
        self._record = record
        self._nano = 0
        self._under_way: _Attempt | None = None
        self._reached = False

    @property
    def reached(self) -> bool:
        """True when a provider may have worked for this request."""
        return self._reached or self._under_way is not None

    def begin(
        self, provider: str, model: str, price: Price, *, input_bound: int, output_bound: int
    ) -> None:
        """An attempt starts: until it ends it counts with the most that it can cost."""
        worst = price.worst_nano(input_bound, output_bound)
        self._under_way = _Attempt(provider, model, price, worst)

    def nothing(self) -> None:
        """The attempt ended, and the provider does not bill it."""
        self._under_way = None

    def used(self, usage: Usage | None, characters: int) -> None:
        """The attempt ended with an answer of so many characters.

        A provider that states no usage, too little for its answer, or more than was reserved for
        the attempt is not believed: the worst case is charged, and never more.
        """
        attempt = self._under_way
        if attempt is None:
            return
        if usage is None or not _plausible(usage, characters):
            self.unknown()
        elif (cost := attempt.price.cost_nano(usage)) > attempt.worst_nano:
            logger.error("a provider states more usage than is possible", model=attempt.model)
            self.unknown()
        else:
            self._charge(attempt, cost, usage)

    def unknown(self) -> None:
        """The attempt ended, and nobody knows what it used: the worst case is kept."""
        if self._under_way is not None:
            self._charge(self._under_way, self._under_way.worst_nano, None)

    def close(self) -> int:
        """End an attempt that was cut off; the whole charge."""
        self.unknown()
        return self._nano

    def _charge(self, attempt: _Attempt, nano: int, usage: Usage | None) -> None:
        self._reached, self._under_way = True, None
        self._nano += nano
        counted = usage or Usage(0, 0)
        self._record.charge(
            Charge(
                attempt.provider,
                attempt.model,
                nano,
                input_tokens=counted.input_tokens,
                output_tokens=counted.output_tokens,
                cached_tokens=counted.cached_tokens,
                reasoning_tokens=counted.reasoning_tokens,
            )
        )


def _plausible(usage: Usage, characters: int) -> bool:
    enough = usage.output_tokens * MAX_CHARACTERS_PER_TOKEN >= characters
    return usage.input_tokens > 0 and enough
