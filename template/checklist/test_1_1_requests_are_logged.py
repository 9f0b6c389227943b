"""1.1 Are all API requests logged?

A log that holds only what went well is a photo album. What you need at night is one line for
every request, however it ended: refused, failed, broken off in mid-stream, or left by a client
who closed the window. Each line says how it ended, how long it took, who asked and what it cost;
a failure has its stack; and no line has a secret in it.

How we see it: we make ten requests end in ten ways, each with a request id of its own, and then
look those ids up in what the app has written.
"""

import json

import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import until
from checklist.messages import seen_as
from checklist.starting import BUG, app_with_a_bug
from tests.fake_provider import FakeProvider, Reply, Reset, Status, Usage
from tests.running import ADMIN_TOKEN, CALLERS, PROVIDER_KEY, RunningApp

# How each request ends, and the status that its line must have.
ENDINGS = {
    "answered": 200,
    "invalid": 400,
    "no-key": 401,
    "no-such-page": 404,
    "too-large": 413,
    "too-many": 429,
    "bug": 500,
    "providers-down": 503,
    "broken-stream": 200,
    "client-left": 200,
}
PER_MINUTE = 10
LOGGED_SECONDS = 10.0
USAGE = Usage(prompt=100, completion=10)
SLOW_STREAM = Reply(chunks=40, delay_between=0.05)


@pytest.fixture(scope="module")
def app(
    start: StartApp, fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> RunningApp:
    """An app on which every ending has happened once."""
    running = start(
        workers=2,
        source=app_with_a_bug(tmp_path_factory.mktemp("bug")),
        providers=load_project().providers[0],
        max_attempts=1,
        max_body_bytes=4096,
        requests_per_minute=PER_MINUTE,
    )
    _end_in_every_way(running, fake)
    until(lambda: all(_lines(running, name) for name in ENDINGS), LOGGED_SECONDS)
    return running


def _end_in_every_way(app: RunningApp, fake: FakeProvider) -> None:
    def named(name: str) -> dict[str, str]:
        return {"X-Request-ID": f"check-{name}"}

    with app.http() as http, app.http("bob") as bob, app.http(None) as nobody:
        fake.next(Reply("ok", usage=USAGE))
        http.post(CHAT, json=question(), headers=named("answered"))
        http.post(CHAT, json={"messages": []}, headers=named("invalid"))
        nobody.post(CHAT, json=question(), headers=named("no-key"))
        http.get("/no-such-page", headers=named("no-such-page"))
        http.post(CHAT, json=question("x" * 8000), headers=named("too-large"))
        http.get(BUG, headers=named("bug"))
        fake.next(Status(500))
        http.post(CHAT, json=question(), headers=named("providers-down"))
        fake.next(Reset("chunk", after_chunks=2, reply=SLOW_STREAM))
        http.post(CHAT, json=question(stream=True), headers=named("broken-stream"))
        fake.next(SLOW_STREAM)
        _leave_early(app, named("client-left"))
        for _ in range(PER_MINUTE):
            bob.post(CHAT, json=question())
        bob.post(CHAT, json=question(), headers=named("too-many"))


def _leave_early(app: RunningApp, headers: dict[str, str]) -> None:
    body = question(stream=True)
    with app.http() as http, http.stream("POST", CHAT, json=body, headers=headers) as response:
        next(response.iter_bytes())


def _lines(app: RunningApp, name: str) -> list[dict[str, object]]:
    lines = app.log_lines(request_id=f"check-{name}")
    return [line for line in lines if "status" in line and "duration_ms" in line]


def test_every_ending_leaves_one_true_line(app: RunningApp, check: Check) -> None:
    for name, status in ENDINGS.items():
        lines = _lines(app, name)
        statuses = [line["status"] for line in lines]
        check.that(
            statuses == [status],
            "one_line",
            name=name,
            status=status,
            seen=f"{name}: {seen_as('lines', count=len(lines))}, {statuses}",
        )
    times = [float(str(_lines(app, name)[0]["duration_ms"])) for name in ENDINGS]
    check.that(min(times) > 0, "duration", seen=f"{min(times)} ms")
    check.found("lines", count=len(ENDINGS), statuses=", ".join(map(str, ENDINGS.values())))


def test_an_answers_line_says_who_what_and_how_much(app: RunningApp, check: Check) -> None:
    project = load_project()
    lines = _lines(app, "answered")
    line = lines[0] if lines else {}
    expected = {
        "caller": "alice",
        "provider": project.providers[0],
        "model": project.models[project.providers[0]],
        "input_tokens": USAGE.prompt,
        "output_tokens": USAGE.completion,
        # One dollar for a million tokens of input, two for output (see `production`).
        "cost_usd": (USAGE.prompt + 2 * USAGE.completion) / 1_000_000,
        "attempts": 1,
        "fallback": False,
    }
    wrong = [f"{name}: {line.get(name)}" for name in expected if line.get(name) != expected[name]]
    check.that(not wrong, "facts", names=", ".join(expected), seen=", ".join(wrong))
    check.found("cost", cost=f"{expected['cost_usd']:.6f}", tokens=USAGE.prompt + USAGE.completion)


def test_a_failure_has_its_stack_and_no_line_a_secret(app: RunningApp, check: Check) -> None:
    for name in ("bug", "providers-down"):
        lines = app.log_lines(request_id=f"check-{name}")
        stacks = [str(line["stack"]) for line in lines if "stack" in line]
        check.that(
            any("Error" in stack for stack in stacks),
            "stack",
            name=name,
            seen=seen_as("stacks", count=len(lines), stacks=len(stacks)),
            look="app/standards/visibility/logs.py",
        )
    written = json.dumps([_lines(app, name) for name in ENDINGS])
    secrets = (PROVIDER_KEY, ADMIN_TOKEN, *CALLERS.values())
    leaked = [secret[:6] for secret in secrets if secret in written]
    check.that(not leaked, "secret", seen=f"{leaked}", look="app/standards/visibility/redaction.py")
