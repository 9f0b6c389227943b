"""The answer cache and the deterministic mode: what is kept, for whom, for how long."""

import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from app.answers import SSE, Keeping
from app.foundation.project import load_project
from app.launch import caching
from tests.conftest import StartApp
from tests.fake_provider import ErrorInside, FakeProvider, Hang, Reply, Status
from tests.running import RunningApp, production, running_app
from tests.servers import store_contents

FIRST = load_project().providers[0]
Ask = Callable[..., httpx2.Response]


@pytest.fixture
def body() -> dict[str, Any]:
    """A question that no other test asks."""
    asked = f"What is the capital of {uuid4()}?"
    return {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": asked}]}


@pytest.fixture
def ask(body: dict[str, Any]) -> Ask:
    """Asks it, with changes to the body, and headers."""

    def ask(
        http: httpx2.Client, headers: dict[str, str] | None = None, **changes: Any
    ) -> httpx2.Response:
        return http.post("/v1/chat/completions", json=body | changes, headers=headers)

    return ask


def counted(app: RunningApp) -> dict[str, float]:
    """The cache's metric: how often it did what."""
    with app.http("admin") as http:
        metrics = http.get("/metrics").text
    return {
        result: float(count)
        for result, count in re.findall(
            r'^llm_app_cache_total\{result="(\w+)"\} (\S+)', metrics, re.M
        )
    }


def cache(answer: httpx2.Response) -> str:
    """What the cache did; the answer is a good one."""
    assert answer.status_code == 200, answer.text
    return answer.headers["x-cache"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_equal_question_gets_equal_bytes_and_costs_nothing(
    app: RunningApp, fake: FakeProvider, ask: Ask, stream: bool
) -> None:
    before = counted(app)
    with app.http() as http:
        first, second = (ask(http, stream=stream) for _ in range(2))
    assert (cache(first), cache(second)) == ("MISS", "HIT")
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"]
    assert len(fake.ledger.calls) == 1
    _, line = (app.request_line(answer.headers["x-request-id"]) for answer in (first, second))
    assert line["cache"] == "hit"
    assert line["cost_usd"] == 0
    assert line["attempts"] == 0
    after = counted(app)
    assert {name: after[name] - before.get(name, 0) for name in ("miss", "hit")} == {
        "miss": 1,
        "hit": 1,
    }


@pytest.mark.parametrize(
    ("headers", "changes"),
    [
        ({}, {"temperature": 0.1}),
        ({}, {"temperature": None}),
        ({"Cache-Control": "max-age=0, No-Store"}, {}),
        ([("Cache-Control", "max-age=0"), ("Cache-Control", "no-store")], {}),
        ({"Idempotency-Key": "k-1"}, {}),
    ],
    ids=["warm", "no temperature", "no-store", "two lines", "keyed"],
)
def test_what_passes_the_cache_by(
    app: RunningApp, fake: FakeProvider, ask: Ask, headers: Any, changes: dict[str, Any]
) -> None:
    with app.http() as http:
        assert cache(ask(http)) == "MISS"
        assert cache(ask(http, headers, **changes)) == "BYPASS"
        assert cache(ask(http)) == "HIT"
    assert len(fake.ledger.calls) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": [{"role": "user", "content": "What is the capital of Korea?"}]},
        {"seed": 7},
        {"max_tokens": 900},
        {"stop": "x"},
        {"user": "someone else"},
        {"stream": True},
        {"model": load_project().models[FIRST]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_question_is_another_entry(
    app: RunningApp, fake: FakeProvider, ask: Ask, changes: dict[str, Any]
) -> None:
    with app.http() as http:
        assert cache(ask(http)) == "MISS"
        assert cache(ask(http, **changes)) == "MISS"
        assert cache(ask(http, **changes)) == "HIT"
        assert cache(ask(http, metadata={"a": "note"})) == "HIT"
    assert len(fake.ledger.calls) == 2


def test_nobody_is_given_anothers_answer(app: RunningApp, fake: FakeProvider, ask: Ask) -> None:
    with app.http() as alice, app.http("bob") as bob:
        assert [cache(ask(http)) for http in (alice, bob, alice, bob)] == [
            *("MISS", "MISS", "HIT", "HIT")
        ]
    assert len(fake.ledger.calls) == 2


def test_equal_questions_at_once_cost_one_call(
    start_app: StartApp, fake: FakeProvider, ask: Ask
) -> None:
    app = start_app(workers=3)
    fake.always(Reply("Seoul", delay_before=0.5))
    with app.http() as http, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ask(http), range(20)))
    assert len(fake.ledger.calls) == 1
    assert len({answer.content for answer in answers}) == 1
    assert sorted(map(cache, answers)) == ["HIT"] * 19 + ["MISS"]


def test_who_waits_longer_than_its_time_is_told_so(
    start_app: StartApp, fake: FakeProvider, ask: Ask
) -> None:
    app = start_app(time_budget_seconds=1.5, max_attempts=1)
    fake.always(Hang("connect"))
    with app.http() as http, ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda _: ask(http), range(2)))
        assert time.monotonic() - began < 10
    assert {answer.status_code for answer in answers} <= {503, 504}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "bad",
    [Reply("Seo", finish="length"), Status(500), ErrorInside()],
    ids=["cut", "failed", "error inside"],
)
def test_only_a_good_answer_is_kept(
    start_app: StartApp, fake: FakeProvider, ask: Ask, bad: Any, stream: bool
) -> None:
    app = start_app(max_attempts=1, providers=FIRST)
    fake.next(bad)
    with app.http() as http:
        assert ask(http, stream=stream).headers["x-cache"] == "MISS"
        assert cache(ask(http, stream=stream)) == "MISS"
        assert cache(ask(http, stream=stream)) == "HIT"
    assert len(fake.ledger.calls) == 2


