"""Each way to fail, as each SDK meets it, and what the ledger says of it."""

import asyncio
import contextlib
import time
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google.genai import errors

from tests.fake_provider.conftest import HASTE, Chat, fp

TIMEOUTS = (openai.APITimeoutError, anthropic.APITimeoutError, httpx2.TimeoutException)
BROKEN = (
    openai.APIConnectionError,
    anthropic.APIConnectionError,
    httpx2.TransportError,
)
UNREADABLE = (
    openai.APIError,
    anthropic.APIError,
    errors.APIError,
    errors.UnknownApiResponseError,
    ValueError,
    AttributeError,
)
MARGIN = 1.0  # seconds that a busy machine may add
SLOW = fp.Reply(chunks=50, delay_between=0.01)


def read(chat: Chat, wire: str, streamed: bool, pieces: list[str]) -> None:
    """Ask, and keep what arrives before the failure."""
    if streamed:
        for piece in chat.stream(wire):
            pieces.append(piece)
    else:
        pieces.append(chat.ask(wire))


@pytest.mark.parametrize(
    ("where", "streamed"),
    [("connect", False), ("headers", True), ("chunk", True), ("body", False)],
)
def test_hang(fake: Any, hasty: Chat, wire: str, where: str, streamed: bool) -> None:
    fake.always(fp.Hang(where, after_chunks=2))
    pieces: list[str] = []
    started = time.monotonic()
    with pytest.raises(TIMEOUTS):
        read(hasty, wire, streamed, pieces)
    assert time.monotonic() - started < HASTE + MARGIN
    fake.ledger.idle()
    (call,) = fake.ledger.calls
    assert call.outcome == "client_left"
    assert call.status == (None if where == "connect" else 200)
    assert (call.usage.prompt > 0) is (where != "connect")
    if streamed:
        assert len(pieces) == call.chunks_sent == call.usage.completion
        assert call.chunks_sent == (2 if where == "chunk" else 0)


