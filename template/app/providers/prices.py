"""What a call costs in nano-dollars: the worst case beforehand, the exact sum afterwards.

Prices are looked up once, at start, and kept as integers (a rate with more than nine decimals is
rounded up). A model without a known price is refused there, before it can spend anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from app.foundation.settings import NANO_PER_USD
from app.providers.base import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

_PROVIDER_IDS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
_MILLION = 1_000_000


class UnknownPriceError(LookupError):
    """No price is known for a model, and none is stated."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars per million tokens, for calls with more than `above` input tokens.

    `call` is what every call costs besides, in the same unit per million calls.
    """

    above: int
    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int
    call: int = 0


@dataclass(frozen=True, slots=True)
class Period:
    """Rates, in ascending tiers, and when they hold (`active` is None where that is always)."""

    tiers: tuple[Rates, ...]
    active: Callable[[datetime], bool] | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model. Of its periods, the first active one holds."""

    periods: tuple[Period, ...]

    def worst_nano(self, input_tokens: int, output_tokens: int) -> int:
        """No call of at most so many tokens costs more, at any time. Rounded up."""
        worst = max(
            input_tokens * max(rates.input, rates.cached, rates.cache_write)
            + output_tokens * max(rates.output, rates.reasoning)
            + rates.call
            for period in self.periods
            for rates in period.tiers
            if rates.above < input_tokens
        )
        return -(-worst // _MILLION)

    def cost_nano(self, usage: Usage) -> int:
        """What a call with this usage costs now. Rounded up."""
        tiers = self.periods[0].tiers if len(self.periods) == 1 else self._tiers_now()
        rates = tiers[0]
        for tier in tiers:
            if tier.above < usage.input_tokens:
                rates = tier
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        cost = (
            max(plain, 0) * rates.input
            + usage.cached_tokens * rates.cached
            + usage.cache_write_tokens * rates.cache_write
            + max(usage.output_tokens - usage.reasoning_tokens, 0) * rates.output
            + usage.reasoning_tokens * rates.reasoning
            + rates.call
        )
        return -(-cost // _MILLION)

    def _tiers_now(self) -> tuple[Rates, ...]:
        now = datetime.now(UTC)
        active = (item.tiers for item in self.periods if item.active is None or item.active(now))
        return next(active, self.periods[-1].tiers)


def find_price(
    provider: str, model: str, base_url: str | None, stated: tuple[Decimal, Decimal] | None
) -> Price:
    """The stated price (dollars per million input and output tokens), or else the known one.

    OpenAI, Anthropic and Gemini are known by name, compatible servers by their URL, and the demo
    is free. Raises `UnknownPriceError`.
    """
    if provider == "demo":
        stated = (Decimal(0), Decimal(0))
    if stated is not None:
        told, said = (_rate(price, -1) for price in stated)
        rates = Rates(-1, told, said, cached=told, cache_write=told, reasoning=said)
        return Price((Period((rates,)),))
    # Importing it takes half a second of CPU, which whoever states a price need not spend.
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    tokens = Tokens(input_tokens=1, output_tokens=1)
    try:
        if provider == "compatible":
            found = calc_price(tokens, model, provider_api_url=base_url or "")
        else:
            found = calc_price(tokens, model, provider_id=_PROVIDER_IDS[provider])
        return Price(_periods(found.model))
    except LookupError:
        name = provider.upper()
        problem = UnknownPriceError(
            f"the price of {provider}'s {model!r} is not known: state it in "
            f"{name}_INPUT_USD_PER_MTOK and {name}_OUTPUT_USD_PER_MTOK"
        )
    raise problem


def _periods(model: "ModelInfo") -> tuple[Period, ...]:
    """The prices that hold or can come to hold, in the order in which genai-prices asks them."""
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(model.prices, ModelPrice):
        return (Period(_tiers(model.prices)),)
    now = datetime.now(UTC)
    periods = []
    for item in reversed(model.prices):
        rule = item.constraint
        periods.append(Period(_tiers(item.prices), rule.active if rule else None))
        if rule is None or (isinstance(rule, StartDateConstraint) and rule.active(now)):
            break  # what is older has been replaced for good
    else:
        periods.append(Period(_tiers(model.prices[0].prices)))
    return tuple(periods)


def _tiers(prices: "ModelPrice") -> tuple[Rates, ...]:
    told, said = prices.input_mtok, prices.output_mtok
    if told is None or said is None:
        raise LookupError("no price for text")  # genai-prices would call it free
    read, written, thought = (
        default if price is None else price
        for price, default in (
            (prices.cache_read_mtok, told),
            (prices.cache_write_mtok, told),
            (prices.output_reasoning_mtok, said),
        )
    )
    per_call = prices.requests_kcount or Decimal(0)
    known = (told, said, read, written, thought, per_call)
    starts = {tier.start for price in known for tier in getattr(price, "tiers", ())}
    return tuple(
        Rates(
            above,
            input=_rate(told, above),
            output=_rate(said, above),
            cached=_rate(read, above),
            cache_write=_rate(written, above),
            reasoning=_rate(thought, above),
            call=_rate(per_call, above) * 1000,
        )
        for above in (-1, *sorted(starts))
    )


def _rate(price: "Decimal | TieredPrices", above: int) -> int:
    """The price of calls with more than `above` input tokens, in nano-dollars."""
    if not isinstance(price, Decimal):
        tiers = [tier.price for tier in price.tiers if tier.start <= above]
        price = tiers[-1] if tiers else price.base
    return int((price * NANO_PER_USD).to_integral_value(ROUND_CEILING))
