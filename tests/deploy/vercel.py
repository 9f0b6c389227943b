"""Vercel on this machine: its own builder builds the function, its own runtime serves it.

The app's own workflow installs the CLI and builds: its steps are run here as they stand. A build
needs no login: what `vercel pull` would have written of the project is written here. The runtime
lies in the built function itself; here it is started as Vercel starts it, with a socket on which
it says that it listens.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.kit import TEMPLATE, interpreter, run
from tests.releases.snapshot import ROOT

WORKFLOW = TEMPLATE / ".github/workflows/deploy-vercel.yml"
CACHE = ROOT / "build"  # where the CLI is kept, as on GitHub below RUNNER_TEMP
PYTHON = "3.12"  # the app's .python-version
PROJECT = {"projectId": "prj_local", "orgId": "team_local", "settings": {}}
START_SECONDS = 60.0
END_SECONDS = 20.0
# What Vercel's proxy adds to a request; the runtime takes it away again.
INVOCATION = {"x-vercel-internal-invocation-id": "test", "x-vercel-internal-request-id": "1"}


def step(name: str) -> str:
    """The script of a step of the app's own workflow."""
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["deploy"]["steps"]
    return str(next(found["run"] for found in steps if found["name"] == name))


def run_step(name: str, folder: Path, **environment: str) -> str:
    """Run a step of the workflow in a folder, as GitHub does; what it prints."""
    script = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step(name))
    return run(
        folder, *script, RUNNER_TEMP=str(CACHE), VERCEL_TELEMETRY_DISABLED="1", **environment
    )


def install_cli() -> None:
    """Install the CLI as the workflow does, where it is not there yet."""
    assert shutil.which("npm"), "npm is missing: the Vercel CLI comes from it"
    kept = CACHE / "vercel/installed-by"
    script = step("Install the Vercel CLI")
    if not kept.exists() or kept.read_text() != script:
        shutil.rmtree(CACHE / "vercel", ignore_errors=True)
        CACHE.mkdir(exist_ok=True)
        run_step("Install the Vercel CLI", CACHE)
        kept.write_text(script)


@dataclass
class Function:
    """A built function: the folder of its project, and what the platform would take of it."""

    project: Path
    folder: Path
    configuration: dict[str, Any]

    @classmethod
    def built(cls, project: Path) -> "Function":
        """Build a project as its workflow does."""
        install_cli()
        (project / ".vercel").mkdir(exist_ok=True)
        (project / ".vercel/project.json").write_text(json.dumps(PROJECT))
        python = Path(interpreter(PYTHON)).parent
        run_step("Build", project, PATH=f"{python}{os.pathsep}{os.environ['PATH']}")
        return cls.found(project)

    @classmethod
    def found(cls, project: Path) -> "Function":
        """The function of a project that was built before."""
        (folder,) = (project / ".vercel/output/functions").rglob("*.func")
        return cls(project, folder, json.loads((folder / ".vc-config.json").read_text()))

    def files(self) -> dict[str, Path]:
        """Every file of the bundle: its path there, and where it lies here."""
        mapped = self.configuration.get("filePathMap", {})
        found = {name: self.project / source for name, source in mapped.items()}
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name != ".vc-config.json":
                found[path.relative_to(self.folder).as_posix()] = path
        return found

    def unpack(self, target: Path) -> int:
        """Put the bundle together in a folder, as the platform does; its size in bytes."""
        for name, source in self.files().items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
        return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())

    @contextmanager
    def instance(self, bundle: Path, environment: Mapping[str, str]) -> Iterator["Instance"]:
        """Start an instance in an unpacked bundle. It ends as on the platform: without a word."""
        # Paths of sockets must be short, so it does not lie below the repository.
        with tempfile.TemporaryDirectory(prefix="vercel-") as scratch:
            instance = Instance(bundle, Path(scratch) / "log")
            try:
                instance.start(self.configuration, environment, Path(scratch) / "ipc")
                yield instance
            finally:
                instance.kill()


@dataclass
class Instance:
    """A process of the function, as the platform sees it."""

    bundle: Path
    log_file: Path
    messages: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def start(
        self, configuration: dict[str, Any], environment: Mapping[str, str], ipc: Path
    ) -> None:
        """Start, and wait until the runtime says where it listens or the process has ended."""
        module = configuration["handler"].rsplit(".", 1)[0]
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(ipc))
        server.listen(1)
        self._listening = threading.Event()
        threading.Thread(target=self._listen, args=(server,), daemon=True).start()
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [interpreter(PYTHON), "-u", f"{module}.py"],
                cwd=self.bundle,
                # Nothing of this shell's: neither packages nor settings.
                env={
                    "HOME": tempfile.gettempdir(),
                    "PATH": os.defpath,
                    "VERCEL": "1",
                    "VERCEL_IPC_PATH": str(ipc),
                    **configuration["environment"],
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listening.wait(0.02) and self._process.poll() is None:
            assert time.monotonic() < deadline, f"the runtime does not listen\n{self.log()}"

    def _listen(self, server: socket.socket) -> None:
        """What the runtime tells the platform: JSON messages, each with a zero byte behind it."""
        with server, contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                waiting = b""
                while received := connection.recv(65536):
                    *whole, waiting = (waiting + received).split(b"\0")
                    for text in whole:
                        self._hear(json.loads(text))

    def _hear(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if message["type"] == "server-started":
            self.port = int(message["payload"]["httpPort"])
            self._listening.set()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def log(self) -> str:
        """Everything that was logged: the runtime sends it as messages, once it listens."""
        written = self.log_file.read_text(encoding="utf-8", errors="replace")
        sent = [message["payload"] for message in self.messages if message["type"] == "log"]
        return written + "".join(base64.b64decode(log["message"]).decode() for log in sent)

    def log_lines(self) -> list[dict[str, Any]]:
        """The structured lines of the log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def ended(self, seconds: float = START_SECONDS) -> int:
        """Wait for the end of the process; its exit code."""
        return self._process.wait(seconds)

    def wait_for_invocations(self, count: int) -> None:
        """Wait for the end of so many invocations since the start, as the platform hears it."""
        deadline = time.monotonic() + END_SECONDS
        while sum(message["type"] == "end" for message in self.messages) < count:
            assert time.monotonic() < deadline, f"fewer than {count} invocations\n{self.log()}"
            time.sleep(0.01)

    def http(self, key: str | None = None, **headers: str) -> httpx2.Client:
        """A client that speaks as Vercel's proxy does."""
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return httpx2.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers=INVOCATION | headers,
            timeout=30,
            trust_env=False,
        )

    def kill(self) -> None:
        """End it with SIGKILL: an instance that is no longer needed is told nothing."""
        self._process.kill()
        self._process.wait(10)
