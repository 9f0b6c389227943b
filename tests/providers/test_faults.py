"""How each failure of a provider is told, and that it is told once: nothing is retried."""

import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from tests.providers.conftest import (
    KEY,
    PRIVATE,
    Lab,
    base,
    fp,
    http,
    module,
    prompt,
)

ECHO = f"Incorrect API key provided: {KEY}. You asked: {PRIVATE}"
JSON = "application/json"


@pytest.fixture(params=["openai", "anthropic", "gemini"])
def name(request: pytest.FixtureRequest) -> str:
    """One provider a wire: what compatible servers do otherwise is in test_streams.py."""
    return str(request.param)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid"),
        (401, "rejected_key"),
        (402, "quota"),
        (403, "rejected_key"),
        (404, "unknown_model"),
        (408, "overloaded"),
        (409, "overloaded"),
        (413, "invalid"),
        (422, "invalid"),
        (429, "rate_limited"),
        (500, "overloaded"),
        (502, "overloaded"),
        (503, "overloaded"),
        (529, "overloaded"),
    ],
)
def test_statuses(fake: Any, lab: Lab, name: str, streamed: bool, status: int, kind: str) -> None:
    fake.always(fp.Status(status, ECHO))
    error = lab.fail(lab.provider(name), streamed=streamed)
    assert (error.kind, error.status, error.provider) == (kind, status, name)
    assert len(fake.ledger.calls) == 1


def test_retry_after_is_told_and_not_obeyed(fake: Any, lab: Lab, name: str, streamed: bool) -> None:
    fake.always(fp.Status(429, retry_after=1, headers={"x-should-retry": "true"}))
    started = time.monotonic()
    error = lab.fail(lab.provider(name), streamed=streamed)
    assert time.monotonic() - started < 0.9
    assert error.retry_after == 1
    assert len(fake.ledger.calls) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3600"}, 3600),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "Fri, 01 Jan 2021 00:00:00 GMT"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "1e300"}, 86400),
        ({"retry-after": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_forms_of_retry_after(
    fake: Any, lab: Lab, headers: dict[str, str], seconds: float | None
) -> None:
    fake.next(fp.Status(503, headers=headers))
    assert lab.fail(lab.provider("openai")).retry_after == seconds


def test_retry_after_as_a_date(fake: Any, lab: Lab, name: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    fake.next(fp.Status(503, headers={"retry-after": date}))
    assert 50 < lab.fail(lab.provider(name)).retry_after <= 60


@pytest.mark.parametrize(
    ("name", "status", "body", "kind"),
    [
        ("openai", 429, '{"error":{"code":"insufficient_quota"}}', "quota"),
        ("openai", 400, '{"error":{"code":"context_length_exceeded"}}', "invalid"),
        ("compatible", 400, '{"object":"error","code":400,"type":"BadRequestError"}', "invalid"),
        ("compatible", 405, '{"detail":"Method Not Allowed"}', "unknown_model"),
        ("anthropic", 400, '{"error":{"message":"Your credit balance is too low"}}', "quota"),
        (
            "anthropic",
            429,
            '{"error":{"details":{"error_code":"enforced_spend_limit_reached"}}}',
            "quota",
        ),
        (
            "gemini",
            400,
            '{"error":{"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}',
            "rejected_key",
        ),
        ("gemini", 400, '[{"error":{"status":"FAILED_PRECONDITION"}}]', "rejected_key"),
        (
            "gemini",
            429,
            '{"error":{"details":[{"violations":[{"quotaId":"RequestsPerDayPerProject"}]}]}}',
            "quota",
        ),
        ("gemini", 429, '{"error":{"status":"RESOURCE_EXHAUSTED"}}', "rate_limited"),
    ],
)
def test_what_a_status_hides(
    lab: Lab, streamed: bool, name: str, status: int, body: str, kind: str
) -> None:
    answer = http(body.encode(), JSON, f"{status} No")
    error = lab.fail(lab.provider(name, lab.says(answer)), streamed=streamed)
    assert (error.kind, error.status) == (kind, status)


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"[]", b"3", b'{"error":' + b"[" * 9999])
def test_a_status_with_any_body(lab: Lab, name: str, body: bytes) -> None:
    error = lab.fail(lab.provider(name, lab.says(http(body, JSON, "500 No"))))
    assert (error.kind, error.status) == ("overloaded", 500)


@pytest.mark.parametrize(
    ("status", "billed"),
    [(500, False), (502, True), (503, False), (504, True), (520, True), (522, False), (524, True)],
)
def test_a_gateway_that_lost_the_answer_leaves_the_charge(
    lab: Lab, status: int, billed: bool
) -> None:
    error = lab.fail(lab.provider("openai", lab.says(http(b"", "text/html", f"{status} No"))))
    assert (error.kind, error.perhaps_billed) == ("overloaded", billed)


def test_a_redirect_is_not_followed(fake: Any, lab: Lab, name: str, streamed: bool) -> None:
    redirect = http(b"", status="307 Elsewhere", more=f"location: {fake.url}/v1/models\r\n")
    error = lab.fail(lab.provider(name, lab.says(redirect)), streamed=streamed)
    assert (error.kind, error.status) == ("unknown_model", 307)
    assert fake.ledger.calls == []


@pytest.mark.parametrize("body", [b"<html>502</html>", b'{"choices', b"null", b"[" * 9999])
@pytest.mark.parametrize("after", [0, 1])
def test_garbage(fake: Any, lab: Lab, name: str, streamed: bool, body: bytes, after: int) -> None:
    fake.always(fp.Garbage(body, after_chunks=after))
    assert lab.fail(lab.provider(name), streamed=streamed).kind == "garbage"
    assert len(fake.ledger.calls) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{"message":{},"finish_reason":"stop"}]}',
        b'{"choices":[{"message":{"content":"hi"},"finish_reason":null}]}',
        b'{"choices":[{"message":{"content":7},"finish_reason":"stop"}]}',
        b'{"content":[{"type":"text"}],"stop_reason":"end_turn"}',
        b'{"content":[{"type":"text","text":"hi"}],"stop_reason":null}',
        b'{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":7}]},"finishReason":"STOP"}]}',
        b'{"candidates":[]}',
    ],
)
def test_missing_and_mistyped_fields_are_garbage(
    lab: Lab, name: str, streamed: bool, body: bytes
) -> None:
    assert (
        lab.fail(lab.provider(name, lab.says(http(body, JSON))), streamed=streamed).kind
        == "garbage"
    )


