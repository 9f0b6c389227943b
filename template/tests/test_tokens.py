"""The gate, the history and the summary, judged by what reaches the provider."""

import hashlib
import inspect
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from app.foundation.project import load_project
from app.standards.tokens import counting
from app.standards.tokens.counting import TokenCounter, byte_bound
from tests.fake_provider import FakeProvider, Reply, Status
from tests.fake_provider.ledger import Call
from tests.running import RunningApp, production, running_app, worked

LIMIT = 500
FIRST = load_project().providers[0]
SUMMARY = "SUMMARY: the user likes tea."


@pytest.fixture(scope="module")
def small_app(
    shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """An app that allows few tokens and few messages."""
    folder = tmp_path_factory.mktemp("small")
    environment = production(
        shared_fake, folder, providers=FIRST, max_input_tokens=LIMIT, max_history_messages=8
    )
    with running_app(environment, folder) as app:
        yield app


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return TokenCounter(4000)


def is_summary(call: Call) -> bool:
    """True for a call that asks for a summary."""
    return call.messages[0][1].startswith("Summarise the conversation")


def conversation(turns: int, text: str = "I like tea") -> list[ChatCompletionMessageParam]:
    """A conversation of so many turns; the last one waits for its answer."""
    messages: list[ChatCompletionMessageParam] = []
    for number in range(turns):
        messages.append({"role": "user", "content": f"{number}: {text}"})
        messages.append({"role": "assistant", "content": f"{number}: so you said"})
    return messages[:-1]


async def prompt_tokens(call: Call, counter: TokenCounter) -> int:
    """What the app's own rule makes of a call."""
    total = counting.TOKENS_PER_REQUEST
    for _, text in call.messages:
        count = await counter.count(text)
        assert count is not None
        total += counting.TOKENS_PER_MESSAGE + count
    return total


def test_the_ranks_are_those_that_tiktoken_pins() -> None:
    source = inspect.getsource(import_module("tiktoken_ext.openai_public").o200k_base)
    assert counting.RANKS_SHA256 in source
    address = next(part for part in source.split('"') if part.startswith("https://"))
    assert hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest() == (
        counting.RANKS_FILE.name
    )


async def test_counting(counter: TokenCounter) -> None:
    assert await counter.count("hello world") == 2
    assert await counter.count("<|endoftext|>") == 7
    for text in ("안녕하세요 여러분", "🙂" * 40, "\x00\xff", "\ud800", "a" * 3000, " " * 3000):
        tokens = await counter.count(text)
        assert tokens is not None
        assert 0 < tokens <= byte_bound([text], 0)


async def test_what_is_too_long_is_not_tokenized(counter: TokenCounter) -> None:
    started = time.process_time()
    for letter in ("a", " ", "!", "🙂", "가"):
        assert await counter.count(letter * 1_000_000) is None
    assert time.process_time() - started < 1


async def test_truncating(counter: TokenCounter) -> None:
    for text in ("one two three four", "가나다라마바사", "🙂🙂🙂🙂", " " * 999):
        for limit in (0, 1, 3):
            cut = await counter.truncate(text, limit)
            tokens = await counter.count(cut)
            assert tokens is not None
            assert tokens <= limit
            assert text.startswith(cut)


def test_one_token_over_the_limit_is_refused(small_app: RunningApp, fake: FakeProvider) -> None:
    client = small_app.client(default_headers={"Accept-Language": "en"})

    def ask(words: int) -> None:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": " tea" * words}]
        client.chat.completions.create(model="auto", messages=messages)

    with pytest.raises(openai.BadRequestError) as caught:
        ask(LIMIT)
    stated = re.search(r"has (\d+) tokens and at most (\d+)", caught.value.message)
    assert stated is not None
    over, limit = int(stated[1]), int(stated[2])
    assert limit == LIMIT
    fits = LIMIT - (over - limit)
    ask(fits)
    assert len(fake.ledger.calls) == 1
    with pytest.raises(openai.BadRequestError, match=str(LIMIT + 1)) as caught:
        ask(fits + 1)
    assert caught.value.code == "context_length_exceeded"
    assert len(fake.ledger.calls) == 1


@pytest.mark.parametrize("letter", ["a", " ", "🙂", "가", "!", "<|endoftext|>"])
def test_a_huge_text_is_refused_fast_and_nothing_is_spent(
    small_app: RunningApp, fake: FakeProvider, letter: str
) -> None:
    size = 900_000 // len(letter.encode())
    with health_watched(small_app) as slowest, small_app.http() as http:
        answer = http.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": letter * size}]}
        )
    assert answer.json()["error"]["code"] in {"context_length_exceeded", "request_too_large"}
    assert fake.ledger.calls == []
    assert slowest[0] < 1


