"""Prices: the sums of genai-prices, in integers, and no model for free by accident."""

import math
import random
import timeit
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, StartDateConstraint

from tests.providers.conftest import base, module

prices: Any = module("prices")
SIZES = (0, 1, 999, 32_000, 128_000, 200_000, 200_001, 272_001, 500_000)


def usage(rng: random.Random) -> Any:
    told = rng.choice((rng.choice(SIZES), rng.randrange(600_000)))
    cached = rng.randrange(told + 1)
    written = rng.randrange(told - cached + 1)
    said = rng.randrange(20_000)
    return base.Usage(told, said, cached, written, rng.randrange(said + 1))


def exact_nano(model: str, used: Any, **where: str) -> int:
    """What genai-prices says."""
    stated = Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cached_tokens,
        cache_write_tokens=used.cache_write_tokens,
        output_reasoning_tokens=used.reasoning_tokens,
    )
    price = calc_price(stated, model, **where)  # type: ignore[call-overload]
    return math.ceil(Decimal(price.total_price) * 1_000_000_000)


def models(provider: str) -> list[str]:
    found = next(item for item in get_snapshot().providers if item.id == provider)
    return [model.id for model in found.models]


@pytest.mark.parametrize(
    ("name", "id_"), [("openai", "openai"), ("anthropic", "anthropic"), ("gemini", "google")]
)
def test_every_known_model_costs_what_genai_prices_says(name: str, id_: str) -> None:
    rng = random.Random(name)  # noqa: S311
    priced = 0
    for model in models(id_):
        try:
            price = prices.find_price(name, model, None, None)
        except prices.UnknownPriceError:
            continue  # no price for text: embeddings, images, speech
        priced += 1
        for _ in range(20):
            used = usage(rng)
            assert price.cost_nano(used) == exact_nano(model, used, provider_id=id_)
            most_input = used.input_tokens + rng.randrange(1000)
            assert price.cost_nano(used) <= price.worst_nano(most_input, used.output_tokens)
    assert priced > 20


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("https://api.groq.com/openai/v1", "openai/gpt-oss-20b"),
        ("https://openrouter.ai/api/v1", "openai/gpt-4o-mini"),
        ("https://api.deepseek.com", "deepseek-chat"),
    ],
)
def test_compatible_servers_are_known_by_their_url(url: str, model: str) -> None:
    price = prices.find_price("compatible", model, url, None)
    used = base.Usage(1000, 500, 100)
    assert price.cost_nano(used) == exact_nano(model, used, provider_api_url=url) > 0


def test_a_tier_makes_all_tokens_dearer() -> None:
    price = prices.find_price("gemini", "gemini-2.5-pro", None, None)
    below, above = base.Usage(200_000, 100), base.Usage(200_001, 100)
    assert price.cost_nano(above) > 1.9 * price.cost_nano(below)
    assert price.worst_nano(200_000, 100) < price.worst_nano(200_001, 100)


def test_the_worst_case_has_the_premium_of_writing_to_the_cache() -> None:
    price = prices.find_price("anthropic", "claude-sonnet-5", None, None)
    plain, written = base.Usage(1000, 0), base.Usage(1000, 0, cache_write_tokens=1000)
    assert price.cost_nano(plain) < price.cost_nano(written) == price.worst_nano(1000, 0)


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [
        ("openai", "gpt-99-ultra", None),
        ("openai", "my-gpt-4o", None),
        ("openai", "text-embedding-3-small", None),
        ("anthropic", "claude-nonsense", None),
        ("gemini", "gemini-99", None),
        ("gemini", "gemini-embedding-001", None),
        ("compatible", "llama3", "http://localhost:11434/v1"),
        ("compatible", "gpt-4o", "https://api.example.com/v1"),
        ("compatible", "gpt-4o", None),
    ],
)
def test_an_unknown_price_is_an_error_that_says_what_to_do(
    name: str, model: str, url: str | None
) -> None:
    with pytest.raises(prices.UnknownPriceError) as caught:
        prices.find_price(name, model, url, None)
    for word in (
        model,
        f"{name.upper()}_INPUT_USD_PER_MTOK",
        f"{name.upper()}_OUTPUT_USD_PER_MTOK",
    ):
        assert word in str(caught.value)


def test_a_stated_price_wins() -> None:
    price = prices.find_price("openai", "gpt-4o", None, (Decimal("0.5"), Decimal("1.25")))
    assert price.cost_nano(base.Usage(1000, 100, 400, 100, 50)) == 1000 * 500 + 100 * 1250
    assert price.worst_nano(1000, 100) == 1000 * 500 + 100 * 1250


def test_sums_are_rounded_up() -> None:
    price = prices.find_price("openai", "x", None, (Decimal("0.0001"), Decimal("0.0000000001")))
    assert price.cost_nano(base.Usage(1, 0)) == 1
    assert price.cost_nano(base.Usage(0, 1)) == 1
    assert price.cost_nano(base.Usage(0, 0)) == 0


def test_the_demo_is_free() -> None:
    price = prices.find_price("demo", "demo", None, None)
    assert price.cost_nano(base.Usage(1000, 1000)) == price.worst_nano(1000, 1000) == 0


def test_usage_that_contradicts_itself_costs_no_less_than_its_parts() -> None:
    price = prices.find_price("openai", "gpt-4o", None, None)
    assert price.cost_nano(base.Usage(10, 10, cached_tokens=1000, reasoning_tokens=99)) > 0


def test_prices_that_change_change_while_the_app_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def price(usd: int) -> ModelPrice:
        return ModelPrice(input_mtok=Decimal(usd), output_mtok=Decimal(usd))

    def rule(year: int) -> StartDateConstraint:
        return StartDateConstraint(datetime(year, 1, 1, tzinfo=UTC).date())

    model = ModelInfo(
        "m",
        match=None,  # type: ignore[arg-type]
        prices=[
            ConditionalPrice(None, prices=price(9)),
            ConditionalPrice(rule(2020), prices=price(1)),
            ConditionalPrice(rule(2100), prices=price(3)),
        ],
    )
    found = prices.Price(prices._periods(model))
    assert found.cost_nano(base.Usage(1, 0)) == 1000
    assert found.worst_nano(1, 0) == 3000  # what is to come counts, what is over does not

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return cls(2101, 1, 1, tzinfo=tz)

    monkeypatch.setattr(prices, "datetime", Later)
    assert found.cost_nano(base.Usage(1, 0)) == 3000


def test_it_is_cheap() -> None:
    price = prices.find_price("gemini", "gemini-2.5-pro", None, None)
    used = base.Usage(250_000, 1000, 1000, 0, 100)
    for work in (lambda: price.cost_nano(used), lambda: price.worst_nano(4000, 1000)):
        assert min(timeit.repeat(work, number=1000, repeat=5)) / 1000 < 20e-6
