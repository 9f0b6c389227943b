"""Processes that the benchmarks measure: a generated app, and others beside it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.kit import answers, export, generate, run
from tests.releases.snapshot import ROOT

BUILD = ROOT / "build" / "bench"
START_SECONDS = 30.0
TICKS = os.sysconf("SC_CLK_TCK")


def installed(store: str, scratch: Path) -> Path:
    """The app as the working tree would generate it now, with its own environment."""
    app = BUILD / store
    generate(export(scratch / f"template-{store}"), app, answers(store=store))
    run(app, "uv", "sync", "--quiet", "--no-dev", "--python", sys.executable)
    return app


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
