"""Streams byte by byte: how they are cut into events, how they end, and how they are left."""

import asyncio
import gzip
import json
import time
import tracemalloc
from contextlib import aclosing
from typing import Any

import pytest

from tests.providers.conftest import REAL, Lab, base, fp, http, module, prompt

LAST = {
    "openai": b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "anthropic": b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    "gemini": b'data: {"candidates":[{"finishReason":"STOP"}]}\n\n',
}
LAST["compatible"] = LAST["openai"]
# Gemini's streams have no end marker: they end with the connection.
MARKED = [name for name in REAL if name != "gemini"]


def says(name: str, text: str) -> bytes:
    """One event of a wire, with some text."""
    event: Any = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    if name == "anthropic":
        event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    if name == "gemini":
        event = {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}}]}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


# The decoder alone.


def events(*chunks: bytes) -> list[bytes]:
    decoder = module("formats").EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


STREAM = (
    ": keep-alive\n\n"
    'data: {"a": "\u2028 \u0085 안녕 😀"}\n\n'
    "event: ping\nid: 1\nretry: 5\ndata:{}\n\n"
    "\n\n"
    "data: [1,\ndata: 2]\n\n"
    "data\n\ndatum: x\n\n"
    "data: end\n\n"
)
EXPECTED = ['{"a": "\u2028 \u0085 안녕 😀"}'.encode(), b"{}", b"[1,\n2]", b"end"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_however_they_are_cut(line_end: str, size: int) -> None:
    data = (STREAM.replace("\n", line_end) + ":").encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert events(*chunks) == EXPECTED


def test_half_an_event_is_none() -> None:
    assert events(b"data: {}\n") == []
    assert events(b"data: {}") == []


def test_an_event_without_an_end_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("formats"), "MAX_ANSWER_BYTES", 1000)
    url = lab.says(http(b"data: " + b"x" * 2000))
    assert lab.fail(lab.provider("openai", url), streamed=True).kind == "garbage"
    url = lab.says(http(b" " * 2000, "application/json"))
    assert lab.fail(lab.provider("openai", url)).kind == "garbage"


def test_an_error_without_an_end_is_refused(lab: Lab, streamed: bool) -> None:
    bomb = gzip.compress(b" " * 40_000_000)
    url = lab.says(http(bomb, "application/json", "500 Oh", "content-encoding: gzip\r\n"))
    tracemalloc.start()
    try:
        assert lab.fail(lab.provider("openai", url), streamed=streamed).kind == "garbage"
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


# Whole streams.


@pytest.mark.parametrize("name", MARKED)
def test_what_comes_after_the_end_is_ignored(lab: Lab, name: str) -> None:
    url = lab.says(http(says(name, "hello") + LAST[name] + b"data: {nonsense\n\n"))
    assert lab.ask(lab.provider(name, url), streamed=True).text == "hello"


def test_a_stream_may_come_compressed(lab: Lab, name: str) -> None:
    body = gzip.compress(says(name, "안녕 " * 100) + LAST[name])
    url = lab.says(http(body, more="content-encoding: gzip\r\n"))
    assert lab.ask(lab.provider(name, url), streamed=True).text == "안녕 " * 100
    url = lab.says(http(b"no gzip", more="content-encoding: gzip\r\n"))
    assert lab.fail(lab.provider(name, url), streamed=True).kind == "garbage"


def test_half_of_a_surrogate_pair_becomes_a_question_mark(lab: Lab, name: str) -> None:
    body = says(name, "MARK").replace(b"MARK", b"a\\ud83d") + says(name, "한 😀")
    url = lab.says(http(body + LAST[name]))
    assert lab.ask(lab.provider(name, url), streamed=True).text == "a\ufffd한 😀"
    lab.ask(lab.provider(name), prompt("half \ud83d of it"))
    assert lab.fake.ledger.calls[-1].messages == [("user", "half ? of it")]


@pytest.mark.parametrize(
    "cut", [b"data: [DONE]\n\n", b'event: message_stop\ndata: {"type":"message']
)
def test_a_missing_end_marker(lab: Lab, name: str, cut: bytes) -> None:
    whole = says(name, "hello") + LAST[name]
    url = lab.says(http(whole.split(cut)[0]))
    if name in ("compatible", "gemini") or whole.find(cut) < 0:  # a finish reason is enough there
        assert lab.ask(lab.provider(name, url), streamed=True).finish_reason == "stop"
    else:
        assert lab.fail(lab.provider(name, url), streamed=True).kind == "broken"


def test_a_break_after_the_end_does_not_cost_the_answer(lab: Lab, name: str) -> None:
    url = lab.says(http(says(name, "hello") + LAST[name], more="content-length: 99999\r\n"))
    assert lab.ask(lab.provider(name, url), streamed=True).text == "hello"


def test_an_end_marker_without_a_finish_reason_is_broken(lab: Lab) -> None:
    for name in ("openai", "compatible"):
        url = lab.says(http(says(name, "hello") + b"data: [DONE]\n\n"))
        assert lab.fail(lab.provider(name, url), streamed=True).kind == "broken"


