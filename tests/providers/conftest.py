"""Each provider of the template, talking to the fake one, or to a server that says anything."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from tests.fake_provider.conftest import APP
from tests.fake_provider.conftest import fp as fp

T = TypeVar("T")
KEY = "sk-test-0123456789-opens-nothing"
PRIVATE = "the-secret-of-the-user"
REAL = ("openai", "compatible", "anthropic", "gemini")

# `app` lies in template/, whose own `tests` stays hidden behind this repository's.
sys.path.append(str(APP))
base: Any = importlib.import_module("app.providers.base")


def module(name: str) -> Any:
    """A module of `app.providers`."""
    return importlib.import_module(f"app.providers.{name}")


def prompt(*texts: str | tuple[str, str], **more: Any) -> Any:
    """A prompt: user messages, or pairs of a role and a text."""
    pairs = [("user", text) if isinstance(text, str) else text for text in texts or ("hi there",)]
    messages = tuple(base.Message(role, text) for role, text in pairs)
    return base.Prompt(**{"messages": messages, "max_output_tokens": 1000, **more})


def http(
    body: bytes, kind: str = "text/event-stream", status: str = "200 OK", more: str = ""
) -> bytes:
    """An HTTP response that ends with the connection."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{more}\r\n".encode() + body


async def collect(pieces: AsyncIterator[Any]) -> Any:
    """A streamed answer as a whole one, once its form has been checked."""
    found = [piece async for piece in pieces]
    finishes = [piece.finish_reason for piece in found if piece.finish_reason]
    usages = [piece.usage for piece in found if piece.usage]
    assert len(finishes) == 1
    assert len(usages) <= 1
    return base.Answer("".join(p.text for p in found), finishes[0], usages[0] if usages else None)


class Lab:
    """The providers, connected once for all tests, and one event loop for them."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.answers: tuple[bytes, ...] = ()
        self.pause = 0.0
        self._runner = asyncio.Runner()
        self._providers: dict[Any, Any] = {}
        self._server = self.run(asyncio.start_server(self._answer, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it, and not for ever."""

        async def limited() -> T:
            async with asyncio.timeout(20):
                return await work

        return self._runner.run(limited())

    def provider(self, name: str, url: str | None = None, **timeouts: float) -> Any:
        """A provider, by default towards the fake one, with 5 s for everything."""
        if url is None:
            url = self.fake.url if name in ("anthropic", "gemini") else self.fake.openai_base_url
        key = (name, url, *timeouts.items())
        if key not in self._providers:
            limits = base.Timeouts(**{"connect": 5, "read": 5, "write": 5, "pool": 5, **timeouts})
            connection = base.Connection(KEY, "model-1", url, limits)
            self._providers[key] = module(name).connect(connection)
        return self._providers[key]

    def says(self, *answers: bytes, pause: float = 0.0) -> str:
        """From now on, the server at the returned URL answers with these bytes and hangs up."""
        self.answers, self.pause = answers, pause
        return self.url

    def ask(self, provider: Any, question: Any = None, *, streamed: bool = False) -> Any:
        """The answer, in one way or the other."""
        question = question or prompt()
        if streamed:
            return self.run(collect(provider.stream(question)))
        return self.run(provider.complete(question))

    def fail(self, provider: Any, *, streamed: bool = False) -> Any:
        """The failure of a call, once nothing secret was found in it."""
        with pytest.raises(base.ProviderError) as caught:
            self.ask(provider, prompt(PRIVATE), streamed=streamed)
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        told = f"{error} {error!r} {vars(error)}"
        for secret in (KEY, PRIVATE, "alt=sse", "Bearer", "authorization"):
            assert secret not in told
        return error

    def close(self) -> None:
        for provider in self._providers.values():
            self.run(provider.close())
        self._server.close()
        self.run(asyncio.sleep(0.01))
        self._runner.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            for part in self.answers:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(self.pause)
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture(scope="session")
def _lab() -> Iterator[Lab]:
    with fp.FakeProvider() as fake:
        lab = Lab(fake)
        yield lab
        lab.close()


@pytest.fixture
def lab(_lab: Lab) -> Iterator[Lab]:
    _lab.fake.reset()
    yield _lab
    _lab.run(asyncio.sleep(0))
    _lab.fake.ledger.idle()


@pytest.fixture
def fake(lab: Lab) -> Any:
    return lab.fake


@pytest.fixture(params=REAL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
