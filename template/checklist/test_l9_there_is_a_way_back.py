"""L9 Is there a rollback procedure?

The new version is out, and it is wrong. Who finds out at night wants one command, written down
where the alert points to, and it must work the first time: a procedure that nobody has ever carried
out is a hope. And going back must not mean forgetting: what the newer version has spent and
answered stays spent and answered.

How we see it: the commands are read from RUNBOOK.md and carried out. The app's own script is the
real one; `docker`, `vercel` or `aws` below it is a stand-in that stops one version of this app and
starts another, as real processes on one store. (The template's own tests carry out the same
commands with the platforms' own tools.)
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, ask, calls_seen, new_text, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.messages import seen_as
from checklist.stand_in import NEW, OLD, Platform
from checklist.starting import copy_of_app
from tests.fake_provider import FakeProvider
from tests.running import APP, RunningApp, clean_environment

RUNBOOK = APP / "RUNBOOK.md"
DEPLOY = load_project().deploy
# Nothing else is carried out: a real platform must not hear of this.
SCRIPT = f"deploy/{DEPLOY}/release.sh"
NEWER = "This is the newer version."
KEY = "asked-before-the-rollback"
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Written:
    """What the newer version has answered and spent."""

    text: str
    answer: httpx2.Response
    spent: float


@pytest.fixture(scope="module")
def platform(start: StartApp, folder: Path) -> Iterator[Platform]:
    """Two versions of the app on one store, of which the newer one serves."""
    newer = copy_of_app(folder, "newer")
    for prompt in newer.rglob("system_prompt.md"):
        prompt.write_text(NEWER, encoding="utf-8")
    place = folder / "data"
    versions = {NEW: lambda: start(at=place, source=newer), OLD: lambda: start(at=place)}
    tools = folder / "bin"
    tools.mkdir()
    with Platform(DEPLOY, tools, versions) as running:
        yield running


@pytest.fixture(scope="module")
def written(platform: Platform) -> Written:
    """A question with an idempotency key, asked of the newer version."""
    text = new_text()
    return Written(text, _ask_once(platform.app, text), _spent(platform.app))


def _ask_once(app: RunningApp, text: str) -> httpx2.Response:
    with app.http(**{"Idempotency-Key": KEY}) as http:
        return http.post(CHAT, json=question(text))


def _spent(app: RunningApp) -> float:
    with app.http("admin") as http:
        found = re.search(r"^llm_app_daily_cost_usd (\S+)", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _commands() -> list[str]:
    """Every command of the runbook's section on going back."""
    text = RUNBOOK.read_text(encoding="utf-8") if RUNBOOK.exists() else ""
    _, _, rest = text.partition("\n## rollback\n")
    section = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def _carry_out(command: str, platform: Platform) -> tuple[bool, str]:
    """Whether it went well, and the last that it said. No shell reads it."""
    name, *arguments = (word.replace("$VERSION", OLD) for word in shlex.split(command))
    shell = shutil.which("sh") or "sh"
    runs = {SCRIPT: [shell, SCRIPT], platform.command.name: [shell, str(platform.command)]}
    if name not in runs or (name == SCRIPT and not (APP / SCRIPT).exists()):
        return False, name
    path = os.pathsep.join([str(platform.command.parent), os.environ["PATH"]])
    done = subprocess.run(
        [*runs[name], *arguments],
        cwd=APP,
        env={**clean_environment(), "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode == 0, (done.stdout.strip().splitlines() or ["-"])[-1]


def _who_answers(app: RunningApp, fake: FakeProvider) -> str:
    """Which version asks the provider now."""
    fake.reset()
    ask(app)
    prompts = [text for call in fake.ledger.calls for _, text in call.messages]
    if not prompts:
        return "-"
    return NEW if any(NEWER in prompt for prompt in prompts) else OLD


def test_the_runbooks_commands_bring_back_the_version_before(
    platform: Platform, written: Written, fake: FakeProvider, check: Check
) -> None:
    serving = _who_answers(platform.app, fake)
    check.that(serving == NEW, "newer", seen=f"version {serving}", look="app/main.py")
    commands = _commands()
    check.that(bool(commands), "written", seen=seen_as("unsaid", way="RUNBOOK.md", names="sh"))
    for command in commands:
        well, said = _carry_out(command, platform)
        check.that(well, "works", command=command, seen=f"{command}: {said}")
    serving = _who_answers(platform.app, fake)
    check.that(serving == OLD, "back", seen=f"version {serving}")
    check.found("ran", commands="; ".join(commands), tool=platform.command.name)


def test_what_the_newer_version_wrote_still_reads(
    platform: Platform, written: Written, fake: FakeProvider, check: Check
) -> None:
    fake.reset()
    replay = _ask_once(platform.app, written.text)
    calls = len(fake.ledger.calls)
    same = replay.content == written.answer.content and replay.status_code == 200
    look = "app/standards/spending/idempotency.py"
    seen = f"{replay.status_code}; {calls_seen(calls)}"
    check.that(same and calls == 0, "replayed", seen=seen, look=look)
    spent = _spent(platform.app)
    seen = f"{written.spent:.6f} USD, {spent:.6f} USD"
    check.that(spent >= written.spent > 0, "spent", seen=seen, look="app/stores/base.py")
    check.found("kept", spent=f"{written.spent:.6f}")
