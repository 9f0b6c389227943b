"""`release.sh try` of the Docker and AWS targets, and the pages: no command line shows a key."""

import os
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.deploy.pages import commands
from tests.kit import TEMPLATE, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

KEY = "alice-0123456789"


class Answers(BaseHTTPRequestHandler):
    """Just enough of the app: health, and a stream for who has the key."""

    def do_GET(self) -> None:
        self.answer(200, b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == f"Bearer {KEY}"
        self.answer(200 if known else 401, b"data: [DONE]\n\n")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def path(tmp_path: Path, url: str) -> str:
    """A PATH whose curl writes down its command line first, and whose aws knows the URL."""
    scripts = {
        "curl": f'echo "$@" >> {tmp_path}/lines; exec {shutil.which("curl")} "$@"',
        "aws": f"echo {url}",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "samconfig.toml").write_text('stack_name = "app"\n')
    return os.pathsep.join([str(tmp_path), os.environ["PATH"]])


@pytest.mark.parametrize("target", ["aws", "docker"])
def test_a_trial_shows_its_key_to_nobody(target: str, path: str, url: str, tmp_path: Path) -> None:
    script = TEMPLATE / f"deploy/{target}/release.sh"
    printed = run(tmp_path, script, "try", PATH=path, URL=url, SMOKE_APP_KEY=KEY)
    assert printed == f"{url} answers\n"
    lines = (tmp_path / "lines").read_text()
    assert lines.count("chat/completions") == 3
    assert KEY not in lines
    with pytest.raises(AssertionError, match="a question: 401"):
        run(tmp_path, script, "try", PATH=path, URL=url, SMOKE_APP_KEY="other-0123456789")
    with pytest.raises(AssertionError, match="give a key of APP_API_KEYS"):
        run(tmp_path, script, "try", PATH=path, URL=url, SMOKE_APP_KEY="")


@pytest.mark.parametrize("page", ["docker", "vercel"])
def test_a_page_shows_its_key_to_nobody(page: str, path: str, url: str, tmp_path: Path) -> None:
    asked = [x.text for x in commands(ROOT / f"docs/deploy/{page}.md") if "curl" in x.text]
    for command in asked:
        run(tmp_path, "bash", "-e", "-c", command, PATH=path, PRODUCTION_URL=url, APP_KEY=KEY)
    lines = (tmp_path / "lines").read_text()
    assert lines.count("chat/completions") == 1
    assert KEY not in lines
