"""What each wire says when all is well, read by its own SDK."""

from typing import Any, Literal

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel, Field

from tests.fake_provider.conftest import KEYS, Chat, fp


class Place(BaseModel):
    city: str = Field(min_length=3)
    kind: Literal["town", "village"]
    people: int = Field(ge=1000, multiple_of=10)


class Trip(BaseModel):
    places: list[Place]
    note: str | None = None
    rating: float = Field(gt=0, lt=1)


class Town(BaseModel):
    """What Google's own dialect can say: it knows no multiples and no exclusive bounds."""

    name: str | None
    kind: Literal["old", "new"]
    people: int = Field(ge=10, le=20)
    twins: list[str] = Field(min_length=2)


USAGE = fp.Usage(prompt=100, completion=20, cached=60, cache_written=10, reasoning=5)


def test_the_same_answer_on_every_wire(fake: Any, chat: Chat) -> None:
    answers = {chat.ask(wire) for wire in KEYS} | {"".join(chat.stream(wire)) for wire in KEYS}
    assert len(answers) == 1
    assert answers.pop().startswith("You said: hi there")
    assert [call.stream for call in fake.ledger.calls] == [False] * 3 + [True] * 3


def test_the_answer_depends_on_messages_temperature_and_seed(fake: Any, oai: openai.OpenAI) -> None:
    def ask(text: str, temperature: float, seed: int, user: str) -> str | None:
        completion = oai.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": text}],
            temperature=temperature,
            seed=seed,
            user=user,
        )
        return completion.choices[0].message.content

    first = ask("a", 0, 1, "x")
    assert first == ask("a", 0.0, 1, "y")
    assert len({first, ask("b", 0, 1, "x"), ask("a", 1, 1, "x"), ask("a", 0, 2, "x")}) == 4


def test_openai_usage(fake: Any, oai: openai.OpenAI) -> None:
    fake.always(fp.Reply(usage=USAGE))
    usage = oai.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}]
    ).usage
    assert usage
    assert usage.prompt_tokens_details
    assert usage.completion_tokens_details
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 20, 120)
    assert usage.prompt_tokens_details.cached_tokens == 60
    assert usage.completion_tokens_details.reasoning_tokens == 5


@pytest.mark.parametrize("include", [True, False])
def test_openai_stream_usage_only_when_asked_for(
    fake: Any, oai: openai.OpenAI, include: bool
) -> None:
    chunks = list(
        oai.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            stream=True,
            stream_options={"include_usage": include},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    stated = [chunk.usage for chunk in chunks if chunk.usage]
    if not include:
        assert not stated
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert chunks[-1].choices == []
        assert [usage.completion_tokens for usage in stated] == [fake.ledger.calls[0].chunks_sent]


def test_anthropic_usage_and_events(fake: Any, claude: anthropic.Anthropic) -> None:
    fake.always(fp.Reply(usage=USAGE))
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": "x"}]
    usage = claude.messages.create(model="m", max_tokens=99, messages=messages).usage
    assert (usage.input_tokens, usage.output_tokens) == (30, 20)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (60, 10)

    with claude.messages.create(model="m", max_tokens=99, messages=messages, stream=True) as events:
        kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    with claude.messages.stream(model="m", max_tokens=99, messages=messages) as stream:
        assert stream.get_final_message().usage == usage


def test_gemini_usage(fake: Any, gemini: genai.Client) -> None:
    fake.always(fp.Reply(usage=USAGE))
    whole = gemini.models.generate_content(model="m", contents="x")
    *_, last = gemini.models.generate_content_stream(model="m", contents="x")
    for usage in (whole.usage_metadata, last.usage_metadata):
        assert usage
        assert (usage.prompt_token_count, usage.cached_content_token_count) == (100, 60)
        assert (usage.candidates_token_count, usage.thoughts_token_count) == (15, 5)
        assert usage.total_token_count == 120


def test_usage_that_is_not_stated(fake: Any, oai: openai.OpenAI) -> None:
    fake.always(fp.Reply(omit_usage=True))
    completion = oai.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert completion.usage is None
    assert fake.ledger.calls[0].usage.completion > 0


def test_structured_output(
    fake: Any, oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client
) -> None:
    mail: Any = [{"role": "user", "content": "where to?"}]
    # `messages.parse` would move what it takes for too fine, such as a minimum, to a description.
    output: Any = {"format": {"type": "json_schema", "schema": Trip.model_json_schema()}}
    message = claude.messages.create(model="m", max_tokens=99, messages=mail, output_config=output)
    parsed: list[Any] = [
        oai.chat.completions.parse(model="m", messages=mail, response_format=Trip)
        .choices[0]
        .message.parsed,
        Trip.model_validate_json(
            next(block.text for block in message.content if block.type == "text")
        ),
    ]
    for schema in ({"response_json_schema": Trip.model_json_schema()}, {"response_schema": Town}):
        config = types.GenerateContentConfig(response_mime_type="application/json", **schema)
        text = gemini.models.generate_content(model="m", contents="where?", config=config).text
        model = Town if "response_schema" in schema else Trip
        parsed.append(model.model_validate_json(text or ""))
    assert all(parsed)


def test_json_object(fake: Any, oai: openai.OpenAI) -> None:
    content = (
        oai.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            response_format={"type": "json_object"},
        )
        .choices[0]
        .message.content
    )
    assert content
    assert content.startswith('{"answer": ')


