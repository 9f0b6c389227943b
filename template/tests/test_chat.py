"""The OpenAI wire, through the official client, against a provider on a socket."""

import json
import time

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from app.foundation.project import load_project
from tests.conftest import StartApp
from tests.fake_provider import ErrorInside, FakeProvider, Hang, Reply, Usage
from tests.running import RunningApp

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]


def test_a_plain_answer(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply("Hi!", usage=Usage(prompt=20, completion=3, cached=8, reasoning=1)))
    answer = app.client().chat.completions.create(model="auto", messages=HELLO)
    assert answer.choices[0].message.content == "Hi!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 3)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 8
    assert len(fake.ledger.calls) == 1


def test_a_streamed_answer(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply(chunks=("One ", "two ", "셋")))
    stream = app.client().chat.completions.create(
        model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "One two 셋"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_events_that_come_together_lose_nothing_and_keep_their_order(
    app: RunningApp, fake: FakeProvider
) -> None:
    pieces = tuple(f"{number} " for number in range(900))
    fake.next(Reply(chunks=pieces))  # in a single write
    stream = app.client().chat.completions.create(model="auto", messages=HELLO, stream=True)
    texts = [c.choices[0].delta.content for c in stream if c.choices[0].delta.content]
    assert texts == list(pieces)


def test_no_event_waits_for_the_next_one(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Hang("chunk", after_chunks=3, reply=Reply(chunks=("One ", "two ", "three", "four"))))
    with app.client().chat.completions.create(model="auto", messages=HELLO, stream=True) as stream:
        texts = (c.choices[0].delta.content for c in stream if c.choices[0].delta.content)
        assert [next(texts) for _ in range(3)] == ["One ", "two ", "three"]


def test_the_system_prompt_and_the_output_cap_are_always_sent(
    app: RunningApp, fake: FakeProvider
) -> None:
    app.client().chat.completions.create(model="auto", messages=HELLO)
    call = fake.ledger.calls[0]
    assert call.max_tokens == 1000
    assert call.messages[0][0] == "system"
    assert call.messages[-1] == ("user", "Hello there")


def test_a_smaller_output_cap_is_kept_and_a_larger_one_is_not(
    app: RunningApp, fake: FakeProvider
) -> None:
    for asked in (7, 50_000):
        app.client().chat.completions.create(
            model="auto", messages=HELLO, max_completion_tokens=asked
        )
    assert [call.max_tokens for call in fake.ledger.calls] == [7, 1000]


def test_structured_output(app: RunningApp, fake: FakeProvider) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = app.client().chat.completions.create(
        model="auto",
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert "city" in json.loads(answer.choices[0].message.content or "")
    assert fake.ledger.calls[0].response_format == schema


def test_the_models(app: RunningApp) -> None:
    names = [model.id for model in app.client().models.list()]
    assert names == ["auto", *dict.fromkeys(load_project().models.values())]
    with app.http(None) as http:
        assert http.get("/v1/models").status_code == 401


def shaped(title: object) -> dict[str, object]:
    """A `response_format` with something in its schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": title}}}


# As deep as can be read, and a little deeper than can be written.
DEEP = json.loads("[" * 255 + "]" * 255)


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"n": 2}, 400, "unsupported_parameter", "n"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"frobnicate": 1}, 400, "unsupported_parameter", "frobnicate"),
        ({"temperature": 5}, 400, "invalid_request_error", "temperature"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"messages": "hello"}, 400, "invalid_request_error", "messages"),
        ({"stop": ["a"] * 5}, 400, "invalid_request_error", "stop"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            400,
            "unsupported_parameter",
            "messages.0.role",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "unsupported_parameter",
            "messages.0.content.0.type",
        ),
        ({"response_format": {"type": "json_schema"}}, 400, "invalid_request_error", None),
        ({"response_format": shaped("\ud83d")}, 400, "invalid_request_error", "response_format"),
        ({"response_format": shaped(DEEP)}, 400, "invalid_request_error", "response_format"),
        ({"model": "gpt-0"}, 404, "model_not_found", "model"),
    ],
)
def test_what_is_refused_is_named(
    app: RunningApp,
    fake: FakeProvider,
    change: dict[str, object],
    status: int,
    code: str,
    param: str | None,
) -> None:
    body = json.dumps({"model": "auto", "messages": HELLO, **change})
    with app.http() as http:
        answer = http.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    if param is not None:
        assert error["param"] == param
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-should-retry"] == "false"
    assert fake.ledger.calls == []


def test_neutral_values_pass(app: RunningApp) -> None:
    body = {"messages": HELLO, "n": 1, "tools": [], "presence_penalty": 0, "logprobs": False}
    with app.http() as http:
        assert http.post("/v1/chat/completions", json=body).status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_bodies_that_are_no_json_object(app: RunningApp, body: bytes) -> None:
    with app.http() as http:
        answer = http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request_error"


def test_a_body_full_of_mistakes_is_refused_at_the_first_one(app: RunningApp) -> None:
    """Telling all of them took the worker, and all that it streams, for seconds."""
    body = b'{"messages":[{"role":"user","content":[' + b"1," * 500_000 + b"1]}]}"
    started = time.monotonic()
    with app.http() as http:
        answer = http.post("/v1/chat/completions", content=body)
    assert time.monotonic() - started < 2
    assert answer.json()["error"]["param"] == "messages.0.content.0"


def test_half_a_surrogate_pair_is_text(app: RunningApp, fake: FakeProvider) -> None:
    body = b'{"messages":[{"role":"user","content":"\\ud83d <|endoftext|>"}]}'
    with app.http() as http:
        assert http.post("/v1/chat/completions", content=body).status_code == 200
    assert fake.ledger.calls[0].messages[-1][1].endswith("<|endoftext|>")


def test_errors_speak_the_callers_language(app: RunningApp) -> None:
    texts = set()
    for language in ("en", "ko-KR,ko;q=0.9"):
        with app.http(**{"Accept-Language": language}) as http:
            texts.add(http.get("/nothing").json()["error"]["message"])
    assert len(texts) == 2


def test_errors_have_the_openai_shape_everywhere(app: RunningApp) -> None:
    with app.http() as http:
        answers = [
            http.get("/nothing"),
            http.get("/v1/chat/completions"),
            http.post("/yours/ask", json={"text": ""}),
        ]
    assert [answer.status_code for answer in answers] == [404, 405, 400]
    for answer in answers:
        assert set(answer.json()["error"]) == {"message", "type", "code", "param", "request_id"}


def test_a_key_is_needed(app: RunningApp, fake: FakeProvider) -> None:
    client = app.client().with_options(api_key="wrong-key-0123456789")
    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="auto", messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    assert fake.ledger.calls == []


def test_a_stream_that_breaks_ends_with_an_error_event(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(ErrorInside(after_chunks=2, reply=Reply(chunks=("a ", "b ", "c "))))
    with (
        app.http() as http,
        http.stream(
            "POST", "/v1/chat/completions", json={"messages": HELLO, "stream": True}
        ) as response,
    ):
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == "providers_unavailable"
    assert len(fake.ledger.calls) == 1, "nothing is retried after the first byte has left"


def test_a_client_that_leaves_stops_the_provider_and_is_charged(
    app: RunningApp, fake: FakeProvider
) -> None:
    fake.next(Reply(chunks=200, delay_between=0.05))
    with (
        app.http() as http,
        http.stream(
            "POST", "/v1/chat/completions", json={"messages": HELLO, "stream": True}
        ) as response,
    ):
        for number, _ in enumerate(response.iter_lines()):
            if number > 5:
                break
        request_id = response.headers["x-request-id"]
    fake.ledger.idle()
    assert fake.ledger.calls[0].outcome == "client_left"
    line = app.request_line(request_id)
    assert line["outcome"] == "client_left"
    assert line["cost_usd"] > 0


def test_a_client_that_leaves_before_the_answer_stops_the_provider(
    app: RunningApp, fake: FakeProvider
) -> None:
    fake.next(Reply(delay_before=60))
    with app.asked({"messages": HELLO}):
        fake.ledger.wait_for(1)
    fake.ledger.idle(10)
    assert fake.ledger.calls[0].outcome == "client_left"


def test_requests_have_ids(app: RunningApp) -> None:
    with app.http() as http:
        kept = http.get("/healthz", headers={"X-Request-ID": "mine-1.2_3"})
        replaced = http.get("/healthz", headers={"X-Request-ID": "no spaces allowed"})
    assert kept.headers["x-request-id"] == "mine-1.2_3"
    assert len(replaced.headers["x-request-id"]) == 32


def test_admin_routes_are_closed(app: RunningApp) -> None:
    with app.http() as http:
        for path in ("/metrics", "/openapi.json"):
            assert http.get(path).status_code == 401, path
        assert http.get("/docs").status_code in {401, 404}
    with app.http("admin") as http:
        metrics = http.get("/metrics").text
        assert http.get("/openapi.json").json()["openapi"].startswith("3.")
        assert http.get("/docs").status_code == 200
    assert "llm_app_requests_total" in metrics
    assert "llm_app_daily_cost_usd" in metrics


def test_health_and_security_headers(app: RunningApp) -> None:
    with app.http(None) as http:
        alive, ready = http.get("/healthz"), http.get("/readyz")
    assert alive.status_code == ready.status_code == 200
    assert ready.json()["checks"]["store"] == "ok"
    assert alive.headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" in alive.headers


def test_the_log_line_tells_what_happened(app: RunningApp, fake: FakeProvider) -> None:
    fake.next(Reply("Hi!", usage=Usage(prompt=20, completion=3)))
    answer = app.client().chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    line = app.request_line(answer.headers["x-request-id"])
    assert line["status"] == 200
    assert line["route"] == "/v1/chat/completions"
    assert line["caller"] == "alice"
    assert line["provider"] == load_project().providers[0]
    assert (line["input_tokens"], line["output_tokens"]) == (20, 3)
    assert line["cost_usd"] == pytest.approx(26e-6)
    assert (line["attempts"], line["fallback"], line["outcome"]) == (1, False, "ok")


def test_a_callers_own_tags_are_logged(app: RunningApp, fake: FakeProvider) -> None:
    answer = app.client().chat.completions.with_raw_response.create(
        model="auto", messages=HELLO, metadata={"team": "support"}, user="person@example.org"
    )
    line = app.request_line(answer.headers["x-request-id"])
    assert line["metadata"] == {"team": "support"}
    assert len(line["end_user"]) == 32
    assert "person@example.org" not in app.log()
    assert "person@example.org" not in str(fake.ledger.calls[0].body)


def test_no_secret_and_no_prompt_reaches_the_log(app: RunningApp) -> None:
    prompt = "a very private sentence"
    app.client().chat.completions.create(
        model="auto", messages=[{"role": "user", "content": prompt}]
    )
    log = app.log()
    for secret in ("sk-canary-0123456789", "alice-0123456789", "admin-0123456789", prompt):
        assert secret not in log


def test_an_answer_can_be_sent_back_as_it_came(app: RunningApp, fake: FakeProvider) -> None:
    client = app.client()
    first = client.chat.completions.create(model="auto", messages=HELLO)
    answer = first.choices[0].message
    again: list[ChatCompletionMessageParam] = [
        *HELLO,
        answer,  # type: ignore[list-item]  # what people do, and what the client accepts
        {"role": "user", "content": "And then?"},
    ]
    client.chat.completions.create(model="auto", messages=again)
    assert fake.ledger.calls[1].messages[-2] == ("assistant", answer.content)


def test_nothing_is_read_without_a_key(app: RunningApp) -> None:
    with app.http(None) as http:
        assert http.post("/v1/chat/completions", json={"messages": []}).status_code == 401


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_form_of_another_page_spends_nothing(
    app: RunningApp, fake: FakeProvider, kind: str
) -> None:
    with app.http(**{"Content-Type": kind}) as http:
        answer = http.post("/v1/chat/completions", content=json.dumps({"messages": HELLO}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Content-Type"
    assert fake.ledger.calls == []


def test_web_pages_elsewhere(start_app: StartApp, fake: FakeProvider) -> None:
    origin = "https://page.test"
    app = start_app(cors_origins=origin, requests_per_minute_per_ip=3)
    with app.http(None, Origin=origin) as http:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
        }
        assert http.options("/v1/chat/completions", headers=asked).status_code == 200
        answers = [http.get("/v1/models") for _ in range(15)]
    assert answers[-1].status_code == 429
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == origin
