"""The operations page over HTTP: who may see it, and what changes something."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from app.foundation.project import load_project
from app.launch.switches import CANARY, LOOK_EVERY_SECONDS, PATIENCE_SECONDS, SHADOW, SPENDING
from app.ops.door import WRONG_SECONDS
from app.ops.tries import WINDOW_SECONDS, WRONG_TOKENS
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Status
from tests.running import (
    ADMIN_TOKEN,
    CALLERS,
    PROVIDER_KEY,
    RunningApp,
    production,
    running_app,
    until,
)
from tests.servers import own_server

COOKIE = "__Host-ops"
FAILURES_SECONDS = 15.0  # they are written once a second
# A look, the request beside which it begins, and a busy machine's own.
SEEN_SECONDS = LOOK_EVERY_SECONDS + PATIENCE_SECONDS + 5
QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Marmalade?"}]}


@pytest.fixture(scope="module")
def shared_pair(
    shared_fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """Two workers: whatever the one has said, the other knows; use `app`."""
    folder = tmp_path_factory.mktemp("pair")
    with running_app(production(shared_fake, folder), folder, workers=2) as pair:
        yield pair


@pytest.fixture
def app(shared_pair: RunningApp, fake: FakeProvider) -> RunningApp:
    """A running app with two workers, whose provider is `fake`."""
    return shared_pair


def browser(app: RunningApp) -> httpx2.Client:
    """A client that says what a browser says; Secure cookies are carried by hand."""
    return app.http(None, **{"Sec-Fetch-Site": "same-origin"})


def sign_in(http: httpx2.Client, token: str = ADMIN_TOKEN) -> httpx2.Response:
    response = http.post("/ops/session", json={"token": token})
    if response.status_code == 204:
        name, _, value = response.headers["set-cookie"].partition(";")[0].partition("=")
        http.headers["Cookie"] = f"{name}={value}"
    return response


@contextmanager
def signed_in(app: RunningApp) -> Iterator[httpx2.Client]:
    """A client with a session, and with what its page brings to change something."""
    with browser(app) as http:
        assert sign_in(http).status_code == 204
        # Its store may answer a busy machine too late, once.
        state = until(lambda: (found := http.get("/ops/state")).status_code == 200 and found)
        http.headers["X-CSRF-Token"] = state.json()["session"]["csrf"]
        yield http


def guess(app: RunningApp, token: str = "guess", address: str = "192.0.2.9") -> int:
    """The status that a tool gets which brings a token; the app may believe the address."""
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
    with app.http(None, **headers) as http:
        return http.get("/ops/state").status_code


def test_a_session_opens_with_the_admin_token_and_ends_in_every_process(
    app: RunningApp,
) -> None:
    with browser(app) as http:
        refused = http.get("/ops/state")
        assert refused.status_code == 401
        assert http.get("/ops/session").json() == {"in": False}
        assert "nobody" not in refused.text
        assert sign_in(http, token="admin-0123456780").status_code == 401
        opened = sign_in(http)
        cookie = opened.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        for flag in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age=28800"):
            assert flag in cookie, cookie
        assert "Domain" not in cookie
        state = http.get("/ops/state")
        assert state.status_code == 200
        assert http.get("/ops/session").json() == {"in": True}
        assert state.headers["cache-control"] == "no-store"
        http.headers["X-CSRF-Token"] = state.json()["session"]["csrf"]
        left = http.delete("/ops/session")
        assert left.status_code == 204
        assert "Max-Age=0" in left.headers["set-cookie"]
        # The cookie that someone has kept opens nothing any more, whichever worker is asked.
        for _ in range(6):
            with app.http(None, Cookie=http.headers["Cookie"]) as other:
                assert other.get("/ops/state").status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "gAAAAA", "é" * 90])
def test_a_forged_cookie_opens_nothing(app: RunningApp, cookie: str) -> None:
    with app.http(None) as http:
        header = {b"Cookie": f"{COOKIE}={cookie}".encode("latin-1")}
        assert http.get("/ops/state", headers=header).status_code == 401


def test_an_altered_session_opens_nothing(app: RunningApp) -> None:
    with browser(app) as http:
        assert sign_in(http).status_code == 204
        value = http.headers["Cookie"]
    middle = len(value) // 2
    altered = value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :]
    with app.http(None, Cookie=altered) as http:
        assert http.get("/ops/state").status_code == 401


def test_another_token_ends_all_sessions_and_wrong_ones_are_slowed_and_then_refused(
    start_app: StartApp, app: RunningApp
) -> None:
    with browser(app) as http:
        assert sign_in(http).status_code == 204
        session = http.headers["Cookie"]
    rotated = start_app(admin_token=ADMIN_TOKEN[::-1])
    with rotated.http(None, Cookie=session) as http:
        assert http.get("/ops/state").status_code == 401
    with browser(rotated) as http, rotated.http(None, Authorization="Bearer wrong") as tool:
        started = time.monotonic()
        for number in range(WRONG_TOKENS):
            wrong = sign_in(http, token="guess") if number % 2 else tool.get("/ops/state")
            assert wrong.status_code == 401
        assert time.monotonic() - started > 0.4 * WRONG_TOKENS
        for late in (sign_in(http, token=ADMIN_TOKEN[::-1]), tool.get("/ops/state")):
            assert late.status_code == 429
            wait, passed = int(late.headers["retry-after"]), time.monotonic() - started
            assert WINDOW_SECONDS - passed <= wait <= WINDOW_SECONDS
            assert f"{wait}" in late.json()["error"]["message"], "it says when to try again"
    lines = rotated.log_lines(message="wrong admin token")
    assert [line["network"] for line in lines] == ["127.0.0.1"] * WRONG_TOKENS


def test_wrong_tokens_count_together_wherever_they_are_tried(start_app: StartApp) -> None:
    app = start_app(trusted_proxies="127.0.0.0/8")
    paths = ("/metrics", "/docs", "/openapi.json", "/ops/state")

    def status(path: str, address: str, token: str | None = ADMIN_TOKEN) -> int:
        headers = {"X-Forwarded-For": address}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        with app.http(None, **headers) as http:
            return http.get(path).status_code

    for _ in range(WRONG_TOKENS + 1):  # who brings no token has guessed nothing
        assert status("/metrics", "192.0.2.1", None) == 401
    started = time.monotonic()
    for number in range(WRONG_TOKENS):
        assert status(paths[number % len(paths)], "192.0.2.1", f"guess-{number}") == 401
    assert time.monotonic() - started > 0.4 * WRONG_TOKENS
    assert {status(path, "192.0.2.1") for path in paths} == {429}
    with app.http("admin", **{"X-Forwarded-For": "192.0.2.2"}) as http:
        for path in paths:
            answers = [http.get(path) for _ in range(4)]
            assert {answer.status_code for answer in answers} == {200}
            # A right one does not wait. A busy machine may be slow once, and not each time.
            assert min(answer.elapsed.total_seconds() for answer in answers) < WRONG_SECONDS, path


def test_wrong_tokens_of_all_processes_count_together_however_many_come_at_once(
    start_app: StartApp,
) -> None:
    settings = {"trusted_proxies": "127.0.0.0/8"}
    both = (start_app(**settings), start_app(**settings))  # of one store

    def status(number: int, token: str = "guess") -> int:
        return guess(both[number % 2], token, "192.0.2.1")

    # More at once than wrong ones may be in a minute.
    with ThreadPoolExecutor(12) as pool:
        statuses = Counter(pool.map(lambda number: status(number, ADMIN_TOKEN), range(12)))
        assert statuses == {200: 12}
        statuses = Counter(pool.map(status, range(4 * WRONG_TOKENS)))
    assert statuses == {401: WRONG_TOKENS, 429: 3 * WRONG_TOKENS}
    assert {status(number, ADMIN_TOKEN) for number in range(4)} == {429}
    with both[0].http("admin", **{"X-Forwarded-For": "192.0.2.2"}) as http:
        spending = http.get("/ops/state").json()["spending"]
    assert spending["reserved_usd"] == spending["settled_usd"] == 0


@pytest.mark.parametrize("method", ["DELETE", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "another"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_what_another_page_sends_changes_nothing(
    app: RunningApp, method: str, headers: dict[str, str]
) -> None:
    path = "/ops/session" if method == "DELETE" else "/ops/switches"
    turn = {"name": "spending", "off": True, "why": "forged"}
    with signed_in(app) as http:
        answer = http.request(method, path, json=turn, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "forbidden"
        state = http.get("/ops/state").json()
        assert [switch["off"] for switch in state["switches"] if switch["off"]] == []


def test_without_fetch_metadata_the_origin_decides(app: RunningApp) -> None:
    host = app.url.removeprefix("http://")
    for origin, status in (
        (f"http://{host}", 204),
        (f"http://{host}.example", 403),
        ("null", 403),
        (None, 403),
    ):
        with app.http(None, **({"Origin": origin} if origin else {})) as http:
            assert sign_in(http).status_code == status, origin


def test_a_tool_reads_the_state_with_the_token(app: RunningApp) -> None:
    with app.http("admin") as http:
        state = http.get("/ops/state", params={"range": "week"})
        assert http.get("/ops/state", params={"range": "year"}).status_code == 400
    found = state.json()
    assert found["range"] == {"name": "week", "span_seconds": 3600, "spans": 168}
    assert found["on_call"]["contact"] == load_project().on_call.contact
    assert {target["provider"] for target in found["targets"]} == set(load_project().providers)
    assert {slo["name"] for slo in found["objectives"]} == {
        "availability", "latency", "fallback", "refusal",
    }  # fmt: skip


def test_a_switch_is_turned_from_the_page_within_seconds_and_leaves_a_line(
    app: RunningApp,
) -> None:
    with signed_in(app) as http, app.http() as caller:
        for blank in ("", " ", " \u3000\t"):
            no_reason = {"name": "spending", "off": True, "why": blank}
            assert http.post("/ops/switches", json=no_reason).status_code == 400
        unknown = {"name": "provider:nobody", "off": True, "why": "x"}
        assert http.post("/ops/switches", json=unknown).status_code == 404
        for off, why in ((True, "the bill"), (False, "paid")):
            turned = http.post("/ops/switches", json={"name": "spending", "off": off, "why": why})
            assert turned.status_code == 200, turned.text
            deadline = time.monotonic() + SEEN_SECONDS
            wanted, seen = 503 if off else 200, 0
            while seen < 8:  # in a row, of the worker that the caller is connected to
                status = caller.post("/v1/chat/completions", json=QUESTION).status_code
                seen = seen + 1 if status == wanted else 0
                assert seen or time.monotonic() < deadline, f"{status} although switched {off=}"
            switch = http.get("/ops/state").json()["switches"][0]
            assert switch["name"] == "spending"
            assert (switch["off"] or {}).get("why") == (why if off else None)
    audit = app.log_lines(message="kill switch turned")
    assert [(x["switch"], x["turned"], x["by"], x["why"]) for x in audit] == [
        ("spending", "off", "/ops", "the bill"),
        ("spending", "on", "/ops", "paid"),
    ]
    assert all(line["timestamp"] and line["request_id"] for line in audit)


def test_failures_lead_to_their_log_line_and_no_secret_and_no_prompt_is_in_it(
    app: RunningApp, fake: FakeProvider
) -> None:
    with app.http() as caller:
        assert caller.post("/v1/chat/completions", json=QUESTION).status_code == 200
        fake.always(Status(401))  # nothing that another try could mend
        failed = caller.post("/v1/chat/completions", json=QUESTION)
        assert failed.status_code == 503
    with signed_in(app) as http:
        deadline = time.monotonic() + FAILURES_SECONDS
        while not (failures := (state := http.get("/ops/state").json())["failures"]):
            assert time.monotonic() < deadline, "the failure is not shown"
            time.sleep(0.1)
        answers = [http.get("/ops").text, http.get("/ops/state").text]
        cookie = http.headers["Cookie"]
    assert failures[0]["cause"] == "error:providers_unavailable"
    assert failures[0]["request_id"] == failed.headers["x-request-id"]
    assert app.request_line(failures[0]["request_id"])["status"] == failures[0]["status"] == 503
    # The page hands out the command that finds this id in the log.
    assert state["log"]["place"] == load_project().deploy
    assert "REQUEST_ID" in state["log"]["command"]
    said = "\n".join([*answers, cookie, app.log()])
    for secret in (ADMIN_TOKEN, PROVIDER_KEY, *CALLERS.values(), "Marmalade"):
        assert secret not in said, secret
    assert cookie.partition("=")[2] not in app.log()


def test_while_the_store_is_down_it_says_so_and_comes_back(start_app: StartApp) -> None:
    with own_server() as server:
        app = start_app(store_url=server.url, store_timeout_seconds=0.5)
        with signed_in(app) as http:
            server.freeze()
            turn = {"name": "spending", "off": True, "why": "because"}
            for answer in (http.get("/ops/state"), http.post("/ops/switches", json=turn)):
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "store_unavailable"
                assert int(answer.headers["retry-after"]) == 5
            assert http.get("/ops").status_code == 200
            # The admin is still let in, and who guesses is stopped by each process.
            with browser(app) as other:
                assert sign_in(other).status_code == 204
            with ThreadPoolExecutor(WRONG_TOKENS) as pool:
                guesses = [pool.submit(guess, app) for _ in range(WRONG_TOKENS)]
            assert {answer.result() for answer in guesses} == {401}
            assert guess(app, ADMIN_TOKEN) == 429
            server.thaw()
            deadline = time.monotonic() + 8
            while (state := http.get("/ops/state")).status_code != 200:
                assert time.monotonic() < deadline, state.text
            assert not any(switch["off"] for switch in state.json()["switches"])
    assert app.log_lines(message="kill switch turned") == []


def test_in_development_without_a_token_all_may_look_and_nobody_may_act(
    start_app: StartApp,
) -> None:
    app = start_app(app_env="development", admin_token="")
    with browser(app) as http:
        state = http.get("/ops/state").json()
        assert state["session"] == {"open": True, "csrf": None}
        assert state["log"] == {"place": "terminal", "command": None}
        assert state["switches"]
        turn = {"name": "spending", "off": True, "why": "because"}
        for refused in (
            http.post("/ops/switches", json=turn),
            http.post("/ops/session", json={"token": ""}),
        ):
            assert refused.status_code == 403
            assert "ADMIN_TOKEN" in refused.json()["error"]["message"]


def test_development_with_a_token_works_without_tls(start_app: StartApp) -> None:
    app = start_app(app_env="development", log_format="json")
    with browser(app) as http:
        cookie = sign_in(http).headers["set-cookie"]
        assert cookie.startswith("ops=")
        assert "Secure" not in cookie
        assert "HttpOnly" in cookie
        assert http.get("/ops/state").status_code == 200


def test_the_page_and_everything_it_names(app: RunningApp) -> None:
    with app.http(None) as http:
        page = http.get("/ops")
        assert page.status_code == 200
        named = set(re.findall(r'(?:src|href)="([^"#]+)"', page.text))
        assert named
        folder = Path(__file__).parents[1] / "app/web/ops"
        names = named | {f"assets/ops/{path.name}" for path in folder.glob("*.js")}
        sizes = [len(page.content)]
        for address in names:
            assert not address.startswith(("http:", "https:", "//")), address
            asset = http.get(f"/{address}")
            assert asset.status_code == 200, address
            assert "innerHTML" not in asset.text
            assert "import(" not in asset.text
            sizes.append(len(asset.content))
    # Before a switch is turned, the page says what it does, in each language.
    asks, texts = ((folder / name).read_text("utf-8") for name in ("ops.js", "texts.js"))
    for name in (SPENDING, CANARY, SHADOW):
        assert f"{name}: texts.effect{name.title()}" in asks, name
        assert texts.count(f"effect{name.title()}:") == 2, name
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert load_project().name not in page.text  # nothing of the app before someone signs in
    assert sum(sizes) <= 70_000  # and so much again as a week's numbers take, at most
