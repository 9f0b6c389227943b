"""Traces where requests take another way: mirrored, tried, cached, refused, broken off."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from app.standards.visibility import tracing
from app.standards.visibility.redaction import Redactor
from tests.collector import Collector
from tests.conftest import StartApp
from tests.fake_provider import ErrorInside, FakeProvider, Hang, Reply, Status
from tests.running import RunningApp, production, running_app, until
from tests.test_canary import CANDIDATE, FIRST, ON_TRIAL, PROVEN
from tests.test_traces import CHAT, PARENT, QUESTION, ask, by_name, facts


def traced(collector: Collector, fake: FakeProvider, **changes: Any) -> dict[str, Any]:
    """Settings of an app whose traces are collected."""
    endpoint = f"http://127.0.0.1:{collector.port}"
    return {"otel_exporter_otlp_endpoint": endpoint, "otel_bsp_schedule_delay": 100, **changes}


@pytest.fixture(scope="module")
def app(
    collector: Collector, shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """Two workers, one target, asked once; equal questions are cached."""
    folder = tmp_path_factory.mktemp("edges")
    settings = traced(collector, shared_fake, providers=FIRST, max_attempts=1)
    with running_app(production(shared_fake, folder, **settings), folder, workers=2) as running:
        yield running


def names(spans: list[Span]) -> list[str]:
    return sorted(span.name for span in spans)


def passed_on(fake: FakeProvider) -> list[str]:
    """The trace contexts that the provider was sent."""
    return [call.traceparent or "" for call in fake.ledger.calls]


def lines_of(app: RunningApp, response: httpx2.Response) -> list[dict[str, Any]]:
    """Every line of a request, once its last one is written."""
    request_id = response.headers["x-request-id"]
    app.request_line(request_id)
    return app.log_lines(request_id=request_id)


def test_a_replay_and_a_cached_answer_ask_no_model(
    app: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    key = {"idempotency-key": uuid.uuid4().hex}
    for again, extra in ((key, {}), ({}, {"temperature": 0})):
        for spans in (6, 3):  # with a call and its settlement, and without
            trace_id = uuid.uuid4().hex
            with app.http(traceparent=f"00-{trace_id}-{PARENT}-01", **again) as http:
                assert http.post(CHAT, json=QUESTION | extra).status_code == 200
            found = collector.trace(trace_id, spans)
            assert len([span for span in found if span.name.startswith("chat ")]) == (spans == 6)
    assert len(fake.ledger.calls) == 2


def test_an_abstention_stops_at_the_guard(
    app: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    said = [{"role": "user", "content": "I want to die."}]
    trace_id, response = ask(app, messages=said)
    assert response.status_code == 200
    assert names(collector.trace(trace_id, 2)) == [f"POST {CHAT}", "guard"]
    assert fake.ledger.calls == []


def test_refusals_name_their_trace_before_any_route_is_met(
    app: RunningApp, collector: Collector
) -> None:
    found = {}
    with app.http(None) as stranger, app.http() as http:
        for client, method, path, status, more in (
            (stranger, "POST", CHAT, 401, {"json": QUESTION}),
            (http, "GET", "/nowhere", 404, {}),
            (http, "PUT", CHAT, 405, {}),
            (http, "POST", CHAT, 413, {"content": b" " * 3_000_000}),
            (http, "POST", CHAT, 400, {"content": b"{"}),
        ):
            trace_id = uuid.uuid4().hex
            client.headers["traceparent"] = f"00-{trace_id}-{PARENT}-01"
            response = client.request(method, path, **more)
            assert response.status_code == status
            assert response.json()["error"]["trace_id"] == trace_id
            assert {line["trace_id"] for line in lines_of(app, response)} == {trace_id}
            found[trace_id] = status
    for trace_id, status in found.items():
        (server,) = collector.trace(trace_id, 1)
        assert facts(server)["http.response.status_code"] == status


@pytest.mark.parametrize(
    "given",
    [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033",
        "x" * 2000,
    ],
)
def test_what_is_no_trace_context_begins_a_trace_of_its_own(
    app: RunningApp, collector: Collector, fake: FakeProvider, given: str
) -> None:
    with app.http(traceparent=given, tracestate=",=" * 100) as http:
        response = http.post(CHAT, json=QUESTION)
    assert response.status_code == 200
    trace_id = app.request_line(response.headers["x-request-id"])["trace_id"]
    assert trace_id not in given
    assert passed_on(fake)[0].startswith(f"00-{trace_id}-")
    collector.trace(trace_id, 6)


def test_a_decision_against_a_trace_is_passed_on(app: RunningApp, fake: FakeProvider) -> None:
    trace_id, _ = ask(app, sampled=False)
    assert passed_on(fake)[0].startswith(f"00-{trace_id}-")
    assert passed_on(fake)[0].endswith("-00")


def attempts(app: RunningApp) -> dict[str, int]:
    """How often each outcome of a call is counted."""
    with app.http("admin") as http:
        metrics = http.get("/metrics").text
    rows = [x for x in metrics.splitlines() if x.startswith("llm_app_provider_attempts_total{")]
    return {
        row.partition('outcome="')[2].partition('"')[0]: int(float(row.split()[-1])) for row in rows
    }


def test_a_stream_that_breaks_says_so_in_its_span_its_lines_and_its_count(
    app: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    before = attempts(app)
    fake.next(ErrorInside(500, after_chunks=2))
    trace_id, response = ask(app, stream=True)
    events = [
        x.removeprefix("data: ") for x in response.text.splitlines() if x.startswith("data: {")
    ]
    assert json.loads(events[-1])["error"]["trace_id"] == trace_id
    call = by_name(collector.trace(trace_id, 6))[f"chat {PROVEN}"]
    kind = facts(call)["error.type"]
    assert kind == "overloaded"
    assert {line["trace_id"] for line in lines_of(app, response)} == {trace_id}
    after = attempts(app)
    assert after.get(kind, 0) == before.get(kind, 0) + 1
    assert after["ok"] == before["ok"], "it did not answer"


def test_a_client_that_leaves_before_the_first_piece_ends_the_span(
    app: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    fake.next(Hang("headers"))
    trace_id = uuid.uuid4().hex
    body = QUESTION | {"stream": True}
    with app.asked(body, traceparent=f"00-{trace_id}-{PARENT}-01"):
        fake.ledger.wait_for(1)
    call = by_name(collector.trace(trace_id, 6))[f"chat {PROVEN}"]
    assert facts(call)["error.type"] == "cancelled"


def test_requests_at_once_in_two_workers_keep_their_spans_apart(
    app: RunningApp, collector: Collector, fake: FakeProvider
) -> None:
    fake.always(Reply(text="word", delay_before=0.05))
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda number: ask(app, stream=bool(number % 2)), range(24)))
    for trace_id, response in asked:
        assert response.status_code == 200
        spans = collector.trace(trace_id, 6)
        (server,) = (span for span in spans if span.kind == Span.SPAN_KIND_SERVER)
        assert {span.parent_span_id for span in spans if span is not server} == {server.span_id}
    told = {traceparent.split("-")[1] for traceparent in passed_on(fake)}
    assert told == {trace_id for trace_id, _ in asked}


def test_candidate_and_mirrored_calls_are_told_apart(
    start_app: StartApp, collector: Collector, fake: FakeProvider
) -> None:
    settings = traced(collector, fake, **ON_TRIAL, canary_percent=50, shadow_percent=100)
    app = start_app(**settings)
    fake.always(Status(500), model=CANDIDATE)
    tried: dict[str, httpx2.Response] = {}
    mirrored: dict[str, httpx2.Response] = {}
    for number in range(12):
        trace_id, response = ask(app, user=str(number))
        assert response.status_code == 200
        arm = app.request_line(response.headers["x-request-id"])["arm"]
        (tried if arm == "canary" else mirrored)[trace_id] = response
    trace_id = next(iter(tried))
    spans = collector.trace(trace_id, 7)
    first, second = (span for span in spans if span.name.startswith("chat "))
    assert (first.name, second.name) == (f"chat {CANDIDATE}", f"chat {PROVEN}")
    assert facts(first)["error.type"] == "overloaded"
    assert {first.parent_span_id, second.parent_span_id} == {spans[0].span_id}

    # The first that was mirrored: a process that has not seen the switches yet mirrors none.
    compared = until(lambda: [x["request_id"] for x in app.log_lines(message="shadow failed")])
    trace_id, response = next(
        (trace, answer)
        for trace, answer in mirrored.items()
        if answer.headers["x-request-id"] in compared
    )
    spans = collector.trace(trace_id, 11)
    found = by_name(spans)
    shadow, call = found["shadow"], found[f"chat {CANDIDATE}"]
    assert shadow.parent_span_id == spans[0].span_id
    assert call.parent_span_id == shadow.span_id
    assert found[f"chat {PROVEN}"].parent_span_id == spans[0].span_id
    below = [span.name for span in spans if span.parent_span_id == shadow.span_id]
    assert sorted(below) == [call.name, "store", "store", "store"]
    until(lambda: len(lines_of(app, response)) > 1)
    assert {line["trace_id"] for line in lines_of(app, response)} == {trace_id}


@pytest.fixture
def tenth() -> Iterator[TracerProvider]:
    """Spans of an app that samples a tenth; none is sent in the seconds of a test."""
    about = {"service.name": "shop-help"}
    provider = tracing.start("http://127.0.0.1:1", about, Redactor(), share=0.1)
    yield provider
    provider.shutdown()


def test_a_strangers_choice_of_an_id_does_not_win_a_place(tenth: TracerProvider) -> None:
    tracer, sampled = tenth.get_tracer("test"), 0
    for number in range(1, 501):
        remote = SpanContext(number << 64 | 1, 7, is_remote=True, trace_flags=TraceFlags(1))
        span = tracer.start_span("GET", context=set_span_in_context(NonRecordingSpan(remote)))
        sampled += span.is_recording()
    assert 10 <= sampled <= 110  # 50 are expected, and one in a million runs is outside
