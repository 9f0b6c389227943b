"""2.1 Is there env var validation?

A key that is missing, empty or still "changeme" should not be found by the first user. The app
looks at everything when it starts, says everything that is wrong at once, and does not open its
port. It exits with 78, which service managers know as a mistake in the configuration. And it never
prints a value: a mistyped key is still a key.

How we see it: we start the app with every required name wrong in the same way, for each way there
is, then with each name missing alone, and knock at its port all the while.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.foundation.project import load_project
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.messages import seen_as
from checklist.starting import Refusal, try_to_start
from tests.fake_provider import FakeProvider
from tests.running import production

EX_CONFIG = 78
# The setting without which an app of this store cannot start; SQLite has a default.
STORE_SETTING = {"redis": ("REDIS_URL",), "postgres": ("DATABASE_URL",)}
REQUIRED = (
    "ADMIN_TOKEN",
    "APP_API_KEYS",
    *(
        "COMPATIBLE_BASE_URL" if name == "compatible" else f"{name.upper()}_API_KEY"
        for name in load_project().providers
    ),
    *STORE_SETTING.get(load_project().store, ()),
)
# A way to be wrong, and its value; None takes the name away.
WAYS = {
    "missing": None,
    "empty": "",
    "blank": "   ",
    "placeholder": "changeme",
    "malformed": "bad 4711",
}


def test_everything_that_is_wrong_is_said_before_the_port_opens(
    fake: FakeProvider, folder: Path, check: Check
) -> None:
    good = production(fake, folder)

    def start(way: str) -> Refusal:
        return try_to_start(_changed(good, dict.fromkeys(REQUIRED, WAYS[way])), folder)

    with ThreadPoolExecutor(2) as pool:
        refusals = dict(zip(WAYS, pool.map(start, WAYS), strict=True))
    for way, refusal in refusals.items():
        _check_refused(check, refusal, way)
        unsaid = [name for name in REQUIRED if name not in refusal.output]
        check.that(
            not unsaid,
            "all_at_once",
            way=way,
            seen=seen_as("unsaid", way=way, names=", ".join(unsaid)),
        )
        value = (WAYS[way] or "").strip()
        check.that(
            not value or value not in refusal.output,
            "no_value",
            seen=seen_as("printed", way=way, value=value),
            look="app/standards/environment.py",
        )
    check.found("ways", names=len(REQUIRED), ways=len(WAYS))


def test_each_name_alone_stops_the_start(fake: FakeProvider, folder: Path, check: Check) -> None:
    good = production(fake, folder)
    with ThreadPoolExecutor(2) as pool:
        refusals = pool.map(
            lambda name: try_to_start(_changed(good, {name: None}), folder), REQUIRED
        )
    for name, refusal in zip(REQUIRED, refusals, strict=True):
        _check_refused(check, refusal, name)
    check.found("alone", count=len(REQUIRED))


def test_a_complete_environment_starts(start: StartApp, check: Check) -> None:
    with start().http(None) as http:
        status = http.get("/healthz").status_code
    check.that(status == 200, "starts", seen=f"/healthz: {status}")


def _changed(environment: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    merged = {**environment, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def _check_refused(check: Check, refusal: Refusal, what: str) -> None:
    how = "listened" if refusal.listened else "running" if refusal.code is None else "ended"
    seen = f"{what}: {seen_as(how, code=refusal.code)}"
    look = "app/standards/environment.py"
    check.that(refusal.code == EX_CONFIG and not refusal.listened, "refused", seen=seen, look=look)
