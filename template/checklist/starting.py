"""Starting an app that must not start, and an app with a bug of the user's in it."""

import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.running import APP, SERVE, clean_environment
from tests.servers.ports import free_port

PATIENCE_SECONDS = 20.0
BUG = "/checklist-bug"
_BUGGY_ROUTE = f'''

async def _buggy() -> None:
    raise ValueError("a bug in a feature")


# Whatever prefix the user's routes have, this one has none.
_prefix, router.prefix = router.prefix, ""
router.add_api_route("{BUG}", _buggy)
router.prefix = _prefix
'''


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a start ended: exit code (None: it did not end), whether it listened, what it wrote."""

    code: int | None
    listened: bool
    output: str


def try_to_start(environment: dict[str, str], folder: Path) -> Refusal:
    """Start `serve` and wait for it to end by itself, while somebody knocks at its port."""
    port = free_port()
    process = subprocess.Popen(
        SERVE,
        cwd=folder,
        env={**clean_environment(), **environment, "PYTHONPATH": str(APP), "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    listened = threading.Event()
    threading.Thread(target=_knock, args=(process, port, listened), daemon=True).start()
    try:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return Refusal(None, listened.is_set(), output)
    return Refusal(process.returncode, listened.is_set(), output)


def _knock(process: "subprocess.Popen[str]", port: int, listened: threading.Event) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0 and _listens(process, port):
                listened.set()
                process.kill()  # it serves: it will not end by itself
                return
        time.sleep(0.02)


def _listens(process: "subprocess.Popen[str]", port: int) -> bool:
    """Whether it is this process that listens, and not one that has found the port free as well."""
    try:
        own = psutil.Process(process.pid)
        family = (own, *own.children(recursive=True))
        found = [each for member in family for each in member.net_connections("tcp")]
    except psutil.NoSuchProcess:
        return False
    return any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in found)


def copy_of_app(folder: Path, name: str) -> Path:
    """A copy of the app's code below `folder`, to be changed."""
    copy = folder / name
    if (APP / "app").is_dir():
        shutil.copytree(APP / "app", copy / "app")
    else:
        shutil.copytree(APP, copy)
    return copy


def app_with_a_bug(folder: Path) -> Path:
    """A copy of the app, with one more route among the user's own; it raises an exception."""
    copy = copy_of_app(folder, "with-a-bug")
    routes = copy / "app" / "yours" / "routes.py"
    if routes.exists():
        routes.write_text(routes.read_text(encoding="utf-8") + _BUGGY_ROUTE, encoding="utf-8")
    return copy
