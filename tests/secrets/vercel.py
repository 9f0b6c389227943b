"""Vercel's API on this machine, as far as environment variables go, and a CLI that asks it."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STANDIN = Path(__file__).parent / "vercel_standin.py"


class Api:
    """The variables that were set, every request that set one, and what goes wrong."""

    def __init__(self) -> None:
        self.variables: dict[str, dict[str, Any]] = {}
        self.posted: list[str] = []
        self.refuse: tuple[int, str] | None = None
        # The names whose requests are never answered.
        self.hang: set[str] = set()
        self.hanging = threading.Event()
        self.over = threading.Event()

    @property
    def values(self) -> dict[str, str]:
        return {name: found["value"] for name, found in self.variables.items()}

    def listed(self) -> list[dict[str, Any]]:
        """As the platform lists them: a sensitive value is not there."""
        common = {"id": "1", "createdAt": 1, "updatedAt": 1}
        return [
            {**found, **common, "value": "" if found["type"] == "sensitive" else found["value"]}
            for found in self.variables.values()
        ]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What the platform says: the status and the content."""
        if method == "POST":
            if body["key"] in self.hang:
                self.hanging.set()
                self.over.wait(60)
            if self.refuse:
                status, message = self.refuse
                return status, {"error": {"code": "forbidden", "message": message}}
            self.posted.append(body["key"])
            self.variables[body["key"]] = body
            return 201, {"created": body, "failed": []}
        known: dict[str, dict[str, Any]] = {
            "/user": {"user": {"id": "u", "username": "kim", "email": "kim@example.com"}},
            "/custom-environments": {"environments": []},
            "/env": {"envs": self.listed()},
            "/prj_local": {"id": "prj_local", "name": "app", "accountId": "team_local"},
            "/team_local": {"id": "team_local", "slug": "local", "name": "local"},
        }
        for end, content in known.items():
            if path.split("?")[0].endswith(end):
                return 200, content
        return 404, {"error": {"code": "not_found", "message": path}}


class _Handler(BaseHTTPRequestHandler):
    api: Api

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: dict[str, Any]) -> None:
        status, content = self.api.answer(self.command, self.path, body)
        text = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            pass  # the one who asked was killed


@contextmanager
def vercel_api(home: Path) -> Iterator[Api]:
    """Serve it; `home` becomes the XDG_DATA_HOME of a CLI that is logged in there."""
    api = Api()
    handler = type("Handler", (_Handler,), {"api": api})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        folder = home / "com.vercel.cli"
        folder.mkdir(parents=True)
        address = f"http://127.0.0.1:{server.server_port}"
        (folder / "config.json").write_text(json.dumps({"api": address}))
        (folder / "auth.json").write_text(json.dumps({"token": "of-the-test"}))
        yield api
        api.over.set()
        server.shutdown()


def link(app: Path) -> None:
    """What `vercel link` writes."""
    (app / ".vercel").mkdir()
    project = {"projectId": "prj_local", "orgId": "team_local", "settings": {}}
    (app / ".vercel/project.json").write_text(json.dumps(project))


def standin(folder: Path) -> str:
    """A PATH whose `vercel` is the stand-in."""
    folder.mkdir()
    script = folder / "vercel"
    script.write_text(f"#!{sys.executable}\n{STANDIN.read_text(encoding='utf-8')}")
    script.chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])