def test_recursive_and_merged_schemas() -> None:
    class Node(BaseModel):
        name: str
        left: "Node | None"
        children: list["Node"]

    make = fp.answers.example
    Node.model_validate(make(Node.model_json_schema()))
    merged = {
        "allOf": [
            {"properties": {"a": {"type": "integer", "maximum": -5}}, "required": ["a"]},
            {"properties": {"b": {"const": 7}}},
        ],
        "type": "object",
    }
    assert make(merged) == {"a": -5, "b": 7}


def test_token_limits_are_obeyed(
    fake: Any, oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client
) -> None:
    fake.always(fp.Reply(chunks=50))
    mail: Any = [{"role": "user", "content": "x"}]
    for limit in ({"max_tokens": 3}, {"max_completion_tokens": 3}):
        completion = oai.chat.completions.create(model="m", messages=mail, **limit)  # type: ignore[call-overload]
        assert completion.choices[0].finish_reason == "length"
        assert completion.usage.completion_tokens == 3
    message = claude.messages.create(model="m", max_tokens=3, messages=mail)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)
    response = gemini.models.generate_content(
        model="m", contents="x", config=types.GenerateContentConfig(max_output_tokens=3)
    )
    assert response.candidates
    assert response.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


def test_content_filter(
    fake: Any, oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client
) -> None:
    fake.always(fp.Reply(finish="content_filter"))
    mail: Any = [{"role": "user", "content": "x"}]
    completion = oai.chat.completions.create(model="m", messages=mail)
    assert completion.choices[0].finish_reason == "content_filter"
    assert claude.messages.create(model="m", max_tokens=9, messages=mail).stop_reason == "refusal"
    blocked = gemini.models.generate_content(model="m", contents="x")
    assert blocked.candidates
    assert blocked.candidates[0].finish_reason == types.FinishReason.SAFETY
    assert blocked.text is None


def test_text_beyond_ascii_travels_raw(fake: Any, chat: Chat, wire: str) -> None:
    text = '안녕하세요 "친구" \u2028 \\ 🙂\n끝'
    fake.always(fp.Reply(text))
    assert chat.ask(wire) == text
    assert "".join(chat.stream(wire)) == text


@pytest.mark.parametrize(
    ("path", "body", "status", "shape"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user"}]}, 401, "param"),
        ("/v1/messages", {}, 401, "type"),
        ("/v1beta/models/m:generateContent", {}, 403, "status"),
        ("/v1/nothing", {}, 401, "code"),
    ],
)
def test_no_key(
    fake: Any, http: httpx2.Client, path: str, body: Any, status: int, shape: str
) -> None:
    response = http.post(path, json=body)
    assert response.status_code == status
    assert shape in response.json()["error"]
    (call,) = fake.ledger.calls
    assert (call.outcome, call.status, call.usage) == ("refused", status, fp.Usage())


def test_keys_come_in_every_way_that_the_providers_take(fake: Any, http: httpx2.Client) -> None:
    contents = {"contents": [{"parts": [{"text": "x"}]}]}
    assert http.post("/v1beta/models/m:generateContent?key=k", json=contents).status_code == 200
    message = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    for version, key in (
        ("2023-06-01", {"x-api-key": "k"}),
        ("2026-10-21", {"authorization": "Bearer k"}),
    ):
        headers = {"anthropic-version": version, **key}
        assert http.post("/v1/messages", json=message, headers=headers).status_code == 200
    assert len({call.key for call in fake.ledger.calls}) == 1
    assert "?" not in fake.ledger.calls[0].path


def test_anthropic_refuses_sampling_parameters_since_2026_10_21(
    fake: Any, claude: anthropic.Anthropic
) -> None:
    mail: Any = [{"role": "user", "content": "x"}]
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        claude.messages.create(
            model="m", max_tokens=9, messages=mail, extra_body={"temperature": 1}
        )
    claude.messages.create(
        model="m",
        max_tokens=9,
        messages=mail,
        extra_body={"temperature": 1},
        extra_headers={"anthropic-version": "2023-06-01"},
    )
    assert [call.outcome for call in fake.ledger.calls] == ["refused", "answered"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model":"m"}', b'{"model":"m","messages":[]}'])
def test_malformed_requests(fake: Any, http: httpx2.Client, body: bytes) -> None:
    headers = {"authorization": "Bearer k"}
    response = http.post("/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert http.get("/v1/models", headers=headers).status_code == 404
    assert len(fake.ledger.calls) == 1, "a probe is not a call"
