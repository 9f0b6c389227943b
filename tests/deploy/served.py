"""A generated app as it runs in production, over plain HTTP: for a browser, and for tools."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import expect

from tests.deploy.aws import free_port
from tests.deploy.browser import Seen
from tests.deploy.monitoring import wait_for
from tests.deploy.stage import load_fakes
from tests.deploy.traffic import Week, write

ADMIN, ALICE = "admin-0123456789", "alice-0123456789"
START_SECONDS = 60.0
# The answers of the apps that a browser looks at, by their language.
APPS = {
    "en": {
        "project_name": "Field Notes",
        "about": "An assistant for people who run things.",
    },
    "ko": {
        "project_name": "현장 노트",
        "about": "서비스를 운영하는 사람들을 위한 도우미입니다.",
        "on_call_name": "김민지",
    },
}


@dataclass
class Served:
    """A running app, a caller's client of it, and the file that its records are in."""

    url: str
    records: Path
    caller: httpx2.Client
    fake: Any
    fakes: Any

    def ask(self, **changes: object) -> int:
        """Ask something; the status."""
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}], **changes}
        return self.caller.post("/v1/chat/completions", json=body).status_code


@contextmanager
def serving(
    app: Path, folder: Path, changed: Mapping[str, str] | None = None, week: Week | None = None
) -> Iterator[Served]:
    """The app with its records in `folder`, which a week is written into before it starts."""
    fakes, port = load_fakes(app, "fake_of_browser"), free_port()
    with fakes.FakeProvider() as fake:
        settings = {
            "ADMIN_TOKEN": ADMIN,
            "ANTHROPIC_API_KEY": "sk-provider-0123456789",
            "ANTHROPIC_BASE_URL": fake.anthropic_base_url,
            "APP_API_KEYS": f"alice:{ALICE}",
            "APP_ENV": "production",
            "DATABASE_URL": f"sqlite:///{folder / 'app.db'}",
            "DAILY_COST_CAP_USD": "5",
            "MAX_ATTEMPTS": "1",
            "OPENAI_API_KEY": "sk-provider-0123456789",
            "OPENAI_BASE_URL": fake.openai_base_url,
            "OPENAI_INPUT_USD_PER_MTOK": "100",
            "OPENAI_OUTPUT_USD_PER_MTOK": "200",
            "PORT": str(port),
            "PROVIDERS": "openai",
            "REQUESTS_PER_MINUTE": "1000",
            "REQUESTS_PER_MINUTE_PER_IP": "1000",
            **(changed or {}),
        }
        environment = {"PATH": os.environ["PATH"], **settings}
        if week:
            write(week, app, environment)
        with in_production(app, folder, environment) as http:
            yield Served(f"http://127.0.0.1:{port}", folder / "app.db", http, fake, fakes)


@contextmanager
def in_production(
    app: Path, folder: Path, environment: Mapping[str, str], patience: float = START_SECONDS
) -> Iterator[httpx2.Client]:
    """The app as it runs in production, with its log in `folder`; a caller's client.

    It must be up after `patience` seconds.
    """
    with (folder / "app.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import serve; serve()"],
            cwd=app,
            env=environment,
            stdout=log,
            stderr=log,
        )
    headers = {"Authorization": f"Bearer {ALICE}"}
    url = f"http://127.0.0.1:{environment['PORT']}"
    try:
        with httpx2.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
            wait_for("the app", lambda: client.get("/healthz").is_success, patience)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def sign_in(seen: Seen, served: Served, token: str = ADMIN) -> None:
    """Give a token to the operations page."""
    seen.page.goto(f"{served.url}/ops")
    seen.page.locator("#token").fill(token)
    seen.page.keyboard.press("Enter")


def begin_chat(seen: Seen, served: Served, key: str = ALICE) -> None:
    """Open the chat page, and give it a caller's key."""
    seen.page.goto(f"{served.url}/")
    seen.page.locator("#box").fill("?")
    seen.page.keyboard.press("Enter")
    seen.page.locator("#key").fill(key)
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#key-form")).to_be_hidden()
    seen.page.locator("#box").fill("")
