"""A Docker engine for the tests: the one that runs here, or a throwaway one.

The throwaway one comes from Debian packages, which are unpacked below `build/` and not installed.
It has no registry to pull from, so the images that the app's Dockerfile builds on are made from
Debian packages too and tagged with their public names. It needs root, and leaves the firewall of
the machine alone: its containers reach the machine and nothing else, and builds use the machine's
own network.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.debian import KEYRING
from tests.deploy.images import import_images
from tests.deploy.leftovers import clear_leftovers, new_folder, remove
from tests.deploy.packages import NoEngineError, Packages
from tests.kit import run

START_SECONDS = 30.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Engine:
    """A running engine. `environment` is what the `docker` command needs to talk to it."""

    throwaway: bool
    environment: dict[str, str] = field(default_factory=dict)

    def docker(self, *arguments: str | Path) -> str:
        """Run a docker command; what it prints is returned, and is the message when it fails."""
        return run(Path.cwd(), "docker", *arguments, **self.environment)


@contextmanager
def running_engine(cache: Path, template: Path) -> Iterator[Engine]:
    """The engine of this machine, or a throwaway one with the images that the template names.

    `cache` is the folder where packages are kept from one run to the next.
    """
    if _engine_runs_here():
        yield Engine(throwaway=False)
        return
    if os.geteuid() != 0:
        raise NoEngineError("no Docker engine runs here: start one (only root can be given one)")
    if not shutil.which("apt-get") or not KEYRING.exists():
        raise NoEngineError(
            "no Docker engine runs here: start one (a throwaway one needs Debian packages)"
        )
    clear_leftovers()
    packages = Packages(cache)
    packages.fetch()
    with _throwaway(packages) as engine:
        import_images(engine.docker, packages, template, engine.environment)
        yield engine


def _engine_runs_here() -> bool:
    questions = (("info",), ("compose", "version"), ("buildx", "version"))
    return shutil.which("docker") is not None and all(
        subprocess.run(["docker", *question], capture_output=True, check=False).returncode == 0
        for question in questions
    )


@contextmanager
def _throwaway(packages: Packages) -> Iterator[Engine]:
    """Start dockerd with a fresh folder for its data; it and everything in it are gone after."""
    folder = new_folder()
    plugins = folder / "config/cli-plugins"
    shutil.copytree(packages.engine / "usr/libexec/docker/cli-plugins", plugins)
    path = (packages.engine / "usr/bin", packages.engine / "usr/sbin", os.environ["PATH"])
    environment = {
        "DOCKER_CONFIG": str(folder / "config"),
        "DOCKER_HOST": f"unix://{folder}/docker.sock",
        "PATH": ":".join(map(str, path)),
    }
    log = folder / "dockerd.log"
    bridge_was_here = Path("/sys/class/net/docker0").exists()
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [
                "dockerd",
                f"--host={environment['DOCKER_HOST']}",
                f"--data-root={folder}/data",
                f"--exec-root={folder}/exec",
                f"--pidfile={folder}/docker.pid",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    engine = Engine(throwaway=True, environment=environment)
    try:
        _wait_until_ready(engine, daemon, log)
        yield engine
    finally:
        daemon.terminate()
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        remove(folder)
        if not bridge_was_here and shutil.which("ip"):
            subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)


def _wait_until_ready(engine: Engine, daemon: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        try:
            engine.docker("info")
        except AssertionError:
            time.sleep(0.1)
        else:
            return
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise NoEngineError(f"the throwaway Docker engine did not start:\n{last}")
