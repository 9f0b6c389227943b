"""What a request may have cost so far, at every instant, also when it is cancelled half-way."""

from app.providers.base import Usage
from app.providers.prices import Price


class Bill:
    """Adds up attempts in nano-dollars.

    An attempt whose outcome is unknown costs its worst case.
    """

    def __init__(self) -> None:
        self._certain = 0
        self._in_flight = 0
        self._reached = False

    @property
    def nano(self) -> int:
        """The charge if the request ended now."""
        return self._certain + self._in_flight

    @property
    def reached(self) -> bool:
        """True when a provider may have worked for this request."""
        return self._reached or self._in_flight > 0

    def begin(self, price: Price, input_bound: int, output_bound: int) -> None:
        """An attempt starts: until it ends it counts with the most that it can cost."""
        self._in_flight = price.worst_nano(input_bound, output_bound)

    def nothing(self) -> None:
        """The attempt ended and the provider does not bill it."""
        self._in_flight = 0

    def used(self, price: Price, usage: Usage) -> None:
        """The attempt ended and the provider said what it used."""
        self._reached = True
        self._certain += price.cost_nano(usage)
        self._in_flight = 0

    def unknown(self) -> None:
        """The attempt ended and nobody knows what it used: the worst case is kept."""
        self._reached = True
        self._certain += self._in_flight
        self._in_flight = 0
