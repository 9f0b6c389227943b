"""The kill switches: turned in a terminal, seen by every process within seconds, and kept."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.foundation.project import load_project
from app.launch.switches import LOOK_EVERY_SECONDS, PATIENCE_SECONDS
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider
from tests.running import ROOT, RunningApp, clean_environment, until
from tests.servers import store_environment

FIRST = load_project().providers[0]
MODEL = load_project().models[FIRST]
BODY = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
# An app whose first look may take as long as a busy machine's store does.
SLOWLY = "from app.launch import switches; switches.PATIENCE_SECONDS = 30"
PATIENT = [sys.executable, "-c", f"{SLOWLY}; from app.cli import serve; serve()"]
SEEN_SECONDS = LOOK_EVERY_SECONDS + PATIENCE_SECONDS


def switch(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the command on the folder's store, as `uv run switch` does on the app's."""
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import switch; switch()", *words],
        cwd=folder,
        env={**clean_environment(), "PYTHONPATH": str(ROOT), **store_environment(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def turned(folder: Path, *words: str) -> None:
    """Turn a switch, and wait until every process may be expected to know."""
    done = switch(folder, *words, "--yes")
    assert done.returncode == 0, done.stderr
    time.sleep(SEEN_SECONDS)


def codes(app: RunningApp, count: int = 12) -> set[str]:
    """How questions end that come at once, so that each worker gets some."""
    with app.http() as http, ThreadPoolExecutor(count) as pool:
        answers = pool.map(lambda _: http.post("/v1/chat/completions", json=BODY), range(count))
        return {"ok" if a.status_code == 200 else a.json()["error"]["code"] for a in answers}


def seen_by(app: RunningApp, said: str, workers: int) -> bool:
    """Ask once; whether each worker has said that it knows. A worker may get no request at all."""
    codes(app)
    return len(app.log_lines(message=said)) == workers


def test_all_spending_stops_in_every_process_and_goes_on_again(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    app = start_app(workers=3)
    assert codes(app) == {"ok"}
    turned(tmp_path, "off", "spending", "--why", "the bill")
    assert "the bill" in switch(tmp_path, "list").stdout
    until(lambda: seen_by(app, "switched off", 3), 20)
    calls = len(fake.ledger.calls)
    assert codes(app) == {"switched_off"}
    assert len(fake.ledger.calls) == calls
    with app.http() as http:
        refused = http.post("/v1/chat/completions", json=BODY)
        assert http.get("/healthz").status_code == 200
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) == 60
    assert refused.headers["x-should-retry"] == "false"
    assert {line["why"] for line in app.log_lines(message="switched off")} == {"the bill"}
    turned(tmp_path, "on", "spending")
    until(lambda: seen_by(app, "switched on", 3), 20)
    assert codes(app) == {"ok"}


def test_what_is_off_stays_off_after_a_restart(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    start_app().stop()
    turned(tmp_path, "off", f"provider:{FIRST}")
    app = start_app(command=PATIENT, providers=FIRST)
    assert codes(app) == {"switched_off"}
    assert fake.ledger.calls == []


def test_the_next_target_answers_for_a_model_that_is_off(
    start_app: StartApp, fake: FakeProvider, tmp_path: Path
) -> None:
    second = (*load_project().providers[1:], "demo")[0]
    targets = f"{FIRST},{second}"
    app = start_app(command=PATIENT, providers=targets, app_env="development", log_format="json")
    turned(tmp_path, "off", f"model:{MODEL}")
    with app.http() as http:
        answer = http.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == 200
    assert answer.headers["x-provider"] == second


def test_the_command_asks_and_knows_its_names(start_app: StartApp, tmp_path: Path) -> None:
    start_app().stop()
    unknown = switch(tmp_path, "off", "provider:nobody", "--yes")
    assert unknown.returncode == 64
    assert f"provider:{FIRST}" in unknown.stderr
    unasked = switch(tmp_path, "off", "spending")
    assert unasked.returncode == 1
    assert "--yes" in unasked.stderr
    listed = switch(tmp_path, "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["on"] * len(listed)
    assert {"spending", f"provider:{FIRST}", f"model:{MODEL}"} <= {
        line.split()[1] for line in listed
    }
