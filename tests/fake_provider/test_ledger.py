"""The script, the ledger, the load that the server bears, and the command."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from tests.fake_provider.conftest import APP, KEYS, Chat, fp


def test_script_precedence(fake: Any, chat: Chat) -> None:
    fake.always(fp.Reply("any"))
    fake.always(fp.Reply("wire"), wire="anthropic")
    fake.always(fp.Reply("model"), model="flash")
    assert [chat.ask(wire) for wire in KEYS] == ["any", "wire", "model"]
    fake.when(lambda call: call.messages[-1] == ("user", "now"), fp.Reply("when"))
    assert (chat.ask("openai", "now"), chat.ask("openai")) == ("when", "any")
    fake.next(fp.Reply("1"), fp.Reply("2"))
    fake.next(fp.Reply("3"), wire="gemini")
    assert [chat.ask(wire, "now") for wire in ("gemini", "gemini", "gemini", "gemini")] == [
        "1",
        "2",
        "3",
        "when",
    ]
    fake.reset()
    assert fake.ledger.calls == []
    assert chat.ask("gemini").startswith("You said")


def test_a_predicate_that_fails_is_not_swallowed(
    fake: Any, chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(call: Any) -> bool:
        raise LookupError("a bug in a test")

    fake.when(broken, fp.Reply())
    with pytest.raises(openai.APIConnectionError):
        chat.ask("openai")
    assert fake.ledger.calls[0].outcome == "failed"
    assert "a bug in a test" in caplog.text


def test_a_call_as_the_ledger_knows_it(
    fake: Any, oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client
) -> None:
    before = time.monotonic()
    mail: Any = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    oai.chat.completions.create(
        model="gpt",
        messages=[{"role": "system", "content": "s"}, *mail],
        temperature=0.5,
        seed=7,
        max_tokens=9,
    )
    claude.messages.create(model="claude", max_tokens=9, system="s", messages=mail)
    gemini.models.generate_content(
        model="flash",
        contents=[
            types.Content(role="user", parts=[types.Part(text="a"), types.Part(text="b")]),
            types.Content(role="model", parts=[types.Part(text="c")]),
            types.Content(role="user", parts=[types.Part(text="d")]),
        ],
        config=types.GenerateContentConfig(
            system_instruction="s", temperature=0.5, seed=7, max_output_tokens=9
        ),
    )
    calls = fake.ledger.calls
    assert [(call.wire, call.model) for call in calls] == [
        ("openai", "gpt"),
        ("anthropic", "claude"),
        ("gemini", "flash"),
    ]
    for call in calls:
        assert call.messages == [("system", "s"), ("user", "ab"), ("assistant", "c"), ("user", "d")]
        assert (call.max_tokens, call.status, call.outcome) == (9, 200, "answered")
        assert before <= call.arrived <= call.finished <= time.monotonic()
        if call.wire != "anthropic":
            assert (call.temperature, call.seed) == (0.5, 7)
    assert [call.number for call in calls] == list(range(calls[0].number, calls[0].number + 3))


def test_no_key_is_kept(fake: Any, chat: Chat) -> None:
    for wire in KEYS:
        chat.ask(wire)
    kept = "".join(repr(vars(call)) for call in fake.ledger.calls)
    assert not [key for key in KEYS.values() if key in kept]
    assert len({call.key for call in fake.ledger.calls}) == 3


def test_tokens_never_exceed_bytes(fake: Any, chat: Chat) -> None:
    for text in ("a", "hi", "안녕", "x" * 5000, " "):
        chat.ask("openai", text)
        assert 0 < fake.ledger.calls[-1].usage.prompt <= len(text.encode())


def test_the_bill(fake: Any, chat: Chat) -> None:
    fake.next(
        fp.Reply(usage=fp.Usage(prompt=1000, completion=10, cached=500)),
        fp.Reply(usage=fp.Usage(), billed=fp.Usage(prompt=7, completion=3)),
        fp.Status(500),
    )
    chat.ask("openai")
    chat.ask("openai")
    with pytest.raises(openai.InternalServerError):
        chat.ask("openai")
    fake.always(fp.Reply("one two three"))
    chat.ask("gemini")
    used = fake.ledger.usage_by_model()
    assert used["gpt"] == fp.Usage(prompt=1007, completion=13, cached=500)
    assert used["flash"].completion == 3
    prices = {"gpt": (2, 10), "flash": (0, 1)}
    assert fake.ledger.cost_nano(prices) == 1007 * 2 + 13 * 10 + 3
    with pytest.raises(KeyError):
        fake.ledger.cost_nano({"gpt": (2, 10)})
    fake.ledger.clear()
    assert fake.ledger.cost_nano({}) == 0


def test_waiting(fake: Any, chat: Chat) -> None:
    with pytest.raises(TimeoutError, match="1 calls to arrive: 0 arrived"):
        fake.ledger.wait_for(1, timeout=0.01)
    seen = threading.Event()
    fake.next(fp.Reply(until=seen))
    thread = threading.Thread(target=chat.ask, args=("openai",))
    thread.start()
    assert fake.ledger.wait_for(1)[0].outcome == "open"
    with pytest.raises(TimeoutError):
        fake.ledger.idle(timeout=0.01)
    seen.set()
    fake.ledger.idle()
    assert fake.ledger.calls[0].outcome == "answered"
    thread.join()


def test_keep_alive(fake: Any, http: httpx2.Client) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    ports = set()
    for stream in (False, True, False):
        with http.stream(
            "POST",
            "/v1/chat/completions",
            json={**body, "stream": stream},
            headers={"authorization": "Bearer k"},
        ) as response:
            ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            response.read()
    assert len(ports) == 1


def test_a_hundred_streams_at_once(fake: Any) -> None:
    fake.always(fp.Reply(chunks=200, delay_between=0.005))
    body = {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "x"}],
    }

    content = json.dumps(body).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: fake", "Authorization: Bearer k"]
    lines += ["Connection: close", f"Content-Length: {len(content)}", "", ""]
    request = "\r\n".join(lines).encode() + content

    async def stream() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def run() -> list[bytes]:
        return await asyncio.gather(*(stream() for _ in range(100)))

    started = time.monotonic()
    answers = asyncio.run(run())
    assert time.monotonic() - started < 10
    for answer in answers:
        assert answer.count(b"data: ") == 200 + 4
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert fake.ledger.usage_by_model()["m"].completion == 100 * 200


def test_a_port_that_is_taken_and_a_restart(fake: Any) -> None:
    with pytest.raises(OSError, match=r"(?i)address"):
        fp.FakeProvider(port=fake.port).start()
    with fp.FakeProvider() as other:
        port = other.port
        other.stop()
        other.start()
        assert other.port == port


def test_the_command() -> None:
    command = [sys.executable, "-m", "tests.fake_provider", "--port", "0", "--delay", "0.001"]
    with subprocess.Popen(command, cwd=APP, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        urls = dict(process.stdout.readline().strip().split("=") for _ in range(3))
        with openai.OpenAI(api_key="k", base_url=urls["OPENAI_BASE_URL"]) as client:
            assert client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}]
            ).choices
        process.terminate()
    assert urls["ANTHROPIC_BASE_URL"] == urls["GEMINI_BASE_URL"]
