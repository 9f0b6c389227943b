"""Processes that the benchmarks measure: a generated app, and others beside it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.kit import answers, export, generate, run
from tests.releases.snapshot import ROOT

BUILD = ROOT / "build" / "bench"
START_SECONDS = 30.0
# Run in an app's folder by its Python: the servers of its own tests.
_SERVER = """
import sys
from pathlib import Path
from tests.servers import own_server, store_environment
with own_server() as server:
    for name, value in store_environment(Path("."), server.url).items():
        print(f"{name}={value}", flush=True)
    sys.stdin.read()
"""
TICKS = os.sysconf("SC_CLK_TCK")


def installed(store: str, scratch: Path) -> Path:
    """The app as the working tree would generate it now, with its own environment."""
    app = BUILD / store
    for old in app.iterdir() if app.exists() else ():
        if old.name != ".venv":  # which is brought up to date below
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    generate(export(scratch / f"template-{store}"), app, answers(store=store))
    run(app, "uv", "sync", "--quiet", "--python", sys.executable)
    return app


def python_of(app: Path) -> str:
    """An installed app's own Python."""
    return str(app / ".venv/bin/python")


@contextmanager
def store_server(app: Path) -> Iterator[dict[str, str]]:
    """A throwaway server for an app's store, and the setting that leads the app to it."""
    process = subprocess.Popen(
        [python_of(app), "-c", _SERVER],
        cwd=app,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    try:
        name, found, url = process.stdout.readline().strip().partition("=")
        if not found:
            sys.exit("the store's server did not start")
        yield {name: url}
    finally:
        process.stdin.close()
        process.wait(30)


def run_inside(store: str, script: str, arguments: list[str]) -> int:
    """Run a benchmark in the Python of an app with this store; its exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        app = installed(store, Path(scratch))
    command = [python_of(app), script, "--inside", "--stores", store, *arguments]
    return subprocess.run(command, cwd=app, check=False).returncode


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    folder: Path, command: list[str], port: int, environment: Mapping[str, str], log: Path
) -> Iterator[int]:
    """Run a server until the block ends; gives its process id once the port is open."""
    known = ("PATH", "HOME", "LANG")  # nothing of this shell's settings
    inherited = {name: os.environ[name] for name in known if name in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=inherited | dict(environment), stdout=output, stderr=output
        )
    try:
        _wait_for(port, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"it did not start:\n{log.read_text(errors='replace')}")


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, all its threads, in user and kernel. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