def test_a_server_that_ignores_stream_is_understood(lab: Lab) -> None:
    body = b'{"choices":[{"message":{"content":"hello"},"finish_reason":"length"}]}'
    url = lab.says(http(body, "application/json"))
    assert lab.ask(lab.provider("compatible", url), streamed=True) == base.Answer(
        "hello", "length", None
    )


def test_reasoning_that_is_only_in_the_total_is_output(lab: Lab) -> None:
    usage = b'"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":30}'
    body = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],' + usage + b"}"
    url = lab.says(http(body, "application/json"))
    assert lab.ask(lab.provider("compatible", url)).usage == base.Usage(9, 21)


@pytest.mark.parametrize("usage", ["7", "[]", '{"prompt_tokens":"9"}', '{"prompt_tokens":-1}'])
def test_nonsense_for_usage_does_not_cost_the_answer(lab: Lab, usage: str) -> None:
    body = '{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":USAGE}'
    body = body.replace("USAGE", usage)
    url = lab.says(http(body.encode(), "application/json"))
    assert lab.ask(lab.provider("openai", url)) == base.Answer("hi", "stop", None)


def test_refusals(lab: Lab) -> None:
    whole = b'{"choices":[{"message":{"content":null,"refusal":"No."},"finish_reason":"stop"}]}'
    url = lab.says(http(whole, "application/json"))
    assert lab.ask(lab.provider("openai", url)) == base.Answer("No.", "content_filter", None)
    part = b'data: {"choices":[{"delta":{"refusal":"No."},"finish_reason":null}]}\n\n'
    url = lab.says(http(part + LAST["openai"]))
    answer = lab.ask(lab.provider("openai", url), streamed=True)
    assert answer == base.Answer("No.", "content_filter", None)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_that_gemini_blocks(lab: Lab, streamed: bool) -> None:
    body = b'{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4}}'
    url = lab.says(http(b"data: " + body + b"\n\n") if streamed else http(body, "application/json"))
    answer = lab.ask(lab.provider("gemini", url), streamed=streamed)
    assert answer == base.Answer("", "content_filter", base.Usage(4, 0))


def test_thoughts_are_not_part_of_the_text(lab: Lab) -> None:
    content = '{"parts":[{"text":"hm","thought":true},{"text":"hello"}]}'
    body = '{"candidates":[{"content":' + content + ',"finishReason":"STOP"}]}'
    url = lab.says(http(body.encode(), "application/json"))
    assert lab.ask(lab.provider("gemini", url)).text == "hello"
    blocks = '[{"type":"thinking","thinking":"hm"},{"type":"text","text":"hello"}]'
    body = '{"content":' + blocks + ',"stop_reason":"end_turn"}'
    url = lab.says(http(body.encode(), "application/json"))
    assert lab.ask(lab.provider("anthropic", url)).text == "hello"
    delta = b'data: {"type":"content_block_delta","delta":{"type":"thinking_delta"}}\n\n'
    url = lab.says(http(delta + says("anthropic", "hello") + LAST["anthropic"]))
    assert lab.ask(lab.provider("anthropic", url), streamed=True).text == "hello"


# Leaving.


def test_closing_the_iterator_ends_the_call(lab: Lab, name: str) -> None:
    lab.fake.next(fp.Reply(chunks=500, delay_between=0.01))

    async def leave() -> None:
        async with aclosing(lab.provider(name).stream(prompt())) as pieces:
            async for _ in pieces:
                break
        await asyncio.sleep(0)

    lab.run(leave())
    lab.fake.ledger.idle(timeout=1)
    (call,) = lab.fake.ledger.calls
    assert call.outcome == "client_left"
    assert call.chunks_sent < 100


@pytest.mark.parametrize("where", ["connect", "headers", "chunk"])
def test_cancelling_ends_the_call(lab: Lab, name: str, streamed: bool, where: str) -> None:
    lab.fake.next(fp.Hang(where if streamed else "body" if where == "chunk" else where))
    provider = lab.provider(name)

    async def leave() -> float:
        async def consume() -> None:
            if streamed:
                async for _ in provider.stream(prompt()):
                    pass
            else:
                await provider.complete(prompt())

        task = asyncio.create_task(consume())
        await asyncio.to_thread(lab.fake.ledger.wait_for, 1)
        await asyncio.sleep(0.02)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - started

    assert lab.run(leave()) < 0.5
    lab.fake.ledger.idle(timeout=1)
    assert [call.outcome for call in lab.fake.ledger.calls] == ["client_left"]


def test_connections_are_used_again(lab: Lab, name: str, streamed: bool) -> None:
    """A stream is read to its last byte, which comes after its last event."""
    provider = lab.provider(name)
    for _ in range(5):
        lab.ask(provider, streamed=streamed)
        assert len(lab.fake.connections) <= 5  # one for each provider that was ever opened
    lab.fake.refuse_connections()
    lab.fake.accept_connections()
    for _ in range(3):
        lab.ask(provider, streamed=streamed)
    assert len(lab.fake.connections) == 1


@pytest.mark.parametrize("name", MARKED)
def test_a_server_that_does_not_hang_up_delays_nothing(lab: Lab, name: str) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    url = lab.says(head + says(name, "hello") + LAST[name], b"", pause=1)
    started = time.monotonic()
    assert lab.ask(lab.provider(name, url), streamed=True).text == "hello"
    assert time.monotonic() - started < 0.8
