"""What each provider sends and answers when all is well."""

import asyncio
import hashlib
import json
from typing import Any

import pytest

from tests.providers.conftest import (
    KEY,
    REAL,
    Lab,
    base,
    fp,
    prompt,
)

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def sent(fake: Any) -> dict[str, Any]:
    """The body of the last call."""
    return dict(fake.ledger.calls[-1].body)


def test_answers(fake: Any, lab: Lab, name: str, streamed: bool) -> None:
    text = "Hi \u2028 안녕 😀\n\n data: {}"
    fake.next(fp.Reply(text=text))
    answer = lab.ask(lab.provider(name), prompt("hi", max_output_tokens=50), streamed=streamed)
    assert answer.text == text
    assert answer.finish_reason == "stop"
    call = fake.ledger.calls[-1]
    assert (call.model, call.stream, call.max_tokens) == ("model-1", streamed, 50)
    assert call.key == hashlib.sha256(KEY.encode()).hexdigest()[:12]
    assert call.outcome == "answered"


def test_usage_counts_cached_and_reasoning_tokens_in(
    fake: Any, lab: Lab, name: str, streamed: bool
) -> None:
    cache_written = 0 if name == "gemini" else 10  # Gemini does not state what it writes
    used = fp.Usage(prompt=100, completion=20, cached=60, cache_written=cache_written, reasoning=5)
    fake.next(fp.Reply(chunks=15, usage=used))
    answer = lab.ask(lab.provider(name), prompt(), streamed=streamed)
    assert answer.usage == base.Usage(100, 20, 60, cache_written, 5)


def test_usage_that_is_not_stated_is_none(fake: Any, lab: Lab, name: str, streamed: bool) -> None:
    fake.next(fp.Reply(text="hello", omit_usage=True))
    answer = lab.ask(lab.provider(name), prompt(), streamed=streamed)
    assert (answer.text, answer.usage) == ("hello", None)


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
def test_finish_reasons(fake: Any, lab: Lab, name: str, streamed: bool, finish: str) -> None:
    fake.next(fp.Reply(text="hello", finish=finish))
    assert lab.ask(lab.provider(name), prompt(), streamed=streamed).finish_reason == finish


def test_a_pydantic_schema_is_enforced_natively(
    fake: Any, lab: Lab, name: str, streamed: bool
) -> None:
    wanted = base.ResponseFormat("json_schema", schema=SCHEMA)
    answer = lab.ask(lab.provider(name), prompt(response_format=wanted), streamed=streamed)
    assert set(json.loads(answer.text)) == {"city", "people"}
    assert fake.ledger.calls[-1].response_format == SCHEMA


def test_a_json_object_without_a_schema(fake: Any, lab: Lab, name: str) -> None:
    answer = lab.ask(lab.provider(name), prompt(response_format=base.ResponseFormat("json_object")))
    if name == "anthropic":  # it has no such mode, and is asked in words
        assert sent(fake)["system"] == "Answer with one JSON object and nothing else."
    else:
        assert isinstance(json.loads(answer.text), dict)


def test_only_what_is_set_is_sent(fake: Any, lab: Lab) -> None:
    for name, expected in {
        "openai": {"model", "messages", "max_completion_tokens"},
        "compatible": {"model", "messages", "max_tokens"},
        "anthropic": {"model", "messages", "max_tokens"},
        "gemini": {"contents", "generationConfig"},
    }.items():
        lab.ask(lab.provider(name), prompt())
        assert set(sent(fake)) == expected
    assert sent(fake)["generationConfig"] == {"maxOutputTokens": 1000}


def test_every_parameter_arrives(fake: Any, lab: Lab) -> None:
    question = prompt(temperature=0.5, top_p=0.9, stop=("END", "FIN"), seed=7, end_user="hash-1")
    bodies = {}
    for name in REAL:
        lab.ask(lab.provider(name), question)
        bodies[name] = sent(fake)
    openai = {"temperature": 0.5, "top_p": 0.9, "stop": ["END", "FIN"], "seed": 7}
    assert bodies["openai"].items() >= {**openai, "safety_identifier": "hash-1"}.items()
    assert bodies["compatible"].items() >= {**openai, "user": "hash-1"}.items()
    assert (
        bodies["anthropic"].items()
        >= {
            "temperature": 0.5,
            "top_p": 0.9,
            "stop_sequences": ["END", "FIN"],
            "metadata": {"user_id": "hash-1"},
        }.items()
    )
    assert bodies["gemini"]["generationConfig"] == {
        "maxOutputTokens": 1000,
        "temperature": 0.5,
        "topP": 0.9,
        "stopSequences": ["END", "FIN"],
        "seed": 7,
    }


def test_streamed_usage_is_asked_for(fake: Any, lab: Lab) -> None:
    for name in ("openai", "compatible"):
        lab.ask(lab.provider(name), prompt(), streamed=True)
        assert sent(fake)["stream_options"] == {"include_usage": True}


LONG = (
    ("system", "Be brief."),
    ("user", "one"),
    ("user", "two"),
    ("system", "Be kind."),
    ("assistant", ""),
    ("assistant", "three"),
    ("user", "four"),
)


def test_openai_gets_the_messages_as_they_are(fake: Any, lab: Lab) -> None:
    lab.ask(lab.provider("openai"), prompt(*LONG))
    assert fake.ledger.calls[-1].messages == list(LONG)


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
def test_the_others_get_one_system_text_and_alternating_turns(
    fake: Any, lab: Lab, name: str
) -> None:
    lab.ask(lab.provider(name), prompt(*LONG))
    assert fake.ledger.calls[-1].messages == [
        ("system", "Be brief.\n\nBe kind."),
        ("user", "one\n\ntwo"),
        ("assistant", "three"),
        ("user", "four"),
    ]


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
@pytest.mark.parametrize("opening", [("assistant", "Welcome!"), ("system", "Say hello.")])
def test_the_first_turn_is_the_users(
    fake: Any, lab: Lab, name: str, opening: tuple[str, str]
) -> None:
    lab.ask(lab.provider(name), prompt(opening))
    turns = [message for message in fake.ledger.calls[-1].messages if message[0] != "system"]
    assert turns[0] == ("user", ".")
    assert opening in fake.ledger.calls[-1].messages


def test_two_hundred_calls_at_once(fake: Any, lab: Lab, name: str) -> None:
    fake.always(fp.Hang())
    provider = lab.provider(name, read=15, pool=15)

    async def crowd() -> None:
        tasks = [asyncio.create_task(provider.complete(prompt())) for _ in range(200)]
        await asyncio.to_thread(fake.ledger.wait_for, 200, 15)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    lab.run(crowd())
