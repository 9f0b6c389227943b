"""Debian packages for the throwaway engine and its images, unpacked and not installed."""

import re
import shutil
from pathlib import Path

from tests.kit import run

SUITE = "trixie"  # the Debian that has Python 3.13, and that the public image is made of
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ENGINE_PACKAGES = ("containerd", "docker-buildx", "docker-cli", "docker-compose", "docker.io")
# These need the libraries of the Debian that runs here.
HOST_PACKAGES = ("runc", "tini")
# The engine sends a container's questions for names to itself with it, inside the container's own
# network alone.
FIREWALL_PACKAGES = ("iptables",)
IMAGE_PACKAGES = (
    *("base-files", "coreutils", "dash", "findutils", "grep", "libc-bin", "python3"),
    "libstdc++6",  # the public image has it through apt, and compiled packages need it
)
# What stands beside the app: the stores, and what looks at the proxy's health.
SERVICE_PACKAGES = (
    *("base-files", "busybox", "coreutils", "dash", "libc-bin"),
    *("postgresql-17", "valkey-server", "valkey-tools"),
)


class NoEngineError(Exception):
    """No engine runs here, and none can be started. The text says why."""


class Packages:
    """Unpacked into `engine/`, `image/` and `services/`; apt's own state stays as it is."""

    def __init__(self, cache: Path) -> None:
        self.engine = cache / "engine"
        self.image = cache / "image"
        self.services = cache / "services"
        self.firewall = cache / "firewall"
        self._cache = cache
        self._complete = cache / "complete"

    def fetch(self) -> None:
        """Download and unpack what is not there yet."""
        wanted = " ".join(
            (
                *(SUITE, *ENGINE_PACKAGES, *HOST_PACKAGES, *FIREWALL_PACKAGES, "/"),
                *(*IMAGE_PACKAGES, "/", *SERVICE_PACKAGES),
            )
        )
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
        # For apt nothing is installed, so it brings everything that an image's packages need.
        bring = ("install", "--yes", "--no-install-recommends", "--download-only")
        for wanted_in, root in (
            (IMAGE_PACKAGES, self.image),
            (SERVICE_PACKAGES, self.services),
            (FIREWALL_PACKAGES, self.firewall),
        ):
            self._apt(*bring, *wanted_in)
            self._unpack(self._cache / "apt/archives", root)
        self._wrap_iptables()
        for unread in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(self.services / unread, ignore_errors=True)
        self._complete.write_text(wanted)

    def _wrap_iptables(self) -> None:
        """It is not installed: its own loader and libraries come with it."""
        libraries = self.firewall / "usr/lib/x86_64-linux-gnu"
        wrapper = self.engine / "usr/sbin/iptables"
        wrapper.write_text(
            f"#!/bin/sh\nexport XTABLES_LIBDIR={libraries}/xtables\n"
            f"exec {libraries}/ld-linux-x86-64.so.2 --library-path {libraries}"
            f' --argv0 iptables {self.firewall}/usr/sbin/xtables-nft-multi "$@"\n'
        )
        wrapper.chmod(0o755)

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
