"""Putting a checklist on trial: running it on an app, and changing that app beforehand."""

import json
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.kit import COMPILED

TABLE = Path(__file__).with_name("sabotage.toml")
# Put together here, so that no file of the repository looks as if it held a key.
PLANTED = "A1b2C3d4" * 6
# In the place of what is changed in a file.
WHOLE_FILE = "*"
COMMAND = [sys.executable, "-c", "from app.cli import checklist; checklist()"]


@dataclass(frozen=True)
class Sabotage:
    """One small change to a generated app; `also` are items that truly depend on the same code."""

    item: str
    name: str
    file: str
    old: str
    new: str
    also: tuple[str, ...] = ()
    alone: bool = False
    deploy: str = "docker"
    knowledge: bool = False

    @property
    def red(self) -> set[str]:
        """The items that must turn red."""
        return {self.item, *self.also}

    def looked_at(self, items: set[str]) -> set[str]:
        """The items that are run on the changed app: its own where it is `alone`.

        The launch stands upon the standards, whose sabotages are run against all items; a launch
        item's is run against the launch list.
        """
        if self.alone:
            return self.red
        launch = {item for item in items if item.startswith("L")}
        return launch | self.red if self.item in launch else items

    def apply(self, app: Path) -> None:
        """Change the app. Raises `AssertionError` where the change no longer applies."""
        path = app / self.file
        text = path.read_text(encoding="utf-8")
        old = text if self.old == WHOLE_FILE else self.old
        found = text.count(old)
        assert found == 1, f"{self.item} {self.name}: found {found} times in {self.file}"
        changed = text.replace(old, self.new.replace("{planted}", PLANTED))
        path.write_text(changed, encoding="utf-8")


class Trap:
    """A server that counts who calls it: the provider, alerts and telemetry of a user's `.env`."""

    def __init__(self) -> None:
        self.calls = 0
        trap = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                trap.calls += 1
                self.send_error(500)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def settings(self) -> str:
        """A `.env` that leads here; what the app writes would lie beside it."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        lines = {
            "OPENAI_BASE_URL": f"{url}/v1",
            "ALERT_URLS": url.replace("http", "json"),
            "SENTRY_DSN": url.replace("://", "://public@") + "/1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "DATABASE_URL": "sqlite:///data/mine.db",
        }
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def sabotages() -> list[Sabotage]:
    """The table."""
    entries = tomllib.loads(TABLE.read_text(encoding="utf-8"))["sabotage"]
    return [Sabotage(**{**entry, "also": tuple(entry.get("also", ()))}) for entry in entries]


def run_checklist(app: Path, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run the checklist of a generated app; its exit code and its JSON report."""
    done = subprocess.run(
        [*COMMAND, "--format", "json", *arguments],
        cwd=app,
        env={
            **os.environ,
            **COMPILED,
            "PYTHONPATH": str(app),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, f"exit code {done.returncode}\n{done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def red(report: dict[str, Any]) -> dict[str, str]:
    """The open items of a report, and what was seen instead."""
    return {
        item["item"]: " | ".join(failure["seen"] for failure in item["failures"])
        for item in report["items"]
        if not item["checked"]
    }


def copy_of(app: Path, folder: Path) -> Path:
    """A copy to be changed, compiled files too: they spare every process its start."""
    return Path(shutil.copytree(app, folder))
