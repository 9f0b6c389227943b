"""2.2 Are API keys NOT in code?

A key in a file is a key in git, and what was once in git stays there, also when the file is gone.
A key can get out in other ways too: in a log line, an error message, a trace, an alert, a row of
the database, an image that was built with `.env` in it.

How we see it: we look for keys in the files and in the whole history, and prove that the search
finds one that we plant. Then the app runs with a canary as its key. A provider repeats it in an
error message, as providers do, and we look for it in everything that leaves the app.
"""

import hashlib
from pathlib import Path

from app.foundation.project import load_project
from checklist import scan
from checklist.asking import CHAT, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import Listener
from checklist.messages import seen_as
from tests.fake_provider import FakeProvider, Reply, Status
from tests.running import ADMIN_TOKEN, APP, CALLERS, PROVIDER_KEY
from tests.servers import store_contents

# Put together here, so that the search does not find this file.
PLANTED = "sk-proj-" + "A1b2C3d4" * 6
ALERT_TOKEN = "hook-canary-0123456789"
PROMPT = "prompt-canary-0123456789"
CANARIES = {
    "provider key": PROVIDER_KEY,
    "admin token": ADMIN_TOKEN,
    "caller's key": CALLERS["alice"],
    "alert address": ALERT_TOKEN,
    "prompt": PROMPT,
}


def test_no_key_in_files_or_history(check: Check) -> None:
    found = scan.keys_in_files(APP)
    check.that(not found, "in_files", seen=", ".join(found), look=found[0] if found else None)
    old = scan.keys_in_history(APP)
    check.that(not old, "in_history", seen=", ".join(old), look=".gitignore")
    check.found("clean")


def test_the_search_finds_a_planted_key(tmp_path: Path, check: Check) -> None:
    scan.git(tmp_path, "init", "--quiet")
    (tmp_path / "settings.py").write_text(f'KEY = "{PLANTED}"\n', encoding="utf-8")
    now = scan.keys_in_files(tmp_path)
    scan.git(tmp_path, "add", "--all")
    scan.git(tmp_path, "commit", "--quiet", "--message", "Add settings")
    (tmp_path / "settings.py").unlink()
    scan.git(tmp_path, "commit", "--quiet", "--all", "--message", "Remove settings")
    later = scan.keys_in_history(tmp_path)
    seen = f"files: {now}, history: {len(later)}"
    check.that(now == ["settings.py:1"] and len(later) == 1, "planted", seen=seen)
    check.found("planted_found")


def test_the_file_of_secrets_stays_out(tmp_path: Path, check: Check) -> None:
    ignored = scan.ignored_by_git(APP, tmp_path, ".env")
    check.that(ignored, "git", seen=f".env: {seen_as('not_ignored')}", look=".gitignore")
    if (APP / "Dockerfile").exists():
        for name in (".env", "app/.env"):
            kept_out = scan.ignored_by_docker(APP, name)
            check.that(
                kept_out, "docker", seen=f"{name}: {seen_as('not_ignored')}", look=".dockerignore"
            )
    if load_project().deploy == "vercel":
        for name in (".env", "app/.env"):
            seen = f"{name}: {seen_as('not_ignored')}"
            kept_out = scan.ignored_by_git(APP, tmp_path, name, ".vercelignore")
            check.that(kept_out, "vercel", seen=seen, look=".vercelignore")
            check.that(scan.left_out_by_vercel(APP, name), "bundle", seen=seen, look="vercel.json")
    check.found("ignored")


def test_no_canary_in_anything_that_leaves_the_app(
    start: StartApp, fake: FakeProvider, folder: Path, check: Check
) -> None:
    place = folder / "canary"
    with Listener() as listener:
        app = start(
            at=place,
            providers=load_project().providers[0],
            max_attempts=1,
            alert_urls=f"json://user:{ALERT_TOKEN}@{listener.address}/hook",
            otel_exporter_otlp_endpoint=f"http://{listener.address}",
            sentry_dsn=f"http://public@{listener.address}/1",
        )
        fake.next(
            Reply("fine"), Status(401, f"Incorrect API key provided: {PROVIDER_KEY}"), Status(500)
        )
        with app.http(**{"Idempotency-Key": "canary"}) as http, app.http("admin") as admin:
            answers = [http.post(CHAT, json=question(PROMPT))]
            for text in (f"{PROMPT} 2", f"{PROMPT} 3"):
                headers = {"Idempotency-Key": text.replace(" ", "-")}
                answers.append(http.post(CHAT, json=question(text), headers=headers))
            answers += [http.get("/readyz"), admin.get("/metrics"), http.get("/no-such-page")]
        app.stop()
        sent = listener.texts
    used = fake.ledger.calls[0].key == hashlib.sha256(PROVIDER_KEY.encode()).hexdigest()[:12]
    check.that(used, "canary_used", seen=seen_as("other_key"), look="app/providers/")

    sinks = {
        "log": app.log(),
        "responses": "".join(f"{answer.headers}{answer.text}" for answer in answers),
        "alerts, traces, errors": "".join(sent),
        "store": store_contents(place).decode("latin-1"),
    }
    for sink, content in sinks.items():
        for name, canary in CANARIES.items():
            # An answer may say what its own client sent.
            if sink != "responses" or canary != PROMPT:
                check.that(canary not in content, "leaked", seen=f"{name}: {sink}", sink=sink)
    check.found(
        "nowhere",
        canaries=len(CANARIES),
        lines=len(app.log().splitlines()),
        answers=len(answers),
        sent=len(sent),
        stored=len(sinks["store"]),
    )