@contextmanager
def health_watched(app: RunningApp) -> Iterator[list[float]]:
    """What the app has done, at most, before it answered once whether it lives.

    In seconds of its processor: a busy machine lets it wait, and that is not its doing.
    """
    workers = app.workers()
    slowest, done = [0.0], threading.Event()

    def watch() -> None:
        with httpx2.Client(base_url=app.url, timeout=30, trust_env=False) as http:
            while not done.is_set():
                before = worked(workers)
                assert http.get("/healthz").status_code == 200
                slowest[0] = max(slowest[0], worked(workers) - before)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield slowest
        finally:
            done.set()
        watching.result()


def test_a_body_over_the_limit_is_refused(app: RunningApp, fake: FakeProvider) -> None:
    big = b'{"messages":[{"role":"user","content":"' + b"x" * 1_100_000 + b'"}]}'
    with app.http() as http:
        whole = http.post("/v1/chat/completions", content=big)
        chunked = http.post(
            "/v1/chat/completions", content=(big[i : i + 9999] for i in range(0, len(big), 9999))
        )
    for answer in (whole, chunked):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        assert answer.headers["x-request-id"]
    assert fake.ledger.calls == []


async def test_500_turns_stay_within_the_limits(
    small_app: RunningApp, fake: FakeProvider, counter: TokenCounter
) -> None:
    fake.when(is_summary, Reply(SUMMARY))
    messages = conversation(500)
    small_app.client().chat.completions.create(model="auto", messages=messages)
    call = fake.ledger.calls[-1]
    for each in fake.ledger.calls:
        assert await prompt_tokens(each, counter) <= LIMIT
    texts = [text for role, text in call.messages if role != "system"]
    assert texts[-1] == "499: I like tea"
    assert texts[0].endswith("I like tea"), "begins with a user's message"
    assert len(texts) <= 8
    assert any(SUMMARY in text for _, text in call.messages)


def test_a_summary_is_reused_and_then_continued(small_app: RunningApp, fake: FakeProvider) -> None:
    fake.when(is_summary, Reply(SUMMARY))
    client = small_app.client("bob")
    summaries = []
    for turns in range(1, 16):
        fake.ledger.clear()
        answer = client.chat.completions.create(model="auto", messages=conversation(turns, "Hi"))
        assert answer.choices
        summaries.append([call for call in fake.ledger.calls if is_summary(call)])
    written = [number for number, calls in enumerate(summaries, 1) if calls]
    assert len(written) <= 6, f"a summary was written at turns {written}"
    assert SUMMARY in summaries[written[-1] - 1][0].messages[-1][1], "it continues the older one"
    longest = max(len(calls[0].messages[-1][1]) for calls in summaries if calls)
    assert longest < 400, "the work per turn grows with the new text, not with the history"


def test_another_callers_summary_is_another(small_app: RunningApp, fake: FakeProvider) -> None:
    fake.when(is_summary, Reply(SUMMARY))
    messages = conversation(9, "private")
    for caller in ("alice", "alice", "bob"):
        small_app.client(caller).chat.completions.create(model="auto", messages=messages)
    assert len([call for call in fake.ledger.calls if is_summary(call)]) == 2


def test_without_the_model_the_summary_is_an_extract(
    small_app: RunningApp, fake: FakeProvider
) -> None:
    fake.when(is_summary, Status(500))
    small_app.client().chat.completions.create(
        model="auto", messages=conversation(9, "about the extract")
    )
    background = [text for role, text in fake.ledger.calls[-1].messages if role == "system"]
    assert any(
        "<conversation_summary>" in text and "about the extract" in text for text in background
    )


def test_one_long_turn_does_not_push_the_newest_one_out(
    small_app: RunningApp, fake: FakeProvider
) -> None:
    messages = [*conversation(2)[:-1], *conversation(3, " tea" * 300)[:2], *conversation(1, "Now?")]
    small_app.client().chat.completions.create(model="auto", messages=messages)
    assert fake.ledger.calls[-1].messages[-1] == ("user", "0: Now?")


def test_the_log_says_that_it_was_summarised(small_app: RunningApp, fake: FakeProvider) -> None:
    fake.when(is_summary, Reply(SUMMARY))
    answer = small_app.client().chat.completions.with_raw_response.create(
        model="auto", messages=conversation(12, "logged")
    )
    line = small_app.request_line(answer.headers["x-request-id"])
    assert line["summarised"] is True
    assert line["attempts"] == 2


async def test_a_large_limit_is_still_safe() -> None:
    counter = TokenCounter(128_000)
    for letter in (" ", "a", "!"):
        started = time.process_time()
        await counter.count(letter * 1_000_000)
        assert await counter.truncate(letter * 1_000_000, 100_000)
        assert time.process_time() - started < 5


def test_many_messages_are_refused_without_counting_all(
    app: RunningApp, fake: FakeProvider
) -> None:
    messages = [{"role": "system", "content": "a rule"}] * 18_000
    with health_watched(app) as slowest, app.http() as http:
        answer = http.post("/v1/chat/completions", json={"messages": messages})
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert slowest[0] < 1
