"""Tests of your own features; the examples are tested here, and yours belong here too."""

from tests.fake_provider import FakeProvider, Reply
from tests.running import RunningApp


def test_a_plain_question(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply("Because of Rayleigh scattering."))
    with app.http() as http:
        answer = http.post("/yours/ask", json={"text": "Why is the sky blue?"})
    assert answer.json() == {"text": "Because of Rayleigh scattering."}


def test_a_streamed_answer(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply(chunks=("One ", "two")))
    with app.http() as http:
        answer = http.post("/yours/stream", json={"text": "Count"})
    assert answer.text == 'data: "One "\n\ndata: "two"\n\ndata: [DONE]\n\n'


def test_a_typed_answer(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply('{"mood": "happy", "confidence": 0.9}'))
    with app.http() as http:
        answer = http.post("/yours/sentiment", json={"text": "What a day!"})
    assert answer.json() == {"mood": "happy", "confidence": 0.9}
