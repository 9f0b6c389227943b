"""The demo provider: what a newcomer sees before any key is set."""

import json
import time
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, Field

from app.providers import demo
from app.providers.base import (
    Connection,
    Message,
    Piece,
    Prompt,
    Provider,
    ProviderError,
    ResponseFormat,
    Timeouts,
    Usage,
)
from app.providers.demo_schema import example


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SECONDS_PER_WORD", 0)


@pytest.fixture
def provider() -> Provider:
    return demo.connect(Connection("", "demo", None, Timeouts(1, 1, 1, 1)))


def prompt(text: str, max_output_tokens: int = 1000, **more: Any) -> Prompt:
    return Prompt((Message("system", "Be kind."), Message("user", text)), max_output_tokens, **more)


async def test_it_says_that_it_is_the_demo_and_what_was_said(provider: Provider) -> None:
    answer = await provider.complete(prompt("How are\nyou?"))
    assert answer.text.startswith("This is the demo provider")
    assert '"How are you?"' in answer.text
    assert ".env" in answer.text
    assert answer.finish_reason == "stop"


async def test_korean_is_answered_in_korean(provider: Provider) -> None:
    answer = await provider.complete(prompt("잘 지내?"))
    assert "데모" in answer.text
    assert '"잘 지내?"' in answer.text
    last = Prompt((Message("user", "안녕"), Message("assistant", "네"), Message("user", "hi")), 99)
    assert (await provider.complete(last)).text.isascii()


async def test_long_and_missing_messages(provider: Provider) -> None:
    answer = await provider.complete(prompt("word " * 1000))
    assert "…" in answer.text
    assert len(answer.text) < 300
    alone = await provider.complete(Prompt((Message("system", "Hello."),), 99))
    assert "You said" not in alone.text


async def test_a_stream_is_the_same_answer_word_by_word(provider: Provider) -> None:
    question = prompt("How are you?")
    pieces = [piece async for piece in provider.stream(question)]
    answer = await provider.complete(question)
    assert "".join(piece.text for piece in pieces) == answer.text
    assert pieces[-1] == Piece(finish_reason="stop", usage=answer.usage)
    assert len(pieces) == len(answer.text.split()) + 1
    assert answer.usage == Usage(input_tokens=5, output_tokens=len(answer.text.split()))


async def test_the_output_limit_is_obeyed(provider: Provider) -> None:
    answer = await provider.complete(prompt("How are you?", max_output_tokens=4))
    assert answer.text == "This is the demo"
    assert answer.finish_reason == "length"
    assert answer.usage == Usage(5, 4)


async def test_it_stops_where_it_is_told_to(provider: Provider) -> None:
    answer = await provider.complete(prompt("hi", stop=("provider", "no such word")))
    assert answer.text == "This is the demo"
    assert answer.finish_reason == "stop"


async def test_words_take_their_time(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SECONDS_PER_WORD", 0.01)
    started = time.monotonic()
    pieces = [piece async for piece in provider.stream(prompt("hi"))]
    assert time.monotonic() - started > 0.009 * (len(pieces) - 1)


class Colour(Enum):
    RED = "red"


class Part(BaseModel):
    amount: Annotated[int, Field(gt=3, le=9, multiple_of=4)]
    share: Annotated[float, Field(gt=0.2, lt=0.8)]


class Node(BaseModel):
    left: "Node | None"
    right: "Node | None"
    children: list["Node"] = []


class Everything(BaseModel):
    name: Annotated[str, Field(min_length=10, max_length=12)]
    colour: Colour
    kind: Literal["only"]
    maybe: int | None
    at: AwareDatetime
    parts: Annotated[list[Part], Field(min_length=2)]
    distinct: Annotated[set[str], Field(min_length=3)]
    pair: tuple[int, bool]
    either: Part | str
    below: Annotated[int, Field(lt=-5)]
    tree: Node
    free: dict[str, Any]
    optional: str = "x"


async def test_a_schema_is_obeyed(provider: Provider) -> None:
    wanted = ResponseFormat("json_schema", schema=Everything.model_json_schema())
    answer = await provider.complete(prompt("hi", response_format=wanted))
    Everything.model_validate_json(answer.text)


async def test_a_json_object_is_one(provider: Provider) -> None:
    wanted = ResponseFormat("json_object")
    answer = await provider.complete(prompt("hi", response_format=wanted))
    assert set(json.loads(answer.text)) == {"answer"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object"}, {}),
        ({"type": ["null", "integer"]}, 0),
        ({"type": "null"}, None),
        ({"const": None}, None),
        ({"enum": [3, 4]}, 3),
        ({"minimum": 2.5}, 3),
        ({"type": "number", "minimum": 1.5, "maximum": 1.75}, 1.625),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 1]),
        (
            {"type": "array", "prefixItems": [{"const": 1}], "minItems": 2, "items": {}},
            [1, "demo1"],
        ),
        ({"type": "object", "required": ["z"]}, {"z": "demo"}),
        (
            {
                "allOf": [{"$ref": "#/$defs/a~1b"}, {"properties": {"y": {"const": 2}}}],
                "$defs": {"a/b": {"type": "object", "properties": {"x": {"const": 1}}}},
            },
            {"x": 1, "y": 2},
        ),
        ({"oneOf": [{"type": "boolean"}, {"type": "string"}]}, True),
        ({"type": "string", "format": "uuid"}, "00000000-0000-4000-8000-000000000000"),
    ],
)
def test_examples(schema: dict[str, Any], expected: Any) -> None:
    assert example(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "minItems": 100_000},
        {"anyOf": 3},
        {"enum": []},
    ],
)
async def test_a_schema_that_nothing_obeys_is_invalid(
    provider: Provider, schema: dict[str, Any]
) -> None:
    wanted = ResponseFormat("json_schema", schema=schema)
    with pytest.raises(ProviderError) as caught:
        await provider.complete(prompt("hi", response_format=wanted))
    assert caught.value.kind == "invalid"