def test_a_stream_that_the_client_left_is_not_kept(
    app: RunningApp, fake: FakeProvider, ask: Ask, body: dict[str, Any]
) -> None:
    fake.next(Reply(chunks=50, delay_between=0.05))
    with app.http() as http:
        with http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response:
            next(response.iter_lines())
        fake.ledger.idle()
        assert cache(ask(http, stream=True)) == "MISS"


def test_a_good_answer_without_its_end_is_not_kept() -> None:
    """Its client left between the provider's last word and the end mark."""
    execution = caching.execution({"a": "question"}, caller="alice", keep_seconds=300)
    for cached in (True, False):
        keeping = Keeping(execution, cached=cached, good=True)
        assert keeping.kept(200, SSE, b"data: ...") is not None
        broken_off = keeping.kept(200, SSE, b"data: ...", complete=False)
        assert (broken_off is None) is cached  # a key's is kept, as incomplete


def test_an_entry_ends_with_its_time_and_zero_keeps_nothing(
    start_app: StartApp, fake: FakeProvider, ask: Ask
) -> None:
    app = start_app(cache_ttl_seconds=2)
    with app.http() as http:
        assert [cache(ask(http)) for _ in range(2)] == ["MISS", "HIT"]
        time.sleep(2.3)
        assert cache(ask(http)) == "MISS"
    app.stop()
    app = start_app(cache_ttl_seconds=0)
    with app.http() as http:
        assert cache(ask(http)) == "BYPASS"


def test_another_system_prompt_finds_nothing_old(
    fake: FakeProvider, ask: Ask, tmp_path: Path
) -> None:
    environment = production(fake, tmp_path / "data")
    (tmp_path / "data").mkdir()
    seen = []
    for number, prompt in enumerate(("Be kind.", "Be kind.", "Be brief.")):
        source = tmp_path / str(number)
        shutil.copytree(Path(__file__).parents[1] / "app", source / "app")
        (source / "app/yours/system_prompt.md").write_text(prompt, encoding="utf-8")
        with (
            running_app(environment, tmp_path / "data", source=source) as app,
            app.http() as http,
        ):
            seen.append(cache(ask(http)))
    assert seen == ["MISS", "HIT", "MISS"]


def test_a_question_whose_asker_died_is_asked_again(
    start_app: StartApp, fake: FakeProvider, ask: Ask
) -> None:
    quick = {"time_budget_seconds": 2, "store_timeout_seconds": 1}  # the lease: 11 seconds
    app = start_app(**quick)
    with app.http() as http:
        # What a first request loads must not use up this little time.
        ask(http, messages=[{"role": "user", "content": "Hello"}])
        fake.reset()
        fake.next(Hang("connect"))
        asking = threading.Thread(target=_ask_in_vain, args=(ask, http))
        asking.start()
        fake.ledger.wait_for(1)
        app.process.kill()
        asking.join()
    again = start_app(**quick)
    deadline = time.monotonic() + 30
    with again.http() as http:
        while (answer := ask(http)).status_code != 200 and time.monotonic() < deadline:
            assert answer.json()["error"]["code"] == "time_budget_exceeded"
    assert cache(answer) == "BYPASS"


def _ask_in_vain(ask: Ask, http: httpx2.Client) -> None:
    with pytest.raises(httpx2.TransportError):
        ask(http)


def test_the_deterministic_mode_reaches_the_providers_wire(
    start_app: StartApp, fake: FakeProvider, ask: Ask
) -> None:
    app = start_app(temperature=0, seed=7, providers=FIRST)
    unsaid: dict[str, Any] = {"temperature": None, "seed": None}
    with app.http() as http:
        first, second = (ask(http, **unsaid) for _ in range(2))
        ask(http, temperature=0.5, seed=8)
    assert (cache(first), cache(second)) == ("MISS", "HIT")
    assert first.content == second.content
    calls = [(call.temperature, call.seed) for call in fake.ledger.calls]
    known = FIRST != "anthropic"  # its wire has no seed
    assert calls == [(0, 7 if known else None), (0.5, 8 if known else None)]


def test_no_stored_row_shows_a_question_or_an_answer(
    start_app: StartApp, fake: FakeProvider, ask: Ask, tmp_path: Path
) -> None:
    app = start_app()
    fake.always(Reply("the secret answer is Seoul"))
    with app.http() as http:
        assert [cache(ask(http)) for _ in range(2)] == ["MISS", "HIT"]
    app.stop()
    content = store_contents(tmp_path)
    assert b"capital" not in content
    assert b"secret" not in content
