"""Traces of the whole app: one for each request, with its phases and every call to a model."""

import uuid
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from app.foundation.project import load_project
from tests.collector import Collector
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Reply, Status
from tests.running import CALLERS, PROVIDER_KEY, RunningApp, production, running_app

QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"
PARENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def traced(
    collector: Collector, shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """An app whose first provider alone is asked, twice at most, and whose traces are collected."""
    folder = tmp_path_factory.mktemp("traced")
    settings = {
        "providers": load_project().providers[0],
        "max_attempts": 2,
        "otel_exporter_otlp_endpoint": f"http://127.0.0.1:{collector.port}",
    }
    environment = production(shared_fake, folder, **settings)
    # How long spans are gathered before they are sent, in milliseconds.
    environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    with running_app(environment, folder) as app:
        yield app


def ask(app: RunningApp, *, sampled: bool = True, **changes: Any) -> tuple[str, Any]:
    """Ask within a trace: its id, and the response."""
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{PARENT}-{'01' if sampled else '00'}"}
    with app.http(**headers) as http:
        return trace_id, http.post(CHAT, json=QUESTION | changes)


def facts(span: Span) -> dict[str, Any]:
    """A span's attributes."""
    found = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        assert kind is not None
        value = getattr(item.value, kind)
        found[item.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_trace_with_its_phases_and_its_call(
    traced: RunningApp, collector: Collector, fake: FakeProvider, stream: bool
) -> None:
    trace_id, response = ask(traced, stream=stream, max_tokens=50, seed=7, temperature=0.5)
    assert response.status_code == 200
    # guard, the three steps of the store, the call, and the request itself
    spans = collector.trace(trace_id, 6)
    server = spans[0]
    assert server.name == f"POST {CHAT}"
    assert server.parent_span_id.hex() == PARENT
    assert [span.name for span in spans].count("store") == 3
    assert {span.parent_span_id for span in spans[1:]} == {server.span_id}
    told = response.headers["x-request-id"]
    assert facts(server)["http.response.header.x-request-id"] == [told]
    model = fake.ledger.calls[0].model
    call = by_name(spans)[f"chat {model}"]
    assert call.kind == Span.SPAN_KIND_CLIENT
    billed = fake.ledger.calls[0].usage
    found = facts(call)
    wire = load_project().providers[0]
    assert found.pop("gen_ai.provider.name") == ("gcp.gemini" if wire == "gemini" else wire)
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.output.type": "text",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": billed.prompt,
        "gen_ai.usage.output_tokens": billed.completion,
        "gen_ai.usage.cache_read.input_tokens": billed.cached,
        "gen_ai.usage.reasoning.output_tokens": billed.reasoning,
    }
    # The provider hears which call of which trace it is.
    passed_on = f"00-{trace_id}-{call.span_id.hex()}-01"
    assert fake.ledger.calls[0].traceparent == passed_on
    line = traced.request_line(response.headers["x-request-id"])
    assert line["trace_id"] == trace_id


def test_the_names_are_those_of_the_conventions() -> None:
    source = Path(import_module("app.standards.visibility.gen_ai").__file__ or "").read_text()
    ours = {word for word in source.split('"') if word.startswith("gen_ai.")}
    known = {
        getattr(gen_ai_attributes, name)
        for name in dir(gen_ai_attributes)[:]
        if name.startswith("GEN_AI_") and isinstance(getattr(gen_ai_attributes, name), str)
    }
    assert len(ours) > 10
    assert ours <= known


def test_a_streams_span_lasts_until_its_last_piece(
    traced: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    fake.next(Reply(chunks=("one ", "two ", "three"), delay_between=0.15))
    trace_id, _ = ask(traced, stream=True)
    call = by_name(collector.trace(trace_id, 6))[f"chat {fake.ledger.calls[0].model}"]
    assert call.end_time_unix_nano - call.start_time_unix_nano > 0.25e9


def test_every_attempt_has_a_span_and_the_error_says_its_trace(
    traced: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    fake.next(Status(500), Status(429))
    trace_id, response = ask(traced)
    assert response.status_code == 503
    assert response.json()["error"]["trace_id"] == trace_id
    spans = collector.trace(trace_id, 7)
    calls = [span for span in spans if span.name.startswith("chat ")]
    assert [facts(call)["error.type"] for call in calls] == ["overloaded", "rate_limited"]
    assert {call.status.code for call in calls} == {2}
    assert facts(spans[0])["http.response.status_code"] == 503


def test_a_client_that_leaves_ends_the_span(
    traced: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    fake.next(Reply(chunks=("one ", "two "), delay_between=3))
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{PARENT}-01"}
    with (
        traced.http(**headers) as http,
        http.stream("POST", CHAT, json=QUESTION | {"stream": True}) as stream,
    ):
        next(stream.iter_raw())
    call = next(span for span in collector.trace(trace_id, 6) if span.name.startswith("chat "))
    assert facts(call)["error.type"] == "cancelled"


def test_a_callers_trace_that_is_not_sampled_is_not_sent(
    traced: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    unsampled, response = ask(traced, sampled=False)
    assert response.status_code == 200
    later, _ = ask(traced)
    collector.trace(later, 6)
    assert collector.spans(unsampled) == []
    line = traced.request_line(response.headers["x-request-id"])
    assert line["trace_id"] == unsampled


def test_the_share_bounds_what_a_caller_can_ask_for(
    start_app: StartApp, collector: Collector
) -> None:
    app = start_app(
        otel_exporter_otlp_endpoint=f"http://127.0.0.1:{collector.port}",
        otel_traces_sampler_arg=0,
    )
    trace_id, response = ask(app)
    assert response.status_code == 200
    app.stop()
    assert collector.spans(trace_id) == []


def test_nothing_is_passed_on_where_traces_are_off(app: RunningApp, fake: FakeProvider) -> None:
    _, response = ask(app)
    assert response.status_code == 200
    assert fake.ledger.calls[0].traceparent is None
    line = app.request_line(response.headers["x-request-id"])
    assert "trace_id" not in line


def test_no_span_holds_what_was_said_or_a_key(
    traced: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    fake.next(Reply(text="The answer nobody should keep"))
    trace_id, _ = ask(traced, messages=[{"role": "user", "content": "The question nobody keeps"}])
    collector.trace(trace_id, 6)
    sent = b"".join(body for _, body in collector.received)
    for hidden in ("nobody", PROVIDER_KEY, *CALLERS.values()):
        assert hidden.encode() not in sent
