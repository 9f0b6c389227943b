"""4.1 Is Rate Limiting applied?

A limiter that exists and was never attached, or one whose counter lives in each process, lets
everybody through. And who believes `X-Forwarded-For` from a stranger lets him choose his own
counter. A limit means: exactly so many pass, over all processes, for each caller and for each
address; the headers say truly what is left; and no route has been forgotten.

How we see it: we ask more often than is allowed, at once, over two processes, and count what the
provider got.
"""

import httpx2
import pytest

from checklist.asking import CHAT, ask_many, calls_seen, question, tally
from checklist.check import Check
from checklist.conftest import StartApp
from tests.fake_provider import FakeProvider
from tests.running import RunningApp

PER_CALLER = 20
PER_ADDRESS = 30
EXTRA = 6
# The route that must answer while a flood is shed.
EXEMPT = {"/healthz"}
# A flood is this many times the limit (see `spending/shield.py`), in a single process.
FLOOD = 4
FEW = 3
# A GET has no body: a server may close the connection instead of reading it.
BODY: dict[str, None] = {"get": None}
PAGES = ("/", "/docs", "/openapi.json", "/metrics", "/readyz", "/no-such-page")


@pytest.fixture(scope="module")
def app(start: StartApp) -> RunningApp:
    """Two processes, one set of limits."""
    return start(workers=2, requests_per_minute=PER_CALLER, requests_per_minute_per_ip=PER_ADDRESS)


@pytest.fixture(scope="module")
def behind_proxy(start: StartApp) -> RunningApp:
    """An app that knows one proxy: this machine."""
    return start(
        requests_per_minute=10_000, requests_per_minute_per_ip=FEW, trusted_proxies="127.0.0.1/32"
    )


def test_exactly_so_many_pass(app: RunningApp, fake: FakeProvider, check: Check) -> None:
    fake.reset()
    answers = ask_many(app, PER_CALLER + EXTRA)
    passed = sum(answer.status_code == 200 for answer in answers)
    called = len(fake.ledger.calls)
    seen = f"{tally(answers)}; {calls_seen(called)}"
    check.that(passed == called == PER_CALLER, "per_caller", count=PER_CALLER, seen=seen)
    refused = next(answer for answer in answers if answer.status_code != 200)
    policy, state = (refused.headers.get(name, "") for name in ("ratelimit-policy", "ratelimit"))
    wait = refused.headers.get("retry-after", "0")
    seen = f"RateLimit-Policy: {policy}; RateLimit: {state}; Retry-After: {wait}"
    honest = f"q={PER_CALLER};w=60" in policy and "r=0" in state and 1 <= int(wait) <= 60
    check.that(honest, "headers", seen=seen)
    left = sorted(
        int(answer.headers["ratelimit"].split("r=")[1].split(";")[0])
        for answer in answers
        if answer.status_code == 200
    )
    check.that(left == list(range(PER_CALLER)), "headers", seen=f"r={left}")
    check.found("passed", passed=passed, asked=len(answers))


def test_a_forged_address_gains_nothing(app: RunningApp, fake: FakeProvider, check: Check) -> None:
    before = len(fake.ledger.calls)
    forged = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(PER_ADDRESS)]
    answers = ask_many(app, PER_ADDRESS - PER_CALLER + EXTRA, "bob", headers=forged)
    passed = sum(answer.status_code == 200 for answer in answers)
    called = len(fake.ledger.calls) - before
    left = PER_ADDRESS - PER_CALLER
    seen = f"{tally(answers)}; {calls_seen(called)}"
    look = "app/standards/spending/identity.py"
    check.that(passed == called == left, "per_address", count=left, seen=seen, look=look)
    check.found("forged", passed=passed, asked=len(answers))


def test_each_address_has_its_own_limit(behind_proxy: RunningApp, check: Check) -> None:
    with behind_proxy.http() as http:

        def status(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded}
            return http.post(CHAT, json=question(), headers=headers).status_code

        one = [status("203.0.113.1") for _ in range(FEW + 1)]
        # What a client wrote itself stands to the left of what the proxy saw.
        again = status("198.51.100.9, 203.0.113.1")
        another = status("203.0.113.2")
    seen = f"203.0.113.1: {one}, {again}; 203.0.113.2: {another}"
    look = "app/standards/spending/identity.py"
    as_meant = one == [200] * FEW + [429] and again == 429 and another == 200
    check.that(as_meant, "own_limit", count=FEW, seen=seen, look=look)
    check.found("own")


def _status(http: httpx2.Client, method: str, path: str, headers: dict[str, str]) -> int:
    try:
        return http.request(method, path, json=BODY.get(method, {}), headers=headers).status_code
    except httpx2.TransportError:
        return 0


def test_every_route_is_limited_or_exempt(behind_proxy: RunningApp, check: Check) -> None:
    with behind_proxy.http("admin") as admin, behind_proxy.http() as http:
        found = admin.get("/openapi.json").json()["paths"]
        routes = [(method, path) for path, methods in found.items() for method in methods]
        routes += [("get", page) for page in PAGES]
        flooder = {"X-Forwarded-For": "203.0.113.3"}
        unlimited = []
        for method, path in routes:
            limit = FLOOD * FEW + 1
            statuses = [_status(http, method, path, flooder) for _ in range(limit)]
            if statuses[-1] != 429 and path not in EXEMPT:
                unlimited.append(f"{method.upper()} {path}: {statuses[-1]}")
        alive = http.get("/healthz", headers=flooder).status_code
    look = "app/standards/spending/shield.py"
    check.that(not unlimited, "every_route", seen=", ".join(unlimited), look=look)
    check.that(alive == 200, "exempt", seen=f"/healthz: {alive}", look=look)
    check.found("routes", count=len(routes))
