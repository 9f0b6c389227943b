"""Moderation by the provider's endpoint: asked once, in its own time, open or closed on failure."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import StartApp
from tests.fake_provider import FakeProvider
from tests.moderator import Moderator, Way
from tests.running import PROVIDER_KEY, RunningApp, production
from tests.test_environment import start
from tests.test_policy import ask

# Its time where it hangs, and the rest of such a request: together less than it would hang.
SECONDS = 1.0
MARGIN = 5.0
FAILURES: list[Way] = ["fail", "hang", "garbage", "nonsense", "nothing", "bomb", "deep"]


@pytest.fixture
def moderator() -> Iterator[Moderator]:
    """The endpoint."""
    server = Moderator()
    yield server
    server.close()


def moderated(
    start_app: StartApp, moderator: Moderator, mode: str, seconds: float = 20
) -> RunningApp:
    """An app that asks it, and waits as long as any machine may take to judge."""
    return start_app(
        moderation=mode,
        moderation_base_url=moderator.url,
        moderation_timeout_seconds=seconds,
        openai_api_key=PROVIDER_KEY,
    )


def code(answer: httpx2.Response) -> str:
    """How a question ended."""
    return "ok" if answer.status_code == 200 else str(answer.json()["error"]["code"])


def test_what_is_flagged_is_blocked_and_costs_nothing(
    start_app: StartApp, fake: FakeProvider, moderator: Moderator
) -> None:
    app = moderated(start_app, moderator, "open")
    assert code(ask(app, "Hello, I am bob@example.com")) == "ok"
    assert moderator.asked == [
        ("/v1/moderations", "Hello, I am [EMAIL_1]", f"Bearer {PROVIDER_KEY}")
    ]
    calls = len(fake.ledger.calls)
    for stream in (False, True):
        refused = ask(app, "flagword!", stream=stream)
        assert (refused.status_code, code(refused)) == (400, "content_policy_violation")
    assert len(fake.ledger.calls) == calls
    line = app.request_line(refused.headers["x-request-id"])
    hit = {"rule": "moderation", "action": "block", "side": "input", "count": 1}
    assert (line["policy"], line["cost_usd"]) == ([hit], 0)
    assert app.metric("cost_reserved_usd") == 0
    assert "flagword" not in app.log()


def test_what_comes_behind_it_hides_nothing(
    start_app: StartApp, fake: FakeProvider, moderator: Moderator
) -> None:
    app = moderated(start_app, moderator, "closed")

    def conversation(*turns: tuple[str, str]) -> str:
        messages = [{"role": role, "content": text} for role, text in turns]
        return code(ask(app, "", messages=messages))

    asked = ("user", "flagword")
    for behind in (
        [("user", "")],
        [("user", " \n"), ("user", "")],
        [("user", "Answer that.")],
        [("assistant", ""), ("user", "Answer that.")],
        [("system", "Answer."), ("user", "Please.")],
        [("assistant", "Sure:")],
        [("user", "And?")] * 12,  # more than travel: what is dropped lives on in the summary
    ):
        assert conversation(asked, *behind) == "content_policy_violation", behind
    assert fake.ledger.calls == []
    # A reply is what makes it old: the conversation goes on.
    assert conversation(asked, ("assistant", "No."), ("user", "Hello")) == "ok"


@pytest.mark.parametrize(("mode", "ended"), [("open", "ok"), ("closed", "providers_unavailable")])
def test_its_failure_takes_its_own_time_and_ends_as_set(
    start_app: StartApp, fake: FakeProvider, moderator: Moderator, mode: str, ended: str
) -> None:
    app = moderated(start_app, moderator, mode, SECONDS)
    for way in FAILURES:
        moderator.way = way
        started = time.monotonic()
        assert code(ask(app, "Hello")) == ended, way
        assert time.monotonic() - started < SECONDS + MARGIN, way
    assert len(fake.ledger.calls) == (len(FAILURES) if ended == "ok" else 0)
    assert len(app.log_lines(message="moderation failed", mode=mode)) == len(FAILURES)
    moderator.way = "judge"
    assert code(ask(app, "Hello")) == "ok"


def test_what_utf_8_cannot_carry_does_not_pass_it(
    start_app: StartApp, fake: FakeProvider, moderator: Moderator
) -> None:
    app = moderated(start_app, moderator, "open")
    assert code(ask(app, "flagword \ud800")) == "content_policy_violation"
    assert code(ask(app, "Hello \ud800")) == "ok"
    assert [text for _, text, _ in moderator.asked] == ["flagword ?", "Hello ?"]
    assert app.log_lines(message="moderation failed") == []


def test_what_nobody_judged_is_not_kept(
    start_app: StartApp, fake: FakeProvider, moderator: Moderator
) -> None:
    def cache(app: RunningApp) -> str:
        return ask(app, "Hello", temperature=0).headers["x-cache"]

    app = moderated(start_app, moderator, "open")
    moderator.way = "fail"
    assert [cache(app) for _ in range(2)] == ["MISS", "MISS"]
    moderator.way = "judge"
    assert [cache(app) for _ in range(2)] == ["MISS", "HIT"]
    # Another mode is another policy: what was kept under it is not found.
    strict = moderated(start_app, moderator, "closed")
    moderator.way = "fail"
    assert code(ask(strict, "Hello", temperature=0)) == "providers_unavailable"


def test_a_refused_request_is_not_shown_to_it(
    start_app: StartApp, fake: FakeProvider, moderator: Moderator
) -> None:
    app = moderated(start_app, moderator, "open")
    with app.http(None) as http:
        body = {"messages": [{"role": "user", "content": "Hello"}]}
        assert http.post("/v1/chat/completions", json=body).status_code == 401
    assert ask(app, "Hello " * 20_000).status_code == 400
    assert moderator.asked == []


def test_it_needs_a_key(fake: FakeProvider, tmp_path: Path) -> None:
    settings = production(fake, tmp_path, moderation="open")
    settings = {k: v for k, v in settings.items() if k != "OPENAI_API_KEY"}
    ended = start(settings)
    assert ended.returncode == 78
    assert "MODERATION: " in ended.stderr
