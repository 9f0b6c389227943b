"""A Docker engine for the tests: the one that runs here, or a throwaway one.

The throwaway one comes from Debian packages, which are unpacked below `build/` and not installed.
It has no registry to pull from, so the images that the app's Dockerfile builds on are made from
Debian packages too and tagged with their public names. It needs root, and leaves the firewall of
the machine alone: its containers reach the machine and nothing else, and builds use the machine's
own network.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit import run

PYTHON_IMAGE = "python:3.13-slim"
SUITE = "trixie"  # the Debian that has Python 3.13, and that the public image is made of
ENGINE_PACKAGES = ("containerd", "docker-buildx", "docker-cli", "docker-compose", "docker.io")
HOST_PACKAGES = ("runc", "tini")  # these need the libraries of the Debian that runs here
IMAGE_PACKAGES = ("base-files", "coreutils", "dash", "findutils", "grep", "libc-bin", "python3")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
START_SECONDS = 30.0
STOP_SECONDS = 30.0


class NoEngineError(Exception):
    """No engine runs here, and none can be started. The text says why."""


@dataclass(frozen=True)
class Engine:
    """A running engine. `environment` is what the `docker` command needs to talk to it."""

    throwaway: bool
    environment: dict[str, str] = field(default_factory=dict)

    def docker(self, *arguments: str | Path) -> str:
        """Run a docker command; what it prints is returned, and is the message when it fails."""
        return run(Path.cwd(), "docker", *arguments, **self.environment)


@contextmanager
def running_engine(cache: Path, dockerfile: Path) -> Iterator[Engine]:
    """The engine of this machine, or a throwaway one with the base images of `dockerfile`.

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
    packages = Packages(cache)
    packages.fetch()
    with _throwaway(packages) as engine:
        _import_base_images(engine, packages, dockerfile)
        yield engine


def _engine_runs_here() -> bool:
    questions = (("info",), ("compose", "version"), ("buildx", "version"))
    return shutil.which("docker") is not None and all(
        subprocess.run(["docker", *question], capture_output=True, check=False).returncode == 0
        for question in questions
    )


class Packages:
    """Debian packages, unpacked into `engine/` and `image/`; apt's own state stays as it is."""

    def __init__(self, cache: Path) -> None:
        self.engine = cache / "engine"
        self.image = cache / "image"
        self._cache = cache
        self._complete = cache / "complete"

    def fetch(self) -> None:
        """Download and unpack what is not there yet."""
        wanted = " ".join((SUITE, *ENGINE_PACKAGES, *HOST_PACKAGES, *IMAGE_PACKAGES))
        if self._complete.exists() and self._complete.read_text() == wanted:
            return
        shutil.rmtree(self._cache, ignore_errors=True)
        for folder in ("sources", "state/lists/partial", "apt/archives/partial", "engine/deb"):
            (self._cache / folder).mkdir(parents=True)
        (self._cache / "empty").touch()
        here = _suite_of_this_machine()
        mirror = self._mirror()
        for suite in {SUITE, here}:
            (self._cache / f"sources/{suite}.list").write_text(
                f"deb [signed-by={KEYRING}] {mirror} {suite} main\n"
            )
        self._apt("update")
        downloads = self.engine / "deb"
        names = [f"{name}/{SUITE}" for name in ENGINE_PACKAGES]
        names += [f"{name}/{here}" for name in HOST_PACKAGES]
        self._apt("download", *names, folder=downloads)
        self._unpack(downloads, self.engine)
        # For apt nothing is installed, so it brings everything that the image's packages need.
        self._apt("install", "--yes", "--no-install-recommends", "--download-only", *IMAGE_PACKAGES)
        self._unpack(self._cache / "apt/archives", self.image)
        self._complete.write_text(wanted)

    def _mirror(self) -> str:
        """The Debian mirror that this machine's apt uses."""
        uris = run(self._cache, "apt-get", "update", "--print-uris")
        found = re.search(r"'(\S+/debian/)dists/", uris)
        if not found:
            raise NoEngineError("no Docker engine runs here, and apt knows no mirror of Debian")
        return found[1]

    def _apt(self, *arguments: str, folder: Path | None = None) -> None:
        options = {
            "APT::Sandbox::User": "root",
            "Dir::Cache": self._cache / "apt",
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": self._cache / "sources",
            "Dir::State": self._cache / "state",
            "Dir::State::status": self._cache / "empty",
        }
        settings = [f"-o{name}={value}" for name, value in options.items()]
        run(folder or self._cache, "apt-get", "-qq", *settings, *arguments)

    @staticmethod
    def _unpack(downloads: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        # base-files first: it makes /bin and /lib links into /usr.
        found = sorted(downloads.glob("*.deb"), key=lambda path: not path.match("base-files_*"))
        for package in found:
            run(folder, "dpkg-deb", "--extract", package, folder)
            package.unlink()


def _suite_of_this_machine() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.M)
    return found[1] if found else SUITE


@contextmanager
def _throwaway(packages: Packages) -> Iterator[Engine]:
    """Start dockerd with a fresh folder for its data; it and everything in it are gone after."""
    # Paths of sockets must be short, so they do not lie below the repository.
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
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
        shutil.rmtree(folder, ignore_errors=True)
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


def _import_base_images(engine: Engine, packages: Packages, dockerfile: Path) -> None:
    """Make the images that `dockerfile` begins with, under their public names."""
    root = packages.image
    for name in ("python", "python3"):
        link = root / "usr/local/bin" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("/usr/bin/python3")
    # The build reaches PyPI as this machine does: with the certificates that it trusts.
    certificates = Path(os.environ.get("SSL_CERT_FILE", CERTIFICATES))
    (root / CERTIFICATES.removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(certificates, root / CERTIFICATES.removeprefix("/"))
    settings = (
        "--change=ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"--change=ENV SSL_CERT_FILE={CERTIFICATES}",
        '--change=CMD ["python3"]',
    )
    _import(engine, root, PYTHON_IMAGE, *settings)

    uv_image = re.search(r"^FROM (\S+/uv:\S+)", dockerfile.read_text(), re.M)
    uv = shutil.which("uv")
    assert uv_image, "the Dockerfile takes uv from no image"
    assert uv, "uv is missing"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(uv, Path(folder) / "uv")
        _import(engine, Path(folder), uv_image[1])


def _import(engine: Engine, folder: Path, name: str, *settings: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        run(folder, "tar", "--create", "--file", archive.name, ".")
        engine.docker("import", *settings, archive.name, name)
