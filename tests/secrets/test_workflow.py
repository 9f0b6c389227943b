"""CI's part: the workflow that looks for holes and keys, and the offers of new versions."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit import run
from tests.secrets.conftest import MakeApp

WORKFLOWS = ".github/workflows"
HOLE = "GHSA-0000-test-0000"


def test_the_workflow_holds_what_linters_know(make_app: MakeApp) -> None:
    app = make_app("docker")
    workflow = f"{WORKFLOWS}/security.yml"
    run(app, "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    run(app, "zizmor", "--offline", "--persona=pedantic", workflow)
    text = (app / workflow).read_text(encoding="utf-8")
    pinned = set(re.findall(r"uses: (\S+@[0-9a-f]{40}) #", text))
    assert len(pinned) == len(set(re.findall(r"uses: (\S+)", text)))
    # One version of an action, and of uv, in all workflows.
    checks = (app / WORKFLOWS / "checks.yml").read_text(encoding="utf-8")
    assert all(action in checks for action in pinned)
    assert set(re.findall(r'version: "(.+)"', text)) == set(re.findall(r'version: "(.+)"', checks))
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("deploy", ["docker", "vercel", "aws"])
def test_new_versions_are_offered(make_app: MakeApp, deploy: str) -> None:
    app = make_app(deploy)
    file = ".github/dependabot.yml"
    run(app, "check-jsonschema", "--builtin-schema", "vendor.dependabot", file)
    run(app, "zizmor", "--offline", "--persona=pedantic", file)
    updates = yaml.safe_load((app / file).read_text(encoding="utf-8"))["updates"]
    systems = {"uv", "github-actions"} | (set() if deploy == "vercel" else {"docker"})
    assert {update["package-ecosystem"] for update in updates} == systems


def test_the_hook_is_one_that_prek_knows(make_app: MakeApp) -> None:
    run(make_app("docker"), "prek", "validate-config", ".pre-commit-config.yaml")


@pytest.fixture
def database() -> Iterator[str]:
    """A database of vulnerabilities (OSV's interface) that knows one, in starlette."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            queries = json.loads(self.rfile.read(length))["queries"]
            hole = {"vulns": [{"id": HOLE, "modified": "2026-01-01T00:00:00Z"}]}
            names = [query["package"]["name"] for query in queries]
            self._answer({"results": [hole if name == "starlette" else {} for name in names]})

        def do_GET(self) -> None:
            dates = {"modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z"}
            self._answer({"id": HOLE, "summary": "a hole", "affected": [], **dates})

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_audit_fails_on_a_known_hole(make_app: MakeApp, database: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(make_app("docker"), app)
    run(app, "uv", "lock", "--quiet")
    text = (app / WORKFLOWS / "security.yml").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if "run: uv audit" in line]
    command = [*line.strip().removeprefix("run: ").split(), "--service-url", database]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert HOLE in done.stdout
    assert "experimental" not in done.stderr
    run(app, *command, "--ignore", HOLE)
