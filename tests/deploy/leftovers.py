"""What a killed run of the tests left: its engine, its containers, its network bridges.

Each throwaway engine's folder names its owner, so that nothing else is touched: neither the engine
of a run that still lives, nor anything that another program made.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PREFIX = "survival-kit-docker-"
NETWORK = re.compile(rb"docker/network/v1\.0/network/([0-9a-f]{64})")
STOP_SECONDS = 20.0


def new_folder() -> Path:
    """A folder for an engine of this process. Paths of sockets must be short: it lies in /tmp."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    (folder / "owner").write_text(_identity(os.getpid()))
    return folder


def clear_leftovers() -> None:
    """End the engines whose owners are gone, and remove what they made."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/owner"):
        identity = owner.read_text()
        if not identity or _identity(int(identity.split()[0])) != identity:
            remove(owner.parent)


def remove(folder: Path) -> None:
    """End what still runs out of an engine's folder, and remove its bridges and the folder."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in _processes(folder):
            os.kill(process, number)
        deadline = time.monotonic() + STOP_SECONDS
        while _processes(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
    for bridge in _bridges(folder):
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
    for mount in _mounts(folder):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    # Builds leave a great many files, for which shutil.rmtree can take a minute.
    command = ("rm", "--recursive", "--force", "--one-file-system", str(folder))
    subprocess.run(command, capture_output=True, check=False)


def _identity(process: int) -> str:
    """A process by its number and its start, since numbers come again; empty when it is gone."""
    try:
        began = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"{process} {began}"


def _processes(folder: Path) -> list[int]:
    """The engine and its helpers: all are started with paths of the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if f"{folder}/".encode() in command:
            found.append(int(entry.parent.name))
    return [process for process in found if process != os.getpid()]


def _bridges(folder: Path) -> list[str]:
    """The bridges of the networks in the engine's own database."""
    try:
        content = (folder / "data/network/files/local-kv.db").read_bytes()
    except OSError:
        return []
    names = {f"br-{identity[:12].decode()}" for identity in NETWORK.findall(content)}
    return sorted(name for name in names if Path("/sys/class/net", name).exists())


def _mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounts = [line.split()[1] for line in lines]
    return sorted((path for path in mounts if path.startswith(f"{folder}/")), reverse=True)
