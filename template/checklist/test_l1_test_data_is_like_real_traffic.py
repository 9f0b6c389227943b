"""L1 Is the test data like real traffic?

Tests that a developer writes have whole sentences in them. People write with typos and in slang,
mix scripts, paste tables and stack traces, say nothing at all, or try to talk the app into
something. An app that has only ever seen whole sentences meets all of that on its first day. And
what goes wrong then is worth keeping: yesterday's failure is the best test of tomorrow.

How we see it: a set of such inputs lies beside the app, in English and Korean; all of it is played,
and each answer must have the shape that the set states. Then a question fails for real, and the
app's own command makes a case of it, which is played too.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from checklist.asking import CHAT, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import until
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider, Status
from tests.kept import kept
from tests.replay import Case, cases_in, play, unmet
from tests.running import ADMIN_TOKEN, APP, RunningApp, clean_environment
from tests.servers import store_environment

SET = APP / "tests" / "cases"
RULES = APP / "app" / "launch" / "policy" / "default.toml"
AT_LEAST = 40
# Of each language, and of each shape, there must be some.
SHAPES = {"answered", "cut", "abstained", "blocked", "refused"}
OF_EACH_LANGUAGE = 15
# Failures are written once a second.
KEPT_SECONDS = 10.0
COMMAND = "from app.cli import failures; failures()"
REAL = "왜 안 돼요?? plz fix asap, my mail is bob@example.com"
LOOK_SET = "tests/cases/en.toml"
LOOK_EXPORT = "app/launch/failures/cases.py"


@pytest.fixture(scope="module")
def place(folder: Path) -> Path:
    """Where the app runs and keeps what failed."""
    return folder / "app"


@pytest.fixture(scope="module")
def app(start: StartApp, place: Path) -> RunningApp:
    """An app with the rules that come with it."""
    return start(at=place, policy_file=str(RULES), max_attempts=1)


def _korean(case: Case) -> bool:
    text = "".join(turn["content"] for turn in case.body()["messages"])
    return any("가" <= letter <= "힣" or "\u1100" <= letter <= "\u318e" for letter in text)


def test_bad_inputs_are_played_and_have_the_stated_shape(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    cases = cases_in(SET)
    korean = sum(map(_korean, cases))
    shapes = Counter[str](case.expect for case in cases)
    enough = len(cases) >= AT_LEAST and min(korean, len(cases) - korean) >= OF_EACH_LANGUAGE
    seen = seen_as("cases", count=len(cases), korean=korean, shapes=", ".join(sorted(shapes)))
    check.that(enough and set(shapes) >= SHAPES, "set", count=AT_LEAST, seen=seen, look=LOOK_SET)
    with app.http() as http:
        wrong = list(filter(None, (unmet(case, play(http, fake, case)) for case in cases)))
    check.that(not wrong, "shape", seen=" | ".join(wrong[:3]))
    check.found("played", count=len(cases), korean=korean, shapes=len(shapes))


def test_a_real_failure_becomes_a_case(
    app: RunningApp, fake: FakeProvider, place: Path, check: Check
) -> None:
    fake.reset()
    fake.always(Status(500))
    with app.http() as http:
        failed = http.post(CHAT, json=question(REAL)).headers.get("x-request-id", "")
        fake.reset()
        until(lambda: _is_kept(place, failed), KEPT_SECONDS)
        said = _export(place)
        cases = [case for case in cases_in(place / "cases") if case.expect == "answered"]
        asked = [turn.content for case in cases for turn in case.messages]
        mended = [text.replace("[EMAIL_1]", "bob@example.com") for text in asked]
        check.that(REAL in mended, "exported", seen=said, look=LOOK_EXPORT)
        check.that(REAL not in asked, "hidden", seen=asked[0], look=LOOK_EXPORT)
        wrong = _played(http, fake, cases)
    check.that(not wrong, "runs", seen=wrong, look=LOOK_EXPORT)
    check.found("case", request_id=failed[:8])


def _is_kept(place: Path, request_id: str) -> bool:
    return any(failure.facts.request_id == request_id for failure in kept(place, 1))


def _played(http: httpx2.Client, fake: FakeProvider, cases: list[Case]) -> str:
    return " | ".join(filter(None, (unmet(case, play(http, fake, case)) for case in cases)))


def _export(place: Path) -> str:
    """Run the app's own command, as `uv run failures export` does; what it said."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "export", "--to", "cases"],
        cwd=place,
        env={
            **clean_environment(),
            **store_environment(place),
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "PYTHONPATH": str(APP),
        },
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1:] or [""]
    return seen_as("command", code=done.returncode, said=last[0][:160])