def test_status_in_the_shape_of_each_provider(fake: Any, chat: Chat) -> None:
    fake.always(fp.Status(429, "slow down", retry_after=7))
    with pytest.raises(openai.RateLimitError, match="slow down") as one:
        chat.ask("openai")
    assert (one.value.code, one.value.response.headers["retry-after"]) == (
        "rate_limit_exceeded",
        "7",
    )
    with pytest.raises(anthropic.RateLimitError, match="slow down") as two:
        chat.ask("anthropic")
    assert two.value.response.headers["retry-after"] == "7"
    assert two.value.request_id == two.value.body["request_id"]  # type: ignore[index]
    with pytest.raises(errors.ClientError, match="slow down") as three:
        chat.ask("gemini")
    assert three.value.status == "RESOURCE_EXHAUSTED"
    assert three.value.details["error"]["details"][0]["retryDelay"] == "7s"

    fake.always(fp.Status(529))
    with pytest.raises(anthropic.OverloadedError, match="overloaded_error"):
        list(chat.stream("anthropic"))
    fake.always(fp.Status(429, kind="insufficient_quota", headers={"x-should-retry": "false"}))
    with pytest.raises(openai.RateLimitError) as four:
        list(chat.stream("openai"))
    assert four.value.type == four.value.code == "insufficient_quota"
    assert four.value.response.headers["x-should-retry"] == "false"
    assert {call.outcome for call in fake.ledger.calls} == {"status"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", ["connect", "headers", "body"])
def test_reset(fake: Any, chat: Chat, wire: str, where: str, streamed: bool) -> None:
    fake.always(fp.Reset(where, after_chunks=2))
    pieces: list[str] = []
    with pytest.raises(BROKEN):
        read(chat, wire, streamed, pieces)
    (call,) = fake.ledger.calls
    assert call.outcome == "cut"
    assert len(pieces) == (2 if streamed and where == "body" else 0)


@pytest.mark.parametrize("streamed", [False, True])
def test_garbage(fake: Any, chat: Chat, wire: str, streamed: bool) -> None:
    fake.next(fp.Garbage(), fp.Garbage(b'{"broken": '), fp.Garbage(after_chunks=0))
    for _ in range(2):
        with pytest.raises(UNREADABLE):
            read(chat, wire, streamed, [])
    pieces: list[str] = []
    with contextlib.suppress(*UNREADABLE):  # some SDKs take a page of HTML for an empty answer
        read(chat, wire, streamed, pieces)
    assert pieces in ([], [""])
    assert [call.outcome for call in fake.ledger.calls] == ["garbage"] * 3


def test_error_inside_a_stream(fake: Any, chat: Chat, wire: str) -> None:
    fake.always(fp.ErrorInside(529 if wire == "anthropic" else 503, "gave up", after_chunks=3))
    pieces: list[str] = []
    with pytest.raises((openai.APIError, anthropic.APIError, errors.APIError), match="gave up"):
        read(chat, wire, True, pieces)
    (call,) = fake.ledger.calls
    assert (call.outcome, len(pieces), call.usage.completion) == ("error_inside", 3, 3)


def test_error_inside_a_body(fake: Any, http: httpx2.Client) -> None:
    fake.always(fp.ErrorInside(500, "gave up"))
    headers = {"authorization": "Bearer k"}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    response = http.post("/v1/chat/completions", json=body, headers=headers)
    assert (response.status_code, response.json()["error"]["message"]) == (200, "gave up")


def test_truncated_stream_ends_cleanly(fake: Any, chat: Chat, wire: str) -> None:
    fake.always(fp.Truncate(after_chunks=2))
    pieces: list[str] = []
    read(chat, wire, True, pieces)
    assert len(pieces) == 2, "no SDK notices: the app has to"
    assert fake.ledger.calls[0].outcome == "truncated"


def test_truncated_body(fake: Any, chat: Chat, wire: str) -> None:
    fake.always(fp.Truncate())
    with pytest.raises(UNREADABLE):
        read(chat, wire, False, [])


@pytest.mark.parametrize("streamed", [False, True])
def test_drip_is_the_true_answer(fake: Any, chat: Chat, wire: str, streamed: bool) -> None:
    fake.always(fp.Drip(0.001, bytes=64, reply=fp.Reply("안녕 드립")))
    pieces: list[str] = []
    read(chat, wire, streamed, pieces)
    assert "".join(pieces) == "안녕 드립"
    assert fake.ledger.calls[0].outcome == "answered"


def test_drip_outlives_a_read_timeout(fake: Any, hasty: Chat) -> None:
    fake.always(fp.Drip(HASTE / 4, bytes=60, reply=fp.Reply("a b")))
    started = time.monotonic()
    hasty.ask("openai")
    assert time.monotonic() - started > 1.5 * HASTE


def test_delays(fake: Any, chat: Chat, wire: str) -> None:
    fake.always(fp.Reply(chunks=6, delay_before=0.1, delay_between=0.01))
    for streamed in (False, True):
        started = time.monotonic()
        read(chat, wire, streamed, [])
        assert 0.15 <= time.monotonic() - started < 0.15 + MARGIN


def test_a_client_that_leaves_a_stream_is_billed_for_what_was_generated(
    fake: Any, chat: Chat, wire: str
) -> None:
    fake.always(SLOW)
    pieces = chat.stream(wire)
    heard = [next(pieces) for _ in range(3)]
    pieces.close()
    left = time.monotonic()
    fake.ledger.idle()
    (call,) = fake.ledger.calls
    assert call.outcome == "client_left"
    assert call.finished - left < MARGIN
    assert len(heard) <= call.usage.completion == call.chunks_sent < 50


@pytest.mark.parametrize("behaviour", [SLOW, fp.Reply(delay_before=5), fp.Hang("headers")])
def test_a_client_that_leaves_in_silence_is_noticed_at_once(fake: Any, behaviour: Any) -> None:
    fake.always(behaviour)

    async def leave() -> float:
        async with openai.AsyncOpenAI(api_key="k", base_url=fake.openai_base_url) as client:
            call = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}]
            )
            task = asyncio.create_task(call)
            await asyncio.to_thread(fake.ledger.wait_for, 1)
            await asyncio.sleep(0.1)
            task.cancel()
            left = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            return left

    left = asyncio.run(leave())
    fake.ledger.idle()
    (call,) = fake.ledger.calls
    assert call.outcome == "client_left"
    assert call.finished - left < MARGIN
    assert call.usage.prompt > 0
    assert call.usage.completion < 50


def test_refused_connections(fake: Any, chat: Chat, wire: str) -> None:
    chat.ask(wire)
    port = fake.port
    for _ in range(3):
        fake.refuse_connections()
        with pytest.raises(BROKEN) as refused:
            chat.ask(wire)
        cause: BaseException | None = refused.value
        while cause and not isinstance(cause, httpx2.ConnectError):
            cause = cause.__cause__
        assert cause, "an error of connecting, not of a pooled connection"
        fake.accept_connections()
        chat.ask(wire)
    assert fake.port == port
    assert len(fake.ledger.calls) == 4


def test_a_call_in_flight_outlives_the_closing_of_the_port(fake: Any, chat: Chat) -> None:
    fake.always(SLOW)
    pieces = chat.stream("openai")
    next(pieces)
    fake.refuse_connections()
    assert len(list(pieces)) == 49
    with pytest.raises(openai.APIConnectionError):
        chat.ask("openai")


def test_stopping_ends_the_calls_in_flight() -> None:
    with fp.FakeProvider() as fake:
        fake.always(fp.Hang())
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}

        async def ask() -> None:
            async with httpx2.AsyncClient() as client:
                url = f"{fake.openai_base_url}/chat/completions"
                post = client.post(url, json=body, headers={"authorization": "Bearer k"})
                task = asyncio.create_task(post)
                await asyncio.to_thread(fake.ledger.wait_for, 1)
                await asyncio.to_thread(fake.stop)
                with pytest.raises(httpx2.TransportError):
                    await task

        asyncio.run(ask())
        assert fake.ledger.calls[0].outcome == "stopped"
