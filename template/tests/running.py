"""The whole app in processes of its own, as production starts it; for tests.

with running_app(environment) as app:
    answer = app.client().chat.completions.create(...)
    lines = app.log_lines()
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import psutil

from app.foundation.project import load_project
from app.foundation.settings import Settings
from app.foundation.sources import SECRETS
from tests.fake_provider import FakeProvider
from tests.servers import store_environment
from tests.servers.ports import free_port

if TYPE_CHECKING:
    from openai import OpenAI

ROOT = Path(__file__).parents[1]
# The checklist can look at another app than this one: its folder, and the command that serves it.
APP = Path(os.environ.get("CHECKLIST_APP") or ROOT).resolve()
SERVE = shlex.split(os.environ.get("CHECKLIST_COMMAND", "")) or [
    sys.executable,
    "-c",
    "from app.cli import serve; serve()",
]
ADMIN_TOKEN = "admin-0123456789"
CALLERS = {"alice": "alice-0123456789", "bob": "bob-0123456789"}
PROVIDER_KEY = "sk-canary-0123456789"
START_SECONDS = 120.0
# For what will be there in a moment, on a machine that has much else to do.
PATIENCE_SECONDS = 20.0


def production(fake: FakeProvider, folder: Path, **changes: object) -> dict[str, str]:
    """A whole production environment on the fake provider; `changes` are settings by name.

    Its store is the folder's own, empty at first; `store_url` leads to another.
    """
    url = changes.pop("store_url", None)
    names = load_project().providers
    urls = {
        "openai": fake.openai_base_url,
        "compatible": fake.openai_base_url,
        "anthropic": fake.anthropic_base_url,
        "gemini": fake.gemini_base_url,
    }
    environment: dict[str, object] = {
        "APP_ENV": "production",
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "APP_API_KEYS": ",".join(f"{name}:{key}" for name, key in CALLERS.items()),
        **store_environment(folder, None if url is None else str(url)),
        # Where a store is slow because the machine is, no test is about that.
        "STORE_TIMEOUT_SECONDS": 5,
        "DAILY_COST_CAP_USD": 5,
        "REQUESTS_PER_MINUTE": 10_000,
        "REQUESTS_PER_MINUTE_PER_IP": 10_000,
        "PROVIDERS": ",".join(names),
        # Asked without the app's own documents, which no test knows; those of evidence bring some.
        "EVIDENCE_PASSAGES": 0,
    }
    for name in names:
        environment[f"{name}_API_KEY"] = PROVIDER_KEY
        environment[f"{name}_BASE_URL"] = urls[name]
        environment[f"{name}_INPUT_USD_PER_MTOK"] = 1
        environment[f"{name}_OUTPUT_USD_PER_MTOK"] = 2
    environment.update(changes)
    return {name.upper(): str(value) for name, value in environment.items()}


def index_documents() -> None:
    """Index the documents of the app, where it answers from some and they have changed."""
    if (APP / "indexing").is_dir():
        program = "from indexing.cli import refresh; refresh()"
        subprocess.run([sys.executable, "-c", program], cwd=APP, check=True)


class RunningApp:
    """A started app: its address, its processes and what they have logged."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._log = log

    def client(self, caller: str = "alice", **options: Any) -> "OpenAI":
        """The official client, which only knows another base URL. It does not retry."""
        from openai import OpenAI  # half a second that not every test needs

        settings = {"max_retries": 0, "timeout": 30, **options}
        return OpenAI(base_url=f"{self.url}/v1", api_key=CALLERS[caller], **settings)

    def http(self, caller: str | None = "alice", **headers: str) -> httpx2.Client:
        """A plain HTTP client; `caller` None sends no key."""
        if caller is not None:
            key = ADMIN_TOKEN if caller == "admin" else CALLERS[caller]
            headers["Authorization"] = f"Bearer {key}"
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    @contextmanager
    def asked(self, body: dict[str, Any], caller: str = "alice", **headers: str) -> Iterator[None]:
        """A question whose client waits for as long as the block lasts, and then hangs up."""
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {CALLERS[caller]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n"
        ) + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(f"{head}\r\n".encode() + content)
            yield

    def log(self) -> str:
        """Everything that was written to standard error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def log_lines(self, **fields: object) -> list[dict[str, Any]]:
        """The structured lines whose fields have the given values."""
        lines = []
        complete, _, _ = self.log().rpartition("\n")  # the last line may be half written
        for line in complete.split("\n"):
            if line.startswith("{"):
                entry = json.loads(line)
                if all(entry.get(name) == value for name, value in fields.items()):
                    lines.append(entry)
        return lines

    def request_line(self, request_id: str, timeout: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The one line of a request; it is written after the response has left."""
        deadline = time.monotonic() + timeout
        while True:
            lines = [x for x in self.log_lines(request_id=request_id) if "duration_ms" in x]
            if lines or time.monotonic() > deadline:
                assert len(lines) == 1, f"{len(lines)} lines for {request_id}:\n{self.log()}"
                return lines[0]
            time.sleep(0.02)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests: the app's own, or the workers that it started."""
        own = psutil.Process(self.process.pid)
        return [child for child in own.children() if _is_worker(child)] or [own]

    def serving(self) -> psutil.Process:
        """The worker that some client is connected to now. Raises where there is none."""
        for worker in self.workers():
            for connection in worker.net_connections("tcp"):
                open_now = connection.status == psutil.CONN_ESTABLISHED
                if connection.laddr.port == self.port and open_now:
                    return worker
        raise AssertionError("no client is connected to a worker")

    def metric(self, name: str) -> float:
        """The value of a metric that has no labels; `name` without its prefix.

        It waits for one that is not there: no money is while the store is slow to answer.
        """

        def scraped() -> str:
            with self.http("admin") as http:
                answer = http.get("/metrics")
            return f"{answer.status_code}\n{answer.text}"

        def read() -> list[float]:
            lines = scraped().splitlines()
            return [float(x.split()[1]) for x in lines if x.startswith(f"llm_app_{name} ")]

        found = until(read, told=lambda: f"no {name} in:\n{scraped()}\n{self.log()[-5000:]}")
        return float(found[0])

    def stop(self, timeout: float = 20.0) -> int:
        """Ask it to end (SIGTERM) and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@contextmanager
def running_app(
    environment: dict[str, str],
    folder: Path,
    workers: int = 1,
    command: Sequence[str] = SERVE,
    source: Path = APP,
) -> Iterator[RunningApp]:
    """Start `serve` and wait until it answers; it is ended and gone afterwards.

    `command` is what is run in its place, where a test needs something around `serve`. `folder`
    is where it runs: the `.env` and the data beside the code in `source` stay untouched.
    """
    port = free_port()
    log = folder / f"app-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={
                **clean_environment(),
                **environment,
                "PYTHONPATH": str(source),
                "PORT": str(port),
                "WEB_CONCURRENCY": str(workers),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=os.name != "nt",
        )
    app = RunningApp(process, port, log)
    try:
        _wait_until_ready(app)
        yield app
    finally:
        _kill(process)


def until(
    condition: Callable[[], Any],
    seconds: float = PATIENCE_SECONDS,
    told: Callable[[], str] = lambda: "waited in vain",
) -> Any:
    """What a condition comes to, once it is met; `told` says what there was in its place."""
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)
    return met


def worked(processes: Iterable[psutil.Process]) -> float:
    """The processor time that they have taken so far (seconds)."""
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


def clean_environment() -> dict[str, str]:
    """This process's environment without a setting of the app in it.

    What lies in /run/secrets is overruled by a blank, which means that it is not set.
    """
    ours = {name.upper() for name in Settings.model_fields}
    files = {path.name.upper() for path in SECRETS.iterdir()} if SECRETS.is_dir() else set()
    kept = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    return {**kept, **dict.fromkeys(sorted(ours & files), "")}


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "--multiprocessing-fork" in process.cmdline()
    except psutil.Error:  # it has just died
        return False


def _wait_until_ready(app: RunningApp) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx2.Client(trust_env=False) as client:
        while app.process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(f"{app.url}/healthz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
    raise AssertionError(f"the app did not start:\n{app.log()}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and its workers, whatever state they are in."""
    if process.returncode is not None and process.returncode >= 0:
        return  # it ended in good order, and its number may be another's by now
    if os.name == "nt":
        process.kill()
    else:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    process.wait(10)