def test_a_stream_that_is_cut_is_broken(fake: Any, lab: Lab, name: str) -> None:
    fake.next(fp.Truncate(after_chunks=3))
    error = lab.fail(lab.provider(name), streamed=True)
    assert error.kind == "broken"
    assert error.perhaps_billed
    if name in ("anthropic", "gemini"):  # they state the usage from the beginning
        assert error.usage.input_tokens > 0


def test_half_a_document_is_garbage(fake: Any, lab: Lab, name: str) -> None:
    fake.next(fp.Truncate())
    assert lab.fail(lab.provider(name)).kind == "garbage"


@pytest.mark.parametrize("where", ["connect", "headers", "body"])
def test_resets(fake: Any, lab: Lab, name: str, streamed: bool, where: str) -> None:
    fake.always(fp.Reset(where))
    assert lab.fail(lab.provider(name), streamed=streamed).kind == "broken"
    assert len(fake.ledger.calls) == 1


@pytest.mark.parametrize("where", ["connect", "headers", "body"])
def test_hanging_times_out(fake: Any, lab: Lab, name: str, streamed: bool, where: str) -> None:
    fake.always(fp.Hang(where))
    started = time.monotonic()
    assert lab.fail(lab.provider(name, read=0.2), streamed=streamed).kind == "timeout"
    assert time.monotonic() - started < 2
    fake.ledger.idle()
    assert [call.outcome for call in fake.ledger.calls] == ["client_left"]


def test_a_stream_that_drips_is_not_a_timeout(fake: Any, lab: Lab, name: str) -> None:
    fake.next(fp.Drip(interval=0.001, bytes=7, reply=fp.Reply(text="안녕 하세요", chunks=6)))

    answer = lab.ask(lab.provider(name, read=0.5), streamed=True)
    assert answer.text == "안녕 하세요안녕 하세요안녕 하세요"


def test_nobody_listens(lab: Lab, name: str, streamed: bool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = lab.fail(lab.provider(name, url), streamed=streamed)
    assert error.kind == "connect"
    assert not error.perhaps_billed


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectTimeout("x"), "connect"),
        (httpx2.PoolTimeout("x"), "connect"),
        (httpx2.ProxyError("x"), "connect"),
        (httpx2.UnsupportedProtocol("x"), "connect"),
        (httpx2.InvalidURL("x"), "connect"),
        (httpx2.WriteTimeout("x"), "timeout"),
        (httpx2.WriteError("x"), "broken"),
        (httpx2.RemoteProtocolError("x"), "broken"),
        (httpx2.DecodingError("x"), "garbage"),
        (ssl.SSLError("x"), "broken"),
        (None, "broken"),
    ],
)
def test_what_is_hard_to_stage(error: Exception | None, kind: str) -> None:
    assert module("failures").not_transported("openai", error).kind == kind


@pytest.mark.parametrize(
    ("code", "inner", "kind"),
    [
        (529, "overloaded_error", "overloaded"),
        (500, None, "overloaded"),
        (429, None, "rate_limited"),
        (401, None, "rejected_key"),
        (402, "billing_error", "quota"),
        (404, None, "unknown_model"),
        (400, None, "invalid"),
    ],
)
def test_errors_inside_a_success(
    fake: Any, lab: Lab, name: str, streamed: bool, code: int, inner: str | None, kind: str
) -> None:
    fake.always(fp.ErrorInside(code, ECHO, kind=inner if name == "anthropic" else None))
    error = lab.fail(lab.provider(name), streamed=streamed)
    if code == 402 and name == "openai":
        kind = "invalid"  # OpenAI's wire says no more than that
    assert (error.kind, error.status) == (kind, None)
    assert len(fake.ledger.calls) == 1


def test_an_error_inside_that_says_nothing_is_garbage(lab: Lab, name: str) -> None:
    for error in (b'"no"', b'{"message":"no"}', b'{"code":"mystery"}', b'{"code":1e999}'):
        body = b'{"error":' + error + b"}"
        assert lab.fail(lab.provider(name, lab.says(http(body, JSON)))).kind == "garbage"


def test_an_error_inside_keeps_what_was_used(fake: Any, lab: Lab) -> None:
    fake.next(fp.ErrorInside(529, kind="overloaded_error", after_chunks=2))
    error = lab.fail(lab.provider("anthropic"), streamed=True)
    assert error.usage == base.Usage(input_tokens=10, output_tokens=1)


def test_sampling_under_a_version_without_it(fake: Any, lab: Lab) -> None:
    """Anthropic refuses `temperature` in its present version, so the older one is asked for."""

    lab.ask(lab.provider("anthropic"), prompt(temperature=1.0))
    lab.ask(lab.provider("anthropic"), prompt(top_p=0.5))
    assert [call.outcome for call in fake.ledger.calls] == ["answered", "answered"]
