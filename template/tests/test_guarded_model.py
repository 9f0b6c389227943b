"""What the user's own features get: the guarded model, with everything that belongs to it."""

import ast
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

import app.yours
from app.model import strict_schema
from tests.conftest import StartApp
from tests.fake_provider import ErrorInside, FakeProvider, Reply
from tests.running import RunningApp

SDKS = {"openai", "anthropic", "google", "genai_prices", "httpx", "httpx2", "requests", "aiohttp"}
PROVIDERS = "app.providers"


def test_yours_reaches_no_provider_by_itself() -> None:
    """An SDK in `yours/` would spend money that nobody counts."""
    folder = Path(app.yours.__file__).parent
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                assert name.split(".")[0] not in SDKS, f"{file}: ask app.model, not {name}"
                assert not name.startswith(PROVIDERS), f"{file}: ask app.model, not {name}"


def test_a_feature_needs_a_key_and_is_logged(app: RunningApp, fake: FakeProvider) -> None:
    with app.http(None) as nobody:
        assert nobody.post("/yours/ask", json={"text": "Hi"}).status_code == 401
    with app.http() as alice:
        answer = alice.post("/yours/ask", json={"text": "Hi"})
    line = app.request_line(answer.headers["x-request-id"])
    assert (line["route"], line["caller"]) == ("/yours/ask", "alice")
    assert line["cost_usd"] > 0
    assert len(fake.ledger.calls) == 1


def test_a_feature_is_limited(start_app: StartApp, fake: FakeProvider) -> None:
    limited = start_app(requests_per_minute=2)
    with limited.http() as http:
        statuses = [http.post("/yours/ask", json={"text": "Hi"}).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_a_feature_is_idempotent(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply("first"), Reply("second"))
    with app.http(**{"Idempotency-Key": "yours-1"}) as http:
        for path in ("/yours/ask", "/yours/stream"):
            answers = [http.post(path, json={"text": "Hi"}) for _ in range(2)]
            assert "idempotency-replayed" in answers[1].headers
            assert answers[1].text.count("first") == answers[0].text.count("first")
    assert len(fake.ledger.calls) == 2


def test_a_typed_answer_that_does_not_fit_is_an_error(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply("I would rather not."))
    with app.http() as http:
        answer = http.post("/yours/sentiment", json={"text": "Hm"})
    assert answer.status_code == 503
    assert "rather not" not in app.log()


def test_a_stream_that_breaks_says_so(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(ErrorInside(after_chunks=1, reply=Reply(chunks=("One ", "two "))))
    with app.http() as http:
        answer = http.post("/yours/stream", json={"text": "Count"})
    assert '"providers_unavailable"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


class Part(BaseModel):
    kind: Literal["a", "b"] = "a"


class Whole(BaseModel):
    parts: list[Part]
    title: str | None = None


def test_schemas_are_closed_and_complete() -> None:
    schema = strict_schema(Whole)
    assert schema["required"] == ["parts", "title"]
    assert schema["additionalProperties"] is False
    part = schema["$defs"]["Part"]
    assert part["required"] == ["kind"]
    assert "default" not in part["properties"]["kind"]


@pytest.mark.parametrize("path", ["/yours/ask", "/yours/stream", "/yours/sentiment"])
def test_a_refusal_keeps_its_shape(app: RunningApp, fake: FakeProvider, path: str) -> None:
    with app.http() as http:
        answer = http.post(path, json={"text": "tea " * 9000})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert fake.ledger.calls == []


def test_a_broken_stream_is_replayed_as_broken(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(ErrorInside(after_chunks=1, reply=Reply(chunks=("You ", "too"))))
    with app.http(**{"Idempotency-Key": "yours-2"}) as http:
        answers = [http.post("/yours/stream", json={"text": "Hi"}) for _ in range(2)]
    assert "idempotency-replayed" in answers[1].headers
    for answer in answers:
        assert '"You "' in answer.text
        assert '"providers_unavailable"' in answer.text
