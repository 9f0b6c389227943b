"""The fake provider of the template, and one client of each SDK that talks to it."""

import importlib.util
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

APP = Path(__file__).parents[2] / "template"
KEYS = {"openai": "key-of-openai", "anthropic": "key-of-anthropic", "gemini": "key-of-gemini"}
PATIENCE = 20.0  # seconds that a client waits for a byte
HASTE = 0.3  # the same, where the byte never comes


def _load() -> Any:
    """The package, under a name of its own: here `tests` is this repository's."""
    folder = APP / "tests" / "fake_provider"
    spec = importlib.util.spec_from_file_location(
        "fake_provider", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_provider"] = module
    spec.loader.exec_module(module)
    return module


fp = _load()


@pytest.fixture(scope="session")
def _provider() -> Iterator[Any]:
    with fp.FakeProvider() as provider:
        yield provider


@pytest.fixture
def fake(_provider: Any) -> Iterator[Any]:
    yield _provider
    _provider.reset()
    _provider.ledger.idle()


@pytest.fixture(scope="session")
def oai(_provider: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        api_key=KEYS["openai"],
        base_url=_provider.openai_base_url,
        max_retries=0,
        timeout=PATIENCE,
    ) as client:
        yield client


@pytest.fixture(scope="session")
def claude(_provider: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key=KEYS["anthropic"],
        base_url=_provider.anthropic_base_url,
        max_retries=0,
        timeout=PATIENCE,
    ) as client:
        yield client


@pytest.fixture(scope="session")
def gemini(_provider: Any) -> Iterator[genai.Client]:
    options = types.HttpOptions(base_url=_provider.gemini_base_url)
    with genai.Client(api_key=KEYS["gemini"], http_options=options) as client:
        yield client


@pytest.fixture(scope="session")
def http(_provider: Any) -> Iterator[httpx2.Client]:
    """A bare client, for what the SDKs hide."""
    with httpx2.Client(base_url=_provider.url, timeout=PATIENCE) as client:
        yield client


class Chat:
    """The same conversation over each wire."""

    def __init__(
        self, oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client, timeout: float
    ) -> None:
        self.oai = oai.with_options(timeout=timeout)
        self.claude = claude.with_options(timeout=timeout)
        self.gemini = gemini.models
        options = types.HttpOptions(timeout=int(timeout * 1000))
        self.config = types.GenerateContentConfig(http_options=options)

    def ask(self, wire: str, text: str = "hi there") -> str:
        """The answer to one user message."""
        if wire == "openai":
            completion = self.oai.chat.completions.create(
                model="gpt", messages=[{"role": "user", "content": text}]
            )
            return completion.choices[0].message.content or ""
        if wire == "anthropic":
            message = self.claude.messages.create(
                model="claude", max_tokens=500, messages=[{"role": "user", "content": text}]
            )
            return "".join(block.text for block in message.content if block.type == "text")
        answer = self.gemini.generate_content(model="flash", contents=text, config=self.config)
        return answer.text or ""

    def stream(self, wire: str, text: str = "hi there") -> Generator[str, None, None]:
        """The pieces of the answer as they come, empty ones left out."""
        if wire == "openai":
            with self.oai.chat.completions.create(
                model="gpt", messages=[{"role": "user", "content": text}], stream=True
            ) as chunks:
                for chunk in chunks:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content
        elif wire == "anthropic":
            with self.claude.messages.stream(
                model="claude", max_tokens=500, messages=[{"role": "user", "content": text}]
            ) as events:
                yield from events.text_stream
        else:
            for part in self.gemini.generate_content_stream(
                model="flash", contents=text, config=self.config
            ):
                if part.text:
                    yield part.text


@pytest.fixture(scope="session")
def chat(oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client) -> Chat:
    return Chat(oai, claude, gemini, PATIENCE)


@pytest.fixture(scope="session")
def hasty(oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client) -> Chat:
    return Chat(oai, claude, gemini, HASTE)


@pytest.fixture(params=["openai", "anthropic", "gemini"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)
